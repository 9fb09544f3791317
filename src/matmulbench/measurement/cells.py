"""The parent's side of measuring: children are asked, their answers become rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import get_clock_info
from typing import Any

import numpy as np

from matmulbench.isolation import Host
from matmulbench.measurement.clock import BLOCK_S
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.rounds import Settings
from matmulbench.measurement.statistics import CONFIDENCE, Interval, median_interval, ratio_interval
from matmulbench.results.schema import MeasurementRow, Status
from matmulbench.workload import Workload

SILENCE_S = 60.0  # a call predicted to take this long is never made
SAME = 0.02  # the smallest difference of interest
EXTRAPOLATION_ERROR = 0.05  # more than the audit's extrapolations miss by, nine times of ten at least
_FALSE_ALARM = 0.01  # how often a verdict may be wrong, over all kernels of a workload


@dataclass
class Cell:
    """One finished cell: its row, the raw seconds per call, and what else is worth keeping."""

    row: MeasurementRow
    samples: list[float]
    extra: dict[str, Any]


def measure_roof(host: Host, dtype: str) -> Roof:
    """Measure the roof at the host's thread count.

    Raises
    ------
    RuntimeError
        if the child failed; the message says why.
    """
    outcome = host.call("matmulbench.measurement.roof:measure_roof", dtype, host.threads, silence_limit=SILENCE_S)
    if outcome.status != Status.OK:
        raise RuntimeError(f"the roof could not be measured: {outcome.reason}")
    return Roof(**outcome.value)


def compile_seconds(host: Host, spec: str, dtype: str) -> float | None:
    """Return what ``spec`` costs before its first result, in seconds; None where it does not run at all."""
    target = "matmulbench.measurement.compilation:compile_seconds"
    outcome = host.call(target, spec, dtype, silence_limit=SILENCE_S)
    return outcome.value if outcome.status == Status.OK else None


def measure_cells(
    host: Host,
    workload: Workload,
    specs: list[str],
    baseline: str,
    budget_s: float,
    roof: Roof | None = None,
    limit_s: float | None = None,
    cold: bool = False,
    in_full: tuple[str, ...] = (),
) -> Iterator[Cell]:
    """Measure ``specs`` on ``workload`` in rounds paired with ``baseline``; yield a cell for each.

    ``budget_s`` is for all kernels together; for ``limit_s``, ``cold`` and ``in_full`` see
    :class:`~matmulbench.measurement.rounds.Settings`.

    A kernel that kills or hangs its child costs its own cell alone: the others are measured again without it.
    """
    specs = list(dict.fromkeys([baseline, *specs]))
    while specs:
        current: list[str] = []
        outcome = host.call(
            "matmulbench.measurement.rounds:measure_workload",
            *(workload, specs, baseline, budget_s, Settings(host.threads, limit_s, cold, in_full)),
            silence_limit=SILENCE_S,
            listen=lambda message, current=current: current.append(message[1]),  # type: ignore[misc]
        )
        if outcome.status == Status.OK:
            looks, warnings = outcome.value["looks"], outcome.value["warnings"]
            for report in outcome.value["cells"]:
                cell = _cell(workload, host.threads, report, looks, len(specs) - 1, roof)
                cell.extra["warnings"] = warnings
                if cell.row.verdict == "unclear":
                    cell.row.reason = _why_unclear(cell.row, warnings)
                yield cell
            return
        culprit = current[-1] if current else baseline
        yield Cell(_row(workload, host.threads, culprit, outcome.status, outcome.reason), [], {})
        specs = [spec for spec in specs if spec != culprit]


def failed_cell(workload: Workload, threads: int, spec: str, status: str, reason: str | None) -> Cell:
    """Return the cell of a kernel that is not measured at all: it has a status and a reason, and no figure."""
    return Cell(_row(workload, threads, spec, status, reason), [], {})


def _row(workload: Workload, threads: int, spec: str, status: str, reason: str | None) -> MeasurementRow:
    w = workload
    return MeasurementRow(str(w), w.m, w.k, w.n, w.layout, w.dtype, threads, spec, status=str(status), reason=reason)


def _cell(
    workload: Workload, threads: int, report: dict[str, Any], looks: int, comparisons: int, roof: Roof | None
) -> Cell:
    row = _row(workload, threads, report["kernel"], report["status"], report.get("reason"))
    samples, paired = report.get("samples", []), report.get("baseline_samples", [])
    extra: dict[str, Any] = {
        key: report[key]
        for key in ("timed_on", "extra_bytes", "baseline_samples", "calibration_samples")
        if key in report
    }
    if row.status != Status.OK:
        return Cell(row, [], extra)
    if not samples:
        return Cell(replace(row, status=str(Status.ERROR), reason="the baseline failed: no rounds"), [], extra)
    row.extrapolated = report["extrapolated"]
    # The samples know nothing of how far a line through two sub-problems may miss the whole.
    model_error = EXTRAPOLATION_ERROR if row.extrapolated else 0.0
    time = median_interval(samples).widened(model_error)
    row.min_s, row.samples = float(np.min(samples)), len(samples)
    row.median_s, row.ci_low_s, row.ci_high_s = _figures(time)
    speedup = ratio_interval(paired, samples, 1 - (1 - CONFIDENCE) / looks).widened(model_error)
    row.speedup, row.speedup_ci_low, row.speedup_ci_high = _figures(speedup)
    cautious = ratio_interval(paired, samples, 1 - _FALSE_ALARM / looks / max(1, comparisons)).widened(model_error)
    row.verdict = verdict(speedup, cautious)
    row.gflops = workload.flop / time.median / 1e9
    if roof:
        row.roof_gflops = roof.gflops(workload)
        row.roof_percent = 100 * row.gflops / row.roof_gflops
    return Cell(row, samples, extra)


def _figures(interval: Interval) -> tuple[float, float | None, float | None]:
    """Return median, low and high; no ends where a single sample leaves them open, none below 0."""
    if not np.isfinite(interval.high):
        return interval.median, None, None
    return interval.median, max(interval.low, 0.0), interval.high


def _why_unclear(row: MeasurementRow, warnings: list[str]) -> str:
    """Say why no difference can be claimed, and what to do about it."""
    if row.speedup_ci_low is None or row.speedup_ci_high is None:
        return "one round; a larger --budget gives more"
    width = f"ratio known to ±{(row.speedup_ci_high - row.speedup_ci_low) / 2:.1%} after {row.samples} rounds"
    # A block should last a thousand ticks of the clock at least.
    quantised = max(row.median_s or 0, BLOCK_S) < 1000 * get_clock_info("perf_counter").resolution
    cause = "quantised timer" if quantised else "; ".join(warnings) or "the budget ended; a larger --budget narrows it"
    return f"{width}; {cause}"


def verdict(speedup: Interval, cautious: Interval) -> str:
    """Say ``same``, ``faster``, ``slower`` or ``unclear``.

    ``speedup`` is the interval that the table shows; ``cautious`` the wider one, corrected for all comparisons of
    the table, that has to exclude 1 before a difference is claimed. One below the smallest of interest never is.
    """
    if speedup.within(1 - SAME, 1 + SAME):
        return "same"
    if cautious.low > 1 and speedup.median >= 1 + SAME:
        return "faster"
    return "slower" if cautious.high < 1 and speedup.median <= 1 - SAME else "unclear"
