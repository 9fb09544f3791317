"""The child's side of the roof: what this machine reaches in registers, from memory, and in calls that do nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matmulbench.dtypes import DTYPES
from matmulbench.ladder.devices import DEVICES, Device
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.measurement.bandwidth import measure_levels
from matmulbench.measurement.fma import dot_instruction, flop_per_iteration, make_loop
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.stopwatch import Timer
from matmulbench.measurement.worker import time_calls
from matmulbench.results.schema import Level
from matmulbench.workload import Workload

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel

# Of products on a device: blocks of each, of which the fastest counts, up to which time and side they grow.
_BLOCKS, _LONG_S, _LARGEST = 8, 0.02, 8192


def measure_roof(dtype: str, threads: int, device: str) -> dict[str, Any]:
    """Measure the roof in this process, about a second; returns the fields of :class:`Roof`."""
    if there := DEVICES[device]:
        return asdict(_roof_on(there, dtype, threads, device))
    peak = max(_library_gflops(dtype), _fma_gflops(dtype, threads))
    return asdict(Roof(dtype, threads, peak, measure_levels(threads), *_call_costs_s()))


def _roof_on(device: Device, dtype: str, threads: int, name: str) -> Roof:
    """Measure what torch reaches on a device: large products, copies and maxima in its cache and beyond, a launch."""
    device.require()
    timer = Timer(device)

    def least_s(work: Callable[[], object], calls: int = 4) -> float:
        """Return the seconds of the fastest call of some blocks."""
        blocks = []
        for _ in range(_BLOCKS):
            timer.drain()
            watch = timer.start()
            for _ in range(calls):
                work()
            blocks.append(watch.stop()[2] / calls)
        return min(blocks)

    peak, sides = 0.0, [1024]
    for side in sides:
        a, b = (x.to(device.place) for x in Workload(side, side, side, dtype=dtype).operands(seed=None))
        product = torch._int_mm if DTYPES[dtype].is_integer else torch.matmul
        seconds = least_s(partial(product, a, b))
        peak = max(peak, 2 * side**3 / seconds / 1e9)
        if seconds < _LONG_S and side < _LARGEST:
            sides.append(2 * side)
    levels: list[Level] = []
    for level, size, held, times in (
        ("DRAM", 4 * device.cache_bytes, None, 1),
        ("L2", device.cache_bytes // 4, device.cache_bytes, 64),  # so often that the launch hardly counts
    ):
        x = torch.ones(size // 4, device=device.place)
        y = torch.empty_like(x)
        reading = times * size / least_s(partial(torch.amax, x.expand(times, -1), 1))
        copying = 2 * size / least_s(partial(y.copy_, x))
        gbs = max(reading / 1e9, copying / 1e9, *(level.gbs for level in levels))
        levels.insert(0, Level(level, held, gbs, gbs))
    tiny = torch.empty(1, device=device.place)
    return Roof(dtype, threads, peak, tuple(levels), least_s(tiny.zero_, 1_000), device=name)


def _library_gflops(dtype: str) -> float:
    """Return what torch reaches with operands in the caches: it may know instructions that no loop here has.

    Those are for narrow numbers, or of a unit for matrices, which on Apple's processors does float32 and float64, too.
    """
    workload = Workload(1024, 1024, 1024, dtype=dtype)
    a, b = workload.operands()
    calls_s = [time_calls(matmul, a, b, 1)]
    while sum(calls_s) < 0.3:  # once, where torch has no quick product: then it is no roof
        calls_s.append(time_calls(matmul, a, b, 1))
    return workload.flop / min(calls_s) / 1e9


def _fma_gflops(dtype: str, threads: int) -> float:
    """Return the rate of FMAs in registers; of narrow numbers, of the instruction for them or else of float32's."""
    instruction, products = dot_instruction(dtype) or ("", 1)
    run = make_loop(instruction)
    flop = flop_per_iteration(8 * max(4, DTYPES[dtype].itemsize)) * threads * products
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
