"""A ReFrame test: a kernel on a node, with GFLOP/s and % of roof in the performance log.

``reframe -c examples/reframe -r --performance-report``; another kernel: ``-S kernel=path/to/file.py:function``.
"""

import csv
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import performance_function, run_before, sanity_function, variable


@rfm.simple_test
class MatmulBenchCheck(rfm.RunOnlyRegressionTest):
    """Passes where the kernel is right and was timed."""

    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    kernel = variable(str, value="numpy")
    workload = variable(str, value="256x256x256")
    threads = variable(int, value=1)
    executable = "matmulbench"
    keep_files = ["results"]
    time_limit = "10m"

    @run_before("run")
    def choose(self):
        """Ask for one kernel on one workload."""
        asked = {"kernel": self.kernel, "workload": self.workload, "threads": self.threads, "out": "results"}
        self.executable_opts = ["run", "--quiet", "--preset", "quick", *(f"--{name}={asked[name]}" for name in asked)]
        self.num_cpus_per_task = self.threads

    def row(self):
        """Return the kernel's row of ``measurements.csv``."""
        with (Path(self.stagedir) / "results" / "measurements.csv").open() as lines:
            return next(row for row in csv.DictReader(lines) if row["kernel"] == self.kernel)

    @sanity_function
    def is_right(self):
        """A kernel that is wrong, or fails, has no figures."""
        row = self.row()
        return sn.assert_eq(row["status"], "ok", f"{self.kernel}: {row['status']}: {row['reason']}")

    @performance_function("GFLOP/s")
    def rate(self):
        """Return the rate that the kernel reached."""
        return float(self.row()["gflops"])

    @performance_function("%")
    def roof(self):
        """Return the rate as a percentage of the node's roof; none, with a warning, if others kept the node busy."""
        return float(self.row()["roof_percent"])
