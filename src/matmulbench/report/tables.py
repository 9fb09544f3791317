"""The tables: which rows and columns answer which question."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from matmulbench.errors import UsageError
from matmulbench.ladder import BASELINE
from matmulbench.report.formatting import (
    NOTHING,
    factor,
    factor_interval,
    number,
    percent,
    rate,
    seconds,
    seconds_interval,
    text,
)
from matmulbench.report.queries import (
    Row,
    amdahl_limit,
    baseline_of,
    has_figure,
    in_order,
    labels,
    ladders,
    matmul_speedup,
    records,
    reference_of,
    task_title,
    tasks,
)
from matmulbench.report.table import Cell, Column, Table, figure, words
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status

if TYPE_CHECKING:
    import pandas as pd

EXTRAPOLATED = "≈ extrapolated from fewer rows"
_TONE = {"faster": "good", "slower": "", "same": "", "unclear": "faint"}


def ladder_table(results: Results) -> Table:
    """Return the whole ladder on the first workload that was measured.

    Raises
    ------
    UsageError
        if the run measured none.
    """
    table = results.measurements
    if not len(table):
        raise UsageError("the run measured no workload")
    return measurement_table(table[table["workload"] == table["workload"].iloc[0]], baseline_of(results))


def measurement_table(measurements: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return every ladder of a table of measurements, one below the other."""
    found = ladders(measurements)
    label = labels([*measurements["kernel"], baseline])
    lowest = next(iter(in_order(measurements["kernel"])), baseline)
    several = len({(ladder.dtype, ladder.threads) for ladder in found}) > 1
    rows = []
    for ladder in found:
        bottom = ladder.row(lowest)
        for row in ladder.rows:
            climbed = bottom["median_s"] / row["median_s"] if bottom and has_figure(row, "median_s") else None
            setting = f"{ladder.dtype}, {ladder.threads}"
            rows.append(_with_remark(row, baseline) | {"climbed": climbed, "setting": setting})
    columns = [
        words("workload", "workload", shown=len(found) > 1),
        words("dtype, threads", "setting", shown=several),
        words("kernel", "label"),
        figure("time", seconds, "median_s", "extrapolated", tone="strong"),
        figure("95 % interval", seconds_interval, "ci_low_s", "ci_high_s", optional=2),
        figure(f"vs {label[baseline]}", factor, "speedup"),
        figure("95 % interval", factor_interval, "speedup_ci_low", "speedup_ci_high", optional=3),
        figure(f"vs {label.get(lowest)}", factor, "climbed", optional=4, shown=lowest != baseline),
        figure("GFLOP/s", rate, "gflops", optional=1),
        figure("% of roof", partial(percent, of=100), "roof_percent"),
        figure("setup", seconds, "setup_s", optional=5, shown=any(has_figure(row, "setup_s") for row in rows)),
        words("verdict", "remark", "prose"),
    ]
    title = found[0].title if len(found) == 1 else "Measurements"
    note = EXTRAPOLATED if measurements["extrapolated"].any() else ""
    return Table(title, columns, rows, note, by=("workload", "dtype", "threads"))


def _with_remark(row: Row, baseline: str) -> Row:
    """Add to a row what is to be said of it: its verdict and the reason, or why it has no figure."""
    reason = text(row.get("reason"))
    if row["status"] != Status.OK:
        said, tone = str(row["status"]), "bad"
    elif row["kernel"] == baseline:
        # Its speedup over itself is 1 by definition.
        row = row | {"speedup_ci_low": None, "measured_ci_low": None}
        said, tone, reason = "baseline", "faint", ""
    else:
        said = text(row.get("verdict"))
        tone = _TONE.get(said, "faint")
    return row | {"remark": ": ".join(filter(None, [said, reason])), "remark_tone": tone}


def speedup_table(results: Results) -> Table:
    """Return every workload's speedups at a glance: a line per ladder, a column per kernel."""
    table, found = results.measurements, ladders(results.measurements)
    several = len({(ladder.dtype, ladder.threads) for ladder in found}) > 1
    label = labels([*table["kernel"], baseline_of(results)])

    def cell(kernel: str, ladder: Row) -> Cell:
        row = ladder.get(kernel)
        if row and row["status"] != Status.OK:
            return Cell(row["status"], tone="bad")
        if not row or not has_figure(row, "speedup"):
            return Cell(NOTHING, tone="faint")
        mark = "≈ " if row["extrapolated"] else ""
        return Cell(mark + factor(row["speedup"]), row["speedup"], _TONE.get(row["verdict"], ""))

    return Table(
        f"Speedup against {label[baseline_of(results)]}",
        [
            words("workload", "title"),
            *(Column(label[kernel], partial(cell, kernel)) for kernel in in_order(table["kernel"])),
        ],
        [
            {"title": ladder.title if several else ladder.workload, **{row["kernel"]: row for row in ladder.rows}}
            for ladder in found
        ],
        EXTRAPOLATED if table["extrapolated"].any() else "",
    )


def verification_table(verification: pd.DataFrame) -> Table:
    """Return the verdict on every kernel: a line per kernel and dtype."""
    columns = [
        words("kernel", "label"),
        words("dtype", "dtype"),
        words("verdict", "said"),
        figure("residual", number(".2g"), "residual", failed_too=True),
        figure("cases", number(".0f"), "cases", failed_too=True),
        words("finding", "finding", "prose"),
    ]
    rows = [
        row
        | {"said": text(row["verdict"]) or row["status"], "said_tone": "good" if row["status"] == Status.OK else "bad"}
        for row in records(verification)
    ]
    note = "residual: the largest error, in units of k·u·(|A||B|)"
    return Table("Verification", columns, rows, note)


def training_table(training: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return what each kernel buys in each task."""
    found = tasks(training)
    several = len({threads for _, threads in found}) > 1
    notes = [EXTRAPOLATED] if training["extrapolated"].any() else []
    rows = []
    for (task, threads), group in found.items():
        reference = reference_of(group, baseline)
        if (limit := amdahl_limit(reference)) is not None:
            notes.append(f"{task}: with products that cost nothing, a step would be {factor(limit)}")
        title = task_title(task, threads) if several else task
        for row in group:
            more = {"title": title, "matmul_speedup": matmul_speedup(row, reference)}
            rows.append(_with_remark(row, baseline) | more)
    columns = [
        words("task", "title"),
        words("kernel", "label"),
        figure("step", seconds, "step_s", "extrapolated", tone="strong"),
        figure("95 % interval", seconds_interval, "step_ci_low_s", "step_ci_high_s", optional=5),
        figure("in matmul", percent, "matmul_share", optional=1),
        figure("matmul", factor, "matmul_speedup", optional=3),
        figure("predicted", factor, "predicted_speedup", optional=4),
        figure(f"step vs {labels([*training['kernel'], baseline])[baseline]}", factor, "measured_speedup"),
        figure("95 % interval", factor_interval, "measured_ci_low", "measured_ci_high", optional=6),
        figure("final loss", number(".4f"), "final_loss", optional=2),
        figure("loss off by", number(".1e"), "loss_deviation", optional=7),
        figure("train", percent, "train_accuracy", optional=8),
        figure("test", percent, "test_accuracy"),
        words("note", "remark", "prose"),
    ]
    return Table("Training", columns, rows, "; ".join(notes), by=("title",))


def comparison_table(comparison: pd.DataFrame) -> Table:
    """Return the changes of :func:`matmulbench.comparison.compare`; the machine's own drift is out of the speedup."""
    label = labels(comparison["kernel"])
    tone = _TONE | {"slower": "bad", "broken": "bad"}
    rows = []
    for row in comparison.to_dict("records"):
        verdict, statuses = text(row["verdict"]), [row["status_a"], row["status_b"]]
        failed = "" if statuses == [Status.OK, Status.OK] else ", then ".join(statuses)
        rows.append(
            row
            | {"label": label[row["kernel"]], "setting": f"{row['dtype']}, {row['threads']}"}
            | {"remark": ": ".join(filter(None, [verdict, failed])), "remark_tone": tone.get(verdict, "")}
        )
    columns = [
        words("workload", "workload"),
        words("dtype, threads", "setting", optional=2),
        words("kernel", "label"),
        figure("before", seconds, "median_a_s"),
        figure("after", seconds, "median_b_s"),
        figure("speedup", factor, "speedup"),
        figure("99 % interval", factor_interval, "speedup_ci_low", "speedup_ci_high", optional=1),
        figure("arithmetic drift", factor, "drift_arithmetic", optional=3),
        figure("call drift", factor, "drift_calls", optional=3),
        words("verdict", "remark", "prose"),
    ]
    note = "drift: what fixed work takes after / before"
    return Table("From one run to the other", columns, rows, note, by=("workload",))


def audit_table(checks: pd.DataFrame) -> Table:
    """Return the checks of ``matmulbench audit``, those that failed first."""
    rows = [
        row | {"mark": "✓" if row["passed"] else "✗", "mark_tone": "good" if row["passed"] else "bad"}
        for row in checks.sort_values("passed", kind="stable").to_dict("records")
    ]
    columns = [
        words("check", "check"),
        words("passed", "mark"),
        words("setting", "setting", "prose"),
        words("required", "required"),
        words("got", "got", "prose"),
    ]
    return Table(f"{int(checks['passed'].sum())} of {len(checks)} checks passed", columns, rows)


def trace_table(products: pd.DataFrame) -> Table:
    """Return the matrix products of a training step, and below them what they are together."""
    notes = []
    for threads, group in products.groupby("threads"):
        step = seconds(group["time_s"].sum() / group["share"].sum())
        able, others = (group["share"][mask].sum() for mask in (group["reason"] == "", group["reason"] != ""))
        more = f", {percent(others)} in others" if others else ""
        notes.append(f"threads {threads}: {percent(able)} of a step of {step} in products that a kernel can do{more}")
    columns = [
        figure("threads", number(".0f"), "threads", shown=len(notes) > 1),
        words("product", "shape"),
        words("dtype", "dtype", optional=3),
        words("operator", "operator", optional=2),
        words("module", "module"),
        figure("times", number(".0f"), "count"),
        figure("MFLOP", rate, "mflop", optional=1),
        figure("time", seconds, "time_s"),
        figure("of step", percent, "share", tone="strong"),
        words("why no kernel can do it", "reason", "prose", shown=bool(products["reason"].any())),
    ]
    rows = products.assign(mflop=products["flop"].astype(float) / 1e6).to_dict("records")
    return Table("Matrix products of one training step", columns, rows, "; ".join(notes), by=("threads",))
