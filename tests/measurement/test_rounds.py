"""Rounds: every kernel gets its row; a bad one costs its own row alone."""

import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matmulbench.isolation import Host
from matmulbench.measurement.cells import _CALLS_WHOLE, Cell, KernelCandidate, Settings, _make_room, measure_cells
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.rounds import Candidate, Comparison, run_rounds
from matmulbench.measurement.seal import Seal
from matmulbench.results.schema import Level, Status
from matmulbench.workload import Workload

ROOF = Roof("float32", 1, fma_gflops=1e4, levels=(Level("DRAM", None, 1e3, 1e3),), call_floor_s=3e-8)

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
_last = []
def remembers(a, b):
    if not (_last and torch.equal(_last[0], a) and torch.equal(_last[1], b)):
        time.sleep(2e-4)
        _last[:] = [a.clone(), b.clone(), a @ b]
    return _last[2].clone()
def works_on(a, b):
    import threading
    if not _last:
        _last.append(threading.Thread(target=lambda: [sum(range(10**5)) for _ in iter(int, 1)], daemon=True))
        _last[0].start()
    return a @ b
_clock = time.perf_counter
def slow_clock(a, b):
    from matmulbench.measurement import stopwatch
    start = _clock()
    stopwatch.perf_counter = lambda: start + (_clock() - start) / 3
    return a @ b
def fewer(a, b):
    import gc
    for one in gc.get_referrers(a):
        if type(one) is list and len(one) > 8:
            del one[len(one) // 2:]
    return a @ b
def packs(a, prepared):
    return a @ prepared[0]
def setup(b):
    time.sleep(0.01)
    return (b.clone(),)
packs.setup = setup
_calls = 0
def turns_bad(a, b):
    global _calls
    _calls += 1
    if _calls > 40: os.abort()
    return a @ b
"""


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
        assert row.roof_percent == pytest.approx(100 * row.gflops / ROOF.limit(Workload(64, 100, 10))[1])
        assert row.roof_limit == "DRAM"
    assert cells["torch"].row.speedup == 1
    assert cells["triple-loop"].row.extrapolated
    assert not cells["numpy"].row.extrapolated


def test_a_slow_kernel_is_timed_in_full_where_that_is_asked(host: Host) -> None:
    same = "matmulbench.ladder.triple_loop:matmul"
    workload = Workload.parse("16x50x4")
    cells = measure_cells(
        host, workload, ["triple-loop"], same, 0.4, settings=Settings(1e-3, never_extrapolate=(same,))
    )
    assert {cell.row.kernel: cell.row.extrapolated for cell in cells} == {same: False, "triple-loop": True}


class Costly:
    """A candidate that is known to take ``seconds`` a call, and is predicted where that is above the limit."""

    failure, workload = None, Workload(200, 64, 64)

    def __init__(self, name: str, seconds: float, limit_s: float) -> None:
        self.name, self.cost, self.limit_s = name, SimpleNamespace(full_s=seconds), limit_s

    @property
    def extrapolated(self) -> bool:
        return self.limit_s is not None and self.cost.full_s > self.limit_s

    def enter(self) -> None: ...

    def release(self) -> None: ...

    def attempt(self, action: Callable[[], None]) -> None:
        action()


@pytest.mark.parametrize(
    ("budget_s", "predicted", "left_out"),
    [
        (4.0, {"slow", "triple-loop"}, None),
        (0.6, {"slow"}, "triple-loop"),
        (0.1, {"paced", "slow", "triple-loop"}, None),
    ],
)
def test_where_the_baseline_would_be_predicted_the_slowest_rungs_are_left_out(
    budget_s: float, predicted: set[str], left_out: str | None
) -> None:
    costs = {"paced": 0.04, "torch": 1e-5, "triple-loop": 5.0, "slow": 0.8}
    candidates: list[Any] = [Costly(name, cost, budget_s / (_CALLS_WHOLE * 4)) for name, cost in costs.items()]
    said = _make_room(candidates, candidates[0], budget_s)
    assert {one.name for one in candidates if one.extrapolated} == predicted
    assert costs.keys() - {one.name for one in candidates} == ({left_out} if left_out else set())
    assert (f"left out are the slowest, {left_out};" in str(said)) == bool(left_out)


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
        ("remembers", Status.FAILED_VERIFICATION, "seen before"),
        ("works_on", Status.FAILED_VERIFICATION, "(works while idle|two clocks disagree|processor time)"),
        ("slow_clock", Status.FAILED_VERIFICATION, "two clocks disagree"),
        ("fewer", Status.FAILED_VERIFICATION, "results missing"),
        ("absent", Status.ERROR, "no function 'absent'"),
    ],
)
def test_a_bad_kernel_costs_its_own_row_alone(host: Host, own: str, function: str, status: str, reason: str) -> None:
    cells = measured(host, ["numpy", f"{own}:{function}"], budget_s=0.5)
    bad = cells[function].row
    assert (bad.status, bad.median_s, bad.speedup) == (status, None, None)
    assert re.search(reason, bad.reason or "")
    assert cells["numpy"].row.status == cells["torch"].row.status == Status.OK
    assert cells["numpy"].row.median_s


def test_a_memory_of_operands_shows_in_the_fewest_rounds(host: Host, own: str) -> None:
    row = measured(host, [f"{own}:remembers"], budget_s=0.01)["remembers"].row
    assert row.status == Status.FAILED_VERIFICATION
    assert "seen before" in (row.reason or "")


def test_without_a_baseline_there_are_no_ratios(host: Host, own: str) -> None:
    bad, numpy = (cell.row for cell in measure_cells(host, Workload(4, 4, 4), ["numpy"], f"{own}:raises", 0.2))
    assert (bad.status, bad.median_s) == (Status.ERROR, None)
    assert (numpy.status, numpy.speedup, numpy.verdict) == (Status.OK, None, None)
    assert numpy.median_s > 0
    assert f"the baseline {own}:raises failed" in numpy.reason


def test_what_a_kernel_prepares_ahead_is_timed_apart(host: Host, own: str) -> None:
    row = measured(host, [f"{own}:packs"], budget_s=2.0)["packs"].row
    assert row.status == Status.OK
    assert row.setup_s >= 0.01
    assert row.min_s < 0.01


class Fixed(Candidate):
    """A candidate whose turns take as long as it says, on a clock of its own."""

    def __init__(self, name: str, seconds: Callable[[int], float], clock: list[float]) -> None:
        super().__init__(name)
        self.seconds, self.clock, self.renewed = seconds, clock, 0
        self.turn_s = seconds(1)

    def take_turn(self, number: int) -> None:
        self.samples[number] = self.seconds(number)
        self.clock[0] += self.seconds(number)

    def renew(self) -> None:
        self.renewed += 1
        self.clock[0] += self.renewal_s

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("matmulbench.measurement.rounds.perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("spoilt", ["base", "slow"])
def test_whose_turns_were_spoilt_gets_more_of_them(clock: list[float], spoilt: str) -> None:
    class Interrupted(Fixed):
        def take_turn(self, number: int) -> None:
            super().take_turn(number)
            if self.name == spoilt and number < 3:
                del self.samples[number]

    base, slow = (Interrupted(name, lambda number: 0.01, clock) for name in ("base", "slow"))
    run_rounds([base, slow], base, 0.05)
    assert len(Comparison(slow, base, 1, 1).samples) == 3


def test_rounds_go_on_until_the_verdict_is_decided(clock: list[float]) -> None:
    noise = random.Random(1)
    base = Fixed("base", lambda number: 0.01, clock)
    near = Fixed("near", lambda number: 0.01 * (1.5 if noise.random() < 0.45 else 1.0), clock)
    run_rounds([base, near], base, 20.0)
    assert clock[0] > 10.0, "a ratio that is not known yet needs all the time there is"
    clock[0] = 0.0
    slow = Fixed("slow", lambda number: 0.015, clock)
    base.samples.clear()
    analyses = run_rounds([base, slow], base, 20.0)
    assert clock[0] < 5.0
    assert Comparison(slow, base, analyses, 1).verdict == "slower"


def test_processes_are_renewed_and_a_slow_kernel_sits_out_rounds(clock: list[float]) -> None:
    noise = random.Random(2)
    base = Fixed("base", lambda number: 0.004 * noise.lognormvariate(0, 0.5), clock)
    slow = Fixed("slow", lambda number: 0.4, clock)
    run_rounds([base, slow], base, 20.0)
    assert 8 <= base.renewed <= 16
    apart = [last - first for first, last in pairwise([0, *base.renewed_at])]
    assert max(apart) < 2 * min(apart), "each process has about as many rounds"
    assert 3 <= len(slow.samples) < len(base.samples) / 5
    assert 15.0 < clock[0] < 25.0


def test_no_verdict_before_enough_processes_were_seen(clock: list[float]) -> None:
    base = Fixed("base", lambda number: 0.01, clock)
    slow = Fixed("slow", lambda number: 0.015, clock)
    base.renewal_s = slow.renewal_s = 0.05
    run_rounds([base, slow], base, 20.0)
    assert slow.renewed >= 3
    assert clock[0] < 15.0
    clock[0], slow.renewal_s, slow.renewed = 0.0, 5.0, 0
    base.samples.clear(), slow.samples.clear()
    run_rounds([base, slow], base, 20.0)
    assert slow.renewed == 0, "three of them would take longer than all else"
    assert clock[0] < 5.0


def test_without_time_each_kernel_has_its_least_number_of_samples(clock: list[float]) -> None:
    base, slow = Fixed("base", lambda number: 1.0, clock), Fixed("slow", lambda number: 50.0, clock)
    run_rounds([base, slow], base, 0.5)
    assert len(slow.samples) == len(base.samples) == 3


def test_a_difference_that_one_process_alone_shows_is_not_claimed() -> None:
    base, one = Fixed("base", lambda number: 1.0, [0.0]), Fixed("one", lambda number: 1.0, [0.0])
    noise = random.Random(3)
    for number in range(1, 401):
        base.samples[number], one.samples[number] = 1.0, noise.gauss(1.1 if number > 12 else 0.98, 0.02)
    assert Comparison(one, base, 4, 1).verdict == "slower"
    one.renewed_at = [12, 120]
    assert Comparison(one, base, 4, 1).verdict == "unclear"


def test_a_kernel_without_an_undisturbed_turn_has_no_figure(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seal, "_allowed_s", lambda seal, turn_s: -1.0)
    monkeypatch.setattr(Seal, "finding", lambda seal: None)
    row = measured(host, ["numpy"])["numpy"].row
    assert (row.status, row.median_s, row.speedup) == (Status.LOST, None, None)
    assert "undisturbed" in row.reason


@pytest.mark.parametrize(
    ("later_gain", "last", "status"),
    [
        (1.0, (1.0, 1.0), Status.OK),
        (2.0, (2.0, 1.0), Status.FAILED_VERIFICATION),
        pytest.param(2.0, (1.0, 1.0), Status.OK, id="slow on either now and then, as with threads that wake late"),
    ],
)
def test_a_suspicion_that_noise_has_raised_is_tried_before_it_counts(
    host: Host, monkeypatch: pytest.MonkeyPatch, later_gain: float, last: tuple[float, float], status: str
) -> None:
    pair = KernelCandidate._fresh_and_seen
    pairs = 0

    def noisy(one: KernelCandidate, check: bool) -> tuple[float, float]:
        nonlocal pairs
        pair(one, check)
        pairs += 1
        fresh_s, seen_s = (2.0, 1.0) if pairs <= 3 else last if pairs % 16 == 3 else (later_gain, 1.0)
        return fresh_s * 1e-3, seen_s * 1e-3

    monkeypatch.setattr(KernelCandidate, "_fresh_and_seen", noisy)
    for name, value in {"_SEEN_PAIRS": 3, "_SEEN_AT_FIRST": 3, "_SEEN_EVERY": 10**9}.items():
        monkeypatch.setattr(f"matmulbench.measurement.cells.{name}", value)
    assert measured(host, ["numpy"])["numpy"].row.status == status


def test_all_turns_of_a_round_take_place_on_one_core(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    cores: dict[int, set[frozenset[int]]] = {}
    take_turn = KernelCandidate.take_turn

    def watched(one: KernelCandidate, number: int) -> None:
        take_turn(one, number)
        cores.setdefault(number, set()).add(frozenset(os.sched_getaffinity(one._child.pid)))

    monkeypatch.setattr(KernelCandidate, "take_turn", watched)
    measured(host, ["numpy", "einsum"], budget_s=0.5)
    assert all(len(found) == 1 and len(*found) == 1 for found in cores.values())
    assert len(set().union(*cores.values())) == len(os.sched_getaffinity(0))
