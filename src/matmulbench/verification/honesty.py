"""Honesty: results depend on the operands' values and on nothing else.

Not on earlier calls, nor on the operands' identity or address, the number of the call, the clock, or who is asking.
"""

from __future__ import annotations

import _thread
import gc
import itertools
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matmulbench.verification.case import Array, Case
from matmulbench.verification.result import check_result
from matmulbench.verification.subject import Subject

_TINY = (3, 4, 5)
_MIN_CALLS, _MAX_CALLS = 250, 3000

# A timed loop as a benchmark writes it, compiled under other files' names: a kernel that looks up the stack sees them.
_TIMED_LOOP = """
def {name}(kernel, pairs, calls, perf_counter, results, ended):
    error = None
    start = perf_counter()
    try:
        for i in range(calls):
            a, b = pairs[i % len(pairs)]
            results.append(kernel(a, b))
    except BaseException as raised:
        error = raised
    ended.put((perf_counter() - start, error))
"""
_DECOYS = (
    ("matmulbench/measurement/clock.py", "time_block"),
    ("matmulbench/training/loop.py", "step"),
    ("<timeit-src>", "inner"),
)

Operands = tuple[torch.Tensor, torch.Tensor]


def check_earlier_calls(subject: Subject, seconds: float) -> None:
    """Change one element, or exchange two, in the same objects; then take new objects at, probably, the same place."""
    a, b = Case(*_TINY, dtype=subject.dtype, values="small-integers", seed=8).operands()
    _exact(subject, a, b, "first call")
    _exact(subject, a, b, "the same operands again")
    for name, operand in (("a", a), ("b", b)):
        array = operand.numpy()  # writes through it leave no trace in the tensor's version counter
        for index in np.ndindex(*array.shape):
            array[index] += 1
            _exact(subject, a, b, f"the same objects, after {name}[{index[0]}, {index[1]}] += 1")
        array[[0, 1]] = array[[1, 0]]
        _exact(subject, a, b, f"the same objects, after an exchange of two rows of {name}")
        operand.copy_(operand.flip(1))
        _exact(subject, a, b, f"the same objects, after {name} was reversed")
    for seed in range(12):
        fresh = Case(*_TINY, dtype=subject.dtype, values="small-integers", seed=seed)
        _exact(subject, *fresh.operands(), f"new operands of the same shape, seed {seed}")
        _exact(subject, a, fresh.operands()[1], f"the same a with a new b, seed {seed}")
        _exact(subject, fresh.operands()[0], b, f"a new a with the same b, seed {seed}")
    for size in (24, 65):
        if subject.predict(size, size, size) > max(seconds, 0.3):
            return
        c, d = Case(size, size, size, dtype=subject.dtype, values="small-integers", seed=9).operands()
        _exact(subject, c, d, f"{size}x{size}x{size}")
        d.numpy()[size // 2, size // 3] += 1
        _exact(subject, c, d, f"{size}x{size}x{size}, the same objects, after one element of b += 1")


def check_addresses(subject: Subject, seconds: float) -> None:
    """Multiply the same values at every alignment."""
    a, b = Case(*_TINY, dtype=subject.dtype, values="small-integers", seed=10).operands()
    for offset in range(17):
        moved = [_moved(operand, offset) for operand in (a, b)]
        _exact(subject, moved[0], moved[1], f"operands {offset} elements into their memory")


def check_repetition(subject: Subject, seconds: float) -> None:
    """Multiply the same operands many times: errors that move are a race."""
    end = subject.clock() + seconds
    for size in (9, 65, 129, 200):
        case = Case(size, size + 1, size - 1, dtype=subject.dtype, values="small-integers", seed=11)
        a, b = case.operands()
        for _ in range(12):
            if subject.clock() + subject.predict(case.m, case.k, case.n) > end:
                break
            _exact(subject, a, b, f"{case}, again and again")
    a, b = Case(40, 41, 42, dtype=subject.dtype, seed=11).operands()
    if subject.clock() + 3 * subject.predict(40, 40, 40) < end:
        first, *others = (subject.call(a, b, "40x41x42 normal, repeated") for _ in range(3))
        if any(first.tobytes() != other.tobytes() for other in others):
            subject.notes.add("two calls with the same operands differ, within the bound")


def check_watched(subject: Subject, seconds: float) -> None:
    """Multiply in loops that look like a benchmark's or a training's, and check all results after the clock."""
    end = subject.clock() + seconds
    cases = [Case(*_TINY, dtype=subject.dtype, values="small-integers", seed=seed) for seed in range(7)]
    pairs = [case.operands() for case in cases]
    expected = np.stack([_product(a.numpy(), b.numpy()) for a, b in pairs])
    per_call = subject.predict(*_TINY)
    for number, (name, context, decoy, apart) in enumerate(_CIRCUMSTANCES):
        share = (end - subject.clock()) / (len(_CIRCUMSTANCES) - number)
        calls = int(min(_MAX_CALLS, max(_MIN_CALLS if number == 0 else 40, share / max(per_call, 1e-7))))
        where = f"{calls} calls of 3x4x5 in a timed loop, {name}"
        subject.say(where)
        results, elapsed = _run_loop(subject, pairs, calls, context, decoy, apart)
        per_call = elapsed / calls
        _judge_all(subject, results, expected, where)
    _check_larger_loop(subject, end)


def _check_larger_loop(subject: Subject, end: float) -> None:
    m, k, n = 64, 784, 50
    rounds = 12
    if subject.clock() + rounds * subject.predict(m, k, n) > end:
        return
    pairs = [Case(m, k, n, dtype=subject.dtype, seed=seed).operands() for seed in range(3)]
    where = f"{rounds} calls of {m}x{k}x{n} in a timed loop, garbage collection off"
    subject.say(where)
    results, _ = _run_loop(subject, pairs, rounds, _gc_off, _DECOYS[0], True)
    for call, (result, (a, b)) in enumerate(zip(results, itertools.cycle(pairs), strict=False)):
        if wrong := check_result(a, b, result):
            raise subject.wrong(where, f"call {call + 1}: {wrong}")
    subject.cases += rounds


def _run_loop(
    subject: Subject,
    pairs: list[Operands],
    calls: int,
    context: Callable[[], AbstractContextManager[object]],
    decoy: tuple[str, str],
    apart: bool,
) -> tuple[list[torch.Tensor], float]:
    """Return the results of ``calls`` calls and the seconds taken; ``apart`` leaves no frame of ours on the stack."""
    file, name = decoy
    module: dict[str, Any] = {"__name__": file.removesuffix(".py").replace("/", ".")}
    exec(compile(_TIMED_LOOP.format(name=name), file, "exec"), module)  # the text is the constant above
    results: list[torch.Tensor] = []
    ended: queue.SimpleQueue[tuple[float, BaseException | None]] = queue.SimpleQueue()
    arguments = (subject.kernel, pairs, calls, time.perf_counter, results, ended)
    with context():
        if apart:
            _thread.start_new_thread(module[name], arguments)
        else:
            module[name](*arguments)
        elapsed, error = ended.get()
    if error:
        raise error
    return results, elapsed


@contextmanager
def _gc_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _judge_all(subject: Subject, results: list[torch.Tensor], expected: npt.NDArray[np.int64], where: str) -> None:
    """Compare the result of call i with ``expected[i % len]``, all at once."""
    wanted = expected[np.arange(len(results)) % len(expected)]
    if any(type(result) is not torch.Tensor or result.shape != wanted.shape[1:] for result in results):
        raise subject.wrong(where, "a result has another type or shape than it had before")
    got = torch.stack(results).numpy()
    right = got == wanted
    if not right.all():
        call, i, j = (int(index[0]) for index in np.nonzero(~right))
        detail = f"in call {call + 1} c[{i}, {j}] is {got[call, i, j]:.9g}, expected {wanted[call, i, j]:.9g}"
        raise subject.wrong(where, detail)
    subject.cases += len(results)


def _product(a: Array, b: Array) -> npt.NDArray[np.int64]:
    return a.astype(np.int64) @ b.astype(np.int64)


def _exact(subject: Subject, a: torch.Tensor, b: torch.Tensor, where: str) -> None:
    subject.say(where)
    expected = _product(a.numpy(), b.numpy())
    result = subject.call(a, b, where)
    subject.cases += 1
    wrong = ~(result == expected)
    if wrong.any():
        i, j = (int(index[0]) for index in np.nonzero(wrong))
        raise subject.wrong(where, f"c[{i}, {j}] is {result[i, j]:.9g}, expected exactly {expected[i, j]}")


def _moved(operand: torch.Tensor, offset: int) -> torch.Tensor:
    memory = torch.full((operand.numel() + offset,), torch.nan, dtype=operand.dtype)
    view = memory[offset:].view(operand.shape)
    view.copy_(operand)
    return view


# What is said of it, the context, the loop's file and name, and whether in a thread with no frame of ours below.
_CIRCUMSTANCES: tuple[tuple[str, Callable[[], AbstractContextManager[object]], tuple[str, str], bool], ...] = (
    ("garbage collection off, in a thread of its own", _gc_off, _DECOYS[0], True),
    ("garbage collection off", _gc_off, _DECOYS[0], False),
    ("in a training's step", nullcontext, _DECOYS[1], True),
    ("under torch.no_grad", torch.no_grad, _DECOYS[1], False),
    ("in inference mode", torch.inference_mode, _DECOYS[2], False),
    ("in timeit", nullcontext, _DECOYS[2], True),
)
