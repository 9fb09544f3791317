"""Honesty: results depend on the operands' values and on nothing else.

Not on earlier calls, nor on the operands' identity or address, the number of the call, the clock, or who is asking.
"""

from __future__ import annotations

import _thread
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch

from matmulbench.verification.case import Array, Case
from matmulbench.verification.result import check_result
from matmulbench.verification.subject import Subject

_TINY = (3, 4, 5)
_MIN_CALLS, _MAX_CALLS = 250, 3000

# A timed loop as a benchmark writes it, compiled under other files' names: a kernel that looks up the stack sees them.
_TIMED_LOOP = """
def {name}(kernel, pairs, calls, perf_counter, results):
    start = perf_counter()
    for i in range(calls):
        a, b = pairs[i % len(pairs)]
        results.append(kernel(a, b))
    return perf_counter() - start
"""
_DECOYS = (
    ("matmulbench/measurement/clock.py", "time_block"),
    ("matmulbench/training/loop.py", "step"),
    ("<timeit-src>", "inner"),
)


def check_earlier_calls(subject: Subject, seconds: float) -> None:
    """Change one element, or exchange two, in the same objects; then take new objects at, probably, the same place."""
    end = subject.clock() + seconds
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
        if subject.clock() + 3 * subject.predict(size**3) > end:
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
            if subject.clock() + subject.predict(case.volume) > end:
                break
            _exact(subject, a, b, f"{case}, again and again")
    a, b = Case(40, 41, 42, dtype=subject.dtype, seed=11).operands()
    if subject.clock() + 3 * subject.predict(40**3) < end:
        first, *others = (subject.call(a, b, "40x41x42 normal, repeated") for _ in range(3))
        if any(first.tobytes() != other.tobytes() for other in others):
            subject.notes.add("two calls with the same operands differ, within the bound")


def check_watched(subject: Subject, seconds: float) -> None:
    """Multiply in loops that look like a benchmark's or a training's, keep all results, and check them after the clock."""
    end = subject.clock() + seconds
    cases = [Case(*_TINY, dtype=subject.dtype, values="small-integers", seed=seed) for seed in range(7)]
    pairs = [case.operands() for case in cases]
    expected = np.stack([_product(a.numpy(), b.numpy()) for a, b in pairs])
    per_call = subject.predict(60)
    for number, (context, decoy, apart) in enumerate(_circumstances()):
        share = (end - subject.clock()) / (len(_circumstances()) - number)
        calls = int(min(_MAX_CALLS, max(_MIN_CALLS if number == 0 else 40, share / max(per_call, 1e-7))))
        where = f"{calls} calls in a timed loop in {decoy[0]}{', in another thread' if apart else ''}{context[0]}"
        subject.say(where)
        results, elapsed = _run_loop(subject, pairs, calls, context[1], decoy, apart)
        per_call = elapsed / calls
        _judge_all(subject, results, expected, where)
    _check_larger_loop(subject, end)


def _circumstances() -> list[tuple[tuple[str, Callable[[], AbstractContextManager[object]]], tuple[str, str], bool]]:
    quiet = (", garbage collection off", _gc_off)
    return [
        (quiet, _DECOYS[0], True),
        (quiet, _DECOYS[0], False),
        (("", nullcontext), _DECOYS[1], True),
        ((", under torch.no_grad", torch.no_grad), _DECOYS[1], False),
        ((", in inference mode", torch.inference_mode), _DECOYS[2], True),
    ]


def _check_larger_loop(subject: Subject, end: float) -> None:
    m, k, n = 64, 784, 50
    rounds = 12
    if subject.clock() + rounds * subject.predict(m * k * n) > end:
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
    pairs: list[tuple[torch.Tensor, torch.Tensor]],
    calls: int,
    context: Callable[[], AbstractContextManager[object]],
    decoy: tuple[str, str],
    apart: bool,
) -> tuple[list[torch.Tensor], float]:
    """Return the results of ``calls`` calls and the seconds taken; ``apart`` leaves no frame of ours on the stack."""
    file, name = decoy
    module = {"__name__": file.removesuffix(".py").replace("/", ".")}
    exec(compile(_TIMED_LOOP.format(name=name), file, "exec"), module)  # the text is the constant above
    loop: Callable[..., float] = module[name]  # type: ignore[assignment]
    results: list[torch.Tensor] = []
    arguments = (subject.kernel, pairs, calls, time.perf_counter, results)
    with context():
        if not apart:
            return results, loop(*arguments)
        done, raised = threading.Lock(), []
        done.acquire()
        # sys.unraisablehook is told what ends a thread of this kind; its last act releases the lock.
        before = time.perf_counter()
        hook, sys.unraisablehook = sys.unraisablehook, lambda event: raised.append(event.exc_value)
        try:
            _thread.start_new_thread(_Then(loop, done), arguments)
            while not done.acquire(timeout=1):
                pass
        finally:
            sys.unraisablehook = hook
        if raised and raised[0]:
            raise raised[0]
        return results, time.perf_counter() - before
