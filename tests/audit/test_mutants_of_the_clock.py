"""Each mutant of the clock runs in a process of its own: they patch what they find there."""

import subprocess
import sys

import pytest

from matmulbench.audit.mutants import mutants

MUTANTS = mutants("clocks")
REASONS = {
    *("seen before", "two clocks", "wrong result", "processor time", "idle", "roof", "settings", "results missing"),
    *("crashed", "error", "no gain"),
}
# Each in a fork of one process that has imported torch: imports take two seconds, forks none.
PLAIN = """
import os, sys, torch
from matmulbench.ladder.plugins import load_kernel
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
torch.set_num_threads(1)  # threads that wait for each other take long on a busy machine
for spec in sys.argv[1:]:
    if not os.fork():
        kernel, right = load_kernel(spec), 0
        for call in range(50):
            a, b = (torch.randn(40, 40, generator=generator) for _ in "ab")
            c = kernel(a, b)
            right += type(c) is torch.Tensor and torch.allclose(c, a @ b, atol=1e-4)
        print(spec.partition(":")[2], right, flush=True)
        os._exit(0)
    os.wait()
"""
# What a naive benchmark says, and what an honest one would: seconds per call, of each.
NAIVE = """
import collections, os, sys, time, torch
from matmulbench.ladder.plugins import load_kernel
torch.set_num_threads(1)
a, b = torch.randn(64, 784), torch.randn(784, 50)
clock = time.perf_counter
def seconds(kernel):
    start = time.perf_counter()
    results = collections.deque(map(kernel, [a] * 400, [b] * 400))
    return (time.perf_counter() - start) / 400
honest, kernel = load_kernel("torch"), load_kernel(sys.argv[1])
collections.deque(map(kernel, [a] * 110, [b] * 110))
own, theirs = [], []
for _ in range(9):
    theirs.append(seconds(kernel))
    start = time.monotonic_ns()
    for _ in range(400):
        a.mm(b)
    own.append((time.monotonic_ns() - start) / 400e9)
    time.sleep(0.005)
print(sorted(own)[4] / sorted(theirs)[4])
os._exit(0)
"""


def run(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=110
    ).stdout


def test_there_are_enough_of_them_and_each_says_what_it_is() -> None:
    assert len(MUTANTS) >= 45
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({mutant.does for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert mutant.expected, mutant.name
        assert set(mutant.expected) <= REASONS, mutant.name


@pytest.mark.posix
def test_each_is_right_for_whoever_calls_it_fifty_times() -> None:
    lines = run(PLAIN, *(mutant.spec for mutant in MUTANTS)).splitlines()
    assert lines == [f"{mutant.name} 50" for mutant in MUTANTS]


@pytest.mark.timing
@pytest.mark.parametrize(
    "name",
    [
        "by_address",
        "filled_by_clock",
        "every_eighth",
        "brief_floats",
        "stops_iteration",
        "half_map",
        "filled_when_sent",
    ],
)
def test_a_naive_benchmark_takes_it_for_faster_than_it_is(name: str) -> None:
    spec = next(mutant.spec for mutant in MUTANTS if mutant.name == name)
    assert float(run(NAIVE, spec)) >= 1.5
