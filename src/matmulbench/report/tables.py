"""The tables: which rows and columns answer which question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matmulbench.errors import UsageError, unknown
from matmulbench.ladder import BASELINE
from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.view import (
    Ladder,
    Row,
    baseline_of,
    ceiling,
    has_figure,
    in_order,
    ladders,
    matmul_speedup,
    records,
    short,
    task_title,
    tasks,
)
from matmulbench.report.wording import (
    NOTHING,
    factor,
    factor_interval,
    known,
    percent,
    rate,
    seconds,
    seconds_interval,
)
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status

if TYPE_CHECKING:
    import pandas as pd

EXTRAPOLATED = "≈ extrapolated from fewer rows"
_RESIDUAL = "residual: the largest error, in units of k·u·(|A||B|)"
_TONE = {"faster": "good", "slower": "", "same": "", "unclear": "faint"}


def ladder_table(results: Results, workload: str | None = None) -> Grid:
    """Return the whole ladder on one workload: the first that was measured, unless another is named.

    Raises
    ------
    UsageError
        if the run did not measure that workload, or none.
    """
    table = results.measurements
    measured = list(dict.fromkeys(table["workload"]))
    if not measured:
        raise UsageError("the run measured no workload")
    if workload is not None and workload not in measured:
        raise unknown("workload", workload, measured)
    return measurement_table(table[table["workload"] == (workload or measured[0])], baseline_of(results))


def measurement_table(measurements: pd.DataFrame, baseline: str = BASELINE) -> Grid:
    """Return every ladder of a table of measurements, one below the other."""
    found = ladders(measurements)
    kernels = in_order(measurements["kernel"])
    lowest = kernels[0] if kernels and kernels[0] != baseline else None
    columns = [
        Column("kernel", "name"),
        Column("time"),
        Column("95 % interval", optional=2),
        Column(f"vs {short(baseline)}"),
        Column("95 % interval", optional=3),
        *([Column(f"vs {short(lowest)}", optional=4)] if lowest else []),
        Column("GFLOP/s", optional=1),
        Column("% of roof"),
        Column("verdict", "prose"),
    ]
    grid = Grid(found[0].title if len(found) == 1 else "Measurements", columns)
    if len(found) > 1:
        columns.insert(0, Column("workload", "name"))
        if len({(ladder.dtype, ladder.threads) for ladder in found}) > 1:
            columns.insert(1, Column("dtype, threads", "name"))
    for ladder in found:
        grid.sections.add(len(grid.rows))
        for row in ladder.rows:
            cells = _measurement_cells(row, ladder, baseline, lowest)
            if len(found) > 1:
                names = [Cell(ladder.workload), Cell(f"{ladder.dtype}, {ladder.threads}", ladder.threads)]
                cells = names[: len(columns) - len(cells)] + cells
            grid.rows.append(cells)
    if measurements["extrapolated"].any():
        grid.note = EXTRAPOLATED
    return grid


def _measurement_cells(row: Row, ladder: Ladder, baseline: str, lowest: str | None) -> list[Cell]:
    bottom = ladder.row(lowest) if lowest else None
    if not has_figure(row, "median_s"):
        nothing = [Cell(NOTHING, tone="faint")] * (8 if lowest else 7)
        return [Cell(short(row["kernel"])), *nothing[:-1], why(row)]
    climbed = [factor_cell(bottom["median_s"] / row["median_s"] if bottom else None)] if lowest else []
    is_baseline = row["kernel"] == baseline
    return [
        Cell(short(row["kernel"])),
        Cell(about(row, seconds(row["median_s"])), row["median_s"], "strong"),
        Cell(seconds_interval(row["ci_low_s"], row["ci_high_s"]), known(row["ci_low_s"])),
        factor_cell(row["speedup"]),
        Cell(NOTHING)
        if is_baseline
        else Cell(factor_interval(row["speedup_ci_low"], row["speedup_ci_high"]), known(row["speedup_ci_low"])),
        *climbed,
        Cell(rate(row["gflops"]), known(row["gflops"])),
        Cell(percent(row["roof_percent"], of=100), known(row["roof_percent"])),
        Cell("baseline", tone="faint") if is_baseline else _verdict(row),
    ]


def about(row: Row, text: str) -> str:
    """Mark the text of a figure that was extrapolated."""
    return f"≈ {text}" if row["extrapolated"] else text


def factor_cell(value: Any) -> Cell:
    """Return a speedup's cell."""
    return Cell(factor(value), known(value))


def why(row: Row) -> Cell:
    """Return the cell that says why a row has no figure."""
    reason = row.get("reason") or row.get("finding")
    return Cell(f"{row['status']}: {reason}" if isinstance(reason, str) else str(row["status"]), tone="bad")


def _verdict(row: Row) -> Cell:
    if not isinstance(row["verdict"], str):
        return Cell(NOTHING)
    reason = f": {row['reason']}" if isinstance(row["reason"], str) else ""
    return Cell(row["verdict"] + reason, tone=_TONE.get(row["verdict"], ""))


def speedup_table(results: Results) -> Grid:
    """Return every workload's speedups at a glance: a line per ladder, a column per kernel."""
    kernels = in_order(results.measurements["kernel"])
    found = ladders(results.measurements)
    several = len({(ladder.dtype, ladder.threads) for ladder in found}) > 1
    grid = Grid(
        f"Speedup against {short(baseline_of(results))}",
        [Column("workload", "name"), *(Column(short(kernel)) for kernel in kernels)],
        note=EXTRAPOLATED if results.measurements["extrapolated"].any() else "",
    )
    for ladder in found:
        rows = {row["kernel"]: row for row in ladder.rows}
        cells = [_speedup_cell(rows[kernel]) if kernel in rows else Cell(NOTHING) for kernel in kernels]
        grid.rows.append([Cell(ladder.title if several else ladder.workload), *cells])
    return grid


def _speedup_cell(row: Row) -> Cell:
    if row["status"] != Status.OK:
        return Cell(row["status"], tone="bad")
    if known(row["speedup"]) is None:
        return Cell(NOTHING)
    return Cell(about(row, factor(row["speedup"])), row["speedup"], _TONE.get(row["verdict"], ""))


def verification_table(verification: pd.DataFrame) -> Grid:
    """Return the verdict on every kernel: a line per kernel and dtype."""
    columns = [
        Column("kernel", "name"),
        Column("dtype", "name"),
        Column("verdict", "name"),
        Column("residual"),
        Column("cases"),
        Column("finding", "prose"),
    ]
    grid = Grid("Verification", columns, note=_RESIDUAL)
    for row in records(verification):
        fine = row["status"] == Status.OK
        residual, cases = known(row["residual"]), known(row["cases"])
        grid.rows.append(
            [
                Cell(short(row["kernel"])),
                Cell(row["dtype"]),
                Cell(
                    row["verdict"] if isinstance(row["verdict"], str) else row["status"],
                    tone="good" if fine else "bad",
                ),
                Cell(NOTHING if residual is None else f"{residual:.2g}", residual),
                Cell(NOTHING if cases is None else f"{cases:.0f}", cases),
                Cell(row["finding"] if isinstance(row["finding"], str) else ""),
            ]
        )
    return grid


def comparison_table(comparison: pd.DataFrame) -> Grid:
    """Return the changes of :func:`matmulbench.comparison.compare`; the machine's own drift is out of the speedup."""
    columns = [
        Column("workload", "name"),
        Column("dtype, threads", "name", optional=2),
        Column("kernel", "name"),
        Column("before"),
        Column("after"),
        Column("speedup"),
        Column("99 % interval", optional=1),
        Column("arithmetic drift", optional=3),
        Column("call drift", optional=3),
        Column("verdict", "prose"),
    ]
    grid = Grid("From one run to the other", columns, note="drift: what fixed work takes after / before")
    before = None
    for row in comparison.to_dict("records"):
        if row["workload"] != before:
            grid.sections.add(len(grid.rows))
        before = row["workload"]
        statuses = [row[name] for name in ("status_a", "status_b")]
        failed = "" if statuses == [Status.OK, Status.OK] else f"{statuses[0]}, then {statuses[1]}"
        verdict = row["verdict"] if isinstance(row["verdict"], str) else ""
        times = [Cell(seconds(row[name]), known(row[name])) for name in ("median_a_s", "median_b_s")]
        tone = {"slower": "bad", "broken": "bad"}.get(verdict) or _TONE.get(verdict, "")
        grid.rows.append(
            [
                Cell(row["workload"]),
                Cell(f"{row['dtype']}, {row['threads']}"),
                Cell(short(row["kernel"])),
                *times,
                factor_cell(row["speedup"]),
                Cell(factor_interval(row["speedup_ci_low"], row["speedup_ci_high"]), known(row["speedup_ci_low"])),
                factor_cell(row["drift_arithmetic"]),
                factor_cell(row["drift_calls"]),
                Cell(": ".join(filter(None, [verdict, failed])), tone=tone),
            ]
        )
    return grid


def audit_table(checks: pd.DataFrame) -> Grid:
    """Return the checks of ``matmulbench audit``, those that failed first."""
    columns = [
        Column("check", "name"),
        Column("passed", "name"),
        Column("setting", "prose"),
        Column("required", "name"),
        Column("got", "prose"),
    ]
    failed = int((~checks["passed"]).sum())
    grid = Grid(f"{len(checks) - failed} of {len(checks)} checks passed", columns)
    for row in checks.sort_values("passed", kind="stable").to_dict("records"):
        mark = Cell("✓", tone="good") if row["passed"] else Cell("✗", tone="bad")
        check, *others = (Cell(str(row[name])) for name in ("check", "setting", "required", "got"))
        grid.rows.append([check, mark, *others])
    return grid


def verification_matrix(verification: pd.DataFrame) -> Grid:
    """Return the verdicts side by side: a line per kernel, a column per dtype."""
    rows = {(row["kernel"], row["dtype"]): row for row in records(verification)}
    dtypes = sorted({dtype for _, dtype in rows})
    columns = [
        Column("kernel", "name"),
        *(Column(dtype, "name") for dtype in dtypes),
        Column("finding", "prose"),
    ]
    grid = Grid("Verification", columns, note=_RESIDUAL)
    for kernel in in_order(kernel for kernel, _ in rows):
        mine = [rows.get((kernel, dtype)) for dtype in dtypes]
        findings = [row["finding"] for row in mine if row and isinstance(row["finding"], str)]
        cells = [_verified(row) for row in mine]
        grid.rows.append([Cell(short(kernel)), *cells, Cell("; ".join(dict.fromkeys(findings)))])
    return grid


def _verified(row: Row | None) -> Cell:
    if row is None:
        return Cell("not tried", tone="faint")
    fine = row["status"] == Status.OK
    verdict = row["verdict"] if isinstance(row["verdict"], str) else row["status"]
    residual = known(row["residual"])
    text = f"{'✓' if fine else '✗'} {verdict}" + ("" if residual is None else f", residual {residual:.2g}")
    return Cell(text, residual, "good" if fine else "bad")


def training_table(training: pd.DataFrame, baseline: str = BASELINE) -> Grid:
    """Return what each kernel buys in each task."""
    columns = [
        Column("task", "name"),
        Column("kernel", "name"),
        Column("step"),
        Column("95 % interval", optional=5),
        Column("in matmul", optional=1),
        Column("matmul", optional=3),
        Column("predicted", optional=4),
        Column("step vs " + short(baseline)),
        Column("95 % interval", optional=6),
        Column("final loss", optional=2),
        Column("loss off by", optional=7),
        Column("train", optional=8),
        Column("test"),
        Column("note", "prose"),
    ]
    grid = Grid("Training", columns)
    notes = [EXTRAPOLATED] if training["extrapolated"].any() else []
    found = tasks(training)
    several = len({threads for _, threads in found}) > 1
    for (task, threads), rows in found.items():
        grid.sections.add(len(grid.rows))
        reference = next((row for row in rows if row["kernel"] == baseline and has_figure(row, "step_s")), None)
        if (limit := ceiling(reference)) is not None:
            notes.append(f"{task}: with products that cost nothing, a step would be {factor(limit)}")
        name = task_title(task, threads) if several else task
        grid.rows += [[Cell(name), *_training_cells(row, reference)] for row in rows]
    grid.note = "; ".join(notes)
    return grid


def _training_cells(row: Row, reference: Row | None) -> list[Cell]:
    name = Cell(short(row["kernel"]))
    if not has_figure(row, "step_s"):
        return [name, *[Cell(NOTHING, tone="faint")] * 11, why(row)]
    loss, deviation = known(row["final_loss"]), known(row["loss_deviation"])
    is_reference = reference is not None and row["kernel"] == reference["kernel"]
    interval = factor_interval(row["measured_ci_low"], row["measured_ci_high"])
    return [
        name,
        Cell(about(row, seconds(row["step_s"])), row["step_s"], "strong"),
        Cell(seconds_interval(row["step_ci_low_s"], row["step_ci_high_s"]), known(row["step_ci_low_s"])),
        Cell(percent(row["matmul_share"]), known(row["matmul_share"])),
        factor_cell(matmul_speedup(row, reference)),
        factor_cell(row["predicted_speedup"]),
        factor_cell(row["measured_speedup"]),
        Cell(NOTHING if is_reference else interval, known(row["measured_ci_low"])),
        Cell(NOTHING if loss is None else f"{loss:.4f}", loss),
        Cell(NOTHING if deviation is None else f"{deviation:.1e}", deviation),
        Cell(percent(row["train_accuracy"]), known(row["train_accuracy"])),
        Cell(percent(row["test_accuracy"]), known(row["test_accuracy"])),
        Cell(
            "baseline" if is_reference else row["reason"] if isinstance(row["reason"], str) else "",
            tone="faint",
        ),
    ]
