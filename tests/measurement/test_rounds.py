"""Rounds: every kernel gets its row; a bad one costs its own row alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matmulbench.isolation import Host
from matmulbench.measurement.cells import Cell, measure_cells
from matmulbench.measurement.roof import Roof
from matmulbench.results.schema import Status
from matmulbench.workload import Workload

ROOF = Roof("float32", 1, fma_gflops=100.0, bandwidth_gbs=10.0, call_floor_s=3e-8)

KERNELS = """
import os, time, torch
def right(a, b): return a @ b
def delayed(a, b):
    end = time.perf_counter() + 200e-6
    while time.perf_counter() < end: pass
    return a @ b
def raises(a, b): raise RuntimeError("no such luck")
def dies(a, b): os.abort()
def unwritten(a, b): return torch.empty(a.shape[0], b.shape[1])
_seen = {}
def cached(a, b):
    key = (id(a), a._version)
    if key not in _seen: _seen[key] = (a, a @ b)
    return _seen[key][1].clone()
_calls = 0
def turns_bad(a, b):
    global _calls
    _calls += 1
    if _calls > 40: os.abort()
    return a @ b
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(threads=1) as host:
        yield host


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(KERNELS)
    return str(path)


def measured(host: Host, specs: list[str], text: str = "64x100x10", budget_s: float = 0.4) -> dict[str, Cell]:
    found = measure_cells(host, Workload.parse(text), specs, "torch", budget_s, ROOF)
    return {cell.row.kernel.rpartition(":")[2]: cell for cell in found}


def test_figures_fit_together(host: Host) -> None:
    cells = measured(host, ["numpy", "triple-loop"])
    assert set(cells) == {"torch", "numpy", "triple-loop"}
    for cell in cells.values():
        row = cell.row
        assert row.status == Status.OK
        assert row.min_s <= row.median_s
        assert row.ci_low_s <= row.median_s <= row.ci_high_s
        assert row.speedup_ci_low <= row.speedup <= row.speedup_ci_high
        assert row.samples == len(cell.samples) == len(cell.extra["baseline_samples"])
        assert row.gflops == pytest.approx(2 * 64 * 100 * 10 / row.median_s / 1e9)
        assert row.roof_percent == pytest.approx(100 * row.gflops / ROOF.gflops(Workload(64, 100, 10)))
    assert cells["torch"].row.speedup == 1
    assert cells["triple-loop"].row.extrapolated
    assert not cells["numpy"].row.extrapolated


def test_a_slow_kernel_is_timed_in_full_where_that_is_asked(host: Host) -> None:
    same = "matmulbench.ladder.triple_loop:matmul"
    workload = Workload.parse("16x50x4")
    cells = measure_cells(host, workload, ["triple-loop"], same, 0.4, limit_s=1e-3, in_full=(same,))
    assert {cell.row.kernel: cell.row.extrapolated for cell in cells} == {same: False, "triple-loop": True}


def test_a_delay_makes_a_kernel_slower(host: Host, own: str) -> None:
    row = measured(host, [f"{own}:delayed"])["delayed"].row
    assert row.verdict == "slower"
    assert row.median_s > 200e-6


@pytest.mark.parametrize(
    ("function", "status", "reason"),
    [
        ("raises", Status.ERROR, "no such luck"),
        ("dies", Status.CRASHED, "SIGABRT"),
        ("turns_bad", Status.CRASHED, "SIGABRT"),
        ("unwritten", Status.FAILED_VERIFICATION, "inside the timed loop"),
        ("cached", Status.FAILED_VERIFICATION, "inside the timed loop"),
        ("absent", Status.ERROR, "no function 'absent'"),
    ],
)
def test_a_bad_kernel_costs_its_own_row_alone(host: Host, own: str, function: str, status: str, reason: str) -> None:
    cells = measured(host, ["numpy", f"{own}:{function}"])
    bad = cells[function].row
    assert (bad.status, bad.median_s, bad.speedup) == (status, None, None)
    assert reason in (bad.reason or "")
    assert cells["numpy"].row.status == cells["torch"].row.status == Status.OK
    assert cells["numpy"].row.median_s


def test_without_a_baseline_there_are_no_ratios(host: Host, own: str) -> None:
    found = list(measure_cells(host, Workload(4, 4, 4), ["numpy"], f"{own}:raises", 0.2))
    assert {cell.row.status for cell in found} == {Status.ERROR}
