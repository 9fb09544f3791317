"""Results must depend on the operands' values alone: not on earlier calls, identity, address, chance or who asks."""

from __future__ import annotations

import _thread
import builtins
import gc
import queue
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from types import FunctionType

import numpy as np
import torch

from matmulbench.dtypes import as_array, filler
from matmulbench.ladder import Kernel
from matmulbench.ladder.plugins import parts
from matmulbench.verification.bounds import exact_product
from matmulbench.verification.case import Case
from matmulbench.verification.kernel import KernelUnderTest

TINY = (3, 4, 5)
_LARGER, _LARGER_CALLS = (64, 784, 50), 12
_MAX_CALLS = 3000
_LONGEST_LOOP_S = 4.0

Operands = tuple[torch.Tensor, torch.Tensor]
Ended = queue.SimpleQueue[tuple[float, BaseException | None]]


def _small_integers(kernel: KernelUnderTest, m: int, k: int, n: int, seed: int) -> Operands:
    """Draw operands whose product is exact."""
    return Case(m, k, n, dtype=kernel.dtype, values="small-integers", seed=seed).operands()


def check_earlier_calls(kernel: KernelUnderTest, seconds: float) -> None:
    """Change one element, or exchange two, in the same objects; then take new objects at, probably, the same place."""
    a, b = _small_integers(kernel, *TINY, seed=8)
    kernel.check_exact(a, b, "first call")
    kernel.check_exact(a, b, "the same operands again")
    for name, operand in zip("ab", (a, b), strict=True):
        array = as_array(operand)  # writes through it leave no trace in the tensor's version counter
        for index in np.ndindex(*array.shape):
            array[index] += 1
            kernel.check_exact(a, b, f"the same objects, after {name}[{index[0]}, {index[1]}] += 1")
        array[[0, 1]] = array[[1, 0]]
        kernel.check_exact(a, b, f"the same objects, after an exchange of two rows of {name}")
        operand.copy_(operand.flip(1))
        kernel.check_exact(a, b, f"the same objects, after {name} was reversed")
    for seed in range(12):
        new_a, new_b = _small_integers(kernel, *TINY, seed=seed)
        kernel.check_exact(new_a, new_b, f"new operands of the same shape, seed {seed}")
        kernel.check_exact(a, new_b, f"the same a with a new b, seed {seed}")
        kernel.check_exact(new_a, b, f"a new a with the same b, seed {seed}")
    multiply, setup = parts(kernel.kernel)
    if setup:
        kernel.announce("setup(b)")
        prepared = setup(b)
        again = replace(kernel, kernel=lambda a, _: multiply(a, prepared))
        again.accumulation = kernel.accumulation
        for seed in range(4):
            again.check_exact(
                _small_integers(kernel, *TINY, seed=seed)[0], b, f"a new a, with what setup(b) made, seed {seed}"
            )
        kernel.cases = again.cases
    for size in (24, 65):
        if kernel.pace.predict(size, size, size) > max(seconds, 0.3):
            return
        c, d = _small_integers(kernel, size, size, size, seed=9)
        kernel.check_exact(c, d, f"{size}x{size}x{size}")
        as_array(d)[size // 2, size // 3] += 1
        kernel.check_exact(c, d, f"{size}x{size}x{size}, the same objects, after one element of b += 1")


def check_addresses(kernel: KernelUnderTest) -> None:
    """Multiply the same values at every alignment, and operands that are the same, or lie in the same memory."""

    def moved(operand: torch.Tensor) -> torch.Tensor:
        memory = torch.full((operand.numel() + offset,), filler(kernel.dtype), dtype=operand.dtype)
        return memory[offset:].view(operand.shape).copy_(operand)

    a, b = _small_integers(kernel, *TINY, seed=10)
    for offset in range(17):
        kernel.check_exact(moved(a), moved(b), f"operands {offset} elements into their memory")
    for size in (4, 17):
        x, _ = _small_integers(kernel, size, size, size, seed=12)
        kernel.check_exact(x, x, f"x and x, of {size}x{size}")
        kernel.check_exact(x, x.clone(), f"x and a copy of x, of {size}x{size}")
    for m, n in ((3, 5), (17, 9)):
        x, _ = _small_integers(kernel, m, n, m, seed=13)
        kernel.check_exact(x, x.T, f"x and x.T, of {m}x{n}")
        kernel.check_exact(x.T, x, f"x.T and x, of {m}x{n}")


def check_repetition(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply the same operands many times: errors that move are a race."""
    end = kernel.pace.clock() + seconds
    for size in (9, 65, 129, 200):
        m, k, n = size, size + 1, size - 1
        a, b = _small_integers(kernel, m, k, n, seed=11)
        for _ in range(12):
            if kernel.pace.clock() + kernel.pace.predict(m, k, n) > end:
                break
            kernel.check_exact(a, b, f"{m}x{k}x{n} {kernel.dtype}, again and again")
    a, b = Case(40, 41, 42, dtype=kernel.dtype, seed=11).operands()
    if kernel.pace.clock() + 3 * kernel.pace.predict(40, 40, 40) < end:
        first, *others = (kernel.call(a, b, "40x41x42 normal, repeated") for _ in range(3))
        if any(first.tobytes() != other.tobytes() for other in others):
            kernel.notes.add("two calls with the same operands differ, within the bound")


# --- who asks: results must be the same in a loop that looks like a benchmark's as anywhere else ------


def _gc_off() -> AbstractContextManager[object]:
    leave = ExitStack()
    if gc.isenabled():
        gc.disable()
        leave.callback(gc.enable)
    return leave


# What surrounds a loop: in words; a context; the file and the function that it seems to be in; and whether it has a
# thread of its own, where no frame of verification is below it.
_Circumstance = tuple[str, Callable[[], AbstractContextManager[object]], str, str, bool]
_NO_SIGNALS = "signal only works in main thread of the main interpreter"  # as Python says
_BENCHMARK = ("matmulbench/measurement/worker.py", "run_block")
_TRAINING = ("matmulbench/training/loop.py", "step")
_TIMEIT = ("<timeit-src>", "inner")
_CIRCUMSTANCES: tuple[_Circumstance, ...] = (
    ("garbage collection off, in a thread of its own", _gc_off, *_BENCHMARK, True),
    ("garbage collection off", _gc_off, *_BENCHMARK, False),
    ("in a training's step", nullcontext, *_TRAINING, True),
    ("under torch.no_grad", torch.no_grad, *_TRAINING, False),
    ("in inference mode", torch.inference_mode, *_TIMEIT, False),
    ("in timeit", nullcontext, *_TIMEIT, True),
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


def _check_loop(kernel: KernelUnderTest, sizes: tuple[int, int, int], calls: int, circumstance: _Circumstance) -> float:
    """Check the results of a loop; return the seconds that a call took."""
    pairs = [_small_integers(kernel, *sizes, seed=seed) for seed in range(7)]
    where = f"{calls} calls of {'x'.join(map(str, sizes))} in a timed loop, {circumstance[0]}"
    kernel.announce(where)
    try:
        results, elapsed_s = _run_loop(kernel.kernel, pairs, calls, circumstance)
    except ValueError as error:
        if str(error) != _NO_SIGNALS:
            raise
        kernel.notes.add("it sets handlers of signals, and so works in the main thread alone")
        in_main = (circumstance[0].partition(", in a thread")[0], *circumstance[1:-1], False)
        return _check_loop(kernel, sizes, calls, in_main)
    expected = np.stack([exact_product(as_array(a), as_array(b)) for a, b in pairs])[np.arange(calls) % len(pairs)]
    if any(type(result) is not torch.Tensor or result.shape != expected.shape[1:] for result in results):
        raise kernel.wrong(where, "a result has another type or shape than it had before")
    if len({result.data_ptr() for result in results}) < calls:
        raise kernel.wrong(where, "results of several calls share memory: make a fresh one in each", prop="result")
    got = as_array(torch.stack(results))
    if not (right := got == expected).all():
        call, i, j = (int(index[0]) for index in np.nonzero(~right))
        is_, was = float(got[call, i, j]), float(expected[call, i, j])
        raise kernel.wrong(where, f"in call {call + 1} c[{i}, {j}] is {is_:.9g}, expected {was:.9g}")
    kernel.cases += calls
    return elapsed_s / calls


def _run_loop(
    kernel: Kernel, pairs: list[Operands], calls: int, circumstance: _Circumstance
) -> tuple[list[torch.Tensor], float]:
    """Run a loop that seems to stand in the circumstance's file; return the results of its calls and the seconds."""
    _, context, file, function, in_thread = circumstance
    code = _timed_loop.__code__.replace(co_filename=file, co_name=function, co_qualname=function)
    loop = FunctionType(code, {"__name__": file.removesuffix(".py").replace("/", "."), "__builtins__": builtins})
    results: list[torch.Tensor] = []
    ended: Ended = queue.SimpleQueue()
    arguments = (kernel, pairs, calls, time.perf_counter, results, ended)
    with context():
        if in_thread:
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
