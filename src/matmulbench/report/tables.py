"""The tables: which rows and columns answer which question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from matmulbench.errors import UsageError
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.report.formatting import (
    NOTHING,
    compared,
    factor,
    factor_interval,
    known,
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
    in_order,
    labels,
    ladders,
    matmul_speedup,
    reference_of,
    said_of,
    task_title,
    tasks,
    verdict_of,
)
from matmulbench.report.table import Column, Table, figure, words
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd
from matmulbench.results.schema import Status

if TYPE_CHECKING:
    import pandas as pd

EXTRAPOLATED = "≈ extrapolated from fewer rows"
UNFINISHED = "≈ from fewer steps than the schedule has, or predicted"  # of a training
_TONE = {"faster": "good", "unclear": "faint"}
_CHANGE_TONE = _TONE | {"slower": "bad", "broken": "bad"}
_REPEAT = "Repeat: "  # what stands before the command in a finding


def ladder_table(results: Results) -> Table:
    """Return every kernel on the first workload that was measured.

    Raises
    ------
    UsageError
        if the run measured none.
    """
    table = results.measurements
    if not len(table):
        raise UsageError("the run measured no workload")
    first = table[table["workload"] == table["workload"].iloc[0]]
    return measurement_table(first, baseline_of(results), results.run.get("notes") or ())


def measurement_table(measurements: pd.DataFrame, baseline: str = BASELINE, notes: Iterable[str] = ()) -> Table:
    """Return every ladder of a table of measurements, one below the other; ``notes`` stand below them."""
    found = ladders(measurements)
    against = labels([*measurements["kernel"], baseline])[baseline]
    lowest = next((rung.name for rung in LADDER if rung.name in set(measurements["kernel"])), baseline)
    several = len({(ladder.dtype, ladder.threads) for ladder in found}) > 1
    rows = []
    for ladder in found:
        bottom = ladder.row(lowest) if lowest != baseline else None
        for row in ladder.rows:
            derived = {
                "named": ladder.workload if len(found) > 1 else "",
                "setting": f"{ladder.dtype}, {ladder.threads}" if several else "",
                "climbed": bottom["median_s"] / row["median_s"] if bottom and row["median_s"] else None,
            }
            rows.append(_against_baseline(row | derived, baseline, "speedup"))
    columns = [
        words("workload", "named"),
        words("dtype, threads", "setting"),
        words("kernel", "label"),
        figure("time", seconds, "median_s", "extrapolated", tone="strong"),
        figure("95 % interval", seconds_interval, "ci_low_s", "ci_high_s", optional=2),
        _speedup(f"vs {against}", "speedup"),
        figure("95 % interval", factor_interval, "speedup_ci_low", "speedup_ci_high", optional=3),
        figure(f"vs {lowest}", factor, "climbed", optional=4),
        figure("GFLOP/s", rate, "gflops", optional=1),
        # On a busy machine there are none.
        figure(
            "% of roof", partial(percent, of=100), "roof_percent", expected=bool(measurements["gflops"].notna().any())
        ),
        words("limit", "roof_limit", optional=6),
        figure("setup", seconds, "setup_s", optional=5),
        words("note", "note", "prose"),
    ]
    title = found[0].title if len(found) == 1 else "Measurements"
    note = "; ".join([*([EXTRAPOLATED] if measurements["extrapolated"].any() else []), *notes])
    return Table(title, columns, rows, note, ("workload", "dtype", "threads"), _commands(rows))


def precision_table(rows: pd.DataFrame) -> Table:
    """Return what precision buys: the same product in several dtypes, with its time and its error."""
    several = len({*zip(rows["workload"], rows["threads"], strict=True)}) > 1
    records = [row | {"named": row["workload"] if several else ""} for row in rows.to_dict("records")]
    columns = [
        words("workload", "named"),
        words("dtype", "dtype"),
        figure("time", seconds, "median_s", tone="strong"),
        figure("time / float32's", number(".3g"), "times"),
        figure("error", number(".1e"), "error"),
        words("note", "warning", "prose"),
    ]
    title = "What precision buys here" + ("" if several else f", {rows['workload'].iloc[0]}")
    return Table(title, columns, records, by=("workload", "threads"))


def _against_baseline(row: Row, baseline: str, speedup: str) -> Row:
    """Add to a row how it compares with the baseline, in words, and what else is to be said of it."""
    reason, repeat = _parted(row["reason"])
    if row["status"] != Status.OK:
        note = ": ".join(filter(None, [str(row["status"]), reason]))
        return row | {"note": note, "note_tone": "bad", "repeat": repeat}
    own = row["kernel"] == baseline
    # The baseline's speedup over itself is 1 by definition.
    intervals = dict.fromkeys(("speedup_ci_low", "measured_ci_low")) if own else {}
    tone = "faint" if own else _TONE.get(str(verdict_of(row)), "")
    return row | intervals | {"said": said_of(row, baseline, speedup), f"{speedup}_tone": tone, "note": reason}


def _parted(finding: object) -> tuple[str, str]:
    """Part a finding from the command that repeats it."""
    said, _, command = text(finding).partition(_REPEAT)
    return said.strip(), command.strip("`")


def _commands(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["repeat"] for row in rows if row.get("repeat")))


def _speedup(title: str, key: str) -> Column:
    return figure(title, lambda _, said: said or NOTHING, key, "said")


def verification_table(verification: pd.DataFrame) -> Table:
    """Return the verdict on every kernel: a line per kernel, a verdict and a residual per dtype."""
    label, dtypes = labels(verification["kernel"]), list(dict.fromkeys(verification["dtype"]))
    rows: dict[str, Row] = {kernel: {"label": label[kernel], "finding": "", "repeat": ""} for kernel in in_order(label)}
    # What is wrong comes before what else may be said.
    for found in sorted(verification.to_dict("records"), key=lambda found: found["status"] == Status.OK):
        row, dtype, right = rows[found["kernel"]], found["dtype"], found["status"] == Status.OK
        row[dtype] = f"{'✓' if right else '✗'} {text(found['verdict']) or found['status']}"
        row[f"{dtype}_tone"] = "good" if right else "bad"
        row[f"{dtype} residual"], row["cases"] = found["residual"], found["cases"]
        finding, repeat = _parted(found["finding"])
        # Where it is wrong in several dtypes, one finding says enough.
        row["finding"], row["repeat"] = row["finding"] or finding, row["repeat"] or repeat
    by_dtype = [
        column
        for dtype in dtypes
        for column in (
            words(dtype, dtype),
            figure("residual", number(".2g"), f"{dtype} residual", optional=1),
        )
    ]
    columns = [
        words("kernel", "label"),
        *by_dtype,
        figure("cases", number(",.0f"), "cases", optional=2),
        words("finding", "finding", "prose"),
    ]
    note = "residual: the largest error, in units of k·u·(|A||B|)"
    return Table("Verification", columns, list(rows.values()), note, commands=_commands(rows.values()))


def case_table(verification: pd.DataFrame, case: str) -> Table:
    """Return what kernels made of one case: operands, what is expected, what came, and the verdict."""
    label, rows = labels(verification["kernel"]), []
    for found in verification.to_dict("records"):
        right = found["status"] == Status.OK
        verdict = f"{'✓' if right else '✗'} {text(found['verdict']) or found['status']}"
        lines = {name: found[name] for name in ("a", "b", "expected", "got") if found[name]}
        lines["verdict"] = ": ".join(filter(None, [verdict, text(found["finding"])]))
        for name, value in lines.items():
            tone = ("good" if right else "bad") if name == "verdict" else ""
            named = label[found["kernel"]] if name == "a" else ""
            rows.append({"label": named, "kernel": found["kernel"], "name": name, "value": value, "value_tone": tone})
    columns = [words("kernel", "label"), words("", "name"), words("", "value", "prose")]
    return Table(f"Case {case}", columns, rows, by=("kernel",))


def training_table(training: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return what each kernel buys in each task."""
    found = tasks(training)
    several = len({threads for _, threads in found}) > 1
    notes = [UNFINISHED] if training["extrapolated"].any() else []
    rows = []
    for (task, threads), group in found.items():
        reference = reference_of(group, baseline)
        if (limit := amdahl_limit(reference)) is not None:
            notes.append(f"{task}: with products that cost nothing, a step would be {factor(limit)}")
        workers = f" · {group[0]['workers']} workers" * (group[0]["workers"] > 1)
        for row in group:
            derived = {
                "title": (task_title(task, threads) if several else task) + workers,
                "matmul_speedup": matmul_speedup(row, reference),
            }
            rows.append(_against_baseline(row | derived, baseline, "measured_speedup"))
    columns = [
        words("task", "title"),
        words("kernel", "label"),
        figure("step", seconds, "step_s", "extrapolated", tone="strong"),
        figure("95 % interval", seconds_interval, "step_ci_low_s", "step_ci_high_s", optional=5),
        figure("in matmul", percent, "matmul_share", optional=1),
        figure("averaging", percent, "communication_share", optional=1),
        figure("matmul", factor, "matmul_speedup", optional=3),
        figure("predicted", factor, "predicted_speedup", optional=4),
        _speedup(f"step vs {labels([*training['kernel'], baseline])[baseline]}", "measured_speedup"),
        figure("95 % interval", factor_interval, "measured_ci_low", "measured_ci_high", optional=6),
        figure("compile", seconds, "compile_s", optional=3),
        figure("final loss", number(".4f"), "final_loss", optional=2),
        figure("loss off by", number(".1e"), "loss_deviation", optional=7),
        figure("train", percent, "train_accuracy", optional=8),
        figure("test", percent, "test_accuracy", optional=2),
        words("note", "note", "prose"),
    ]
    return Table("Training", columns, rows, "; ".join(notes), ("title",), _commands(rows))


def comparison_table(comparison: pd.DataFrame, title: str = "From one run to the other") -> Table:
    """Return the changes of :func:`matmulbench.comparison.compare`; the machine's own drift is out of the speedup."""
    columns = [
        figure("before", seconds, "median_a_s"),
        figure("after", seconds, "median_b_s"),
        figure("after / before", number(".3f"), "ratio", optional=1),
        figure("drift removed", factor, "speedup"),
        figure("90 % interval", factor_interval, "speedup_ci_low", "speedup_ci_high", optional=1),
        figure("arithmetic drift", number(".3f"), "drift_arithmetic", optional=3),
        figure("call drift", number(".3f"), "drift_calls", optional=3),
    ]
    rows = [row | _remark(row["verdict"], row["status_a"], row["status_b"]) for row in comparison.to_dict("records")]
    return _changes(title, columns, rows, "drift: what fixed work takes, after / before")


def history_table(history: pd.DataFrame, title: str = "From run to run") -> Table:
    """Return what :func:`matmulbench.comparison.history` found: the newest run, and the last change of each cell."""
    rows = []
    for _, cell in history.groupby(["workload", "dtype", "threads", "kernel"], sort=False):
        newest = cell.iloc[-1]
        begun = cell.loc[cell["segment"] == newest["segment"], "start"]
        changed = known(newest["speedup"]) is not None
        rows.append(
            {**newest.to_dict(), "total": 1 / newest["level"], "since": begun.iloc[0][:16] if changed else ""}
            | _remark(newest["verdict"], newest["status"])
        )
    columns = [
        figure("newest", seconds, "median_s"),
        figure("last change", factor, "speedup"),
        words("since", "since"),
        figure("since the first run", factor, "total", optional=1),
    ]
    return _changes(title, columns, rows, "changes: the machine's drift is removed")


def ranking_table(ranking: pd.DataFrame, title: str, names: Sequence[str]) -> Table:
    """Return the order of :func:`matmulbench.comparison.ranks`; ``names`` are those of the runs."""
    first = ["workload", "dtype", "threads"]
    places = ranking.groupby(first, sort=False).ngroup()
    ordered = ranking.assign(place=places).sort_values(["place", "median_s_1"])
    columns = [
        column
        for i, name in enumerate(names, start=1)
        for column in (figure(f"rank on {name}", number(".0f"), f"rank_{i}"), figure("time", seconds, f"median_s_{i}"))
    ]
    return _changes(title, columns, ordered.to_dict("records"), "kernels within 2 % of the next faster share its rank")


def _remark(verdict: object, *statuses: str) -> Row:
    said = text(verdict)
    failed = "" if set(statuses) == {Status.OK} else ", then ".join(statuses)
    return {"remark": ": ".join(filter(None, [said, failed])), "remark_tone": _CHANGE_TONE.get(said, "")}


def _changes(title: str, columns: Sequence[Column], rows: list[Row], note: str) -> Table:
    """Return a table of several runs: a row per cell, with what each says of it between its name and its verdict."""
    label = labels(row["kernel"] for row in rows)
    for row in rows:
        row |= {"label": label[row["kernel"]], "setting": f"{row['dtype']}, {row['threads']}"}
    names = [
        words("machine", "machine"),  # shown where runs are of several
        words("workload", "workload"),
        words("dtype, threads", "setting", optional=2),
        words("kernel", "label"),
    ]
    return Table(title, [*names, *columns, words("verdict", "remark", "prose")], rows, note, by=("workload",))


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
        figure("threads", number(".0f"), "threads", optional=4),
        words("product", "shape"),
        words("dtype", "dtype", optional=3),
        words("operator", "operator", optional=2),
        words("module", "module"),
        figure("times", number(".0f"), "count"),
        figure("MFLOP", rate, "mflop", optional=1),
        figure("time", seconds, "time_s"),
        figure("of step", percent, "share", tone="strong"),
        words("why no kernel can do it", "reason", "prose"),
    ]
    rows = products.assign(mflop=products["flop"].astype(float) / 1e6).to_dict("records")
    return Table("Matrix products of one training step", columns, rows, "; ".join(notes), by=("threads",))


def front_end_table(results: Results, front_ends: Sequence[FrontEnd]) -> Table:
    """Return what asv and pytest-benchmark measured beside what the run did, a line per product and kernel."""
    here = results.run["machine"]["cpu"]
    origins = [
        f"{one.name}: commit {one.commit}" + (f" on another processor, {one.cpu}" if one.cpu not in ("", here) else "")
        for one in front_ends
    ]
    caveat = (
        "Medians. pytest-benchmark and asv's `time_` benchmarks time one kernel after the other, so that whatever the "
        "machine did meanwhile is in their figures; matmulbench takes all kernels in turns. Read no ratio between "
        "kernels from theirs"
    )
    theirs = [(one.name, row.workload, row.kernel, row.median_s) for one in front_ends for row in one.rows]
    return others_table("Front ends side by side", results, theirs, "; ".join([caveat, *origins]))


def others_table(
    title: str, results: Results, theirs: Iterable[tuple[str, str, str, float | None]], caveat: str
) -> Table:
    """Return times from elsewhere (source, workload, kernel, seconds) beside the run's own, float32, fewest threads."""
    ours = {
        (ladder.workload, row["kernel"]): (row["median_s"], ladder.threads)
        for ladder in sorted(ladders(results.measurements), key=lambda ladder: -ladder.threads)
        if ladder.dtype == "float32"
        for row in ladder.timed
    }
    rows: list[Row] = []
    for source, workload, kernel, time in theirs:
        row: Row = {"source": source, "workload": workload, "kernel": kernel, "theirs": time}
        row["ours"], row["threads"] = ours.get((workload, kernel), (None, None))
        # Theirs ran on one thread.
        row["ratio"] = time / row["ours"] if time and row["threads"] == 1 else None
        rows.append(row)
    label = labels(row["kernel"] for row in rows)
    columns = [
        words("source", "source"),
        words("workload", "workload"),
        Column("kernel", ("kernel",), label.__getitem__),
        figure("theirs", seconds, "theirs"),
        figure("ours", seconds, "ours", tone="strong"),
        figure("theirs / ours", number(".2f"), "ratio", optional=1),
        figure("threads here", number(".0f"), "threads", optional=2),
    ]
    return Table(title, columns, rows, caveat, by=("source", "workload"))


def tuning_table(tuned: pd.DataFrame) -> Table:
    """Return what ``matmulbench tune`` found for each class of shapes."""
    columns = [
        figure("threads", number(".0f"), "threads", optional=2),
        words("dtype", "dtype"),
        words("shapes", "shapes"),
        words("plan", "plan", "prose"),
        figure("than the heuristics", factor, "speedup"),
        figure("95 % interval", factor_interval, "speedup_low", "speedup_high", optional=1),
        words("next best", "second", "prose", optional=2),
        figure("which is", compared, "second_speedup", "second_verdict", optional=2),
        figure("tried", number(".0f"), "tried", optional=3),
        words("refused", "refused", "prose"),
    ]
    return Table("numba-tiled on this machine", columns, tuned.to_dict("records"))


def plain_table(frame: pd.DataFrame) -> Table:
    """Return all columns of ``frame`` as they are."""
    texts = frame.select_dtypes(exclude="number").astype(object).fillna("").astype(str)
    columns = [
        words(name, name, "prose") if name in texts else figure(name, number("g"), name) for name in frame.columns
    ]
    return Table("", columns, frame.assign(**texts).to_dict("records"))
