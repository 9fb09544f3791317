"""asv must time small products in batches: a single call is over before its clock has ticked often."""

import importlib.util
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[1] / "benchmarks" / "asv_suite" / "ladder.py"


@pytest.mark.parametrize("kernel", ["torch", "numba-tiled"])
def test_calls_of_microseconds_are_batched(kernel):
    time = pytest.importorskip("asv_runner.benchmarks.time", reason="the extra asv is not installed")
    spec = importlib.util.spec_from_file_location("asv_ladder", FILE)
    ladder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ladder)
    calls = ladder.Calls()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the suite has it
    try:
        found = time.TimeBenchmark("time_matmul", calls.time_matmul, [calls]).run("5x784x10", kernel)
    finally:
        torch.set_num_threads(threads)
    assert found["number"] > 20
    assert len(found["samples"]) > 2
