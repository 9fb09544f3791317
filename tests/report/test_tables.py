import io
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.report.output import print_tables, show
from matmulbench.report.queries import labels, without_findings
from matmulbench.report.table import Cell, Column, Table
from matmulbench.report.tables import (
    agreement_table,
    case_table,
    comparison_table,
    ladder_table,
    list_tables,
    measurement_table,
    training_table,
    verification_table,
)
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status
from matmulbench.workload import Workload


def text(table: Table, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def column(table: Table, title: str) -> list[Cell]:
    """The cells of the first column of this title, from top to bottom."""
    place = [column.title for column in table.columns].index(title)
    return [row[place] for row in table.rows]


def test_the_ladder_has_the_first_workload_in_ladder_order(quick: Results) -> None:
    table = ladder_table(quick)
    assert table.title == "5x784x10 · float32 · 1 thread"
    assert [row[0].text for row in table.rows] == [rung.name for rung in LADDER]
    assert column(table, "vs torch")[-1].text == "baseline"


def test_the_order_is_the_ladders_whatever_the_rows(quick: Results) -> None:
    table = measurement_table(quick.measurements.iloc[::-1].query("workload == '64x64x64'"))
    assert [row[0].text for row in table.rows] == [rung.name for rung in LADDER]


def test_what_is_climbed_is_computed_from_the_times(quick: Results) -> None:
    table = ladder_table(quick)
    times = quick.measurements.query("workload == '5x784x10'").set_index("kernel")["median_s"]
    kernels = [cell.text for cell in column(table, "kernel")]
    values = dict(zip(kernels, [cell.value for cell in column(table, "vs triple-loop")], strict=True))
    assert values["triple-loop"] == 1
    assert values["numpy"] == pytest.approx(times["triple-loop"] / times["numpy"])


def test_the_users_kernels_come_first(standard: Results) -> None:
    kernels = [cell.text for cell in column(measurement_table(standard.measurements), "kernel")]
    assert kernels[:2] == ["failed-verification.py:matmul", "mine.py:matmul"]


def test_a_speedup_is_said_in_words_that_claim_no_more_than_the_verdict(quick: Results) -> None:
    frame = quick.measurements.query("workload == '64x64x64'").copy()
    frame.loc[frame["kernel"] == "numpy", ["speedup", "verdict"]] = [1.004, "unclear"]
    frame.loc[frame["kernel"] == "einsum", ["speedup", "verdict"]] = [0.99, "same"]
    frame.loc[frame["kernel"] == "numba", ["speedup", "verdict"]] = [0.13, "slower"]
    table = measurement_table(frame)
    said = dict(
        zip([c.text for c in column(table, "kernel")], [c.text for c in column(table, "vs torch")], strict=True)
    )
    assert [said[kernel] for kernel in ("numpy", "einsum", "numba")] == ["unclear", "as fast", "7.69× slower"]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_row_without_figures_says_why_and_shows_none(standard: Results, status: Status) -> None:
    rows = [row for row in measurement_table(standard.measurements).rows if f"{status}.py" in row[1].text]
    assert rows
    for row in rows:
        assert row[-1].text.startswith(status)
        assert row[-1].tone == "bad"
        assert all(cell.value is None for cell in row[2:])


def test_a_figure_beside_a_failure_is_not_shown(quick: Results) -> None:
    frame = quick.measurements.copy()
    frame["status"] = "failed-verification"
    assert all(cell.value is None for row in measurement_table(frame).rows for cell in row[2:])


def test_extrapolated_figures_are_marked(quick: Results) -> None:
    table = measurement_table(quick.measurements.query("workload == '256x256x256'"))
    assert table.rows[0][1].text.startswith("≈")
    assert not table.rows[-1][1].text.startswith("≈")
    assert "≈ extrapolated from fewer rows" in table.notes


def test_what_run_json_notes_stands_below_the_figures(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), kernels=("numpy", "torch"))
    assert ladder_table(run).notes == ()
    run.run["notes"] = ["numpy is slow here"]
    assert ladder_table(run).notes == ("numpy is slow here",)


def test_a_run_that_measured_nothing_has_no_ladder(make_run: Callable[..., Results], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the run measured no workload"):
        ladder_table(make_run(tmp_path / "run", [], tasks=()))


def test_verification_has_a_line_per_kernel_with_its_finding(standard: Results) -> None:
    table = verification_table(standard.verification)
    titles = ["kernel", "float32", "residual", "float64", "residual", "cases", "finding"]
    assert [column.title for column in table.columns] == titles
    first = table.rows[0]
    assert [cell.text for cell in first[:6]] == ["mine.py:matmul", "✗ fail", "8.1e+05", "", "–", "3"]
    assert first[1].tone == "bad"
    assert "after 5 of 784" in first[6].text
    assert [cell.text for cell in column(table, "float64")[1:]] == ["✓ pass"] * len(LADDER)


def test_a_note_is_shown_as_it_stands(capsys):
    note = "m.py:lock: faster [b] than m.py:key:"
    print_tables(Table("", [Column("task", "task")], [{"task": "m.py:lock"}], (note,)))
    assert note in " ".join(capsys.readouterr().out.split())


def test_the_command_that_repeats_a_finding_stands_below_and_is_never_cut(
    standard: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = standard.verification.copy()
    command = f"matmulbench verify {'x' * 200}.py:matmul --case 2x2x1:TN"
    frame.loc[frame["status"] != "ok", "finding"] = f"2x2x1:TN: c[0, 0] is 3. Repeat: `{command}`"
    table = verification_table(frame)
    assert table.rows[0][-1].text == "2x2x1:TN: c[0, 0] is 3."
    monkeypatch.setenv("COLUMNS", "60")
    print_tables(table, table)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "Repeat" in line] == [f"Repeat: {command}"], "once, whole"


def test_training_tells_the_ceiling(quick: Results) -> None:
    assert (
        "digits: with products that cost nothing, a step would be 1.72× faster" in training_table(quick.training).notes
    )


@pytest.mark.parametrize("width", [80, 100, 130])
def test_no_figure_is_cut_in_a_narrow_terminal(quick: Results, width: int) -> None:
    for table in (ladder_table(quick), training_table(quick.training)):
        shown = text(table, width)
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80])
def test_where_nothing_more_can_be_left_out_names_are_folded_and_not_cut(width: int) -> None:
    row = {
        "name": "path/to/a/kernel/of/some/length.py:multiply",
        "time": 1.0,
        "note": "failed-verification: at the end",
    }
    columns = [
        Column("kernel", "name"),
        Column("time", "time", lambda _: "1,234,567 µs"),
        Column("note", "note", prose=True),
    ]
    shown = text(Table("", columns, [row | {"note": f"{row['note']} {'x' * 40}."}]), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "1,234,567 µs" in shown
    assert "".join(shown.split()).count("x") == 40
    assert "y " in shown, "the name's last letter"


def test_a_wide_terminal_shows_every_column(quick: Results) -> None:
    assert text(ladder_table(quick), 200).count("95 % interval") == 2
    assert "GFLOP/s" not in text(ladder_table(quick), 50)


def test_markdown_escapes_what_would_end_a_cell() -> None:
    table = Table("", [Column("a|b", "name")], [{"name": "c|d"}])
    assert table.markdown().splitlines() == ["| a\\|b |", "| :-- |", "| c\\|d |"]


def test_csv_and_json_are_data_alone(quick: Results, capsys: pytest.CaptureFixture[str]) -> None:
    show(quick.measurements, "csv", measurement_table)
    back = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(back.columns) == list(quick.measurements.columns)
    assert back["median_s"].tolist() == pytest.approx(quick.measurements["median_s"].tolist(), rel=1e-12)
    show(quick.measurements, "json", measurement_table)
    assert len(json.loads(capsys.readouterr().out)) == len(back)


def test_what_there_is_is_listed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    kernels = [
        {"kind": "kernel", "name": "numpy", "about": "a BLAS", "status": "available"},
        {"kind": "kernel", "name": "triton", "about": "tiles", "status": "unavailable: no GPU"},
    ]
    show([*kernels, {"kind": "task", "name": "digits", "about": "x" * 120}], "table", list_tables)
    out = capsys.readouterr().out
    assert re.search(
        r"Kernels\n.*numpy +✓ a BLAS\n triton +✗ unavailable: no GPU\n.*Tasks\n.*digits +x{120}", out, re.S
    )
    assert "tiles" not in out


def test_a_matrix_in_a_case_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    case = {"kernel": "mine", "status": "ok", "verdict": "pass", "finding": "", "expected": "", "got": ""}
    show([case | {"a": "[[1]\n [2]]", "b": ""}], "table", partial(case_table, case="2x1x1"))
    lines = [line.replace("\xa0", " ") for line in capsys.readouterr().out.splitlines()]
    first = next(line for line in lines if "[[1]" in line)
    assert lines[lines.index(first) + 1].index("[2]]") == first.index("[[1]") + 1


def test_an_agreement_is_in_few_digits() -> None:
    table = agreement_table(pd.DataFrame({"dtype": ["float32"], "kernel": ["numpy"], "torch": [0.228452]}))
    assert [cell.text for cell in table.rows[0]] == ["float32", "numpy", "0.23"]


def test_a_finding_of_a_run_stands_once(tmp_path: Path, make_run: Callable[..., Results]) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=())
    kernel, reason = run.measurements["kernel"][0], "exactness: 1x1x1: it is wrong"
    run.verification["finding"] = reason
    run.measurements["reason"] = [reason, *["busy"] * (len(run.measurements) - 1)]
    shown = without_findings(run, "measurements")
    assert shown.loc[shown["kernel"] == kernel, "reason"].iloc[0] == "see above"
    assert set(shown["reason"].iloc[1:]) == {"busy"}


def test_several_thread_counts_are_told_apart(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), threads=(1, 2), kernels=("numpy", "torch"))
    settings = [cell.text for cell in column(measurement_table(run.measurements), "dtype, threads")]
    assert settings == ["float32, 1"] * 2 + ["float32, 2"] * 2


def test_a_comparison_names_what_broke() -> None:
    nothing = math.nan
    key = {"workload": "5x784x10", "dtype": "float32", "threads": 1}
    rows = [
        {**key, "kernel": "numpy", "status_a": "ok", "status_b": "ok", "median_a_s": 4e-6, "median_b_s": 8e-6,
         "speedup": 0.55, "speedup_ci_low": 0.5, "speedup_ci_high": 0.6,
         "drift_arithmetic": 1.1, "drift_calls": 1.2, "drift_kernels": 1.3, "ratio": 2.0, "verdict": "slower",
         "extrapolated_b": True},
        {**key, "kernel": "x/mine.py:matmul", "status_a": "ok", "status_b": "crashed", "median_a_s": nothing,
         "median_b_s": nothing, "speedup": nothing, "speedup_ci_low": nothing, "speedup_ci_high": nothing,
         "drift_arithmetic": nothing, "drift_calls": nothing, "drift_kernels": nothing, "ratio": nothing,
             "verdict": "broken"},
    ]  # fmt: skip
    first, second = comparison_table(pd.DataFrame(rows)).rows
    assert [cell.text for cell in first] == [
        "5x784x10", "numpy", "4.00 µs", "≈ 8.00 µs", "2.000", "1.82× slower", "1.67–2.00× slower",
        "1.300", "slower",
    ]  # fmt: skip
    assert [cell.text for cell in second[1:]] == ["mine.py:matmul", *["–"] * 6, "broken: ok, then crashed"]
    assert {first[-1].tone, second[-1].tone} == {"bad"}


@pytest.mark.parametrize(
    ("kernels", "expected"),
    [
        (["torch", "path/to/mine.py:matmul"], ["torch", "mine.py:matmul"]),
        (["x/before/k.py:f", "x/after/k.py:f", "x/after/k.py:g"], ["before/k.py:f", "after/k.py:f", "k.py:g"]),
        (["k.py:f", "a/k.py:f", "b/a/k.py:f"], ["k.py:f", "a/k.py:f", "b/a/k.py:f"]),
        (["/one/src/k.py:f", "/two/src/k.py:f"], ["one/src/k.py:f", "two/src/k.py:f"]),
        (["pkg1.k:matmul", "pkg2.k:matmul"], ["pkg1.k:matmul", "pkg2.k:matmul"]),
    ],
)
def test_a_label_is_the_shortest_that_tells_a_kernel_apart(kernels: list[str], expected: list[str]) -> None:
    assert labels([*kernels, *kernels]) == dict(zip(kernels, expected, strict=True))


def test_kernels_of_one_name_are_told_apart_in_every_table(make_run: Callable[..., Results], tmp_path: Path) -> None:
    kernels = ("work/before/kernel.py:matmul", "work/after/kernel.py:matmul")
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=("digits",), kernels=kernels)
    shown = ["before/kernel.py:matmul", "after/kernel.py:matmul"]
    assert [row[0].text for row in measurement_table(run.measurements, kernels[1]).rows] == shown
    titles = [column.title for column in measurement_table(run.measurements, kernels[1]).columns]
    assert "vs after/kernel.py:matmul" in titles
    assert [row[1].text for row in training_table(run.training).rows] == shown
    assert [row[0].text for row in verification_table(run.verification).rows] == shown


def test_a_note_that_every_row_has_stands_once_below(quick: Results) -> None:
    frame = quick.measurements.query("workload == '64x64x64' and kernel != 'torch'").copy()
    frame[["speedup", "speedup_ci_low", "speedup_ci_high"]] = math.nan
    frame["verdict"], frame["reason"] = None, "the baseline failed: no speedup"
    table = measurement_table(frame)
    assert "vs torch" not in [column.title for column in table.columns]
    assert None not in [cell.value for cell in column(table, "time")]
    assert "note" not in [column.title for column in table.columns]
    assert table.notes[-1] == "the baseline failed: no speedup"
    frame.loc[frame["kernel"] == "numpy", "reason"] += "; it wandered"
    table = measurement_table(frame)
    assert {cell.text for cell in column(table, "note")} == {"", "it wandered"}
    assert table.notes.count("the baseline failed: no speedup") == 1


def test_a_note_on_all_of_one_task_names_it(standard: Results) -> None:
    frame = standard.training.copy()
    frame.loc[(frame["task"] == "digits") & (frame["status"] == "ok"), "reason"] = "two products stay torch's"
    table = training_table(frame)
    assert table.notes[-1] == "digits: two products stay torch's"
    assert {cell.text for cell in column(table, "note")} == {"", "failed-verification: see verification"}


def test_rates_of_integers_are_no_flop(quick: Results) -> None:
    frame = quick.measurements.query("workload == '64x64x64'").assign(dtype="int8")
    titles = [column.title for column in measurement_table(frame).columns]
    assert "10⁹ integer operations/s" in titles
    assert "GFLOP/s" not in titles
    table = measurement_table(pd.concat([quick.measurements, frame]))
    assert "GFLOP/s" in [column.title for column in table.columns]
    assert "int8: 10⁹ integer operations/s" in table.notes


def test_setup_has_a_column_where_a_kernel_has_one(quick: Results) -> None:
    assert "setup" not in [column.title for column in measurement_table(quick.measurements).columns]
    frame = quick.measurements.assign(setup_s=math.nan)
    assert "setup" not in [column.title for column in measurement_table(frame).columns]
    frame.loc[frame["kernel"] == "numba", "setup_s"] = 0.25
    table = measurement_table(frame)
    place = [column.title for column in table.columns].index("setup")
    assert {row[place].text for row in table.rows if row[1].text == "numba"} == {"250 ms"}
    assert {row[place].text for row in table.rows if row[1].text != "numba"} == {"–"}


def test_a_status_that_is_new_is_shown_with_its_reason(quick: Results) -> None:
    frame = quick.measurements.copy()
    frame["status"], frame["reason"] = "lost", "the machine is gone"
    assert {row[-1].text for row in measurement_table(frame).rows} == {"lost: the machine is gone"}


def test_a_training_that_was_cut_short_is_not_said_to_have_fewer_rows(quick):
    notes = training_table(quick.training.assign(extrapolated=True)).notes
    assert notes[0] == "≈ from fewer steps than the schedule has, or predicted"


def test_a_table_without_rows_is_its_title_alone():
    console = Console(file=io.StringIO(), width=80)
    console.print(Table("189 same", [Column("kernel", "label")], [], "drift: what fixed work takes"))
    assert console.file.getvalue() == "189 same\n"
