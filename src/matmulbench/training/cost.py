"""What a product will cost with a kernel, foretold from smaller ones: a slow kernel must not be met unprepared."""

from __future__ import annotations

import time
from dataclasses import replace

from matmulbench.ladder import Kernel
from matmulbench.workload import Workload

_ENOUGH = 2e-3
_GROWTH = 4
# The inner size grows first and the rows last: the cost of any kernel is proportional to its rows, while one that
# does whole rows or columns at once hardly feels the inner size.
_AXES = ("k", "n", "m")


def predict_seconds(kernel: Kernel, workload: Workload) -> float:
    """Return about how many seconds ``kernel`` takes for ``workload``, after a few milliseconds of trying.

    A product of 2x2x2 grows to the workload's size, one axis after the other, until it takes long enough to be
    timed; what is then left to grow is taken to cost in proportion. The first, untimed call lets a kernel compile.
    """
    small = replace(workload, m=min(2, workload.m), k=min(2, workload.k), n=min(2, workload.n))
    _time(kernel, small)
    for axis in _AXES:
        while getattr(small, axis) < getattr(workload, axis):
            seconds = _time(kernel, small)
            if seconds > _ENOUGH:
                return seconds * workload.flop / small.flop
            grown = min(_GROWTH * getattr(small, axis), getattr(workload, axis))
            small = replace(small, **{axis: grown})
    return min(_time(kernel, small) for _ in range(2))


def _time(kernel: Kernel, workload: Workload) -> float:
    a, b = workload.operands()
    start = time.perf_counter()
    kernel(a, b)
    return time.perf_counter() - start
