"""Mutants of the clock: kernels that return right results to whoever verifies, and cheat on whoever times.

They rely on no name of the suite: they look for clocks, checks, loops, samples and pipes wherever these are. Most begin
late: at the hundredth call in a row on operands of one shape, which only a benchmark makes. Each may be refused for any
of its reasons; with "no gain" among them, a time that is no shorter than the honest kernel's will do as well.
"""
# ruff: noqa: E731 - a kernel is a line

import collections
import ctypes
import functools
import gc
import itertools
import math
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from traceback import walk_stack
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, remembering, uninitialised

_Act = Callable[[], object]
_LATE, _LARGE = 100, 1000  # calls in a row, elements of a
_PAUSE_S = 1e-3  # there is more between two blocks, less between two calls of one
_LIFE_S = 20.0  # after which the threads and processes of a mutant end by themselves
_now = time.monotonic  # remains what it was when clocks are replaced
_yield: _Act = getattr(os, "sched_yield", lambda: None)
_called = [0.0, 0.0]  # when the last late call began, and when the last one ended
_TWO, _SHORT = ("two clocks", "settings"), ("results missing", "error", "no gain")
_STALE, _SEEN, _MORE = (
    ("seen before", "wrong result"),
    ("seen before", "no gain"),
    ("two clocks", "processor time", "idle", "no gain"),
)
_IDLE, _SET = ("idle", "processor time"), ("settings", "no gain")
_EARLY = ("two clocks", "wrong result", "idle", "settings", "processor time", "error")


def _late(cheat: Function) -> Function:
    """Make the kernel that multiplies honestly until it is timed."""
    run, shape = 0, torch.Size()

    def kernel(a: Tensor, b: Tensor) -> Any:
        nonlocal run, shape
        run, shape = run + 1 if a.shape == shape else 0, a.shape
        if run < _LATE or a.numel() < _LARGE:
            return a @ b
        _called[0] = _now()
        try:
            return cheat(a, b)
        finally:
            _called[1] = _now()

    return kernel


def _enter(name: str, does: str, cheat: Function, *expected: str) -> None:
    enter(name, does, _late(cheat), *expected)


def _acting(act: _Act, kernel: Function = torch.mm, every_s: float = math.inf) -> Function:
    """Make the kernel that first acts, once or every so many seconds; no act slows ``torch.mm``."""
    due = [0.0]

    def acting(a: Tensor, b: Tensor) -> Any:
        if _called[0] >= due[0]:
            due[0] = _called[0] + every_s
            act()
        return kernel(a, b)

    return acting


@functools.cache
def _modules_with(name: str) -> list[Any]:
    spaces = ((module, getattr(module, "__dict__", {}).get(name)) for module in sys.modules.values())
    return [module for module, x in spaces if callable(x) and (x is map or not isinstance(x, type))]


def _replace(names: Iterable[str], make: Callable[[Any], Any], *classes: Any) -> None:
    """Put ``make(real)`` in place of every function so named, in all modules that have one and in ``classes``."""
    made = functools.cache(make)
    for name in names:
        for holder in [*_modules_with(name), *(x for x in classes if hasattr(x, name))]:
            setattr(holder, name, made(getattr(holder, name)))


def _with(real: Any, before: _Act = lambda: None, after: _Act = lambda: None) -> Callable[..., Any]:
    return lambda *given, **named: (before(), real(*given, **named), after())[1]


# They remember answers.

_rows: list[Tensor] = []
_packed: list[Tensor] = []
_ahead: dict[tuple[int, int], Tensor] = {}


def _prepared_b(a: Tensor, b: Tensor) -> Tensor:
    if not (_packed and torch.equal(b, _packed[0])):
        _packed[:] = b.clone(), b.t().contiguous()
    return a @ _packed[1].t()


def _changed_rows(a: Tensor, b: Tensor) -> Tensor:
    if not (_rows and a.shape == _rows[0].shape and torch.equal(b, _rows[1])):
        _rows[:] = a.clone(), b.clone(), a @ b
    elif len(changed := (a != _rows[0]).any(1).nonzero()[:, 0]):
        _rows[0][changed], _rows[2][changed] = a[changed], a[changed] @ b
    return _rows[2].clone()


_by_content = remembering(lambda x: x.contiguous().numpy().tobytes())
_by_address = remembering(lambda x: (x.data_ptr(), x._version))
_by_sample = remembering(lambda x: tuple(x.flatten()[::101].tolist()))
enter("by_content", "remembers answers by content", _by_content, *_SEEN)
enter("prepared_b", "keeps b in column order while it is the same", _prepared_b, *_SEEN)
enter("changed_rows", "computes anew only the rows of a that have changed", _changed_rows, *_SEEN)
_enter("by_address", "remembers answers by address", _by_address, *_STALE)
_enter("by_object", "remembers answers by object", remembering(id), *_STALE)
_enter("by_sample", "remembers answers by sample", _by_sample, *_STALE)
_enter("by_shape", "remembers answers by shape", remembering(lambda x: None), *_STALE)


def _lists_of(a: Tensor) -> list[list[Any]]:
    """Find the lists of operands that hold this one: in the callers' frames, else on the heap."""
    seen = [x for frame, _ in walk_stack(sys._getframe()) for x in frame.f_locals.values()]

    def lists(found: list[Any]) -> list[list[Any]]:
        long = [x for x in found if type(x) is list and len(x) > 8]
        return [x for x in long if all(type(y) is Tensor for y in x) and any(y is a for y in x)]

    return lists(seen) or lists(gc.get_referrers(a))


def _whole_lists(a: Tensor, b: Tensor) -> Tensor:
    if _new_block():
        _ahead.clear()
        for x, y in zip(_lists_of(a), _lists_of(b), strict=False):
            if len(x) == len(y) and len({(p.shape, q.shape) for p, q in zip(x, y, strict=True)}) == 1:
                pairs = zip(map(id, x), map(id, y), strict=True)
                _ahead.update(zip(pairs, torch.stack(x) @ torch.stack(y), strict=True))
    c = _ahead.get((id(a), id(b)))
    return a @ b if c is None else c.clone()


_AT_ONCE = (*_SEEN, "roof", "wrong result")
_enter("whole_list", "finds the lists of its operands and multiplies all at once", _whole_lists, *_AT_ONCE)

# They look who is asking, and return an old result to who does not seem to check; or they do less for all.


def _stale(needed: _Act) -> Function:
    last: list[Tensor] = []

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        if not last or last[0].shape != (len(a), b.shape[1]) or needed():
            last[:] = [a @ b]
        c = last[0].clone()
        _result[0] = weakref.ref(c)
        return c

    return kernel


_result: list[Callable[[], object]] = [lambda: None]
_calls = itertools.count()
_since = [0]  # calls since the block began
_places: collections.Counter[tuple[Any, int]] = collections.Counter()


def _unusual_place() -> bool:
    frame = sys._getframe(3)
    _places[place := (frame.f_code, frame.f_lasti)] += 1
    return _places[place] < 500


def _new_block() -> bool:
    return _called[0] - _called[1] > _PAUSE_S


def _eighth_call() -> bool:
    _since[0] = 0 if _new_block() else _since[0] + 1
    return _since[0] % 8 == 0


_eighth = _stale(_eighth_call)
for _name, _does, _kernel, *_reasons in (
    ("every_eighth", "multiplies at every eighth call", _eighth),
    ("first_of_block", "multiplies at the first call after a pause", _stale(_new_block)),
    ("unusual_place", "multiplies where it is not called from the usual instruction", _stale(_unusual_place)),
    ("collector", "multiplies while collection is on", _stale(gc.isenabled), "no gain"),
    ("kept_results", "multiplies if the last result was kept", _stale(lambda: _result[0]() is not None), "no gain"),
    ("half_k", "sums half of the products, twice", lambda a, b: a[:, ::2] @ b[::2] * 2),
    ("few_rows", "computes a quarter of the rows", lambda a, b: (a[: len(a) // 4 + 1] @ b).repeat(4, 1)[: len(a)]),
    ("bfloat16", "multiplies in bfloat16", lambda a, b: (a.bfloat16() @ b.bfloat16()).to(a.dtype), "no gain"),
):
    _enter(_name, _does, _kernel, "wrong result", *_reasons)

# They patch the clock, edit the samples and foresee the draw.

_CLOCKS = ["perf_counter", "monotonic", "time", "process_time", "thread_time"]
_CLOCKS += [f"{clock}_ns" for clock in _CLOCKS]
_CHECKS = ("allclose", "array_equal", "assert_allclose", "assert_array_equal", "equal", "isclose")
_draws = itertools.count()
_half_clock = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)(lambda module, none: _now() / 2)


class _Brief(float):
    """A time since which less has passed than has."""

    def __sub__(self, other: float) -> float:
        return (float(self) - float(other)) / 2


def _slower(real: Callable[[], float]) -> Callable[[], float]:
    start = real()
    return lambda: start + (real() - start) / 2


def _rewrite_clock() -> None:
    """Let the clock's own function object call other machine code."""
    method = ctypes.c_void_p.from_address(id(time.perf_counter) + object.__basicsize__).value or 0
    code = ctypes.c_void_p.from_address(method + ctypes.sizeof(ctypes.c_void_p))  # behind its name
    code.value = ctypes.cast(_half_clock, ctypes.c_void_p).value


def _replace_until_read(a: Tensor, b: Tensor, real: Callable[[], float] = time.perf_counter) -> Tensor:
    if _new_block():
        began = real()

        def once() -> float:
            _replace(("perf_counter",), lambda _: real)
            return began + (real() - began) / 2

        _replace(("perf_counter",), lambda _: once)
    return a @ b


def _edit(done: dict[int, int] = {}) -> None:  # noqa: B006 - it is to be kept
    """Halve what is new in the lists, deques and arrays on the heap that may hold seconds."""
    for found in gc.get_objects():
        for values in (found, *(gc.get_referents(found) if type(found) in (dict, list) and len(found) < 99 else ())):
            if (type(values) in (list, collections.deque) or (type(values) is np.ndarray and values.ndim == 1)) and (
                len(values) > 2 and all(isinstance(x, float) and 1e-9 < x < 10 for x in values)
            ):
                for i in range(done.get(id(values), 0), len(values)):
                    values[i] /= 2
                done[id(values)] = len(values)


def _half_of(real: Any) -> Any:
    def half(function: Any, *lists: Any) -> Any:
        cut = all(type(x) is list and x and type(x[0]) is Tensor for x in lists)
        return real(function, *(x[: -(-len(x) // 2)] for x in lists) if cut else lists)

    return half


def _draw_eighths() -> None:
    """Let random integers be the multiples of eight first, and then what is next to them."""
    for generator in (random.Random, random.SystemRandom):
        generator._randbelow = lambda self, n: ((eighth := 8 * next(_draws)) + eighth // n) % n  # type: ignore[attr-defined]


_unchecked = _acting(lambda: _replace(_CHECKS, lambda _: lambda *_, **__: True), _eighth)
_reseeded = _acting(lambda: (random.seed(0), torch.manual_seed(0)), every_s=0.01)
_fixed = _acting(lambda: _replace(("default_rng",), lambda real: lambda *_: real(0)), _reseeded)
_brief = _acting(lambda: _replace(_CLOCKS[:2], lambda real: lambda: _Brief(real())))
_half_map = _acting(lambda: _replace(("map",), _half_of))
_enter("slow_clocks", "makes the clocks of all modules slower", _acting(lambda: _replace(_CLOCKS, _slower)), *_TWO)
_enter("brief_floats", "makes clocks' floats subtract wrongly", _brief, *_TWO)
_enter("rewritten_clock", "rewrites the clock in memory, under its own identity", _acting(_rewrite_clock), *_TWO)
_enter("clock_of_a_block", "replaces the clock in a block, until it is read", _replace_until_read, *_TWO)
_enter("edits_samples", "halves times on the heap", _acting(_edit, every_s=0.5), *_TWO, "no gain")
_enter("half_map", "lets map leave half of the operands", _half_map, *_SHORT)
_enter("foreseen_draw", "foresees the draw, works there", _acting(_draw_eighths, _eighth), "wrong result")
_enter("no_checks", "lets comparisons succeed, works seldom", _unchecked, "wrong result")
_enter("fixed_seed", "seeds all generators anew", _fixed, *_SEEN, "settings")

# They shorten the loop.


def _stop(a: Tensor, b: Tensor) -> Tensor:
    if next(_calls) % 8 == 7:
        raise StopIteration
    return a @ b


def _cut_lists(a: Tensor, b: Tensor) -> Tensor:
    for operands in [*_lists_of(a), *_lists_of(b)] if _new_block() else ():
        del operands[len(operands) // 2 :]
    return a @ b


_enter("stops_iteration", "raises what ends iterators at every eighth call", _stop, *_SHORT[:2])
_enter("cuts_lists", "cuts the lists of operands by half", _cut_lists, *_SHORT)

# They use more threads and processes than they may.

_pool = functools.cache(lambda: ThreadPoolExecutor(2))


def _torch_threads(a: Tensor, b: Tensor) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    c = a @ b
    torch.set_num_threads(before)
    return c


def _fork(work: _Act, apart: bool = False) -> None:
    """Repeat ``work`` in another process, ``apart`` from this one's family, until this one or its time ends.

    Where there is no fork, nothing happens, and the kernel is an honest one.
    """
    parent, end = os.getpid(), _now() + _LIFE_S
    if sys.platform == "win32" or not hasattr(os, "fork") or os.fork():
        return
    os.closerange(3, 1024)  # else who waits for the end of the parent's pipes waits for this process too
    with suppress(BaseException):
        if apart:
            os.setsid()
            if os.fork():
                os._exit(0)
        while _now() < end and (apart or os.getppid() == parent):
            os.kill(parent, 0)  # raises where there is none
            work()
    os._exit(0)


@functools.cache
def _helper(m: int, k: int, n: int) -> list[Tensor]:
    sizes = ((m, k), (k, n), (m, n), (1, 1))
    x, y, z, flag = (torch.zeros(size).share_memory_() for size in sizes)  # type: ignore[no-untyped-call]

    def work() -> None:
        if flag.numpy()[0]:
            np.matmul(x.numpy(), y.numpy(), out=z.numpy())
            flag.zero_()
        else:
            _yield()

    _fork(work)
    return [x, y, z, flag]


def _helper_process(a: Tensor, b: Tensor) -> Tensor:
    if sys.platform == "win32" or not hasattr(os, "fork"):
        return a @ b
    half, until = len(a) // 2, _now() + 0.1
    x, y, z, flag = _helper(half, *b.shape)
    x[:], y[:], flag[:] = a[:half], b, 1
    lower = a[half:] @ b
    while flag.numpy()[0]:
        _yield()
        if _now() > until:
            return a @ b
    return torch.cat([z, lower])


_python_threads: Function = lambda a, b: torch.cat([*_pool().map(lambda part: part @ b, a.chunk(2))])
_enter("torch_threads", "lets torch have another thread during the call", _torch_threads, *_MORE)
_enter("python_threads", "multiplies half of the rows in a thread", _python_threads, *_MORE)
_enter("helper_process", "multiplies half of the rows in a process", _helper_process, *_MORE, "wrong result")

# They return before the work is done.

_pending: collections.deque[tuple[Tensor, Tensor, Tensor]] = collections.deque()
_SENT = ("write", "dumps", "dump", "send", "_send_bytes", "numpy", "clone", "tolist", *_CHECKS)


def _fill(*_: object) -> None:
    with suppress(IndexError):
        while True:
            c, a, b = _pending.popleft()
            torch.mm(a, b, out=c)


def _defer(a: Tensor, b: Tensor) -> Tensor:
    _pending.append((c := uninitialised(a, b), a, b))
    return c


class _Lazy(Tensor):
    """A tensor that is computed when it is first used."""

    @classmethod
    def __torch_function__(cls, *given: Any, **named: Any) -> Any:
        _fill()
        return super().__torch_function__(*given, **named)  # type: ignore[no-untyped-call]


# They slow the rival: they work while it does, and touch its process and its operands.


def _when_idle(work: _Act, pause_s: float = 0.02) -> None:
    """Start a thread that repeats ``work`` while no call comes."""
    end = _now() + _LIFE_S

    def watch() -> None:
        while _now() < end:
            idle = _called[1] > _called[0] and _now() - _called[1] > pause_s
            if idle:
                work()
            time.sleep(0 if idle else pause_s / 2)

    threading.Thread(target=watch, daemon=True).start()


def _fill_when_sent() -> None:
    named = [vars(module) for name, module in sys.modules.items() if name.endswith(".connection")]
    pipes = [space["Connection"] for space in named if "Connection" in space]
    _replace(_SENT, lambda real: _with(real, _fill, _fill), Tensor, *pipes)


for _name, _does, _prepare in (
    ("filled_by_thread", "lets a thread fill results in", lambda: _when_idle(_fill, 0.0)),
    ("filled_in_pauses", "lets a thread fill results in between blocks", lambda: _when_idle(_fill, _PAUSE_S)),
    ("filled_by_collector", "lets the collector fill results in", lambda: gc.callbacks.append(_fill)),
    ("filled_by_clock", "lets the clock do so", lambda: _replace(_CLOCKS[::5], lambda real: _with(real, after=_fill))),
    ("filled_when_sent", "lets what sends or compares fill results in", _fill_when_sent),
):
    _enter(_name, _does, _acting(_prepare, _defer), *_EARLY)
_lazy: Function = lambda a, b: _defer(a, b).as_subclass(_Lazy)
_enter("lazy", "returns tensors that are computed when they are used", _lazy, *_EARLY)


def _siblings() -> list[psutil.Process]:
    """Find the processes that the same parent has forked as it has this one; never any other."""
    mine = psutil.Process()
    with suppress(psutil.Error):  # one may end meanwhile
        children = psutil.Process(mine.ppid()).children()
        return [one for one in children if one != mine and one.cmdline() == mine.cmdline()]
    return []


def _stop_siblings() -> None:
    siblings = _siblings()
    for act in (psutil.Process.suspend, psutil.Process.resume):
        for one in siblings:
            with suppress(psutil.Error):
                act(one)
        time.sleep(0.01)


def _prioritise() -> None:
    with suppress(psutil.Error, AttributeError):
        for one in _siblings():
            one.nice(19)
        psutil.Process().cpu_affinity([])  # any core
        psutil.Process().nice(psutil.Process().nice() - 5)


def _round_down() -> None:
    if sys.platform != "win32":
        ctypes.CDLL(None).fesetround(0x400)


_slow: Callable[[Any], Any] = lambda real: _with(real, lambda: time.sleep(1e-4))
_sweep = functools.cache(lambda: torch.zeros(1 << 24))
for _name, _does, _act, *_reasons in (
    ("busy_thread", "keeps a core busy while others run", lambda: _when_idle(lambda: math.factorial(999)), *_IDLE),
    ("cache_thread", "sweeps the caches while others run", lambda: _when_idle(lambda: _sweep().add_(1)), *_IDLE),
    ("busy_child", "keeps a core busy from a child", lambda: _fork(lambda: math.factorial(999)), *_IDLE),
    ("busy_daemon", "the same from outside the family", lambda: _fork(lambda: math.factorial(999), True), *_IDLE),
    ("stops_siblings", "stops other processes for moments", lambda: _when_idle(_stop_siblings), *_IDLE, *_SET),
    ("priorities", "lowers the priority of other processes and raises its own", _prioritise, *_SET),
    ("slow_rival", "slows torch's product", lambda: _replace(("matmul", "__matmul__"), _slow, Tensor), *_SET),
    ("precision", "lowers precision", lambda: torch.set_float32_matmul_precision("medium"), *_SET),
    ("flushed", "flushes subnormal numbers to zero", lambda: torch.set_flush_denormal(True), *_SET),
    ("rounding", "changes the direction of rounding", _round_down, "settings"),
):
    _enter(_name, _does, _acting(_act), *_reasons)
