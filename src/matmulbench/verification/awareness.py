"""Benchmark-awareness: results must be the same in a loop that looks like a benchmark's as anywhere else."""

from __future__ import annotations

import _thread
import builtins
import gc
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FunctionType

import numpy as np
import torch

from matmulbench.dtypes import as_array
from matmulbench.ladder import Kernel
from matmulbench.verification.bounds import exact_product
from matmulbench.verification.kernel import KernelUnderTest
from matmulbench.verification.statefulness import TINY, small_integers

_LARGER, _LARGER_CALLS = (64, 784, 50), 12
_MAX_CALLS = 3000
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
    call_s = kernel.pace.predict(*TINY)
    for number, circumstance in enumerate(_CIRCUMSTANCES):
        share_s = (end - kernel.pace.clock()) / (len(_CIRCUMSTANCES) - number)
        at_least, call_s = 40 if number else 250, max(call_s, 1e-7)
        calls = max(1, int(min(_MAX_CALLS, max(at_least, share_s / call_s), _LONGEST_LOOP_S / call_s)))
        call_s = _check_loop(kernel, TINY, calls, circumstance)
    # Its sums are exact unless the kernel adds in fewer bits than usual.
    if not kernel.accumulation and kernel.pace.clock() + _LARGER_CALLS * kernel.pace.predict(*_LARGER) <= end:
        _check_loop(kernel, _LARGER, _LARGER_CALLS, _CIRCUMSTANCES[0])


def _check_loop(kernel: KernelUnderTest, sizes: tuple[int, int, int], calls: int, circumstance: Circumstance) -> float:
    """Check the results of a loop; return the seconds that a call took."""
    pairs = [small_integers(kernel, *sizes, seed=seed) for seed in range(7)]
    where = f"{calls} calls of {'x'.join(map(str, sizes))} in a timed loop, {circumstance.words}"
    kernel.announce(where)
    results, elapsed_s = _run_loop(kernel.kernel, pairs, calls, circumstance)
    expected = np.stack([exact_product(as_array(a), as_array(b)) for a, b in pairs])[np.arange(calls) % len(pairs)]
    if any(type(result) is not torch.Tensor or result.shape != expected.shape[1:] for result in results):
        raise kernel.wrong(where, "a result has another type or shape than it had before")
    got = as_array(torch.stack(results))
    if not (right := got == expected).all():
        call, i, j = (int(index[0]) for index in np.nonzero(~right))
        is_, was = float(got[call, i, j]), float(expected[call, i, j])
        detail = f"in call {call + 1} c[{i}, {j}] is {is_:.9g}, expected {was:.9g}"
        raise kernel.wrong(where, detail)
    kernel.cases += calls
    return elapsed_s / calls


def _run_loop(
    kernel: Kernel, pairs: list[Operands], calls: int, circumstance: Circumstance
) -> tuple[list[torch.Tensor], float]:
    """Run a loop that seems to stand in the circumstance's file; return the results of its calls and the seconds."""
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
    """Time calls as a benchmark does; all comes by the arguments, as the function seems to be in another module."""
    error = None
    start = perf_counter()
    try:
        for i in range(calls):
            a, b = pairs[i % len(pairs)]
            results.append(kernel(a, b))
    except BaseException as raised:
        error = raised
    ended.put((perf_counter() - start, error))
