"""The child's side of the roof: what this machine reaches in registers, from memory, and in calls that do nothing."""

from __future__ import annotations

from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matmulbench.dtypes import DTYPES
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.measurement.bandwidth import measure_levels
from matmulbench.measurement.fma import dot_instruction, dot_loop, flop_per_iteration, run_fma
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.worker import time_calls
from matmulbench.workload import Workload

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel


def measure_roof(dtype: str, threads: int) -> dict[str, Any]:
    """Measure the roof in this process, about a second; returns the fields of :class:`Roof`."""
    peak = _library_gflops(dtype) if DTYPES[dtype].is_narrow else 0.0
    peak = max(peak, _fma_gflops(dtype, threads))
    return asdict(Roof(dtype, threads, peak, measure_levels(threads), *_call_costs_s()))


def _library_gflops(dtype: str) -> float:
    """Return what torch reaches with operands in the caches: it may know instructions that no loop here has."""
    workload = Workload(1024, 1024, 1024, dtype=dtype)
    a, b = workload.operands()
    calls_s = [time_calls(matmul, a, b, 1)]
    while sum(calls_s) < 0.3:  # once, where torch has no quick product: then it is no roof
        calls_s.append(time_calls(matmul, a, b, 1))
    return workload.flop / min(calls_s) / 1e9


def _fma_gflops(dtype: str, threads: int) -> float:
    """Return the rate of FMAs in registers; of narrow numbers, of the instruction for them or else of float32's."""
    run: Any = run_fma
    flop = flop_per_iteration(8 * max(4, DTYPES[dtype].itemsize)) * threads
    if found := dot_instruction(dtype):
        instruction, products = found
        run, flop = dot_loop(instruction), flop * products
    x = np.float64(1e-9) if dtype == "float64" else np.float32(1e-9)
    iterations = 1_000
    run(threads, iterations, x)  # compiles

    def seconds() -> float:
        start = perf_counter()
        run(threads, iterations, x)
        return perf_counter() - start

    while min(seconds() for _ in range(3)) < 0.002:
        iterations *= 2
    # The fastest: a roof is what the machine can do, and noise only ever slows it down.
    return flop * iterations / min(seconds() for _ in range(60)) / 1e9


def _call_costs_s() -> tuple[float, float]:
    """Time a kernel that only makes a tensor, which every kernel must, and one that only goes to numpy and back."""
    a = b = torch.empty(2, 2)

    def conversion(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.numpy()
        return torch.from_numpy(b.numpy())

    def call_s(kernel: Kernel) -> float:
        return min(time_calls(kernel, a, b, 5_000) for _ in range(20))

    # Memory for it may come from anywhere; to wrap it costs this at least.
    return call_s(lambda a, b: a.detach()), call_s(conversion) - call_s(lambda a, b: a)
