"""The ladder under airspeed velocity: the same kernels and workloads as the package's own.

There is no ``setup()``: asv would then time one call at a time, and a product of a few microseconds needs batches.
Operands are made once per process instead, at the first call, which the warm-up must outlast: asv would else take that
call's time for the product's, and one call for enough.

Rates and ratios come from the package's own paired rounds and trainings, held once in a ``setup_cache``: asv times
kernels one after the other, which is no way to compare them on a noisy machine.
"""

import os
from contextlib import suppress
from functools import cache

from asv_runner.benchmarks.mark import SkipNotImplemented

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.ladder.plugins import load_kernel
from matmulbench.measurement.cost import learn_cost
from matmulbench.workload import PRESETS, Workload

# Commits are compared: what takes part must not hang on what happens to be installed, so others' kernels are named.
KERNELS = [rung.name for rung in LADDER] + os.environ.get("MATMULBENCH_KERNELS", "").split()
WORKLOADS = [str(workload) for workload in PRESETS["quick"]]
LONGEST_S = 1.0
TASK = "breast-cancer"

# asv's server imports this file once and forks it for each benchmark: what is heavy is loaded here, not hundreds of
# times. Whoever cannot be loaded is skipped with the reason, later.
for each in KERNELS:
    with suppress(Exception):
        load_kernel(each)(*Workload(1, 1, 1).operands())  # a first call loads what was compiled


@cache
def prepared(workload, kernel):
    whole = Workload.parse(workload)
    try:
        function = load_kernel(kernel)
    except (ImportError, UsageError) as error:
        raise SkipNotImplemented(f"{kernel} is not to be had: {error}") from error
    cost = learn_cost(function, whole, LONGEST_S, Workload.operands)
    if cost.full_s > cost.call_s:
        raise SkipNotImplemented(f"{kernel} would take about {cost.full_s:.0f} s on {workload}")
    return function, *whole.operands()


def figure(row, column):
    """Return a row's figure, or skip with the reason why there is none."""
    if row["status"] != "ok":
        raise SkipNotImplemented(f"{row['kernel']}: {row['status']}: {row['reason']}")
    if row[column] is None or row[column] != row[column]:
        raise SkipNotImplemented(f"{row['kernel']} is too slow to be timed in pairs")
    return row[column]


class Calls:
    """Wall time and memory of single kernels, as asv takes them."""

    params = (WORKLOADS, KERNELS)
    param_names = ("workload", "kernel")
    rounds = 2  # commits that are compared take turns
    repeat = (3, 15, 0.25)
    sample_time = 0.004
    warmup_time = 1.0

    def time_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)

    def peakmem_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)

    time_matmul.pretty_name = "Time of one product"
    peakmem_matmul.pretty_name = "Peak memory of a process that makes one product"


class Rounds:
    """Rates and ratios of all kernels, paired with the baseline in randomised rounds."""

    params = (WORKLOADS, KERNELS)
    param_names = ("workload", "kernel")

    def setup_cache(self):
        import matmulbench

        measured = matmulbench.measure(KERNELS, WORKLOADS, budget_s=4)
        return {(row["workload"], row["kernel"]): row for row in measured.to_dict("records")}

    setup_cache.timeout = 300

    def track_gflops(self, cached, workload, kernel):
        return figure(cached[workload, kernel], "gflops")

    def track_roof_percent(self, cached, workload, kernel):
        return figure(cached[workload, kernel], "roof_percent")

    def track_speedup(self, cached, workload, kernel):
        return figure(cached[workload, kernel], "speedup")

    track_gflops.unit, track_gflops.pretty_name = "GFLOP/s", "Rate of one product"
    track_roof_percent.unit, track_roof_percent.pretty_name = "% of roof", "Share of the machine's roof"
    track_speedup.unit, track_speedup.pretty_name = "x torch", "Speedup of one product against torch"


class Verification:
    """The largest rounding error found, in units of its bound."""

    params = (KERNELS,)
    param_names = ("kernel",)

    def setup_cache(self):
        import matmulbench

        verified = matmulbench.verify(KERNELS, dtypes=["float32"], effort="quick")
        return {row["kernel"]: {**row, "reason": row["finding"]} for row in verified.to_dict("records")}

    setup_cache.timeout = 300

    def track_residual(self, cached, kernel):
        return figure(cached[kernel], "residual")

    track_residual.unit, track_residual.pretty_name = "k·u·(|A||B|)", "Largest rounding error, in units of its bound"


class Training:
    """What a kernel buys a training step, paired with the baseline's."""

    params = ([TASK], KERNELS)
    param_names = ("task", "kernel")

    def setup_cache(self):
        import matmulbench

        trained = matmulbench.train(TASK, KERNELS, budget_s=12)
        return {(row["task"], row["kernel"]): row for row in trained.to_dict("records")}

    setup_cache.timeout = 300

    def track_step_speedup(self, cached, task, kernel):
        return figure(cached[task, kernel], "measured_speedup")

    track_step_speedup.unit, track_step_speedup.pretty_name = "x torch", "Speedup of a training step against torch"
