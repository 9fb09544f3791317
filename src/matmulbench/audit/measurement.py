"""Does the instrument mean what it says: the same kernel twice, planted delays, known durations, extrapolation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from matmulbench.audit import Check
from matmulbench.audit.front_ends import front_end_times
from matmulbench.audit.planted import DURATIONS, SPINS
from matmulbench.isolation import Host
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.measurement.cells import Settings, measure_cells
from matmulbench.results.schema import MeasurementRow
from matmulbench.status import Status
from matmulbench.training.accounting import train_kernels
from matmulbench.workload import FIRST, Workload

if TYPE_CHECKING:
    from matmulbench.audit.mutants import Mutant

_HERE = "matmulbench.audit.planted"
WORKLOADS = ("5x784x10", "64x784x50", "1000x784x50")
DEFAULT_BUDGET_S = 10.0
CHEATED = ("256x256x256", "64x784x50")
CHEATS_BUDGET_S = 3.0
NO_GAIN = 1.1  # what a ratio of equals may show in so short a time
# Of the reasons that may be expected, those that a finding puts in other words.
_SEEN_AS = {"wrong result": ", expected ", "settings": " changes ", "error": "error: ", "crashed": "crashed: "}
_TURN_S, _TURNS = 2.0, 5  # of extrapolating
EXTRAPOLATED = [
    *(("triple-loop", text) for text in ("5x100x10", "8x784x4", "5x784x10", "16x16x16")),
    *(("row-slice", text) for text in ("64x784x50", "128x128x128", "200x784x10")),
    *(("broadcasting", text) for text in ("1000x784x50", "455x30x14", "512x512x512")),
]


def audit_measurement(part: str, quick: bool, progress: Callable[[str], None]) -> Iterator[Check]:
    """Carry out one part of :data:`~matmulbench.audit.MEASUREMENT`."""
    texts = WORKLOADS[:1] if quick else WORKLOADS
    with Host(1) as host:
        match part:
            case "same-twice":
                for busy in (0, 1, 3):
                    for text in texts:
                        progress(f"A/A {text}, {busy} busy processes")
                        with _load(busy):
                            yield from same_twice(host, text, 12 if quick else 300, busy)
            case "restarts":
                progress("restarts")
                yield from restarts(4 if quick else 10)
            case "clocks":
                yield from cheats(host, quick, progress)
            case "delays":
                for delay, seconds in ((0.05, 2.0), (0.03, 10.0)):
                    for text in texts:
                        progress(f"planted delay of {100 * delay:.0f} % in {text}")
                        yield from planted_delay(host, text, delay, seconds, 8 if quick else 60)
            case "durations":
                progress("known durations")
                yield from known_durations(host)
            case "extrapolation":
                progress("extrapolation")
                yield from extrapolation(host, EXTRAPOLATED[-3:] if quick else EXTRAPOLATED)
            case "front-ends":
                for text in WORKLOADS:
                    progress(f"front ends {text}")
                    yield from front_ends(host, text)


def same_twice(host: Host, text: str, trials: int, busy: int) -> Iterator[Check]:
    """A/A: one kernel under two names must not differ, and the interval must contain 1."""
    rows = [_pair(host, text, "plain", "twin", DEFAULT_BUDGET_S) for _ in range(trials)]
    covered = sum((row.speedup_ci_low or 2) <= 1 <= (row.speedup_ci_high or 0) for row in rows)
    false = sum(row.verdict in ("faster", "slower") for row in rows)
    setting = f"{text}, {trials} trials{f', {busy} busy' if busy else ''}"
    yield Check(
        "A/A: interval contains 1", setting, "≥ 93 %", f"{100 * covered / trials:.1f} %", covered >= 0.93 * trials
    )
    yield Check("A/A: false verdicts", setting, "≤ 1 %", f"{100 * false / trials:.1f} %", false <= 0.01 * trials)


def restarts(runs: int) -> Iterator[Check]:
    """Measure anew, everything started again: the medians must lie within each other's intervals."""
    rows = []
    for _ in range(runs):
        with Host(1) as host:
            cells = measure_cells(host, FIRST, ["numba-tiled"], BASELINE, DEFAULT_BUDGET_S)
            rows += [cell.row for cell in cells if cell.row.kernel == "numba-tiled"]
    inside = [
        (one.ci_low_s or np.inf) <= (other.median_s or 0.0) <= (one.ci_high_s or 0.0)
        for one in rows
        for other in rows
        if one is not other
    ]
    share = sum(inside) / len(inside)
    yield Check(
        "restarts: medians within intervals", f"{FIRST}, {runs} runs", "≥ 95 %", f"{100 * share:.0f} %", share >= 0.95
    )


def cheats(host: Host, quick: bool, progress: Callable[[str], None]) -> Iterator[Check]:
    """Time kernels that cheat in time: each is refused for a reason of its own, or no faster than it is."""
    from matmulbench.audit.mutants import mutants

    for text in CHEATED[: 1 if quick else 2]:
        for mutant in mutants("clocks")[:: 3 if quick else 1]:
            progress(f"{mutant.name} {text}")
            cells = measure_cells(host, Workload.parse(text), [mutant.spec], mutant.honest, CHEATS_BUDGET_S)
            row = next(cell.row for cell in cells if cell.row.kernel == mutant.spec)
            yield _judge_cheat("in time", mutant, text, row.status, row.reason, row.speedup)
    for mutant in mutants("clocks")[:: 6 if quick else 1]:
        progress(f"{mutant.name} in training")
        for trained, _ in train_kernels(host, "digits", [mutant.spec], mutant.honest, CHEATS_BUDGET_S):
            if trained.kernel == mutant.spec:
                gain = trained.measured_speedup
                yield _judge_cheat("in training", mutant, "digits", trained.status, trained.reason, gain)


def _judge_cheat(
    where: str, mutant: Mutant, setting: str, status: str, reason: str | None, gain: float | None
) -> Check:
    required = f"{' or '.join(one for one in mutant.expected if one != 'no gain')}; or no gain"
    if status == Status.OK:
        passed, got = gain is not None and gain <= NO_GAIN, f"{gain or 0:.3g}x"
    else:
        passed, got = (
            any(_SEEN_AS.get(one, one) in f"{status}: {reason}" for one in mutant.expected),
            f"{status}: {reason}",
        )
    return Check(f"{mutant.name} {where}", f"{setting}: {mutant.does}", required, got, passed)


def planted_delay(host: Host, text: str, delay: float, seconds: float, trials: int) -> Iterator[Check]:
    """Power: a kernel that is slower by a known share must be called so, and by how much."""
    name = f"delayed_{delay * 100:.0f}"
    rows = [_pair(host, text, "plain", name, 2 * seconds) for _ in range(trials)]
    found = sum(row.verdict == "slower" for row in rows)
    size = median(1 / (row.speedup or np.inf) - 1 for row in rows)
    setting = f"{100 * delay:.0f} % in {text}, {seconds:g} s per kernel, {trials} trials"
    yield Check("delay called slower", setting, "≥ 95 %", f"{100 * found / trials:.1f} %", found >= 0.95 * trials)
    yield Check(
        "delay's size", setting, f"{100 * delay:.0f} % ± 1 point", f"{100 * size:.2f} %", abs(size - delay) <= 0.01
    )


def known_durations(host: Host) -> Iterator[Check]:
    """Spin for a known time: it must be measured as such."""
    for name, seconds in DURATIONS.items():
        row = _pair(host, "1x1x1", SPINS[name], SPINS[name], 2.0)
        error = (row.median_s or np.inf) / seconds - 1
        yield Check("known duration", name, "± 1 %", f"{100 * error:+.2f} %", abs(error) <= 0.01)


def extrapolation(host: Host, cases: list[tuple[str, str]]) -> Iterator[Check]:
    """Time few rows and the whole, in the same rounds: what the few predict must be what the whole takes."""
    inside = []
    for kernel, text in cases:
        errors = []
        for _ in range(_TURNS):
            whole, predicted = _whole_and_predicted(host, text, kernel)
            fair = predicted.extrapolated and not whole.extrapolated
            errors.append(1 / (predicted.speedup or np.inf) - 1 if fair else np.inf)
            inside.append((predicted.ci_low_s or np.inf) <= (whole.median_s or 0.0) <= (predicted.ci_high_s or 0.0))
        error = median(errors)
        yield Check("extrapolation", f"{kernel}, {text}", "± 10 %", f"{100 * error:+.1f} %", abs(error) <= 0.1)
    share = sum(inside) / len(inside)
    yield Check(
        "extrapolation: inside its interval", f"{len(inside)} times", "≥ 90 %", f"{100 * share:.0f} %", share >= 0.9
    )


def front_ends(host: Host, text: str) -> Iterator[Check]:
    """Time one call with each front end: where the spreads (Tukey's fences) of the times meet, they agree."""
    (_, ours), *others = front_end_times(host, text)
    for name, theirs in others:
        (our_low, our_high), (their_low, their_high) = _fences(*ours), _fences(*theirs)
        agree = our_low <= theirs[1] <= our_high or their_low <= ours[1] <= their_high
        drift = f"{100 * (theirs[1] / ours[1] - 1):+.1f} %"
        yield Check(f"{name} agrees", f"torch, {text}", "a median inside the other's spread", drift, agree)


def _fences(low: float, middle: float, high: float) -> tuple[float, float]:
    """Return one and a half interquartile ranges below the lower and above the upper quartile."""
    return low - 1.5 * (high - low), high + 1.5 * (high - low)


def _whole_and_predicted(host: Host, text: str, kernel: str) -> tuple[MeasurementRow, MeasurementRow]:
    """Return the row of ``kernel`` in full, and one predicted from calls of an eighth of its time at most."""
    workload = Workload.parse(text)
    whole = next(rung.target for rung in LADDER if rung.name == kernel)
    in_full = Settings(never_extrapolate=(whole,))
    (alone,) = measure_cells(host, workload, [], whole, _TURN_S / 4, settings=in_full)
    limit_s = (alone.row.median_s or 0.0) / 8
    cells = measure_cells(host, workload, [kernel], whole, _TURN_S, settings=replace(in_full, limit_s=limit_s))
    rows = {cell.row.kernel: cell.row for cell in cells}
    return rows[whole], rows[kernel]


def _pair(host: Host, text: str, baseline: str, kernel: str, budget_s: float) -> MeasurementRow:
    """Return the row of a planted kernel, timed against another."""
    spec = f"{_HERE}:{kernel}"
    cells = measure_cells(host, Workload.parse(text), [spec], f"{_HERE}:{baseline}", budget_s)
    return next(cell.row for cell in cells if cell.row.kernel == spec)


@contextmanager
def _load(processes: int) -> Iterator[None]:
    """Keep so many other processes busy."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()
