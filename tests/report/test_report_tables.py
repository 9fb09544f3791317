import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.output import as_grid, show
from matmulbench.report.tables import (
    ladder_table,
    measurement_table,
    speedup_table,
    training_table,
    verification_matrix,
    verification_table,
)
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status
from matmulbench.workload import PRESETS, Workload


def text(grid: Grid, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(grid)
    return out.getvalue()


def test_the_ladder_has_the_first_workload_in_ladder_order(quick: Results) -> None:
    grid = ladder_table(quick)
    assert grid.title == "5x784x10 · float32 · 1 thread"
    assert [row[0].text for row in grid.rows] == [rung.name for rung in LADDER]
    assert grid.rows[-1][-1].text == "baseline"


def test_the_order_is_the_ladders_whatever_the_rows(quick: Results) -> None:
    grid = measurement_table(quick.measurements.iloc[::-1].query("workload == '64x64x64'"))
    assert [row[0].text for row in grid.rows] == [rung.name for rung in LADDER]


def test_what_is_climbed_is_computed_from_the_times(quick: Results) -> None:
    grid = ladder_table(quick)
    column = [column.name for column in grid.columns].index("vs triple-loop")
    times = quick.measurements.query("workload == '5x784x10'").set_index("kernel")["median_s"]
    values = {row[0].text: row[column].value for row in grid.rows}
    assert values["triple-loop"] == 1
    assert values["numpy"] == pytest.approx(times["triple-loop"] / times["numpy"])


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_row_without_figures_says_why_and_shows_none(standard: Results, status: Status) -> None:
    rows = [row for row in measurement_table(standard.measurements).rows if f"{status}.py" in row[1].text]
    assert rows
    for row in rows:
        assert row[-1].text.startswith(status)
        assert all(cell.value is None for cell in row[2:])


def test_a_figure_beside_a_failure_is_not_shown(quick: Results) -> None:
    frame = quick.measurements.copy()
    frame["status"] = "failed-verification"
    assert all(cell.value is None for row in measurement_table(frame).rows for cell in row[2:])


def test_extrapolated_figures_are_marked(quick: Results) -> None:
    grid = ladder_table(quick, "256x256x256")
    assert grid.rows[0][1].text.startswith("≈")
    assert not grid.rows[-1][1].text.startswith("≈")
    assert "extrapolated" in grid.note


def test_an_unknown_workload_is_named_with_near_matches(quick: Results) -> None:
    with pytest.raises(UsageError, match=r"5x784x11.*5x784x10"):
        ladder_table(quick, "5x784x11")


def test_speedups_have_a_line_per_workload(standard: Results) -> None:
    grid = speedup_table(standard)
    assert [row[0].text for row in grid.rows] == [str(workload) for workload in PRESETS["standard"]]


def test_verification_shows_findings(standard: Results) -> None:
    assert any("after 5 of 784" in row[-1].text for row in verification_table(standard.verification).rows)
    last = verification_matrix(standard.verification).rows[-1]
    assert last[0].text == "mine.py:matmul"
    assert last[1].tone == "bad"
    assert last[2].text == "not tried"


def test_training_tells_the_ceiling(quick: Results) -> None:
    assert "digits: with products that cost nothing, a step would be 1.72×" in training_table(quick.training).note


@pytest.mark.parametrize("width", [80, 100, 130])
def test_no_figure_is_cut_in_a_narrow_terminal(quick: Results, width: int) -> None:
    for grid in (ladder_table(quick), training_table(quick.training)):
        shown = text(grid, width)
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= width


def test_a_wide_terminal_shows_every_column(quick: Results) -> None:
    assert text(ladder_table(quick), 200).count("95 % interval") == 2
    assert "GFLOP/s" not in text(ladder_table(quick), 60)


def test_markdown_escapes_what_would_end_a_cell() -> None:
    grid = Grid("", [Column("a|b", "name")], [[Cell("c|d")]])
    assert grid.markdown().splitlines() == ["| a\\|b |", "| :-- |", "| c\\|d |"]


def test_csv_and_json_are_data_alone(quick: Results, capsys: pytest.CaptureFixture[str]) -> None:
    show(quick.measurements, "csv")
    back = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(back.columns) == list(quick.measurements.columns)
    assert back["median_s"].tolist() == pytest.approx(quick.measurements["median_s"].tolist(), rel=1e-12)
    show(quick.measurements, "json")
    assert len(json.loads(capsys.readouterr().out)) == len(back)


def test_rows_of_any_other_kind_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"kind": "task", "name": "digits", "about": "x" * 120}])
    assert "x" * 120 in capsys.readouterr().out


def test_several_thread_counts_are_told_apart(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(64, 64, 64)], tasks=(), threads=(1, 2), kernels=("numpy", "torch"))
    assert [row[0].text for row in speedup_table(run).rows] == [
        "64x64x64 · float32 · 1 thread",
        "64x64x64 · float32 · 2 threads",
    ]
    assert [row[1].text for row in measurement_table(run.measurements).rows] == ["float32, 1"] * 2 + ["float32, 2"] * 2


def test_a_comparison_names_what_broke() -> None:
    nothing = math.nan
    key = {"workload": "5x784x10", "dtype": "float32", "threads": 1}
    rows = [
        {**key, "kernel": "numpy", "status_a": "ok", "status_b": "ok", "median_a_s": 4e-6, "median_b_s": 8e-6,
         "speedup": 0.55, "speedup_ci_low": 0.5, "speedup_ci_high": 0.6,
         "drift_arithmetic": 1.1, "drift_calls": 1.2, "verdict": "slower"},
        {**key, "kernel": "x/mine.py:matmul", "status_a": "ok", "status_b": "crashed", "median_a_s": nothing,
         "median_b_s": nothing, "speedup": nothing, "speedup_ci_low": nothing, "speedup_ci_high": nothing,
         "drift_arithmetic": nothing, "drift_calls": nothing, "verdict": "broken"},
    ]  # fmt: skip
    first, second = as_grid(pd.DataFrame(rows)).rows
    assert [cell.text for cell in first] == [
        "5x784x10", "float32, 1", "numpy", "4.00 µs", "8.00 µs", "0.55×", "0.50–0.60×", "1.10×", "1.20×", "slower",
    ]  # fmt: skip
    assert [cell.text for cell in second[2:]] == ["mine.py:matmul", *["–"] * 6, "broken: ok, then crashed"]
    assert {first[-1].tone, second[-1].tone} == {"bad"}
