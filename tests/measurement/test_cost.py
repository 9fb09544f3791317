"""Costs are learnt from small sub-problems; a slow or greedy kernel is never run at full size."""

import time
from dataclasses import replace

import pytest
import torch

from matmulbench.measurement.cost import (
    NotEnoughMemoryError,
    extrapolate,
    learn_cost,
    sub_problems,
)
from matmulbench.workload import Workload


def test_sub_problems_grow_in_k_then_n_then_m_to_the_whole() -> None:
    whole = Workload(50, 784, 10, "TN")
    steps = [problem for problem, _ in sub_problems(whole)]
    assert steps[-1] == whole
    sizes = [(step.k, step.n, step.m) for step in steps]
    assert sizes == sorted(sizes)
    assert all(later.flop <= 4 * earlier.flop for later, earlier in sub_problems(whole))


def test_of_a_batch_it_is_the_number_of_products_that_grows_last() -> None:
    whole = Workload(5, 6, 7, "TN", batch=30)
    *_, before, last = (problem for problem, _ in sub_problems(whole))
    assert (before, last) == (replace(whole, batch=16), whole)


def test_a_batch_is_predicted_from_a_smaller_one() -> None:
    whole = Workload(4, 4, 4, batch=1000)
    cost = learn_cost(slow, whole, 0.05, lambda part: Workload.operands(replace(part, batch=max(2, part.batch))))
    assert (cost.workload.m, cost.workload.batch) == (4, 64)
    assert extrapolate(cost, whole, 0.001 + 0.0002 * 16, 0.001 + 0.0002 * 64) == pytest.approx(0.201)


@pytest.mark.parametrize("whole", [Workload(1, 1, 1), Workload(2, 8, 2)])
def test_a_tiny_workload_is_its_own_sub_problem(whole: Workload) -> None:
    assert [problem for problem, _ in sub_problems(whole)][-1] == whole


def slow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Take 0.2 ms a row and 1 ms besides."""
    time.sleep(0.001 + 0.0002 * a.shape[0])
    return a @ b


def test_a_slow_kernel_is_stopped_short_and_predicted() -> None:
    whole = Workload(1000, 8, 2)
    cost = learn_cost(slow, whole, 0.05, Workload.operands)
    assert cost.workload.m < 1000
    assert cost.call_s < 0.1
    predicted = extrapolate(cost, whole, 0.001 + 0.0002 * cost.smaller.m, 0.001 + 0.0002 * cost.workload.m)
    assert predicted == pytest.approx(0.201)


def test_a_fast_kernel_is_run_in_full() -> None:
    whole = Workload(64, 100, 10, "NT")
    cost = learn_cost(torch.matmul, whole, 1.0, Workload.operands)
    assert cost.workload == whole
    assert cost.full_s == cost.call_s


def test_sizes_not_yet_grown_count_in_proportion() -> None:
    whole = Workload(10, 1000, 10)
    cost = learn_cost(slow, whole, 1e-9, Workload.operands)
    assert (cost.workload.m, cost.workload.k, cost.workload.n) == (1, 8, 2)
    assert extrapolate(cost, whole, 1.0, 1.0) == pytest.approx(whole.flop / cost.workload.flop)


def greedy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, :, None] * b[None]).sum(1)


def test_a_temporary_beyond_the_free_memory_is_refused_with_its_bytes() -> None:
    whole = Workload(100_000, 2000, 200)  # 160 TB, fully broadcast
    with pytest.raises(NotEnoughMemoryError, match=r"would take [\d,]{15,} bytes beside its operands, [\d,]+ are free"):
        learn_cost(greedy, whole, 0.5, Workload.operands)
