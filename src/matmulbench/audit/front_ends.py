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
    cells = list(measure_cells(host, Workload.parse(text), ["numpy"], "torch", 3.0))
    row = cells[0].row
    if row.status == Status.OK:
        yield "matmulbench", _quartiles(cells[0].samples)
    if find_spec("asv_runner"):
        with tempfile.TemporaryDirectory() as folder:
            benchmark = Path(folder, "benchmark.py")  # asv wants to read a benchmark's source
            benchmark.write_text(_ASV)
            low, middle, high = _run([sys.executable, str(benchmark), text], host.threads).split()
        yield "asv", (float(low), float(middle), float(high))
    if find_spec("pytest_benchmark"):
        with tempfile.TemporaryDirectory() as folder:
            test, out = Path(folder, "test_product.py"), Path(folder, "out.json")
            test.write_text(_PYTEST.format(text=text))
            pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", str(test)]
            _run([*pytest, f"--benchmark-json={out}"], host.threads)
            stats = json.loads(out.read_text())["benchmarks"][0]["stats"]
        yield "pytest-benchmark", (stats["q1"], stats["median"], stats["q3"])


def _quartiles(samples: list[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def _run(command: list[str], threads: int) -> str:
    environment = os.environ | thread_environment(threads)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
