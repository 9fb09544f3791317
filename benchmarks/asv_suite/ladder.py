"""The ladder under airspeed velocity: what the package's own pipeline measures, tracked over commits.

asv takes no time itself. It runs one benchmark after the other, which is no way to compare kernels on a noisy machine;
and what :func:`matmulbench.measure` gives was verified first. Everything tracked grows as it gets worse, which is how
asv takes it. A ``setup_cache`` measures all that the benchmarks of its class show.
"""

import os

from asv_runner.benchmarks.mark import SkipNotImplemented

import matmulbench
from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.ladder import LADDER
from matmulbench.workload import MNIST_LAYERS, MNIST_ROWS, PRESETS, layer_products

# Commits are compared: what takes part must not hang on what happens to be installed, so others' kernels are named.
KERNELS = [rung.name for rung in LADDER] + os.environ.get("MATMULBENCH_KERNELS", "").split()
SMALL = [str(workload) for workload in PRESETS["quick"]]
LAYERS = [str(workload) for _, _, workload in layer_products(MNIST_ROWS, MNIST_LAYERS)]
NARROW = [dtype for dtype in DTYPES if dtype not in USUAL]
BUDGET_S = 9  # for each workload: the triple loop is timed whole on the first
TASK = "breast-cancer"


def by_cell(frame, *columns):
    return {tuple(row[column] for column in columns): row for row in frame.to_dict("records")}


def figure(rows, cell, column):
    """Return a figure of a cell, or skip it; asv shows the reason where it is asked for --show-stderr."""
    row = rows.get(cell)
    if row is None:
        reason = "left out, for it is too slow for the budget"
    elif row["status"] != "ok":
        reason = f"{row['status']}: {row.get('reason', row.get('finding'))}"
    elif row.get("extrapolated"):
        reason = "too slow to be timed whole"
    elif row[column] != row[column]:
        reason = f"no {column}: {row['reason']}"
    else:
        return row[column]
    print(f"{' with '.join(cell)}: {reason}")
    raise SkipNotImplemented(reason)


class _Rounds:
    def track_time(self, rows, workload, kernel):
        return figure(rows, (workload, kernel), "median_s")

    def track_against_torch(self, rows, workload, kernel):
        return round(1 / figure(rows, (workload, kernel), "speedup"), 4)

    track_time.unit, track_time.pretty_name = "seconds", "Time of one product"
    track_against_torch.unit, track_against_torch.pretty_name = "x torch's", "Time of one product against torch's"


class Small(_Rounds):
    """The quick preset's products."""

    params, param_names = (SMALL, KERNELS), ("workload", "kernel")

    def setup_cache(self):
        return by_cell(matmulbench.measure(KERNELS, SMALL, budget_s=BUDGET_S), *self.param_names)

    setup_cache.timeout = 300


class Layers(_Rounds):
    """All products of a training step on all 50,000 rows of MNIST."""

    params, param_names = (LAYERS, KERNELS), ("workload", "kernel")

    def setup_cache(self):
        return by_cell(matmulbench.measure(KERNELS, LAYERS, budget_s=BUDGET_S), *self.param_names)

    setup_cache.timeout = 300


class Narrow(_Rounds):
    """A product in the dtypes of 16 and 8 bits; most kernels have not all of them."""

    params, param_names = (NARROW, KERNELS), ("dtype", "kernel")

    def setup_cache(self):
        return by_cell(matmulbench.measure(KERNELS, "256x256x256", dtype=NARROW, budget_s=3), *self.param_names)

    setup_cache.timeout = 300


class Verification:
    """The largest rounding error found, in units of its bound."""

    params, param_names = (KERNELS,), ("kernel",)

    def setup_cache(self):
        return by_cell(matmulbench.verify(KERNELS, "float32", effort="quick"), *self.param_names)

    setup_cache.timeout = 300

    def track_residual(self, rows, kernel):
        return figure(rows, (kernel,), "residual")

    track_residual.unit, track_residual.pretty_name = "k·u·(|A||B|)", "Largest rounding error, in units of its bound"


class Training:
    """What a training step takes with each kernel, paired with the baseline's."""

    params, param_names = ([TASK], KERNELS), ("task", "kernel")

    def setup_cache(self):
        return by_cell(matmulbench.train(TASK, KERNELS, budget_s=12), *self.param_names)

    setup_cache.timeout = 300

    def track_step_time(self, rows, task, kernel):
        return figure(rows, (task, kernel), "step_s")

    def track_step_against_torch(self, rows, task, kernel):
        return round(1 / figure(rows, (task, kernel), "measured_speedup"), 4)

    track_step_time.unit, track_step_time.pretty_name = "seconds", "Time of a training step"
    track_step_against_torch.unit = "x torch's"
    track_step_against_torch.pretty_name = "Time of a training step against torch's"
