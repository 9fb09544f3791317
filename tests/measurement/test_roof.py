"""The roof is one, and the calibration loop is steady work."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from matmulbench.isolation import Host
from matmulbench.isolation.host import Outcome
from matmulbench.ladder import BASELINE
from matmulbench.measurement import bandwidth, peaks
from matmulbench.measurement.cells import compile_seconds, measure_cells, measure_roof
from matmulbench.measurement.conditions import Conditions
from matmulbench.measurement.fma import CHAINS, flop_per_iteration, vector_bits
from matmulbench.measurement.roof import Roof
from matmulbench.results.machine import caches
from matmulbench.results.schema import Level
from matmulbench.status import Status
from matmulbench.workload import Workload

LEVELS = (Level("L1", 10_000, 200.0, 400.0), Level("L2", 90_000, 50.0, 100.0), Level("DRAM", None, 5.0, 10.0))
ROOF = Roof("float32", 1, 100.0, LEVELS, call_floor_s=1e-7)


@pytest.mark.parametrize(
    ("product", "cold", "limit", "seconds"),
    [
        ((1024, 1024, 1024), False, "compute", 2 * 1024**3 / 100e9),
        ((2, 2, 2), False, "call", 1e-7),
        ((1, 1000, 10), False, "L2", (44_000 - 10_000) / 50e9),  # 44,000 bytes are read: what L1 cannot hold
        ((10_000, 1, 1), False, "L2", 70_004 / 100e9),  # as much written as read: no mixture is faster
        ((1, 1000, 200), False, "DRAM", (4 * 201_000 - 100_000) / 5e9),
        ((1, 1000, 10), True, "DRAM", 44_000 / 5e9),  # nothing that is read lies in a cache
    ],
)
def test_the_roof_is_the_least_of_compute_bandwidth_and_call(
    product: tuple[int, int, int], cold: bool, limit: str, seconds: float
) -> None:
    workload = Workload(*product)
    name, gflops = ROOF.limit(workload, cold)
    assert name == limit
    assert gflops == pytest.approx(workload.flop / seconds / 1e9)


def test_where_no_cache_is_known_memory_alone_bounds() -> None:
    name, gflops = replace(ROOF, levels=LEVELS[-1:]).limit(Workload(1, 1000, 10))
    assert (name, gflops) == ("DRAM", pytest.approx(20_000 / (44_000 / 5e9) / 1e9))


def test_the_better_of_two_roofs_is_so_in_every_respect() -> None:
    higher = (replace(LEVELS[0], gbs=500.0), replace(LEVELS[1], read_gbs=60.0), LEVELS[2])
    best = ROOF.best_of(Roof("float32", 1, 90.0, higher, call_floor_s=5e-8))
    assert best == replace(ROOF, levels=higher, call_floor_s=5e-8)


@pytest.mark.parametrize(
    ("loads", "kept", "calls"), [([[], []], None, 1), ([["busy"], []], None, 2), ([["busy"]] * 9, "busy", 3)]
)
def test_a_roof_measured_beside_other_load_is_measured_again(
    loads: list[list[str]], kept: str | None, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FakeHost:
        threads, used_s, calls = 1, 0.0, 0

        def call(self, request: Any, silence_limit: float) -> Outcome:
            self.calls += 1
            return Outcome(Status.OK, asdict(replace(ROOF, fma_gflops=100.0 - self.calls)))

    seen, host = iter(loads), FakeHost()
    monkeypatch.setattr(Conditions, "warnings", lambda self, calibration: next(seen))
    assert measure_roof(host, "float32") == replace(ROOF, fma_gflops=99.0, disturbed=kept)
    assert host.calls == calls


def test_below_a_roof_that_is_in_doubt_there_is_no_percentage(host: Host) -> None:
    roof = replace(ROOF, fma_gflops=1e5, levels=(Level("DRAM", None, 1e5, 1e5),), disturbed="other load: a lot")
    (cell,) = measure_cells(host, Workload(64, 64, 64), [], BASELINE, 0.1, roof)
    (sound,) = measure_cells(host, Workload(64, 64, 64), [], BASELINE, 0.1, replace(roof, disturbed=None))
    assert (cell.row.roof_percent, cell.row.roof_gflops, cell.row.roof_limit) == (None, None, None)
    assert "no % of roof: other load disturbed its measurement" in cell.extra["warnings"]
    assert sound.row.roof_limit == "call"
    assert sound.row.roof_percent == pytest.approx(100 * 1e-7 / sound.row.median_s)


def test_where_a_row_seems_to_exceed_its_roof_it_is_measured_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    low = replace(ROOF, fma_gflops=1e5, levels=(Level("DRAM", None, 1e-3, 1e-3),))
    high = replace(low, levels=(Level("DRAM", None, 1e3, 1e3),))
    monkeypatch.setattr("matmulbench.measurement.cells.measure_roof", lambda host, dtype, device: high)
    (cell,) = measure_cells(host, Workload(64, 64, 64), [], BASELINE, 0.1, low)
    assert cell.row.status == Status.OK
    assert cell.row.roof_gflops == pytest.approx(high.limit(Workload(64, 64, 64))[1])


def test_where_torch_has_more_than_multiply_adds_its_rate_is_the_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measure_levels", lambda threads: LEVELS)
    monkeypatch.setattr(peaks, "_fma_gflops", lambda dtype, threads: 100.0)
    monkeypatch.setattr(peaks, "_library_gflops", lambda dtype: 1500.0)  # as on Apple's processors
    assert peaks.measure_roof("float32", 1, "cpu")["fma_gflops"] == 1500.0


def test_bytes_from_farther_away_come_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {2**14: 3.0, 2**17: 7.0, 2**19: 2.0, 2**21: 1.0}
    monkeypatch.setattr(bandwidth, "caches", lambda threads: {1: 2**15, 2: 2**20})
    monkeypatch.setattr(bandwidth, "_gbs", lambda way, threads, address, size: rates[size] + (way == 4))
    levels = bandwidth.measure_levels(1)
    assert [level.name for level in levels] == ["L1", "L2", "DRAM"]
    assert [level.bytes for level in levels] == [2**15, 2**20, None]
    assert [(level.read_gbs, level.gbs) for level in levels] == [(7.0, 8.0), (7.0, 8.0), (1.0, 2.0)]


def test_float64_vectors_hold_half_as_many() -> None:
    assert flop_per_iteration(32) == 2 * flop_per_iteration(64) == 2 * CHAINS * vector_bits() // 32


@pytest.mark.timing
def test_no_kernel_beats_the_roof_by_more_than_noise(host: Host) -> None:
    roof = replace(measure_roof(host, "float64"), disturbed=None)
    (cell,) = measure_cells(host, Workload(512, 512, 512, dtype="float64"), [], BASELINE, 0.3, roof)
    assert cell.row.roof_percent < 115


def test_a_roof_has_every_level_that_there_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conditions, "warnings", lambda self, calibration: [])  # or it is measured thrice
    roof = measure_roof(host, "float32")
    assert 0 < roof.call_floor_s < 1e-3
    assert roof.fma_gflops > 0
    assert [level.name for level in roof.levels] == [*(f"L{level}" for level in caches()), "DRAM"]
    assert all(0 < level.read_gbs <= level.gbs for level in roof.levels)


def test_compilation_is_found_where_it_happens(host: Host) -> None:
    assert (compile_seconds(host, "numba", "float32") or 0) > 0.1
    assert compile_seconds(host, "nowhere:matmul", "float32") is None
