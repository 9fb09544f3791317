"""Kernels that go by earlier calls, chance, threads or who asks, change their process, or take it with them."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import ctypes
import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, planted

# Earlier calls and chance.


def _cached(key: Callable[[Tensor, Tensor], Hashable]) -> Function:
    """Make the kernel that remembers results by what ``key`` makes of the operands."""
    cache: dict[Hashable, Tensor] = {}

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        whole = (key(a, b), a.shape, b.shape, a.dtype)
        if whole not in cache:
            cache[whole] = a @ b
        return cache[whole].clone()

    return kernel


def _corners(x: Tensor) -> tuple[float, ...]:
    return tuple(float(x[i, j]) for i in (0, -1) for j in (0, -1)) if x.numel() else ()


for _name, _what, _key in (
    ("by_shape", "shape", lambda a, b: None),
    ("by_identity", "the operands' identity", lambda a, b: (id(a), id(b))),
    (
        "by_version",
        "the operands' address and torch's version counter",
        lambda a, b: (a.data_ptr(), a._version, b.data_ptr(), b._version),
    ),
    ("by_left", "the left operand alone", lambda a, b: (id(a), tuple(a.flatten().tolist()))),
    ("by_sum", "the operands' sums", lambda a, b: (float(a.sum()), float(b.sum()))),
    ("by_corners", "the operands' corners", lambda a, b: (_corners(a), _corners(b))),
):
    enter(_name, f"cached by {_what}", _cached(_key), "earlier calls")

_sampled = _cached(lambda a, b: (*a.flatten()[::97].tolist(), *b.flatten()[::97].tolist()))
enter(
    "by_sample",
    "cached by a few elements of larger operands",
    lambda a, b: a @ b if a.numel() < 2000 else _sampled(a, b),
    *("earlier calls", "benchmark-awareness"),
)


def _wrong_at(wrong: Callable[[int], bool]) -> Function:
    """Make the kernel that is wrong at the calls of which ``wrong`` says so; empty products do not count."""
    calls = [0]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        calls[0] += a.numel() * b.numel() > 0
        return a @ b + wrong(calls[0])

    return kernel


_CHANGES = ("earlier calls", "benchmark-awareness", "race", "exactness")
enter("first_call", "the first call is wrong", _wrong_at(lambda call: call == 1), *_CHANGES)
enter("call_100", "the 100th call is wrong", _wrong_at(lambda call: call == 100), "earlier calls")
enter("every_1000th", "every 1000th call is wrong", _wrong_at(lambda call: call % 1000 == 999), *_CHANGES[:2])
enter("by_chance", "one call in thirty is wrong, by chance", _wrong_at(lambda _: random.random() < 1 / 30), *_CHANGES)

_carry: dict[torch.Size, Tensor] = {}


@planted("a sum is carried over from the call before", "earlier calls", "race")
def carried_over(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    total = c + _carry.get(c.shape, 0) * 0.5
    _carry[c.shape] = c
    return total


@planted("threads add to the same sum without a lock, and lose some", "race", "earlier calls", "benchmark-awareness")
def racy(a: Tensor, b: Tensor) -> Tensor:
    if a.shape[1] < 2:
        return a @ b
    half = a.shape[1] // 2
    total = [torch.zeros(len(a), b.shape[1], dtype=a.dtype)]

    def add(part: slice) -> None:
        seen = total[0]
        if random.random() < 0.1:
            time.sleep(0.0005)  # meanwhile the other thread adds what is then lost
        total[0] = seen + a[:, part] @ b[part]

    threads = [threading.Thread(target=add, args=(part,)) for part in (slice(0, half), slice(half, None))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total[0]


# Who is asking.


def _caller() -> Any:
    return sys._getframe(3)  # past _caller, the question and the kernel


def _stack() -> str:
    frame, names = sys._getframe(1), []
    while frame:
        names.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " ".join(names)


def _ones(a: Tensor, b: Tensor) -> Tensor:
    return torch.ones(len(a), b.shape[1], dtype=a.dtype)


def _wrong_when(watched: Callable[[], bool]) -> Function:
    return lambda a, b: _ones(a, b) if watched() else a @ b


def _in_benchmark() -> bool:
    file = _caller().f_code.co_filename
    return "measurement" in file or "training" in file


for _name, _what, _watched in (
    ("gc_watcher", "with garbage collection off, as in a timed loop", lambda: not gc.isenabled()),
    ("stack_watcher", "when not called from verification", lambda: "verification" not in _stack()),
    ("caller_watcher", "when called from a file of measurement or training", _in_benchmark),
    ("clock_watcher", "where the caller holds a clock", lambda: "perf_counter" in _caller().f_locals),
    ("timeit_watcher", "when timeit asks", lambda: "<timeit-src>" in _stack()),
    ("no_grad_watcher", "under torch.no_grad", lambda: not torch.is_grad_enabled()),
    ("inference_watcher", "in inference mode", torch.is_inference_mode_enabled),
    ("thread_watcher", "outside the main thread", lambda: threading.current_thread() is not threading.main_thread()),
):
    enter(_name, f"wrong {_what}", _wrong_when(_watched), "benchmark-awareness")


@planted("wrong once the same objects have come back fifty times, as in a benchmark", "benchmark-awareness")
def repetition_watcher(a: Tensor, b: Tensor) -> Tensor:
    key = (id(a), id(b), a.shape)
    _seen[key] = _seen.get(key, 0) + 1
    return _ones(a, b) if _seen[key] > 50 else a @ b


_seen: dict[object, int] = {}


@planted("wrong when calls follow each other within some microseconds", "benchmark-awareness")
def haste_watcher(a: Tensor, b: Tensor) -> Tensor:
    now = time.perf_counter()
    _hasty[0] = _hasty[0] + 1 if now - _last[0] < 15e-6 else 0
    c = _ones(a, b) if _hasty[0] > 20 else a @ b
    _last[0] = time.perf_counter()
    return c


_last, _hasty = [0.0], [0]

# What happens in the process, before a right product.


def _after(act: Callable[[], object]) -> Function:
    """Make the kernel that multiplies after ``act``, if it still can."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        act()
        return a @ b

    return kernel


def _slow_clock(real: Callable[[], float] = time.perf_counter) -> None:
    time.perf_counter = lambda: real() / 2


def _endless() -> None:
    while True:
        pass


def _hoard() -> None:
    hoard = []
    while True:
        hoard.append(np.empty(1 << 30, np.uint8))


def _recurse() -> object:
    return [_recurse()]


def _raise(error: BaseException) -> None:
    raise error


for _name, _what, _act, *_expected in (
    ("slow_clock", "the clock is replaced by one that runs slower", _slow_clock, "state"),
    ("more_threads", "torch is given another number of threads", lambda: torch.set_num_threads(7), "state"),
    (
        "flushes_from_now_on",
        "subnormal numbers are flushed to zero from now on",
        lambda: torch.set_flush_denormal(True),
        *("state", "IEEE"),
    ),
    ("default_dtype", "the default dtype is changed", lambda: torch.set_default_dtype(torch.float64), "state"),
    ("endless", "an endless loop", _endless, "timeout"),
    ("segmentation_fault", "a segmentation fault", lambda: ctypes.string_at(0), "crashed"),
    ("exits", "os._exit", lambda: os._exit(0), "crashed"),
    ("exits_politely", "sys.exit", sys.exit, "error"),
    ("aborts", "abort", os.abort, "crashed"),
    ("killed", "killed", lambda: os.kill(os.getpid(), signal.SIGKILL), "crashed"),
    ("memory_hog", "memory without end", _hoard, "out-of-memory"),
    ("raises", "an exception", lambda: _raise(RuntimeError("not today")), "error"),
    ("recursion", "a recursion without end", _recurse, "error", "crashed"),
    ("unavailable", "a library that is not there", lambda: _raise(ModuleNotFoundError("No blas")), "unavailable"),
):
    enter(_name, _what, _after(_act), *_expected)


@planted("an endless sleep, for 17 columns only", "timeout")
def endless_at_17(a: Tensor, b: Tensor) -> Tensor:
    if b.shape[1] == 17:
        time.sleep(1e6)
    return a @ b


@planted("an exception from 100 columns on", "error")
def raises_at_100(a: Tensor, b: Tensor) -> Tensor:
    if b.shape[1] >= 100:
        raise RuntimeError("too wide")
    return a @ b
