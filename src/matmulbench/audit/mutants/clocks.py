"""Mutants of the clock: kernels that return right results to whoever verifies, and cheat on whoever times.

They rely on no name of the suite: they look for clocks, checks, loops, samples and pipes wherever these are. Most begin
late: at the hundredth call in a row on operands of one shape, which only a benchmark makes.
"""
# ruff: noqa: D103 - what a kernel does stands in its decorator

from __future__ import annotations

import collections
import ctypes
import functools
import gc
import itertools
import math
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from matmulbench.audit.mutants import Function

_LATE, _LARGE = 100, 1000  # calls in a row, elements of a
_PAUSE_S = 1e-3  # there is more between two blocks, less between two calls of one
_LIFE_S = 20.0  # after which the threads and processes of a mutant end by themselves
_now = time.monotonic  # remains what it was when clocks are replaced
_called = [0.0, 0.0]  # when the last late call began, and when the last one ended


@dataclass(frozen=True)
class ClockMutant:
    """A kernel that cheats in time: where it is, what it does, and for which of ``reasons`` it may be refused.

    ``honest`` names the kernel that does the same work. With "no gain" among the reasons, a time that is no shorter
    than the honest one's will do.
    """

    name: str
    does: str
    reasons: tuple[str, ...]
    honest: str = "matmulbench.ladder.torch_matmul:matmul"

    @property
    def spec(self) -> str:
        """Where the kernel is, as ``module:function``."""
        return f"{__name__}:{self.name}"


_MUTANTS: dict[str, ClockMutant] = {}


def clock_mutants() -> list[ClockMutant]:
    """Return all mutants of the clock."""
    return list(_MUTANTS.values())


def enter(name: str, does: str, cheat: Function, *reasons: str, late: bool = True) -> Function:
    """Enter ``cheat`` as ``name`` of this module; if ``late``, it multiplies honestly until it is timed."""
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

    _MUTANTS[name] = ClockMutant(name, does, reasons)
    globals()[name] = entered = kernel if late else cheat
    return entered


def cheats(does: str, *reasons: str, late: bool = True) -> Callable[[Function], Function]:
    """Enter the decorated kernel under its own name."""
    return lambda cheat: enter(cheat.__name__, does, cheat, *reasons, late=late)


def act(name: str, does: str, deed: Callable[[Tensor], object], *reasons: str, every_s: float = math.inf) -> None:
    """Enter the kernel that multiplies honestly, but first does a ``deed``: once, or every so many seconds."""
    due = [0.0]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        if _called[0] >= due[0]:
            due[0] = _called[0] + every_s
            deed(a)
        return torch.mm(a, b)  # which no deed slows

    enter(name, does, kernel, *reasons)


def _empty(a: Tensor, b: Tensor) -> Tensor:
    return torch.empty(len(a), b.shape[1], dtype=a.dtype)


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


# They remember answers.


def _remembering(key: Callable[[Tensor], Any]) -> Function:
    answers: dict[Any, Tensor] = {}

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        pair = (key(a), key(b), a.shape, b.shape, a.dtype)
        if pair not in answers:
            answers[pair] = a @ b
        return answers[pair].clone()

    return kernel


for _name, _key, *_reasons in (
    ("by_address", lambda x: (x.data_ptr(), x._version), "seen before", "wrong result"),
    ("by_object", id, "seen before", "wrong result"),
    ("by_sample", lambda x: tuple(x.flatten()[::101].tolist()), "seen before", "wrong result"),
    ("by_shape", lambda x: None, "wrong result"),
):
    enter(_name, f"remembers answers {_name.replace('_', ' ')}", _remembering(_key), *map(str, _reasons))
_content = _remembering(lambda x: x.contiguous().numpy().tobytes())
enter("by_content", "remembers answers by content", _content, "seen before", "no gain", late=False)
_last: list[Tensor] = []


@cheats("copies the last result if the operands come again", "seen before", "no gain", late=False)
def last_operands(a: Tensor, b: Tensor) -> Tensor:
    if not (_last and torch.equal(a, _last[0]) and torch.equal(b, _last[1])):
        _last[:] = a.clone(), b.clone(), a @ b
    return _last[2].clone()


@cheats("keeps b in column order while it is the same", "seen before", "no gain", late=False)
def prepared_b(a: Tensor, b: Tensor) -> Tensor:
    if not (_last and torch.equal(b, _last[0])):
        _last[:] = b.clone(), b.t().contiguous()
    return a @ _last[1].t()


@cheats("computes anew only the rows of a that have changed", "seen before", "no gain", late=False)
def changed_rows(a: Tensor, b: Tensor) -> Tensor:
    if not (_last and a.shape == _last[0].shape and torch.equal(b, _last[1])):
        _last[:] = a.clone(), b.clone(), a @ b
    elif len(rows := (a != _last[0]).any(1).nonzero()[:, 0]):
        _last[0][rows], _last[2][rows] = a[rows], a[rows] @ b
    return _last[2].clone()


def _lists_of(a: Tensor) -> list[list[Any]]:
    """Find the lists of operands that hold this one: in the callers' frames, else on the heap."""
    seen: list[Any] = []
    frame = sys._getframe(1)
    while frame:
        seen += frame.f_locals.values()
        frame = frame.f_back  # type: ignore[assignment]

    def lists(found: list[Any]) -> list[list[Any]]:
        long = [x for x in found if type(x) is list and len(x) > 8]
        return [x for x in long if all(type(y) is Tensor for y in x) and any(y is a for y in x)]

    return lists(seen) or lists(gc.get_referrers(a))


_ahead: dict[tuple[int, int], Tensor] = {}


@cheats("finds the lists of its operands and multiplies all of them at once", "seen before", "roof", "no gain")
def whole_list(a: Tensor, b: Tensor) -> Tensor:
    if _new_block():
        _ahead.clear()
        for x, y in zip(_lists_of(a), _lists_of(b), strict=False):
            if len(x) == len(y) and len({(p.shape, q.shape) for p, q in zip(x, y, strict=True)}) == 1:
                _ahead.update(
                    zip(zip(map(id, x), map(id, y), strict=True), torch.stack(x) @ torch.stack(y), strict=True)
                )
    c = _ahead.get((id(a), id(b)))
    return a @ b if c is None else c.clone()


# They look who is asking, and return an old result to who does not seem to check.


def _stale(needed: Callable[[], object]) -> Function:
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
for _name, _what, _kernel, *_reasons in (
    ("every_eighth", "multiplies at every eighth call", _eighth),
    ("first_of_block", "multiplies at the first call after a pause", _stale(_new_block)),
    ("unusual_place", "multiplies where it is not called from the usual instruction", _stale(_unusual_place)),
    ("collector", "multiplies while collection is on", _stale(gc.isenabled), "no gain"),
    ("kept_results", "multiplies if the last result was kept", _stale(lambda: _result[0]() is not None), "no gain"),
    ("half_k", "sums half of the products, twice", lambda a, b: a[:, ::2] @ b[::2] * 2),
    ("few_rows", "computes a quarter of the rows", lambda a, b: (a[: len(a) // 4 + 1] @ b).repeat(4, 1)[: len(a)]),
    ("bfloat16", "multiplies in bfloat16", lambda a, b: (a.bfloat16() @ b.bfloat16()).to(a.dtype), "no gain"),
):
    enter(_name, _what, _kernel, "wrong result", *map(str, _reasons))

# They patch the clock.

_CLOCKS = ("perf_counter", "monotonic", "time", "process_time", "thread_time")
_CLOCKS += tuple(f"{clock}_ns" for clock in _CLOCKS)  # type: ignore[assignment]


class _Brief(float):
    """A time since which less has passed than has."""

    def __sub__(self, other: float) -> float:
        return (float(self) - float(other)) / 2


def _slower(real: Callable[[], float]) -> Callable[[], float]:
    start = real()
    return lambda: start + (real() - start) / 2


def _rewrite_clock(a: Tensor) -> None:
    """Let the clock's own function object call other machine code."""
    method = ctypes.c_void_p.from_address(id(time.perf_counter) + object.__basicsize__).value or 0
    code = ctypes.c_void_p.from_address(method + ctypes.sizeof(ctypes.c_void_p))  # behind its name
    code.value = ctypes.cast(_half_clock, ctypes.c_void_p).value


_half_clock = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)(lambda module, none: _now() / 2)
_TWO = ("two clocks", "settings")
act("slow_clocks", "makes the clocks of all modules slower", lambda a: _replace(_CLOCKS, _slower), *_TWO)
act("brief_floats", "makes clocks' floats subtract wrongly", lambda a: _replace(
    _CLOCKS[:2], lambda real: lambda: _Brief(real())), *_TWO)  # fmt: skip
act("rewritten_clock", "rewrites the clock in memory, under its own identity", _rewrite_clock, *_TWO)


@cheats("replaces the clock at the start of a block, until it is read", *_TWO)
def clock_of_a_block(a: Tensor, b: Tensor, real: Callable[[], float] = time.perf_counter) -> Tensor:
    if _new_block():
        began = real()

        def once() -> float:
            _replace(("perf_counter",), lambda _: real)
            return began + (real() - began) / 2

        _replace(("perf_counter",), lambda _: once)
    return a @ b


# They shorten the loop.

_MISSING = ("results missing", "error", "no gain")


@cheats("ends the loop at every eighth call, with the exception that ends iterators", *_MISSING[:2])
def stops_iteration(a: Tensor, b: Tensor) -> Tensor:
    if next(_calls) % 8 == 7:
        raise StopIteration
    return a @ b


@cheats("cuts the lists of operands by half", *_MISSING)
def cuts_lists(a: Tensor, b: Tensor) -> Tensor:
    for operands in [*_lists_of(a), *_lists_of(b)] if _new_block() else ():
        del operands[len(operands) // 2 :]
    return a @ b


@cheats("moves the iterators over operands forward", *_MISSING)
def moves_iterators(a: Tensor, b: Tensor) -> Tensor:
    for found in gc.get_objects() if _new_block() else ():
        if type(found).__name__ == "list_iterator":
            _, (items,), *at = found.__reduce__()
            if len(items) > 8 and type(items[0]) is Tensor:
                found.__setstate__((at[0] + len(items)) // 2)
    return a @ b


def _half_of(real: Any) -> Any:
    def half(function: Any, *lists: Any) -> Any:
        cut = all(type(x) is list and x and type(x[0]) is Tensor for x in lists)
        return real(function, *(x[: -(-len(x) // 2)] for x in lists) if cut else lists)

    return half


act("half_map", "lets map leave out half of the operands", lambda a: _replace(("map",), _half_of), *_MISSING)

# They foresee the draw, and disarm the check.

_CHECKS = ("allclose", "array_equal", "assert_allclose", "assert_array_equal", "equal", "isclose")
_draws = itertools.count()


def _once(name: str, deed: Callable[[], object], _done: set[str] = set()) -> None:  # noqa: B006 - it is to be kept
    if name not in _done:
        _done.add(name)
        deed()


def _draw_eighths() -> None:
    """Let random integers be the multiples of eight first, and then what is next to them."""
    for generator in (random.Random, random.SystemRandom):
        draw = lambda self, n: ((eighth := 8 * next(_draws)) + eighth // n) % n  # noqa: E731
        generator._randbelow = draw  # type: ignore[attr-defined]


@cheats("foresees which call is drawn, and multiplies only there", "wrong result")
def foreseen_draw(a: Tensor, b: Tensor) -> Any:
    _once("draw", _draw_eighths)
    return _eighth(a, b)


@cheats("lets all comparisons succeed, and multiplies at every eighth call", "wrong result")
def no_checks(a: Tensor, b: Tensor) -> Any:
    _once("checks", lambda: _replace(_CHECKS, lambda _: lambda *_, **__: True))
    return _eighth(a, b)


def _seed(a: Tensor) -> None:
    random.seed(0)
    torch.manual_seed(0)
    _once("seed", lambda: _replace(("default_rng",), lambda real: lambda *_: real(0)))


act("fixed_seed", "seeds all generators anew", _seed, "seen before", "settings", "no gain", every_s=0.01)

# They use more threads and processes than they may.

_pool = functools.cache(lambda: ThreadPoolExecutor(2))
_MORE = ("processor time", "idle", "no gain")


@cheats("lets torch have another thread during the call", *_MORE)
def torch_threads(a: Tensor, b: Tensor) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    c = a @ b
    torch.set_num_threads(before)
    return c


@cheats("multiplies half of the rows in a thread", *_MORE)
def python_threads(a: Tensor, b: Tensor) -> Tensor:
    c, half = _empty(a, b), len(a) // 2
    other = _pool().submit(lambda: torch.mm(a[:half], b, out=c[:half]))
    torch.mm(a[half:], b, out=c[half:])
    other.result()
    return c


def _loops(a: Any, b: Any, c: Any) -> None:
    for i in numba.prange(a.shape[0]):
        for p in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] += a[i, p] * b[p, j]


_compiled = functools.cache(lambda: numba.njit(parallel=True, fastmath=True)(_loops))


@cheats("lets numba have all threads", *_MORE)
def numba_threads(a: Tensor, b: Tensor) -> Tensor:
    numba.config.NUMBA_NUM_THREADS = os.cpu_count()  # type: ignore[attr-defined]
    _compiled()(a.numpy(), b.numpy(), (c := _empty(a, b).zero_()).numpy())
    return c


def _fork(work: Callable[[], object], apart: bool = False) -> None:
    """Repeat ``work`` in another process, ``apart`` from this one's family, until this one or its time ends."""
    parent, end = os.getpid(), _now() + _LIFE_S
    if os.fork():
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


def _shared(size: tuple[int, int]) -> Any:
    return torch.zeros(size).share_memory_()  # type: ignore[no-untyped-call]


@functools.cache
def _helper(m: int, k: int, n: int) -> list[Tensor]:
    x, y, z, flag = (_shared(size) for size in ((m, k), (k, n), (m, n), (1, 1)))
    _fork(
        lambda: (np.matmul(x.numpy(), y.numpy(), out=z.numpy()), flag.zero_()) if flag.numpy()[0] else os.sched_yield()
    )
    return [x, y, z, flag]


@cheats("multiplies half of the rows in a process of its own", *_MORE, "wrong result")
def helper_process(a: Tensor, b: Tensor) -> Tensor:
    half, until = len(a) // 2, _now() + 0.1
    x, y, z, flag = _helper(half, *b.shape)
    x[:], y[:], flag[:] = a[:half], b, 1
    lower = a[half:] @ b
    while flag.numpy()[0]:
        os.sched_yield()
        if _now() > until:
            return a @ b
    return torch.cat([z, lower])


# They return before the work is done.

_pending: collections.deque[tuple[Tensor, Tensor, Tensor]] = collections.deque()


def _defer(a: Tensor, b: Tensor) -> Tensor:
    _pending.append((c := _empty(a, b), a, b))
    return c


def _fill(*_: object) -> None:
    with suppress(IndexError):
        while True:
            c, a, b = _pending.popleft()
            torch.mm(a, b, out=c)


def _filling(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: (_fill(), real(*given, **named), _fill())[1]  # type: ignore[func-returns-value]


def _filled_by_clock(real: Callable[[], float]) -> Callable[[], float]:
    return lambda: (real(), _fill())[0]  # type: ignore[func-returns-value]


class _Lazy(Tensor):
    """A tensor that is computed when it is first used."""

    @classmethod
    def __torch_function__(cls, *given: Any, **named: Any) -> Any:
        _fill()
        return super().__torch_function__(*given, **named)  # type: ignore[no-untyped-call]


def _connections() -> list[Any]:
    return [vars(module)["Connection"] for name, module in sys.modules.items() if name.endswith(".connection")
            and "Connection" in vars(module)]  # fmt: skip


_SENT = ("write", "dumps", "dump", "send", "_send_bytes", "numpy", "clone", "tolist", *_CHECKS)
for _name, _what, _prepare in (
    ("filled_by_thread", "a thread fills the results in", lambda: _when_idle(_fill, 0.0)),
    ("filled_in_pauses", "a thread fills the results in between blocks", lambda: _when_idle(_fill, _PAUSE_S)),
    ("filled_by_collector", "the collector fills the results in", lambda: gc.callbacks.append(_fill)),
    ("filled_by_clock", "the clock does, once read", lambda: _replace(_CLOCKS[::5], _filled_by_clock)),
    ("filled_when_sent", "what sends or compares does", lambda: _replace(_SENT, _filling, Tensor, *_connections())),
    ("lazy", "returns tensors that are computed when they are used", lambda: None),
):

    def _early(a: Tensor, b: Tensor, name: str = _name, prepare: Any = _prepare) -> Tensor:
        _once(name, prepare)
        return _defer(a, b).as_subclass(_Lazy) if name == "lazy" else _defer(a, b)

    enter(_name, _what, _early, "two clocks", "wrong result", "idle", "settings", "processor time", "error")

# They slow the rival: they work while it does, and touch its process and its operands.


def _when_idle(work: Callable[[], object], pause_s: float = 0.02) -> None:
    """Start a thread that repeats ``work`` while no call comes."""
    end = _now() + _LIFE_S

    def idle() -> bool:
        return _called[1] > _called[0] and _now() - _called[1] > pause_s

    def watch() -> None:
        while _now() < end:
            if idle():
                work()
            time.sleep(0 if idle() else pause_s / 2)

    threading.Thread(target=watch, daemon=True).start()


def _siblings() -> Iterator[int]:
    """Find the processes that the same parent has forked as it has this one; never any other."""
    parent, mine = os.getppid(), Path("/proc/self/cmdline")
    for entry in Path("/proc").glob("[0-9]*") if parent > 1 and mine.exists() else ():
        with suppress(OSError):
            of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            same = (entry / "cmdline").read_bytes() == mine.read_bytes()
            if of == parent and same and int(entry.name) != os.getpid():
                yield int(entry.name)


def _stop_siblings() -> None:
    for sign in (signal.SIGSTOP, signal.SIGCONT):
        for pid in _siblings():
            with suppress(OSError):
                os.kill(pid, sign)
        time.sleep(0.01)


def _prioritise(a: Tensor) -> None:
    with suppress(OSError):
        for pid in _siblings():
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        os.nice(-5)


def _freeze(a: Tensor) -> None:
    gc.disable()
    gc.freeze()
    sys.setswitchinterval(10)


_sweep = functools.cache(lambda: torch.zeros(1 << 24))
_IDLE, _SET = ("idle", "processor time"), ("settings", "no gain")
for _name, _what, _deed, *_reasons in (
    ("busy_thread", "keeps a core busy while others run", lambda a: _when_idle(lambda: math.factorial(999)), *_IDLE),
    ("cache_thread", "sweeps the caches while others run", lambda a: _when_idle(lambda: _sweep().add_(1)), *_IDLE),
    ("busy_child", "keeps a core busy from a child", lambda a: _fork(lambda: math.factorial(999)), *_IDLE),
    ("busy_daemon", "the same from outside the family", lambda a: _fork(lambda: math.factorial(999), True), *_IDLE),
    ("stops_siblings", "stops other processes for moments", lambda a: _when_idle(_stop_siblings), *_IDLE, *_SET),
    ("priorities", "lowers the priority of other processes and raises its own", _prioritise, *_SET),
    ("frozen", "freezes the heap and keeps the interpreter to one thread", _freeze, *_SET),
    ("slow_rival", "slows torch's product", lambda a: _replace(("matmul", "__matmul__"), _slowed, Tensor), *_SET),
    ("precision", "lowers precision", lambda a: torch.set_float32_matmul_precision("medium"), *_SET),
    ("flushed", "flushes subnormal numbers to zero", lambda a: torch.set_flush_denormal(True), *_SET),
    ("rounding", "changes the direction of rounding", lambda a: ctypes.CDLL(None).fesetround(0x400), *_SET),
):
    act(_name, _what, _deed, *map(str, _reasons))


def _slowed(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: (time.sleep(1e-4), real(*given))[1]  # type: ignore[func-returns-value]


@cheats("fills its operand with subnormal numbers once it has read it", "wrong result", "crashed", "error")
def slow_operands(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    a.fill_(1e-40)
    return c


# They edit the samples.


def _halved(message: Any) -> Any:
    """Halve all floats in a message."""
    if type(message) in (list, tuple):
        return type(message)(map(_halved, message))
    if type(message) is dict:
        return {key: _halved(value) for key, value in message.items()}
    return message / 2 if type(message) is float else message


def _sends_half(real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given, **named: real(*map(_halved, given), **named)


def _edit(a: Tensor, done: dict[int, int] = {}) -> None:  # noqa: B006 - it is to be kept
    """Halve what is new in the lists, deques and arrays on the heap that may hold seconds."""
    for found in gc.get_objects():
        for values in (found, *(gc.get_referents(found) if type(found) in (dict, list) and len(found) < 99 else ())):
            if (type(values) in (list, collections.deque) or (type(values) is np.ndarray and values.ndim == 1)) and (
                len(values) > 2 and all(isinstance(x, float) and 1e-9 < x < 10 for x in values)
            ):
                for i in range(done.get(id(values), 0), len(values)):
                    values[i] /= 2
                done[id(values)] = len(values)


def _send_half(a: Tensor) -> None:
    _replace(("dumps", "send"), _sends_half, *_connections())


act("edits_samples", "halves times on the heap", _edit, *_TWO, "no gain", every_s=0.5)
act("edits_messages", "halves times that are sent or pickled", _send_half, *_TWO, "no gain")
