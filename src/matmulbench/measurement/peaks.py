"""The child's side of the roof: what this machine reaches in registers, from memory, and with calls that do nothing."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from matmulbench.measurement.fma import flop_per_iteration, run_fma
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.worker import time_calls
from matmulbench.results.machine import cache_bytes
from matmulbench.workload import ITEMSIZE

_CACHES, _FEWEST_BYTES, _MOST_BYTES = 4, 2**26, 2**28  # each array of the stream: so many last caches, from, to


def measure_roof(dtype: str, threads: int) -> dict[str, Any]:
    """Measure the roof in this process, some tenths of a second; returns the fields of :class:`Roof`."""
    return asdict(Roof(dtype, threads, _fma_gflops(dtype, threads), _bandwidth_gbs(dtype), *_call_costs_s()))


def _fma_gflops(dtype: str, threads: int) -> float:
    x = np.dtype(dtype).type(1e-9)
    flop = flop_per_iteration(8 * ITEMSIZE[dtype]) * threads
    iterations = 1_000
    run_fma(threads, iterations, x)  # compiles

    def seconds() -> float:
        start = perf_counter()
        run_fma(threads, iterations, x)
        return perf_counter() - start

    while seconds() < 0.002:
        iterations *= 2
    # The fastest: a roof is what the machine can do, and noise only ever slows it down.
    return flop * iterations / min(seconds() for _ in range(60)) / 1e9


def _bandwidth_gbs(dtype: str) -> float:
    """Return the best of reading alone, copying and the triad (McCalpin's STREAM, without write-allocate traffic)."""
    element = getattr(torch, dtype)
    size = min(max(_FEWEST_BYTES, _CACHES * (cache_bytes(3) or 0)), _MOST_BYTES)
    x, y, z = (torch.ones(size // ITEMSIZE[dtype], dtype=element) for _ in range(3))
    ways = [
        (2, lambda: torch.dot(x, y)),
        (2, lambda: z.copy_(x)),
        (3, lambda: torch.add(x, y, alpha=2.0, out=z)),
    ]

    def rate(arrays: int, way: Any) -> float:
        times = []
        for _ in range(4):
            start = perf_counter()
            way()
            times.append(perf_counter() - start)
        return arrays * size / min(times) / 1e9

    return max(rate(arrays, way) for arrays, way in ways)


def _call_costs_s() -> tuple[float, float]:
    """Time a kernel that does nothing, and one that only goes to numpy and back."""
    a = b = torch.empty(2, 2)

    def nothing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a

    def conversion(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.numpy()
        return torch.from_numpy(b.numpy())

    floor, there_and_back = (median(time_calls(way, a, b, 1_000) for _ in range(20)) for way in (nothing, conversion))
    return floor, there_and_back - floor
