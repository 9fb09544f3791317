"""The ladder under airspeed velocity: the same kernels and workloads as the package's own.

There is no ``setup()``: asv would then time one call at a time, and a product of a few microseconds needs batches.
Operands are made once per process instead, at the first call, which asv's warm-up takes outside the clock.

Rates and ratios come from the package's own paired rounds, held once in ``setup_cache``: asv times kernels one after
the other, which is no way to compare them on a noisy machine.
"""

from functools import cache

from asv_runner.benchmarks.mark import SkipNotImplemented

from matmulbench.ladder import LADDER
from matmulbench.workload import PRESETS, Workload

KERNELS = [rung.name for rung in LADDER]
WORKLOADS = [str(workload) for workload in PRESETS["quick"]]
LONGEST_S = 0.5


@cache
def prepared(workload, kernel):
    # Imported here: the processes that only read the cache need no torch.
    from matmulbench.ladder.plugins import load_kernel
    from matmulbench.measurement.cost import learn_cost

    whole = Workload.parse(workload)
    try:
        function = load_kernel(kernel)
    except ImportError as error:
        raise SkipNotImplemented(f"{kernel} is not to be had: {error}") from error
    cost = learn_cost(function, whole, LONGEST_S, Workload.operands)
    if cost.full_s > cost.call_s:
        raise SkipNotImplemented(f"{kernel} would take about {cost.full_s:.0f} s on {workload}")
    return function, *whole.operands()


class Calls:
    """Wall time and memory of single kernels, as asv takes them."""

    params = (WORKLOADS, KERNELS)
    param_names = ("workload", "kernel")
    rounds = 1
    repeat = (3, 30, 0.5)
    sample_time = 0.004
    warmup_time = 0.02

    def time_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)

    def peakmem_matmul(self, workload, kernel):
        function, a, b = prepared(workload, kernel)
        function(a, b)


class Rounds:
    """Rates and ratios of all kernels, paired with the baseline in randomised rounds."""

    params = (WORKLOADS, KERNELS)
    param_names = ("workload", "kernel")
    timeout = 300

    def setup_cache(self):
        import matmulbench

        measured = matmulbench.measure(KERNELS, WORKLOADS, budget_s=4)
        verified = matmulbench.verify(KERNELS, dtypes=["float32"], effort="quick")
        figures = {(row.workload, row.kernel): row._asdict() for row in measured.itertuples()}
        residuals = dict(zip(verified["kernel"], verified["residual"], strict=True))
        return figures, residuals

    def _figure(self, cached, workload, kernel, column):
        row = cached[0][workload, kernel]
        if row["status"] != "ok":
            raise SkipNotImplemented(f"{kernel}: {row['status']}: {row['reason']}")
        return row[column]

    def track_gflops(self, cached, workload, kernel):
        return self._figure(cached, workload, kernel, "gflops")

    def track_roof_percent(self, cached, workload, kernel):
        return self._figure(cached, workload, kernel, "roof_percent")

    def track_speedup(self, cached, workload, kernel):
        return self._figure(cached, workload, kernel, "speedup")

    track_gflops.unit = "GFLOP/s"
    track_roof_percent.unit = "% of roof"
    track_speedup.unit = "x torch"


class Verification:
    """The largest rounding error found, in units of its bound."""

    params = (KERNELS,)
    param_names = ("kernel",)
    timeout = 300
    setup_cache = Rounds.setup_cache

    def track_residual(self, cached, kernel):
        return cached[1][kernel]

    track_residual.unit = "k·u·(|A||B|)"
