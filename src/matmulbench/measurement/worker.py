"""The child's side of measuring: one kernel, blocks of calls, and the clock around them."""

from __future__ import annotations

import gc
import math
import mmap
import os
import tempfile
from collections import deque
from dataclasses import asdict, dataclass, field
from itertools import repeat
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch

from matmulbench import isolation
from matmulbench.dtypes import DTYPES, declared_accumulation
from matmulbench.ladder.devices import DEVICES, on_device, unmirrored
from matmulbench.ladder.plugins import load_kernel, over_batches, parts
from matmulbench.measurement.cost import learn_cost
from matmulbench.measurement.eviction import evict
from matmulbench.measurement.operands import SharedOperands
from matmulbench.measurement.stopwatch import Timer
from matmulbench.verification.state import note_settings
from matmulbench.workload import Workload

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel


@dataclass
class _Bench:
    """What this process holds: a kernel, the operands, and the block in hand."""

    kernel: Any
    setup: Any
    timer: Timer
    operands: SharedOperands
    output: mmap.mmap
    problem: Workload
    results: deque[torch.Tensor] = field(default_factory=deque)


_benches: list[_Bench] = []


def open_workload(spec: str, workload: Workload, windows: int, device: str, descriptors: list[int]) -> str | None:
    """Load the kernel, the first time, map operands and output, and return in which dtype the kernel says it adds."""
    if not _benches:
        kernel: Any = on_device(load_kernel(spec), device)
        timer = Timer(DEVICES[device])
        only_between_turns()
        note_settings()
    else:
        kernel, timer = _benches[0].kernel, _benches[0].timer
    if workload.batch > 1:
        kernel = over_batches(kernel)
    plain, setup = parts(kernel)
    operands = SharedOperands(workload, windows, descriptors[0], device=timer.device)
    output = mmap.mmap(descriptors[1], 0)
    os.close(descriptors[1])
    _benches[:] = [_Bench(plain, setup, timer, operands, output, workload)]
    return declared_accumulation(plain, workload.dtype)


def learn_cost_here(limit_s: float | None) -> dict[str, Any]:
    """Learn what a call costs; see :func:`~matmulbench.measurement.cost.learn_cost`."""
    bench = _benches[0]

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = bench.kernel(a, bench.setup(b) if bench.setup else b)
        bench.timer.drain()
        return result

    def operands(problem: Workload) -> tuple[torch.Tensor, torch.Tensor]:
        isolation.send(f"learn what {problem} costs")
        return bench.operands.window(0, problem, 0, False), bench.operands.window(1, problem, 1, False)

    limit, plain = inf if limit_s is None else limit_s, not (bench.setup or bench.timer.device)
    return asdict(learn_cost(bench.kernel if plain else kernel, bench.operands.workload, limit, operands))


def run_block(problem: Workload, left: list[int], right: list[int], seen: bool, cold: bool) -> list[float | None]:
    """Warm up on operands in the windows ``left`` and ``right``, then make a block of calls on others.

    In which windows these are is told after the last call that is not timed: a kernel that knew them would work ahead.
    Returns what :meth:`~matmulbench.measurement.stopwatch.Stopwatch.stop` does, how many results there are, and the
    seconds that ``setup`` took, if the kernel has one: it prepares one b, the first of ``right``, for all calls.
    """
    bench, timer = _benches[0], _benches[0].timer
    kernel = bench.kernel
    timer.begin_turn()
    bench.operands.refresh()
    bench.results.clear()
    bench.problem = problem
    lefts, rights = bench.operands.pairs(problem, [left, right], seen)
    setup_s, prepared = None, torch.empty(0)
    if bench.setup:
        start = perf_counter()
        prepared = bench.setup(rights[0])
        timer.drain()
        setup_s = perf_counter() - start
        rights = [prepared] * len(rights)
    deque(map(kernel, lefts, rights), maxlen=0)
    gc.collect(1)  # what is older was there before
    windows = np.frombuffer(isolation.wait_for_go(), np.uint32).reshape(2, -1).tolist()
    lefts, rights = bench.operands.pairs(problem, windows, seen)
    if bench.setup:
        rights = [prepared] * len(lefts)
    if cold and timer.device:
        timer.device.flush()
    elif cold:
        evict([lefts, rights])
    timer.drain()
    isolation.wait_for_go()
    stopwatch = timer.start()
    bench.results = deque(map(kernel, lefts, rights))  # every call from one place; all results are kept
    return [*stopwatch.stop(), len(bench.results), setup_s]


def commit_block() -> str | None:
    """Write the block's results into the shared output; return what is wrong with the form of one, if anything."""
    bench = _benches[0]
    shape, dtype = bench.operands.result_shape(bench.problem), getattr(torch, DTYPES[bench.problem.dtype].result)
    for number, result in enumerate(bench.results, 1):
        if type(result) is not torch.Tensor or tuple(result.shape) != shape or result.dtype != dtype:
            form = f"{tuple(result.shape)} of {result.dtype}" if isinstance(result, torch.Tensor) else type(result)
            return f"result {number} is {form}, expected {shape} of {dtype}"
    count = len(bench.results)
    output = torch.frombuffer(bench.output, dtype=dtype, count=count * math.prod(shape)).reshape(count, *shape)
    if bench.timer.device:
        output.copy_(torch.stack(list(bench.results)))
    else:
        torch.stack(list(bench.results), out=output)
    return None


def only_between_turns() -> None:
    """Collect no garbage from now on but before a turn: it would be charged to whoever's turn it is."""
    gc.freeze()
    gc.disable()


def wait_for_turn() -> None:
    """Collect garbage, then wait for the word; the clock starts next."""
    gc.collect(1)  # what is older was there before
    isolation.wait_for_go()


def time_calls(kernel: Kernel, a: torch.Tensor, b: torch.Tensor, calls: int) -> float:
    """Return the seconds per call of ``calls`` calls in a row, for functions that need not be watched."""
    start = perf_counter()
    deque(map(kernel, repeat(a, calls), repeat(b, calls)), maxlen=0)
    return (perf_counter() - start) / calls


def compile_seconds(spec: str, dtype: str) -> float:
    """Return by how many seconds the first call of ``spec`` exceeds the second, in a process that never saw it."""
    with tempfile.TemporaryDirectory() as empty:
        numba.config.CACHE_DIR = empty  # type: ignore[attr-defined]  # set by numba at run time
        os.environ["TRITON_CACHE_DIR"] = empty
        kernel: Any = load_kernel(spec)
        if unmirrored(kernel):  # to make the device ready is not its affair
            Timer(DEVICES[kernel.device])
        a, b = Workload(8, 8, 8, dtype=dtype).operands()

        def call_s() -> float:
            start = perf_counter()
            kernel(a, b)
            return perf_counter() - start

        first = call_s()
        return max(0.0, first - min(call_s() for _ in range(3)))
