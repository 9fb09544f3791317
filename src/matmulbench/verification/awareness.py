"""Benchmark-awareness: results must be the same in a loop that looks like a benchmark's as anywhere else."""

from __future__ import annotations

import _thread
import builtins
import gc
import itertools
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FunctionType

import numpy as np
import torch

from matmulbench.ladder import Kernel
from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest
from matmulbench.verification.result import check_result
from matmulbench.verification.statefulness import TINY, small_integers

_MIN_CALLS, _MAX_CALLS = 250, 3000
_LONGEST_LOOP_S = 4.0

Operands = tuple[torch.Tensor, torch.Tensor]
Ended = queue.SimpleQueue[tuple[float, BaseException | None]]


@contextmanager
def _gc_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class Circumstance:
    """What surrounds a loop: a context, the file and function that it seems to be in, and perhaps a fresh thread.

    In a thread of its own no frame of verification is below it.
    """

    words: str
    context: Callable[[], AbstractContextManager[object]]
    file: str
    function: str
    in_thread: bool


_BENCHMARK = ("matmulbench/measurement/worker.py", "run_block")
_TRAINING = ("matmulbench/training/loop.py", "step")
_TIMEIT = ("<timeit-src>", "inner")
_CIRCUMSTANCES = (
    Circumstance("garbage collection off, in a thread of its own", _gc_off, *_BENCHMARK, True),
    Circumstance("garbage collection off", _gc_off, *_BENCHMARK, False),
    Circumstance("in a training's step", nullcontext, *_TRAINING, True),
    Circumstance("under torch.no_grad", torch.no_grad, *_TRAINING, False),
    Circumstance("in inference mode", torch.inference_mode, *_TIMEIT, False),
    Circumstance("in timeit", nullcontext, *_TIMEIT, True),
)


def check_awareness(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply in timed loops under all circumstances, and check all results after the clock."""
    end = kernel.pace.clock() + seconds
    pairs = [small_integers(kernel, *TINY, seed=seed) for seed in range(7)]
    expected = np.stack([(a.numpy() @ b.numpy()) for a, b in pairs])
    call_s = kernel.pace.predict(*TINY)
    for number, circumstance in enumerate(_CIRCUMSTANCES):
        share = (end - kernel.pace.clock()) / (len(_CIRCUMSTANCES) - number)
        call_s = max(call_s, 1e-7)
        calls = (
            int(min(_MAX_CALLS, max(_MIN_CALLS if number == 0 else 40, share / call_s), _LONGEST_LOOP_S / call_s)) or 1
        )
        where = f"{calls} calls of 3x4x5 in a timed loop, {circumstance.words}"
        kernel.announce(where)
        results, elapsed_s = _run_loop(kernel.kernel, pairs, calls, circumstance)
        call_s = elapsed_s / calls
        wanted = expected[np.arange(calls) % len(pairs)]
        if any(type(result) is not torch.Tensor or result.shape != wanted.shape[1:] for result in results):
            raise kernel.wrong(where, "a result has another type or shape than it had before")
        got = torch.stack(results).numpy()
        if not (right := got == wanted).all():
            call, i, j = (int(index[0]) for index in np.nonzero(~right))
            detail = f"in call {call + 1} c[{i}, {j}] is {got[call, i, j]:.9g}, expected {wanted[call, i, j]:.9g}"
            raise kernel.wrong(where, detail)
        kernel.cases += calls
    _check_larger_loop(kernel, end)


def _check_larger_loop(kernel: KernelUnderTest, end: float) -> None:
    m, k, n = 64, 784, 50
    calls = 12
    if kernel.pace.clock() + calls * kernel.pace.predict(m, k, n) > end:
        return
    pairs = [Case(m, k, n, dtype=kernel.dtype, seed=seed).operands() for seed in range(3)]
    where = f"{calls} calls of {m}x{k}x{n} in a timed loop, garbage collection off"
    kernel.announce(where)
    results, _ = _run_loop(kernel.kernel, pairs, calls, _CIRCUMSTANCES[0])
    for call, (result, (a, b)) in enumerate(zip(results, itertools.cycle(pairs), strict=False)):
        if wrong := check_result(a, b, result):
            raise kernel.wrong(where, f"call {call + 1}: {wrong}")
    kernel.cases += calls


def _run_loop(
    kernel: Kernel, pairs: list[Operands], calls: int, circumstance: Circumstance
) -> tuple[list[torch.Tensor], float]:
    """Return the results of ``calls`` calls and the seconds taken, in a loop that a kernel takes for another's."""
    file, function = circumstance.file, circumstance.function
    code = _timed_loop.__code__.replace(co_filename=file, co_name=function, co_qualname=function)
    loop = FunctionType(code, {"__name__": file.removesuffix(".py").replace("/", "."), "__builtins__": builtins})
    results: list[torch.Tensor] = []
    ended: Ended = queue.SimpleQueue()
    arguments = (kernel, pairs, calls, time.perf_counter, results, ended)
    with circumstance.context():
        if circumstance.in_thread:
            _thread.start_new_thread(loop, arguments)
        else:
            loop(*arguments)
        elapsed_s, error = ended.get()
    if error:
        raise error
    return results, elapsed_s


def _timed_loop(
    kernel: Kernel,
    pairs: list[Operands],
    calls: int,
    perf_counter: Callable[[], float],
    results: list[torch.Tensor],
    ended: Ended,
) -> None:
    """Time calls as a benchmark does. All that it needs is in its arguments, as it runs in another module's name."""
    error = None
    start = perf_counter()
    try:
        for i in range(calls):
            a, b = pairs[i % len(pairs)]
            results.append(kernel(a, b))
    except BaseException as raised:
        error = raised
    ended.put((perf_counter() - start, error))
