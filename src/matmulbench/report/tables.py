"""The tables: which rows and columns answer which question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from matmulbench.errors import UsageError
from matmulbench.ladder import BASELINE, LADDER
from matmulbench.report.formatting import (
    compared,
    count,
    factor,
    factor_interval,
    known,
    number,
    percent,
    rate,
    rate_unit,
    seconds,
    seconds_interval,
    text,
    worded,
)
from matmulbench.report.queries import (
    Row,
    amdahl_limit,
    in_order,
    labels,
    ladders,
    matmul_speedup,
    reference_of,
    said_of,
    task_title,
    tasks,
    verdict_of,
    without_findings,
)
from matmulbench.report.table import Column, Table
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd
from matmulbench.results.schema import Status

if TYPE_CHECKING:
    import pandas as pd

EXTRAPOLATED = "≈ extrapolated from fewer rows"
UNFINISHED = "≈ from fewer steps than the schedule has, or predicted"  # of a training
_TONES = {"faster": "good", "unclear": "faint"}
_CHANGE_TONES = _TONES | {"slower": "bad", "broken": "bad"}

_MEASUREMENTS = (
    Column("workload", "named"),
    Column("dtype, threads", "setting"),
    Column("kernel", "label"),
    Column("time", "median_s", seconds, "extrapolated", tone="strong"),
    Column("95 % interval", "ci_low_s", seconds_interval, "ci_high_s", optional=2),
    Column("vs {baseline}", "speedup", worded, "said"),
    Column("95 % interval", "speedup_ci_low", factor_interval, "speedup_ci_high", optional=3),
    Column("vs {lowest}", "climbed", factor, optional=4),
    Column("{unit}", "gflops", rate, optional=1),
    # On a busy machine there is no roof.
    Column("% of roof", "roof_percent", partial(percent, of=100), expected_with="gflops"),
    Column("limit", "roof_limit", optional=6),
    Column("setup", "setup_s", seconds, optional=5),
    Column("note", "note", prose=True),
)
_TRAINING = (
    Column("task", "title"),
    Column("kernel", "label"),
    Column("step", "step_s", seconds, "extrapolated", tone="strong"),
    Column("95 % interval", "step_ci_low_s", seconds_interval, "step_ci_high_s", optional=5),
    Column("in matmul", "matmul_share", percent, optional=1),
    Column("averaging", "communication_share", percent, optional=1),
    Column("matmul", "matmul_speedup", factor, optional=3),
    Column("predicted", "predicted_speedup", factor, optional=4),
    Column("step vs {baseline}", "measured_speedup", worded, "said"),
    Column("95 % interval", "measured_ci_low", factor_interval, "measured_ci_high", optional=6),
    Column("compile", "compile_s", seconds, optional=3),
    Column("final loss", "final_loss", number(".4f"), optional=2),
    Column("loss off by", "loss_deviation", number(".1e"), optional=7),
    Column("train", "train_accuracy", percent, optional=8),
    Column("test", "test_accuracy", percent, optional=2),
    Column("note", "note", prose=True),
)
_PRECISION = (
    Column("workload", "named"),
    Column("dtype", "dtype"),
    Column("time", "median_s", seconds, tone="strong"),
    Column("time / float32's", "times", number(".3g")),
    Column("error", "error", number(".1e")),
    Column("note", "warning", prose=True),
)
_TUNING = (
    Column("threads", "threads", number(".0f"), optional=2),
    Column("dtype", "dtype"),
    Column("shapes", "shapes"),
    Column("plan", "plan", prose=True),
    Column("against the heuristics", "speedup", factor),
    Column("95 % interval", "speedup_low", factor_interval, "speedup_high", optional=1),
    Column("next best", "second", optional=2, prose=True),
    Column("its speedup", "second_speedup", compared, "second_verdict", optional=3),
    Column("tried", "tried", number(".0f"), optional=4),
    Column("refused", "refused", prose=True),
)
_CELL = (  # what is compared in several runs
    Column("machine", "machine"),  # shown where runs are of several
    Column("workload", "workload"),
    Column("dtype, threads", "setting", optional=2),
    Column("kernel", "label"),
)
_COMPARISON = (
    Column("before", "median_a_s", seconds, "extrapolated_a"),
    Column("after", "median_b_s", seconds, "extrapolated_b"),
    Column("after / before", "ratio", number(".3f"), optional=1),
    Column("drift removed", "speedup", factor),
    Column("90 % interval", "speedup_ci_low", factor_interval, "speedup_ci_high", optional=1),
    Column("drift", "drift", number(".3f"), optional=2),
)
_HISTORY = (
    Column("newest", "median_s", seconds, "extrapolated"),
    Column("last change", "speedup", factor),
    Column("since", "since"),
    Column("since the first run", "total", factor, optional=1),
)
_AUDIT = (
    Column("check", "check"),
    Column("passed", "mark"),
    Column("setting", "setting", prose=True),
    Column("required", "required"),
    Column("got", "got", prose=True),
)
_TRACE = (
    Column("threads", "threads", number(".0f"), optional=4),
    Column("product", "shape"),
    Column("dtype", "dtype", optional=3),
    Column("operator", "operator", optional=2),
    Column("module", "module"),
    Column("times", "count", number(".0f")),
    Column("MFLOP", "mflop", rate, optional=1),
    Column("time", "time_s", seconds),
    Column("of step", "share", percent, tone="strong"),
)
_OTHERS = (
    Column("source", "source"),
    Column("workload", "workload"),
    Column("kernel", "label"),
    Column("theirs", "theirs", seconds),
    Column("ours", "ours", seconds, tone="strong"),
    Column("theirs / ours", "ratio", number(".2f"), optional=1),
    Column("threads here", "threads", number(".0f"), optional=2),
)
# Ladders that others published: source, product and seconds by kernel.
_PUBLISHED: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("fast.ai course 2022 part 2, notebook 01", "5x784x10",
     {"triple-loop": 421e-3, "row-slice": 598e-6, "broadcasting": 70.1e-6}),
    ("fast.ai course 2022 part 2, notebook 01", "50000x784x10",
     {"broadcasting": 663e-3, "einsum": 15.1e-3, "torch": 15.2e-3}),
    ("fast.ai course 2019 part 2, notebook 01", "5x784x10",
     {"triple-loop": 835e-3, "row-slice": 1.39e-3, "broadcasting": 254e-6, "einsum": 57.2e-6, "torch": 18.2e-6}),
    ("fastbook, chapter 17", "5x784x10",
     {"row-slice": 1.7e-3, "broadcasting": 357e-6, "einsum": 68.7e-6}),
)  # fmt: skip
_PUBLISHED_CAVEAT = (
    "The sources name neither machine nor thread count; torch takes all cores unless it is told otherwise, "
    "ours takes the threads that are named. Theirs are notebook timings, ours medians of interleaved rounds. "
    "Compare the steps of a ladder, not its times"
)


def ladder_table(results: Results) -> Table:
    """Return every kernel on the first workload that was measured.

    Raises
    ------
    UsageError
        if the run measured none.
    """
    table = without_findings(results, "measurements")
    if not len(table):
        raise UsageError("the run measured no workload")
    first = table[table["workload"] == table["workload"].iloc[0]]
    return measurement_table(first, results.baseline, results.run.get("notes") or ())


def measurement_table(measurements: pd.DataFrame, baseline: str = BASELINE, notes: Iterable[str] = ()) -> Table:
    """Return every ladder of a table of measurements, one below the other; ``notes`` stand below them."""
    found = ladders(measurements)
    against = labels([*measurements["kernel"], baseline])[baseline]
    lowest = next((rung.name for rung in LADDER if rung.name in set(measurements["kernel"])), baseline)
    several = len({(ladder.dtype, ladder.threads) for ladder in found}) > 1
    rows, groups = [], dict[str, list[Row]]()
    for ladder in found:
        bottom = ladder.row(lowest) if lowest != baseline else None
        for row in ladder.rows:
            derived = {
                "named": ladder.workload if len(found) > 1 else "",
                "setting": f"{ladder.dtype}, {ladder.threads}" if several else "",
                "climbed": bottom["median_s"] / row["median_s"] if bottom and row["median_s"] else None,
            }
            rows.append(_against_baseline(row | derived, baseline, "speedup"))
            groups.setdefault(ladder.title, []).append(rows[-1])
    units = {dtype: rate_unit(dtype) for dtype in measurements["dtype"]}
    unit = next(iter(units.values())) if len(set(units.values())) == 1 else rate_unit("float32")
    columns = _titled(_MEASUREMENTS, baseline=against, lowest=lowest, unit=unit)
    title = found[0].title if len(found) == 1 else "Measurements"
    said = (
        *([EXTRAPOLATED] if measurements["extrapolated"].any() else []),
        *(f"{dtype}: {own}" for dtype, own in units.items() if own != unit),
        *_shared_notes(groups),
        *notes,
    )
    return Table(title, columns, rows, said, by=("workload", "dtype", "threads"))


def _titled(columns: Iterable[Column], **names: str) -> list[Column]:
    return [replace(column, title=column.title.format(**names)) for column in columns]


def precision_table(rows: pd.DataFrame) -> Table:
    """Return what precision buys: the same product in several dtypes, with its time and its error."""
    several = len({*zip(rows["workload"], rows["threads"], strict=True)}) > 1
    records = [row | {"named": row["workload"] if several else ""} for row in rows.to_dict("records")]
    title = "What precision buys here" + ("" if several else f", {rows['workload'].iloc[0]}")
    return Table(title, _PRECISION, records, by=("workload", "threads"))


def _against_baseline(row: Row, baseline: str, speedup: str) -> Row:
    """Add to a row how it compares with the baseline, in words, and what else is to be said of it."""
    reason, repeat = _finding(row["reason"])
    if row["status"] != Status.OK:
        note = ": ".join(filter(None, [str(row["status"]), reason]))
        return row | {"note": note, "note_tone": "bad", "repeat": repeat}
    own = row["kernel"] == baseline
    # The baseline's speedup over itself is 1 by definition.
    intervals = dict.fromkeys(("speedup_ci_low", "measured_ci_low")) if own else {}
    tone = "faint" if own else _TONES.get(str(verdict_of(row)), "")
    return row | intervals | {"said": said_of(row, baseline, speedup), f"{speedup}_tone": tone, "note": reason}


def _shared_notes(groups: dict[str, list[Row]]) -> list[str]:
    """Take out of the rows' notes what every row with figures of a group says, and return it, to stand below them."""
    titles: dict[str, list[str]] = {}
    for title, rows in groups.items():
        timed = [row for row in rows if row["status"] == Status.OK]
        if len(timed) < 2:
            continue
        said = [row["note"].split("; ") for row in timed]
        shared = [each for each in said[0] if each and all(each in own for own in said)]
        for row, own in zip(timed, said, strict=True):
            row["note"] = "; ".join(each for each in own if each not in shared)
        for each in shared:
            titles.setdefault(each, []).append(title)
    return [each if len(of) == len(groups) else f"{', '.join(of)}: {each}" for each, of in titles.items()]


def _finding(finding: object) -> tuple[str, str]:
    """Part a finding from the command that repeats it."""
    said, _, command = text(finding).partition("Repeat: ")
    return said.strip(), command.strip("`")


def _marked(key: str, right: bool, said: str = "") -> Row:
    """Return a row's entry under ``key``: passed or not."""
    return {key: f"{'✓' if right else '✗'} {said}".rstrip(), f"{key}_tone": "good" if right else "bad"}


def _verdict(key: str, found: Row) -> Row:
    if found["status"] == Status.UNAVAILABLE:  # which says nothing against a kernel
        return {key: str(found["status"]), f"{key}_tone": "faint"}
    return _marked(key, found["status"] == Status.OK, text(found["verdict"]) or found["status"])


def verification_table(verification: pd.DataFrame) -> Table:
    """Return the verdict on every kernel: a line per kernel, a verdict and a residual per dtype."""
    label, dtypes = labels(verification["kernel"]), list(dict.fromkeys(verification["dtype"]))
    rows: dict[str, Row] = {kernel: {"label": label[kernel], "finding": "", "repeat": ""} for kernel in in_order(label)}
    # What is wrong comes before what else may be said.
    for found in sorted(verification.to_dict("records"), key=lambda found: found["status"] == Status.OK):
        row, dtype = rows[found["kernel"]], found["dtype"]
        row |= _verdict(dtype, found) | {f"{dtype} residual": found["residual"], "cases": found["cases"]}
        finding, repeat = _finding(found["finding"])
        # Where it is wrong in several dtypes, one finding says enough.
        row["finding"], row["repeat"] = row["finding"] or finding, row["repeat"] or repeat
    by_dtype = [
        (Column(each, each), Column("residual", f"{each} residual", number(".2g"), optional=1)) for each in dtypes
    ]
    columns = [
        Column("kernel", "label"),
        *chain(*by_dtype),
        Column("cases", "cases", number(",.0f"), optional=2),
        Column("finding", "finding", prose=True),
    ]
    known_errors = verification["residual"].notna().any()
    notes = ("residual: the largest error, in units of k·u·(|A||B|)",) if known_errors else ()
    return Table("Verification", columns, list(rows.values()), notes)


def case_table(verification: pd.DataFrame, case: str) -> Table:
    """Return what kernels made of one case: operands, what is expected, what came, and the verdict."""
    label, rows = labels(verification["kernel"]), []
    for found in verification.to_dict("records"):
        operands = {name: found[name] for name in ("a", "b", "expected", "got") if found[name]}
        # Rich drops the spaces that a line of a matrix begins with, unless they are no-break spaces.
        own = [{"name": name, "value": value.replace("\n ", "\n\xa0")} for name, value in operands.items()]
        verdict = _verdict("value", found)
        verdict["value"] = ": ".join(filter(None, [verdict["value"], text(found["finding"])]))
        own.append({"name": "verdict"} | verdict)
        own[0]["label"] = label[found["kernel"]]
        rows += [{"kernel": found["kernel"]} | row for row in own]
    columns = [Column("kernel", "label"), Column("", "name"), Column("", "value", prose=True)]
    return Table(f"Case {case}", columns, rows, by=("kernel",))


def training_table(training: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return what each kernel buys in each task."""
    found = tasks(training)
    several = len({threads for _, threads in found}) > 1
    notes = [UNFINISHED] if training["extrapolated"].any() else []
    rows, groups = [], dict[str, list[Row]]()
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
            groups.setdefault(task_title(task, threads) if several else task, []).append(rows[-1])
    against = labels([*training["kernel"], baseline])[baseline]
    return Table(
        "Training",
        _titled(_TRAINING, baseline=against),
        rows,
        (*notes, *_shared_notes(groups)),
        by=("title",),
    )


_REMOVED = (
    "after / before: medians; drift: what the other kernels take, or else fixed work, after / before; "
    "drift removed: by the faster half of the rounds, which other load touches least"
)


def comparison_table(comparison: pd.DataFrame, title: str = "From one run to the other") -> Table:
    """Return the changes of :func:`matmulbench.comparison.compare`; the machine's own drift is out of the speedup."""
    removed = comparison["drift_kernels"].fillna(comparison["drift_arithmetic"])
    rows = [
        row | _remark(row["verdict"], row["status_a"], row["status_b"])
        for row in comparison.assign(drift=removed).to_dict("records")
    ]
    return _changes(title, _COMPARISON, rows, _REMOVED)


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
    return _changes(title, _HISTORY, rows, "changes: the machine's drift is removed")


def ranking_table(ranking: pd.DataFrame, title: str, names: Sequence[str]) -> Table:
    """Return the order of :func:`matmulbench.comparison.ranks`; ``names`` are those of the runs."""
    first = ["workload", "dtype", "threads"]
    places = ranking.groupby(first, sort=False).ngroup()
    ordered = ranking.assign(place=places).sort_values(["place", "median_s_1"])
    columns = [
        column
        for i, name in enumerate(names, start=1)
        for column in (
            Column(f"rank on {name}", f"rank_{i}", number(".0f")),
            Column("time", f"median_s_{i}", seconds, f"extrapolated_{i}"),
        )
    ]
    return _changes(title, columns, ordered.to_dict("records"), "kernels within 2 % of the next faster share its rank")


def _remark(verdict: object, *statuses: str) -> Row:
    said = text(verdict)
    failed = "" if set(statuses) == {Status.OK} else ", then ".join(statuses)
    return {"remark": ": ".join(filter(None, [said, failed])), "remark_tone": _CHANGE_TONES.get(said, "")}


def _changes(title: str, columns: Sequence[Column], rows: list[Row], note: str) -> Table:
    """Return a table of several runs: a row per cell, with what each says of it between its name and its verdict."""
    label = labels(row["kernel"] for row in rows)
    several = len({(row["dtype"], row["threads"]) for row in rows}) > 1
    for row in rows:
        row |= {"label": label[row["kernel"]], "setting": f"{row['dtype']}, {row['threads']}" if several else ""}
    verdict = Column("verdict", "remark", prose=True)
    table = Table(title, [*_CELL, *columns, verdict], rows, (note,), by=("workload",))
    marked = any(cell.text.startswith("≈") for row in table.rows for cell in row)
    return replace(table, notes=(note, EXTRAPOLATED)) if marked else table


def audit_table(checks: pd.DataFrame) -> Table:
    """Return the checks of ``matmulbench audit``, those that failed first."""
    rows = checks.sort_values("passed", kind="stable").to_dict("records")
    marked = [row | _marked("mark", bool(row["passed"])) for row in rows]
    return Table(f"{int(checks['passed'].sum())} of {len(checks)} checks passed", _AUDIT, marked)


def trace_table(products: pd.DataFrame) -> Table:
    """Return the matrix products of a training step, and below them what they are together."""
    notes = []
    for _, group in products.groupby("threads"):
        step = seconds(group["time_s"].sum() / group["share"].sum())
        able, others = (group["share"][mask].sum() for mask in (group["reason"] == "", group["reason"] != ""))
        more = f", {percent(others)} in others" if others else ""
        which = f"{count(int(group['threads'].iloc[0]), 'thread')}: " if products["threads"].nunique() > 1 else ""
        notes.append(f"{which}{percent(able)} of a step of {step} in products that a kernel can do{more}")
    for reason, group in products[products["reason"] != ""].groupby("reason", sort=False):
        notes.append(f"no kernel can do those of {', '.join(dict.fromkeys(group['module']))}: {reason}")
    rows = products.assign(mflop=products["flop"].astype(float) / 1e6).to_dict("records")
    return Table("Matrix products of one training step", _TRACE, rows, tuple(notes), by=("threads",))


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
    return _others_table("Front ends side by side", results, theirs, (caveat, *origins))


def published_table(results: Results) -> Table:
    """Return the published ladders, with our time of the same product where it was measured."""
    theirs = [
        (source, workload, kernel, time) for source, workload, times in _PUBLISHED for kernel, time in times.items()
    ]
    return _others_table("Published ladders next to ours", results, theirs, (_PUBLISHED_CAVEAT,))


def _others_table(
    title: str, results: Results, theirs: Iterable[tuple[str, str, str, float | None]], notes: tuple[str, ...]
) -> Table:
    """Return times from elsewhere (source, workload, kernel, seconds) beside the run's own, float32, fewest threads."""
    ours = {
        (ladder.workload, row["kernel"]): (row["median_s"], ladder.threads)
        for ladder in sorted(ladders(results.measurements), key=lambda ladder: -ladder.threads)
        if ladder.dtype == "float32"
        for row in ladder.timed
    }
    theirs, rows = list(theirs), []
    label = labels(kernel for _, _, kernel, _ in theirs)
    for source, workload, kernel, time in theirs:
        own, threads = ours.get((workload, kernel), (None, None))
        ratio = time / own if time and own and threads == 1 else None  # theirs ran on one thread
        row = {"source": source, "workload": workload, "label": label[kernel], "theirs": time}
        rows.append(row | {"ours": own, "threads": threads, "ratio": ratio})
    return Table(title, _OTHERS, rows, notes, by=("source", "workload"))


def tuning_table(tuned: pd.DataFrame) -> Table:
    """Return what ``matmulbench tune`` found for each class of shapes."""
    files = ", ".join(filter(None, tuned["kept"].unique()))
    note = f"Kept, for every later run, in {files}" if files else "Nothing is kept"
    return Table("numba-tiled on this machine", _TUNING, tuned.to_dict("records"), (note,))


def list_tables(rows: pd.DataFrame) -> list[Table]:
    """Return what there is, a table for each kind: kernels with whether they are available, workloads, tasks."""
    columns = Column("name", "name"), Column("about", "about", prose=True)
    titles = {"kernel": "Kernels", "workload": "Workloads", "task": "Tasks"}
    records: dict[str, list[Row]] = {kind: [] for kind in titles}
    for row in rows.to_dict("records"):
        if row["kind"] == "kernel":
            available = row["status"] == "available"
            row |= (
                {"about": f"✓ {row['about']}"} if available else {"about": f"✗ {row['status']}", "about_tone": "faint"}
            )
        records[row["kind"]].append(row)
    return [Table(title, columns, records[kind]) for kind, title in titles.items()]


def agreement_table(differences: pd.DataFrame) -> Table:
    """Return by how much kernels differ from each other: a line and a column for each."""
    columns = [
        Column(name, name) if name in ("dtype", "kernel") else Column(name, name, number(".2g"))
        for name in map(str, differences)
    ]
    title = "The largest difference between two kernels, in units of the bound"
    return Table(title, columns, differences.to_dict("records"), by=("dtype",))
