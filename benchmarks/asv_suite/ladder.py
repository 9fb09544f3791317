"""The ladder under airspeed velocity: the same kernels and workloads as the package's own.

There is no ``setup()``: asv would then time one call at a time, and a product of a few microseconds needs batches.
Operands are made once per process instead, at the first call, which asv's warm-up takes outside the clock.
"""

from functools import cache

from asv_runner.benchmarks.mark import SkipNotImplemented

from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import load_kernel
from matmulbench.measurement.clock import calls_per_block, time_block
from matmulbench.measurement.cost import learn_cost
from matmulbench.verification.bounds import judge
from matmulbench.workload import PRESETS, Workload

KERNELS = [rung.name for rung in LADDER]
WORKLOADS = [str(workload) for workload in PRESETS["quick"]]
LONGEST_S = 0.5


@cache
def prepared(workload, kernel):
    whole = Workload.parse(workload)
    try:
        function = load_kernel(kernel)
    except ImportError as error:
        raise SkipNotImplemented(f"{kernel} is not to be had: {error}") from error
    cost = learn_cost(function, whole, LONGEST_S, Workload.operands)
    if cost.full_s > cost.call_s:
        raise SkipNotImplemented(f"{kernel} would take about {cost.full_s:.0f} s on {workload}")
    return function, *whole.operands()


class Ladder:
    params = (WORKLOADS, KERNELS)
    param_names = ("workload", "kernel")
    rounds = 2
    repeat = (2, 20, 0.5)
    sample_time = 0.004
    warmup_time = 0.02

    def time_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)

    def peakmem_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)

    def track_gflops(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        calls = calls_per_block(time_block(function, a, b, 1)[0])
        seconds = min(time_block(function, a, b, calls)[0] for _ in range(10))
        return Workload.parse(workload).flop / seconds / 1e9

    track_gflops.unit = "GFLOP/s"

    def track_residual(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        return judge(a.numpy(), b.numpy(), function(a, b).numpy()).residual

    track_residual.unit = "k·u·(|A||B|)"
