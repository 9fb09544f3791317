"""What a product will cost with a kernel, foretold from smaller ones.

A slow kernel must not be met unprepared: one step of the triple loop may take a minute, or half a day.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from matmulbench.ladder import Kernel
from matmulbench.workload import Workload

_ENOUGH = 10e-3
_GROWTH = 4
_LARGE = 32 * 2**20  # bytes; beyond, making the operands would take longer than the product
# The inner size grows first, for a kernel that does whole rows or columns at once hardly feels it; but not to its
# end, for in a long thin product a BLAS waits for memory. After a few thousand every kernel's cost is linear in it.
_LONG = 4096


def predict_seconds(kernel: Kernel, workload: Workload) -> float:
    """Return about how many seconds ``kernel`` takes for ``workload``, after some ten milliseconds of trying.

    A product of 2x2x2 grows to the workload's size, one axis after the other, until it takes long enough to
    be timed; what is then left to grow is taken to cost in proportion. The first call is not timed: in it a
    kernel may compile.
    """
    small = replace(workload, m=min(2, workload.m), k=min(2, workload.k), n=min(2, workload.n))
    _time(kernel, small)
    for axis, limit in (
        ("k", min(_LONG, workload.k)),
        ("n", workload.n),
        ("m", workload.m),
        ("k", workload.k),
    ):
        while (size := getattr(small, axis)) < limit:
            seconds = _time(kernel, small)
            if seconds > _ENOUGH or small.bytes > _LARGE:
                return seconds * workload.flop / small.flop
            small = replace(small, **{axis: min(_GROWTH * size, limit)})
    return min(_time(kernel, small) for _ in range(2))


def _time(kernel: Kernel, workload: Workload) -> float:
    a, b = _ones(workload.m, workload.k, workload), _ones(workload.k, workload.n, workload)
    if workload.layout == "TN":
        a = _ones(workload.k, workload.m, workload).t()
    if workload.layout == "NT":
        b = _ones(workload.n, workload.k, workload).t()
    start = time.perf_counter()
    kernel(a, b)
    return time.perf_counter() - start


def _ones(rows: int, columns: int, workload: Workload) -> torch.Tensor:
    # Ones, for random numbers take longer to draw than many kernels take to multiply them.
    return torch.ones(rows, columns, dtype=getattr(torch, workload.dtype))
