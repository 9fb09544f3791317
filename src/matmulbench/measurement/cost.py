"""What a call costs in time and memory, learnt from small sub-problems before the whole is dared."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import psutil

from matmulbench.measurement.stopwatch import Stopwatch
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import torch

    from matmulbench.ladder import Kernel

MakeOperands = Callable[[Workload], tuple["torch.Tensor", "torch.Tensor"]]

_GROWTH = 4
# k grows first, for a kernel that does whole rows or columns at once hardly feels it; but not to its end, for in a long
# thin product a BLAS waits for memory. After a few thousand every kernel's cost is linear in it.
_LONG = 4096
_ALLOCATOR_NOISE = 2**22
_SHORT_S, _TRIES = 0.01, 5  # a call that is shorter says little: it may have waited for memory, or for a thread


@dataclass(frozen=True)
class Cost:
    """What was learnt of a kernel on a workload.

    Attributes
    ----------
    workload
        the largest sub-problem whose call stays within the limit; the workload itself, where that does.
    smaller
        a quarter of it, along the same size; the two together tell a fixed cost from one that grows.
    call_s
        seconds of one call of ``workload``.
    full_s
        predicted seconds of one call of the whole.
    workspace_bytes
        predicted memory that the whole takes beyond its operands.
    """

    workload: Workload
    smaller: Workload
    call_s: float
    full_s: float
    workspace_bytes: int


class NotEnoughMemoryError(MemoryError):
    """A kernel would take more memory than the machine has free."""


def sub_problems(whole: Workload) -> Iterator[tuple[Workload, Workload]]:
    """Yield ever larger sub-problems of ``whole``, each with the one it grew from.

    First k grows to some thousands, then n, then m, then what is left of k, then the batch: the sub-problem that is
    timed in place of a slow whole should be fewer of the batch's products, or have fewer rows, and nothing else
    changed, if that is possible.
    """
    current = replace(whole, m=1, k=min(8, whole.k), n=min(2, whole.n), batch=1)
    yield current, current
    limits = (("k", min(_LONG, whole.k)), ("n", whole.n), ("m", whole.m), ("k", whole.k), ("batch", whole.batch))
    for size, limit in limits:
        while getattr(current, size) < limit:
            grown = replace(current, **{size: min(limit, _GROWTH * getattr(current, size))})
            yield grown, current
            current = grown


def learn_cost(
    kernel: Kernel, whole: Workload, limit_s: float, operands: MakeOperands, largest_bytes: float = inf
) -> Cost:
    """Call ``kernel`` on ever larger sub-problems until a call would exceed ``limit_s`` seconds.

    ``operands`` makes those of a sub-problem; beyond ``largest_bytes`` of them no larger ones are made.

    Raises
    ------
    NotEnoughMemoryError
        if the whole is predicted to need more memory than is free; nothing of that size is tried.
    """
    reached = smaller = whole
    seconds, extra = 0.0, 0
    for problem, previous in sub_problems(whole):
        growth = problem.flop / previous.flop
        if seconds * growth > limit_s or (seconds and problem.bytes > largest_bytes):
            break
        _refuse_beyond_free_memory(int(extra * growth), problem)
        a, b = operands(problem)
        if not seconds:
            kernel(a, b)  # compiles, loads and initialises
        expected = seconds * growth
        seconds, extra = _watch(kernel, a, b)
        for _ in range(_TRIES):
            if seconds <= 2 * (expected or _SHORT_S):
                break
            # Compiled for another layout, perhaps, or kept from the core: another call tells.
            seconds, extra = min((seconds, extra), _watch(kernel, a, b))
        reached, smaller = problem, previous
    ratio = whole.flop / reached.flop
    workspace_bytes = int(extra * ratio)
    _refuse_beyond_free_memory(workspace_bytes, whole)
    return Cost(reached, smaller, seconds, seconds * ratio, workspace_bytes)


def _watch(kernel: Kernel, a: torch.Tensor, b: torch.Tensor) -> tuple[float, int]:
    """Return the seconds of one call, the best of some if it is short, and the bytes it took beside its operands."""

    def call_s() -> float:
        stopwatch = Stopwatch()
        kernel(a, b)
        return stopwatch.stop()[2]

    before = _forget_peak()
    seconds = call_s()
    taken = _peak_since(before)
    if seconds < _SHORT_S:
        seconds = min(seconds, *(call_s() for _ in range(_TRIES - 1)))
    return seconds, taken if taken > _ALLOCATOR_NOISE else 0


def extrapolate(cost: Cost, whole: Workload, smaller_s: float, reached_s: float) -> float:
    """Predict seconds of one call of ``whole`` from a call of ``cost.smaller`` and one of ``cost.workload``.

    Linear, with the fixed cost that the two reveal, along the one size in which they differ; proportional in the
    sizes that have not begun to grow.
    """
    reached, smaller = cost.workload, cost.smaller
    grown = next((size for size in ("batch", "m", "n", "k") if getattr(reached, size) != getattr(smaller, size)), "m")
    x1, x2, x = (int(getattr(problem, grown)) for problem in (smaller, reached, whole))
    slope = (reached_s - smaller_s) / (x2 - x1) if x2 > x1 else reached_s / x2
    # A slope beyond proportion would mean a negative fixed cost: noise.
    slope = min(max(slope, 0.0), reached_s / x2)
    others = whole.flop / reached.flop * x2 / x
    return (reached_s + slope * (x - x2)) * others


def _refuse_beyond_free_memory(needed: int, problem: Workload) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise NotEnoughMemoryError(f"{problem} would take {needed:,} bytes beside its operands, {free:,} are free")


def _forget_peak() -> int:
    """Let :func:`_peak_since` count from now; return the bytes held now (Linux; elsewhere 0)."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not serve again unseen
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # the peak starts again from here: proc(5)
        return _status("VmRSS")
    return 0


def _peak_since(before: int) -> int:
    """Return how many bytes beyond ``before``, which :func:`_forget_peak` gave, were held at most (elsewhere 0)."""
    return max(0, _status("VmHWM") - before) if before else 0


def _status(field: str) -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
