"""How fast each kernel is on a workload: kernels take turns, each in a process of its own; samples become rows."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from functools import partial
from time import get_clock_info, perf_counter
from typing import Any

import numpy as np

from matmulbench.isolation import Host, LostError, system
from matmulbench.isolation.requests import (
    Calibrate,
    CheckBlock,
    CommitBlock,
    CompileSeconds,
    LearnCost,
    MeasureRoof,
    OpenReferee,
    OpenWorkload,
    RunBlock,
    StartRound,
)
from matmulbench.ladder import RUNGS
from matmulbench.measurement import operands
from matmulbench.measurement.conditions import Conditions, variables
from matmulbench.measurement.cost import Cost, extrapolate
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.rounds import MIN_ROUNDS, Comparison, SealedCandidate, run_rounds
from matmulbench.measurement.seal import SILENCE_S, Seal, ask, no_kernel_to_blame
from matmulbench.measurement.statistics import Interval
from matmulbench.results.schema import Level, MeasurementRow
from matmulbench.status import Status
from matmulbench.workload import Workload

EXTRAPOLATION_ERROR = 0.05  # more than the audit's extrapolations miss by, nine times of ten at least
BLOCK_S = 0.004  # well above the timer's resolution, short against the machine's drift
RETAINED_BYTES = 2**20  # results of a block, which are all kept, so that any may be checked
DEVICE_BYTES = 2**26  # the same, on a device: it needs several calls, for the first one comes late
_CALLS_WHOLE = 4  # that must fit into a kernel's share of the budget, or it is timed on a sub-problem
_WARM_S, _WARM_CALLS = 0.001, 8  # how long, and how often at most, a kernel is called before a block
_ALIKE = 0.5  # of the baseline's time for a call, up to its double: such kernels get the same number of calls a block
_CHECKED, _CHECKED_SHARE = 0.5, 0.2  # of the blocks, and of the time, at most
_CHECKED_FIRST, _FULL_SHARE = 2, 0.05  # blocks in any case; of the time, for comparing element by element
_SEEN_AT_FIRST, _SEEN_EVERY = 8, 8  # so many rounds, and then every which, have a block of operands seen before
_SEEN_PAIRS, _SEEN_GAIN = MIN_ROUNDS, 1.15  # how many such blocks raise a suspicion, and how much faster they may be
_SEEN_CONFIRMED = 15, 16  # so many of so many more that show it are no chance (p < 0.0003), on the busiest machine
_BEYOND = 1.05  # of the roof: what noise explains
_BEYOND_LIBRARY = 1.5  # on a device, where the peak is that of a library, which a kernel may exceed a little
_ROOF_TRIES = 3

_draw = np.random.default_rng()


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    limit_s
        a kernel of which one call takes longer is timed on a sub-problem; a quarter of its share of the budget,
        if not given.
    cold
        whether each call finds its operands in memory and not in a cache.
    never_extrapolate
        kernels that are never timed on a sub-problem, whatever a call takes.
    device
        where the kernels work.
    """

    limit_s: float | None = None
    cold: bool = False
    never_extrapolate: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass
class Cell:
    """One finished cell: its row, the raw seconds per call, and what else is worth keeping."""

    row: MeasurementRow
    samples: list[float]
    extra: dict[str, Any]


def measure_roof(host: Host, dtype: str, device: str = "cpu") -> Roof:
    """Measure a device's roof at the host's thread count, again where other programs kept the machine busy meanwhile.

    Raises
    ------
    LostError
        if that failed each time.
    """
    best = None
    for _ in range(_ROOF_TRIES):
        conditions = Conditions(host)
        outcome = host.call(MeasureRoof(dtype, host.threads, device), silence_limit=SILENCE_S)
        if outcome.status == Status.OK:
            disturbed = "; ".join(conditions.warnings([])) or None
            levels = tuple(Level(**level) for level in outcome.value["levels"])
            found = Roof(**outcome.value | {"levels": levels, "disturbed": disturbed})
            best = found.best_of(best) if best else found
            if not disturbed:
                break
    if not best:
        raise LostError(f"the roof could not be measured: {outcome.reason}")
    return best


def compile_seconds(host: Host, spec: str, dtype: str) -> float | None:
    """Return what ``spec`` costs before its first result, in seconds; None where it does not run at all."""
    value: float | None = host.call(CompileSeconds(spec, dtype), silence_limit=SILENCE_S).value
    return value


class Referee:
    """The child that no kernel enters, with the operands of one workload, which it alone can write."""

    def __init__(self, host: Host, workload: Workload, peers: list[Seal]) -> None:
        size = workload.bytes
        self.workload = workload
        self.windows = 512 if size <= 2**25 else 64
        self.descriptor = operands.create(workload, self.windows)
        host.warm(OpenReferee, OpenWorkload, first=Calibrate())
        self.child = host.fork()
        self.seal = Seal(1, peers)
        self.round = 0
        self.calibration: dict[int, tuple[float, float]] = {}  # a round: seconds of fixed work
        self.ask(OpenReferee(workload, self.windows), self.descriptor)
        system.seal(self.descriptor)

    def ask(self, request: Any, *descriptors: int) -> Any:
        """Carry out a request."""
        with no_kernel_to_blame():
            return ask(self.child, request, descriptors=descriptors)

    def start_round(self, number: int) -> None:
        """Change the operands, and note what the machine takes for fixed work."""
        self.round = number
        with no_kernel_to_blame():
            _, self.calibration[number] = self.seal.turn(self.child, StartRound())

    def close(self) -> None:
        """End it, and let the operands go."""
        self.child.close()
        os.close(self.descriptor)


class KernelCandidate(SealedCandidate):
    """A kernel in the rounds of one workload."""

    place = "the timed loop"

    def __init__(
        self, host: Host, referee: Referee, peers: list[Seal], spec: str, limit_s: float | None, settings: Settings
    ) -> None:
        self.host, self.referee, self.workload, self.limit_s = host, referee, referee.workload, limit_s
        self.cold, self.device = settings.cold, settings.device
        result_bytes = self.workload.result_bytes
        self.retained = (RETAINED_BYTES if self.device == "cpu" else DEVICE_BYTES) // result_bytes
        super().__init__(spec, host.threads, peers, max(1, self.retained) * result_bytes, self.device != "cpu")
        self.cost: Cost | None = None
        self.call_s = 0.0
        self.calls = 1
        self.seen_gains: list[float] = []  # time on fresh operands over that on operands seen before
        self.setups_s: list[float] = []
        self.checks, self.check_s, self.full_check_s, self.turns_s = 0, 0.0, 0.0, 0.0
        self.last_block: tuple[int, Workload, list[int], list[int]] | None = None  # with its round
        self._extra_s = 0.0  # of a turn: what not every turn has

    @property
    def extrapolated(self) -> bool:
        """Whether a smaller problem stands in for the workload."""
        return bool(self.cost and self.cost.workload != self.workload)

    def enter(self) -> None:
        """Start the process, learn what a call costs, and how many fill a block."""
        self._open()
        value = ask(self._child, LearnCost(self.limit_s))
        self.cost = Cost(**{**value, **{name: Workload(**value[name]) for name in ("workload", "smaller")}})
        self.call_s = self.cost.call_s
        self.calls = self._calls_per_block()
        self.call_s = self._block(self.cost.workload, check=False)
        self.calls = self._calls_per_block()
        self.model_error = EXTRAPOLATION_ERROR if self.extrapolated else 0.0

    def _calls_per_block(self) -> int:
        return 1 if self.cold else max(1, min(round(BLOCK_S / max(self.call_s, 1e-9)), self.retained))

    def _open(self) -> None:
        began = perf_counter()
        self.close()
        self.child = self.host.fork()
        request = OpenWorkload(self.name, self.workload, self.referee.windows, self.device)
        self.accumulation = ask(self._child, request, descriptors=(self.referee.descriptor, self.output))
        self.renewal_s = perf_counter() - began

    def renew(self) -> None:
        """Go on in a fresh process, after an untimed turn there."""
        began = perf_counter()
        self._open()
        if self.cost:
            self._block(self.cost.workload, check=False)
        self.renewal_s = perf_counter() - began

    def take_turn(self, number: int) -> None:
        """Time a block, or the two sub-problems that stand in for a slow whole."""
        assert self.cost
        began = perf_counter()
        self._extra_s = 0.0
        self.seal.wake(self._child, number)
        check = self.checks < _CHECKED_FIRST or (
            self.check_s < _CHECKED_SHARE * self.turns_s and _draw.random() < _CHECKED
        )
        seen_too = number <= _SEEN_AT_FIRST or number % _SEEN_EVERY == 0
        seen_too = seen_too and operands.has_recurring(self.workload)
        if self.extrapolated:
            smaller_s = self._block(self.cost.smaller, check=False)
            seconds = extrapolate(self.cost, self.workload, smaller_s, self._block(self.cost.workload, check))
        elif not seen_too:
            seconds = self._block(self.workload, check)
        else:
            seconds, seen_s = self._fresh_and_seen(check)
            self.seen_gains.append(seconds / seen_s)
        self.seal.rest(self._child)
        if self.seal.last_turn_agrees:
            self.samples[number] = seconds
        self.turn_s = perf_counter() - began - self._extra_s

    def _fresh_and_seen(self, check: bool) -> tuple[float, float]:
        """Time a block, and one on operands seen before, in random order; return the seconds of each."""
        seen_first = _draw.random() < 0.5
        seen_s = self._block(self.workload, check=False, seen=True) if seen_first else 0.0
        seconds = self._block(self.workload, check)
        return seconds, seen_s or self._block(self.workload, check=False, seen=True)

    def _block(self, problem: Workload, check: bool, seen: bool = False) -> float:
        """Return the seconds per call of one block; perhaps check its results."""
        began = perf_counter()
        warm = min(_WARM_CALLS, self.calls, int(_WARM_S / max(self.call_s, 1e-9)))
        warm = max(warm, int(seen))
        windows = [self._walk(self.calls + warm) for _ in "ab"]
        left, right = (walk[warm:] for walk in windows)
        request = RunBlock(problem, windows[0][:warm], windows[1][: max(1, warm)], seen, self.cold)
        task = np.array([left, right], np.uint32).tobytes()
        seconds, (made, setup_s) = self.seal.turn(self._child, request, task=task)
        if setup_s is not None:
            self.setups_s.append(setup_s)
            right = [windows[1][0]] * len(right)
        if made != self.calls:
            raise self.refused(f"results missing: {self.calls} calls were asked for, {made:.0f} results made")
        done = perf_counter()
        self.turns_s += done - began
        self.last_block = None if seen else (self.referee.round, problem, left, right)
        if check:
            self._check_results(problem, left, right)
        self._extra_s += perf_counter() - (began if seen else done)
        return float(seconds) / self.calls

    def _check_results(self, problem: Workload, left: list[int], right: list[int]) -> None:
        """Let the referee compare the last block's results: all by sums, and if there is time, one in full."""
        began = perf_counter()
        in_full = self.checks < _CHECKED_FIRST or self.full_check_s < _FULL_SHARE * self.turns_s
        self.checks += 1
        if form := ask(self._child, CommitBlock()):
            raise self.refused(form)
        drawn = int(_draw.integers(self.calls)) if in_full else None
        finding = self.referee.ask(CheckBlock(problem, left, right, drawn, self.accumulation), self.output)
        if finding:
            raise self.refused(finding)
        taken = perf_counter() - began
        self.check_s += taken
        self.full_check_s += taken * in_full

    def _walk(self, count: int) -> list[int]:
        """Draw ``count`` windows, each a line or two behind the last; behind the last of all comes the first."""
        steps = np.cumsum(_draw.integers(1, 3, count))
        walk: list[int] = ((_draw.integers(self.referee.windows) + steps) % self.referee.windows).tolist()
        return walk

    def audit(self) -> None:
        """Refuse it also for a wrong result of its last block, or where it remembers operands."""
        self.seal.count_idle(self._child)
        if self.last_block and self.last_block[0] == self.referee.round:  # its operands are still what they were
            self._check_results(*self.last_block[1:])
        super().audit()
        if finding := self._seen_before():
            raise self.refused(finding)

    def _seen_before(self) -> str | None:
        """Say whether it is faster on operands that it has seen; a suspicion is confirmed before it counts."""
        gain = statistics.median(self.seen_gains or [1.0])
        often = sum(one > _SEEN_GAIN for one in self.seen_gains) > 0.8 * len(self.seen_gains)
        if len(self.seen_gains) < _SEEN_PAIRS or gain <= _SEEN_GAIN or not often:
            return None
        most, pairs = _SEEN_CONFIRMED
        fresh, seen = zip(*(self._fresh_and_seen(check=False) for _ in range(pairs)), strict=True)
        self.seal.rest(self._child)
        gains = [fresh_s / seen_s for fresh_s, seen_s in zip(fresh, seen, strict=True)]
        # Where threads wake late, times are of two kinds; the shorter comes on either operands.
        if sum(one > _SEEN_GAIN for one in gains) < most or min(fresh) < _SEEN_GAIN * min(seen):
            return None
        return (
            f"seen before: it is {statistics.median(gains):.2f} times faster on operands that it has seen; what it "
            "prepares ahead belongs into an attribute `setup(b)`"
        )


def measure_cells(
    host: Host,
    workload: Workload,
    specs: list[str],
    baseline: str | None,
    budget_s: float,
    roof: Roof | None = None,
    settings: Settings = Settings(),  # it cannot be changed
    seed: int = 0,
) -> list[Cell]:
    """Measure ``specs`` on ``workload`` in rounds paired with ``baseline``; return a cell for each.

    ``budget_s`` is for all kernels together. Without a ``baseline``, or where it fails, there are times and no
    speedups. A kernel that kills or hangs its process costs its own cell alone. Where the budget is too short to time
    the baseline whole, the slowest rungs of the ladder are left out, and have no cell; a warning says so.

    Raises
    ------
    LostError
        if the suite's own processes ended.
    """
    start, waited_s = perf_counter(), host.waited_s
    everyone = list(dict.fromkeys([*([baseline] if baseline else []), *specs]))
    limit_s = settings.limit_s or budget_s / (_CALLS_WHOLE * len(everyone))
    peers: list[Seal] = []
    referee = Referee(host, workload, peers)
    candidates = [
        KernelCandidate(host, referee, peers, spec, None if spec in settings.never_extrapolate else limit_s, settings)
        for spec in everyone
    ]
    try:
        referee.start_round(0)
        for one in candidates:
            one.attempt(one.enter)
        base = next((one for one in candidates if one.name == baseline and not one.failure), None)
        room_made = None if settings.limit_s else _make_room(candidates, base, budget_s)
        _align(candidates, base)
        for one in candidates:
            if not one.failure:
                one.attempt(partial(_trial, one))
        conditions = Conditions(host, settings.device)
        start += host.waited_s - waited_s
        deadline = perf_counter() + max(budget_s - (perf_counter() - start), budget_s / 2)
        analyses = run_rounds(candidates, base, deadline, referee.start_round, seed)
        warnings = [*variables(), *conditions.warnings(list(referee.calibration.values()))]
        base = None if base and base.failure else base
        cells = [
            _cell(one, base, analyses, len(candidates) - 1, _above(roof, one, host), warnings, baseline)
            for one in candidates
        ]
        for cell in cells if conditions.clocks else ():
            cell.extra["device_clocks"] = conditions.clocks
        if room_made:
            cells[0].extra["warnings"] = [*warnings, room_made]
        return cells
    finally:
        for one in candidates:
            one.release()
        referee.close()


def _make_room(candidates: list[KernelCandidate], base: KernelCandidate | None, budget_s: float) -> str | None:
    """Where a share of the budget is too short to time the baseline whole, do without predictions; say what that costs.

    A ratio to a predicted time says little. Kernels are then timed whole, the fastest first, as long as the budget has
    room; the other rungs of the ladder are removed. A user's own kernel stays, predicted if need be; and all stay as
    they are if the whole budget is too short for the baseline.
    """
    if not base or not base.cost or not base.extrapolated or _CALLS_WHOLE * base.cost.full_s > budget_s:
        return None
    costs_s = {one: _CALLS_WHOLE * one.cost.full_s for one in candidates if one.cost and not one.failure}
    enough_s, left_s, left_out = len(candidates) * costs_s[base], budget_s, []
    for one in sorted(costs_s, key=lambda one: (one is not base, costs_s[one])):
        if costs_s[one] <= left_s:
            left_s -= costs_s[one]
            if one.extrapolated:
                one.limit_s = None
                one.attempt(one.enter)
        elif one.name in {rung.name for rung in RUNGS}:
            left_out.append(one.name)
            one.release()
            candidates.remove(one)
    if not left_out:
        return None
    return (
        f"budget: {budget_s:g} s are too short to time {base.name} whole on {base.workload} beside all others; left "
        f"out are the slowest, {', '.join(left_out)}; a budget of {enough_s:.2g} s has room"
    )


def _trial(one: KernelCandidate) -> None:
    """Take a turn for its length alone."""
    one.take_turn(1)
    one.samples.clear()


def _align(candidates: list[KernelCandidate], base: KernelCandidate | None) -> None:
    """Give kernels that are about as fast as the baseline its number of calls.

    The first call of a block finds cold caches: shared among 3 calls or among 4, that is a percent that would look
    like a difference.
    """
    for one in candidates:
        if base and one.call_s and _ALIKE <= one.call_s / base.call_s <= 1 / _ALIKE:
            one.calls = base.calls


def failed_cell(
    workload: Workload, threads: int, spec: str, status: str, reason: str | None, device: str = "cpu"
) -> Cell:
    """Return the cell of a kernel that is not measured at all: it has a status and a reason, and no figure."""
    return Cell(_row(workload, threads, spec, status, reason, device), [], {})


def _row(workload: Workload, threads: int, spec: str, status: str, reason: str | None, device: str) -> MeasurementRow:
    w = workload
    return MeasurementRow(
        str(w), w.m, w.k, w.n, w.layout, w.dtype, threads, spec, w.batch, device, status=str(status), reason=reason
    )


def _above(roof: Roof | None, one: KernelCandidate, host: Host) -> Roof | None:
    """Return the roof; where a kernel seems to be above it, measured once more."""
    if not roof or one.failure or not one.samples:
        return roof
    rate = one.workload.flop / statistics.median(one.samples.values()) / 1e9
    if rate > _BEYOND * (roof.fma_gflops if roof.disturbed else roof.limit(one.workload, one.cold)[1]):
        roof = measure_roof(host, roof.dtype, roof.device).best_of(roof)
        beyond = _BEYOND if roof.device == "cpu" else _BEYOND_LIBRARY
        if rate > beyond * roof.fma_gflops and not roof.disturbed:  # else it is no roof
            one.failure = one.refused(
                f"faster than the machine: {rate:.4g} GFLOP/s, where {roof.fma_gflops:.4g} is its compute peak"
            )
    return roof


def _cell(
    one: KernelCandidate,
    base: KernelCandidate | None,
    analyses: int,
    comparisons: int,
    roof: Roof | None,
    warnings: list[str],
    baseline: str | None,
) -> Cell:
    workload, threads, device = one.workload, one.host.threads, one.device
    if one.failure:
        return failed_cell(workload, threads, one.name, one.failure.status, one.failure.reason, device)
    seen = Comparison(one, base, analyses, comparisons)
    if not seen.samples:
        return failed_cell(
            workload, threads, one.name, Status.LOST, "no turn was undisturbed beside the baseline's", device
        )
    row = _row(workload, threads, one.name, Status.OK, None, device)
    row.extrapolated = one.extrapolated
    row.min_s, row.samples = float(np.min(seen.samples)), len(seen.samples)
    row.median_s, row.ci_low_s, row.ci_high_s = seen.time.figures
    row.setup_s = statistics.median(one.setups_s) if one.setups_s else None
    if base:
        row.speedup, row.speedup_ci_low, row.speedup_ci_high = seen.speedup.figures
        row.verdict = "baseline" if one.name == baseline else seen.verdict
        if row.verdict == "unclear":
            row.reason = _why_unclear(row, seen.speedup, warnings)
    else:
        row.reason = f"no speedup: the baseline {baseline} failed" if baseline else None
    row.gflops = workload.flop / row.median_s / 1e9
    if roof and roof.disturbed:
        warnings = [*warnings, f"no % of roof: {roof.disturbed.partition(':')[0]} disturbed its measurement"]
    elif roof:
        row.roof_limit, row.roof_gflops = roof.limit(workload, one.cold)
        row.roof_percent = 100 * row.gflops / row.roof_gflops
    calibration = [one.referee.calibration[number] for number in seen.rounds]
    extra = {
        "timed_on": str(one.cost.workload) if one.cost else None,
        "workspace_bytes": one.cost.workspace_bytes if one.cost else None,
        "processes": seen.processes,
        "baseline_samples": seen.baseline_samples,
        "calibration_samples": calibration,
        "warnings": warnings,
    }
    return Cell(row, seen.samples, extra)


def _why_unclear(row: MeasurementRow, speedup: Interval, warnings: list[str]) -> str:
    """Say why no difference can be claimed, and what to do about it."""
    if row.samples == 1:
        return "one round; a larger --budget gives more"
    width = f"ratio known to ±{100 * speedup.relative_half_width:.1f} % after {row.samples} rounds"
    if not speedup.low <= 1 <= speedup.high:
        width += ", too few to claim a difference"
    # A block should last a thousand ticks of the clock at least.
    quantised = max(row.median_s or 0, BLOCK_S) < 1000 * get_clock_info("perf_counter").resolution
    causes = ", ".join(warning.partition(":")[0] for warning in warnings)
    cause = "quantised timer" if quantised else causes or "the budget ended, a larger --budget narrows it"
    return f"{width}; {cause}"
