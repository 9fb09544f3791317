"""The same call timed by asv and by pytest-benchmark, which take one kernel after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from matmulbench.isolation import Host, thread_environment
from matmulbench.measurement.cells import measure_cells
from matmulbench.results.schema import Status
from matmulbench.workload import Workload

# Each prints the quartiles, in seconds per call, of torch's product of the workload named on the command line.
_ASV = """
import sys, numpy
from asv_runner.benchmarks.time import TimeBenchmark
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.workload import Workload
a, b = Workload.parse(sys.argv[1]).operands()
def time_product(): matmul(a, b)
print(*numpy.quantile(TimeBenchmark("time_product", time_product, [time_product]).run()["samples"], [0.25, 0.5, 0.75]))
"""
_PYTEST = """
from matmulbench.ladder.torch_matmul import matmul
from matmulbench.workload import Workload
def test_product(benchmark):
    a, b = Workload.parse({text!r}).operands()
    benchmark(matmul, a, b)
"""


def front_end_times(host: Host, text: str) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield for each front end that is installed the quartiles of its times, in seconds."""
    baseline = measure_cells(host, Workload.parse(text), ["numpy"], "torch", 3.0)[0]
    if baseline.row.status == Status.OK:
        low, middle, high = map(float, np.quantile(baseline.samples, [0.25, 0.5, 0.75]))
        yield "matmulbench", (low, middle, high)
    with tempfile.TemporaryDirectory() as folder:
        if find_spec("asv_runner"):
            benchmark = Path(folder, "benchmark.py")  # asv wants to read a benchmark's source
            benchmark.write_text(_ASV)
            low, middle, high = map(float, _run(host, str(benchmark), text).split())
            yield "asv", (low, middle, high)
        if find_spec("pytest_benchmark"):
            test, out = Path(folder, "test_product.py"), Path(folder, "out.json")
            test.write_text(_PYTEST.format(text=text))
            pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", str(test))
            _run(host, *pytest, f"--benchmark-json={out}")
            stats = json.loads(out.read_text())["benchmarks"][0]["stats"]
            yield "pytest-benchmark", (stats["q1"], stats["median"], stats["q3"])


def _run(host: Host, *arguments: str) -> str:
    """Run Python with as many threads as ``host`` has; return what it prints."""
    environment = os.environ | thread_environment(host.threads)
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout
