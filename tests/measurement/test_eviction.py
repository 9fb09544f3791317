"""Operands that were evicted take as long to come as operands that were never touched."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import numba
import numpy as np
import pytest

from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE
from matmulbench.measurement.bandwidth import _run
from matmulbench.measurement.cells import Settings, measure_cells
from matmulbench.measurement.eviction import evict
from matmulbench.results.machine import caches
from matmulbench.workload import Workload

LAST = max(caches().values(), default=2**25)
SIZE = min(LAST // 8, 2**22)  # bytes that fit the last cache easily
TRIES = 15


def read_s(array: np.ndarray) -> float:
    """Return the seconds in which all bytes of ``array`` are read once."""
    start = perf_counter()
    _run(0, 1, 1, np.float32(0), array.ctypes.data, array.nbytes)
    return perf_counter() - start


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let nothing wait for a second thread."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture(scope="module")
def arrays() -> np.ndarray:
    """Arrays of which each is read once at most, and so many that at the end of writing none of the first is cached."""
    found = np.ones((max(2 * TRIES, 4 * LAST // SIZE), SIZE), np.int8)
    read_s(found[-1])  # compiles
    return found


@pytest.mark.timing
def test_what_was_evicted_is_as_far_away_as_what_was_never_touched(arrays: np.ndarray, one_thread: None) -> None:
    again = arrays[-1]
    untouched, evicted, cached = [], [], []
    for array in arrays[:TRIES]:  # in turns: what else the machine does hits all three
        untouched.append(read_s(array))
        read_s(again)
        cached.append(read_s(again))
        evict([again])
        evicted.append(read_s(again))
    assert min(evicted) > 0.75 * min(untouched)
    assert min(cached) < 0.8 * min(evicted), "the clock sees no difference"


def test_all_in_lists_is_evicted_and_other_objects_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen = []
    monkeypatch.setattr(
        "matmulbench.measurement.eviction._evict_bytes", lambda address, size: seen.append((address, size))
    )
    tensor, array = torch.ones(3, 4).t(), np.ones(5)
    evict([[tensor], (array, "name", None)])
    assert seen == [(tensor.data_ptr(), 48), (array.ctypes.data, 40)]


@pytest.mark.timing
def test_a_cold_call_waits_for_its_operands(host: Host) -> None:
    product = Workload(8, SIZE // 4 // 64, 64)  # little arithmetic, one pass over b
    times = [
        measure_cells(host, product, [], BASELINE, 0.5, settings=Settings(cold=cold))[0].row.median_s
        for cold in (False, True)
    ]
    warm_s, cold_s = (time for time in times if time)
    assert cold_s > 1.2 * warm_s
