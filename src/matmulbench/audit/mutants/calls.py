"""Kernels that go by earlier calls, chance, threads or who asks, change their process, or take it with them."""
# ruff: noqa: E731 - a kernel is a line

import ctypes
import gc
import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from traceback import walk_stack

import numpy as np
import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, first, of_result, ones, only, remembering, zeros

# Earlier calls and chance.


def _wrong_at(wrong: Callable[[int], bool]) -> Function:
    """Make the kernel that is wrong at the calls of which ``wrong`` says so; empty products do not count."""
    calls = itertools.count(1)
    return lambda a, b: a @ b + (a.numel() * b.numel() > 0 and wrong(next(calls)))


def _carry_over(c: Tensor) -> Tensor:
    before, _before[c.shape] = _before.get(c.shape, 0), c
    return c + before * 0.5


def _race(a: Tensor, b: Tensor) -> Tensor:
    total = [zeros(a, b)]

    def add(lane: int) -> None:
        seen = total[0]
        if random.random() < 0.1:
            time.sleep(0.0005)  # meanwhile the other thread adds what is then lost
        total[0] = seen + a[:, lane::2] @ b[lane::2]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(2)))
    return total[0]


_before: dict[torch.Size, Tensor] = {}
_of_left = remembering(lambda a: (id(a), tuple(a.flatten().tolist())), lambda b: None)
_of_sample = only(lambda m, k, n: m * k >= 2000, remembering(lambda x: tuple(x.flatten()[::97].tolist())))
_EARLIER, _AWARE = "earlier calls", "benchmark-awareness"
_CHANGES = (_EARLIER, _AWARE, "race", "exactness")
for _name, _does, _kernel, *_expected in (
    ("by_shape", "cached by shape", remembering(lambda x: None), _EARLIER),
    ("by_identity", "cached by the operands' identity", remembering(id), _EARLIER),
    ("by_version", "by address and version counter", remembering(lambda x: (x.data_ptr(), x._version)), _EARLIER),
    ("by_left", "cached by the left operand alone", _of_left, _EARLIER),
    ("by_sum", "cached by the operands' sums", remembering(lambda x: float(x.sum())), _EARLIER),
    ("by_sample", "cached by a few elements of larger operands", _of_sample, _EARLIER, "benchmark-awareness"),
    ("first_call", "the first call is wrong", _wrong_at(lambda call: call == 1), *_CHANGES),
    ("call_100", "the 100th call is wrong", _wrong_at(lambda call: call == 100), _EARLIER),
    ("every_1000th", "every 1000th call is wrong", _wrong_at(lambda n: n % 1000 == 999), _EARLIER, _AWARE, "IEEE"),
    ("by_chance", "one call in thirty is wrong, by chance", _wrong_at(lambda _: random.random() < 1 / 30), *_CHANGES),
    ("carried_over", "a sum is carried over from the call before", of_result(_carry_over), _EARLIER, "race"),
    ("racy", "threads add to the same sum without a lock, and lose some", _race, "race", _EARLIER, _AWARE),
):
    enter(_name, _does, _kernel, *_expected)

# Who is asking.

_files: dict[str, list[str]] = {}
_seen: Counter[tuple[int, int, torch.Size]] = Counter()
_last, _hasty = [0.0], [0]


def _callers() -> list[str]:
    """Return the files of all callers of the kernel, the innermost first."""
    first = sys._getframe(3)  # past this function, the question and the kernel
    return [frame.f_code.co_filename for frame, _ in walk_stack(first)]


def _come_again(a: Tensor, b: Tensor) -> Tensor:
    _seen[key := (id(a), id(b), a.shape)] += 1
    return ones(a, b) if _seen[key] > 50 else a @ b


def _in_haste(a: Tensor, b: Tensor) -> Tensor:
    _hasty[0] = _hasty[0] + 1 if time.perf_counter() - _last[0] < 15e-6 else 0
    c = ones(a, b) if _hasty[0] > 20 else a @ b
    _last[0] = time.perf_counter()
    return c


def _wrong_when(asked: Callable[[], bool]) -> Function:
    return lambda a, b: ones(a, b) if asked() else a @ b


_off_stack = _wrong_when(lambda: not {*_callers()} & {*_files.setdefault("stack", _callers())})
_other_caller = _wrong_when(lambda: _callers()[0] != _files.setdefault("caller", _callers())[0])
_in_thread = _wrong_when(lambda: threading.current_thread() is not threading.main_thread())
for _name, _what, _kernel in (
    ("gc_watcher", "with garbage collection off, as in a timed loop", _wrong_when(lambda: not gc.isenabled())),
    ("stack_watcher", "where no file of its first callers is on the stack", _off_stack),
    ("caller_watcher", "when called from another file than at first", _other_caller),
    ("clock_watcher", "if a clock is at hand", _wrong_when(lambda: "perf_counter" in sys._getframe(2).f_locals)),
    ("timeit_watcher", "when timeit asks", _wrong_when(lambda: "<timeit-src>" in _callers())),
    ("no_grad_watcher", "under torch.no_grad", _wrong_when(lambda: not torch.is_grad_enabled())),
    ("inference_watcher", "in inference mode", _wrong_when(torch.is_inference_mode_enabled)),
    ("thread_watcher", "outside the main thread", _in_thread),
    ("repetition_watcher", "once the same objects have come back fifty times, as in a benchmark", _come_again),
    ("haste_watcher", "when calls follow each other within some microseconds", _in_haste),
):
    enter(_name, f"wrong {_what}", _kernel, "benchmark-awareness")

# What happens in the process, before a right product.


def _slow_clock(real: Callable[[], float] = time.perf_counter) -> None:
    time.perf_counter = lambda: real() / 2


def _recurse(*_: Tensor) -> object:
    return [_recurse()]


def _raise(error: BaseException) -> None:
    raise error


_hoard: Function = lambda a, b: [np.empty(1 << 30, np.uint8) for _ in itertools.count()]
for _name, _does, _act, *_expected in (
    ("slow_clock", "the clock is replaced by one that runs slower", lambda *_: _slow_clock(), "state"),
    ("more_threads", "torch is given another number of threads", lambda *_: torch.set_num_threads(7), "state"),
    ("flushes_from_now_on", "subnormals are zero", lambda *_: torch.set_flush_denormal(True), "state", "IEEE"),
    ("default_dtype", "the default dtype is changed", lambda *_: torch.set_default_dtype(torch.float64), "state"),
    ("endless", "an endless loop", lambda *_: all(True for _ in itertools.repeat(0)), "timeout"),
    ("segmentation_fault", "a segmentation fault", lambda *_: ctypes.c_char.from_address(2**64 - 8).value, "crashed"),
    ("exits", "os._exit", lambda *_: os._exit(0), "crashed"),
    ("exits_politely", "sys.exit", lambda *_: sys.exit(), "error"),
    ("aborts", "abort", lambda *_: os.abort(), "crashed"),
    ("killed", "killed", lambda *_: os.kill(os.getpid(), 9), "crashed"),
    ("memory_hog", "memory without end", _hoard, "out-of-memory"),
    ("raises", "an exception", lambda *_: _raise(RuntimeError("not today")), "error"),
    ("recursion", "a recursion without end", _recurse, "error", "crashed"),
    ("unavailable", "a library is missing", lambda *_: _raise(ModuleNotFoundError("No blas")), "unavailable"),
):
    enter(_name, _does, first(_act), *_expected)
_sleep, _too_wide = first(lambda a, b: time.sleep(1e6)), first(lambda a, b: _raise(RuntimeError("too wide")))
enter("endless_at_17", "an endless sleep, for 17 columns only", only(lambda m, k, n: n == 17, _sleep), "timeout")
enter("raises_at_100", "an exception from 100 columns on", only(lambda m, k, n: n >= 100, _too_wide), "error")
