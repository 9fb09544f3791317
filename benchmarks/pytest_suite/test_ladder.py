"""The ladder under pytest-benchmark: the same kernels and workloads as the package's own, grouped by workload."""

import os

import pytest

from matmulbench.errors import UsageError
from matmulbench.ladder.plugins import kernels, load_kernel
from matmulbench.measurement.cost import learn_cost
from matmulbench.results.machine import library_versions
from matmulbench.results.schema import Status
from matmulbench.verification.bounds import judge
from matmulbench.verification.form import wrong_form
from matmulbench.verification.result import check_result
from matmulbench.workload import MNIST_LAYERS, MNIST_ROWS, PRESETS, Workload, layer_products

WORKLOADS = [*PRESETS["quick"], *(workload for _, _, workload in layer_products(MNIST_ROWS, MNIST_LAYERS))]
KERNELS = [*kernels(), *os.environ.get("MATMULBENCH_KERNELS", "").split()]
LONGEST_S = 1.0  # that one call may take
ROUNDS_S = 0.005  # a kernel slower than this is timed in single, pedantic calls


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_matmul(benchmark, workload, kernel):
    try:
        function = load_kernel(kernel)
        cost = learn_cost(function, workload, LONGEST_S, Workload.operands)
    except (ImportError, MemoryError, UsageError) as error:
        pytest.skip(f"{kernel} is not available: {error}")
    if cost.full_s > cost.call_s:
        pytest.skip(f"{kernel} would take about {cost.full_s:.0f} s on {workload}")
    a, b = workload.operands()
    benchmark.group = str(workload)
    slow = cost.call_s > ROUNDS_S
    c = benchmark.pedantic(function, (a, b), rounds=3) if slow else benchmark(function, a, b)
    arrays = [each.numpy() for each in (a, b, c)]
    wrong = wrong_form(a, b, c) or check_result(*arrays)
    # Written down first: a time that is saved beside a failure must say what it is worth.
    benchmark.extra_info["status"] = str(Status.FAILED_VERIFICATION if wrong else Status.OK)
    benchmark.extra_info["residual"] = judge(*arrays).residual
    benchmark.extra_info["versions"] = library_versions()
    assert not wrong, wrong
    if benchmark.stats:
        benchmark.extra_info["gflops"] = workload.flop / benchmark.stats.stats.median / 1e9
