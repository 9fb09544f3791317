"""The table that sets other front ends' times beside the run's."""

from dataclasses import replace
from pathlib import Path

import pytest

from matmulbench.report import write_report
from matmulbench.report.side_by_side import side_by_side_table
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd, read_front_end

FILES = Path(__file__).parents[1] / "results" / "front_ends"


@pytest.fixture(scope="module")
def front_ends() -> list[FrontEnd]:
    return [read_front_end(FILES / "asv"), read_front_end(FILES / "benchmark.json")]


def test_a_line_per_cell_that_a_front_end_timed(quick: Results, front_ends: list[FrontEnd]) -> None:
    table = side_by_side_table(quick, front_ends)
    assert [column.title for column in table.columns] == [
        "workload", "kernel", "matmulbench", "asv", "asv / ours", "pytest-benchmark", "pytest-benchmark / ours",
    ]  # fmt: skip
    lines = {(row[0].text, row[1].text): [cell.value for cell in row[2:]] for row in table.rows}
    assert list(lines) == [
        ("5x784x10", "numpy"),
        ("5x784x10", "torch"),
        ("64x784x50", "torch"),
        ("64x64x64", "numpy"),
        ("64x64x64", "torch"),
    ]
    ours, asv, asv_ratio, theirs, ratio = lines["5x784x10", "numpy"]
    rows = quick.measurements.query("workload == '5x784x10' and kernel == 'numpy'")
    assert ours == rows["median_s"].item()
    assert (asv, theirs) == (1.729600080579985e-05, 9.633999070501886e-06)
    assert ours is not None
    assert (asv_ratio, ratio) == (asv / ours, theirs / ours)
    assert lines["64x784x50", "torch"][1:3] == [None, None], "asv did not time it"


def test_what_the_run_lacks_is_shown_without_a_ratio(quick: Results, front_ends: list[FrontEnd]) -> None:
    row = replace(front_ends[0].rows[0], workload="9x9x9", m=9, k=9, n=9)
    line = side_by_side_table(quick, [replace(front_ends[0], rows=[row])]).rows[-1]
    assert [cell.text for cell in line] == ["9x9x9", "numpy", "–", "17.3 µs", "–"]


def test_origin_is_said(quick: Results, front_ends: list[FrontEnd]) -> None:
    here = [replace(one, cpu=quick.run["machine"]["cpu"]) for one in front_ends]
    assert side_by_side_table(quick, here).note.endswith("asv: commit 60c581e4; pytest-benchmark: commit 60c581e4")
    elsewhere = side_by_side_table(quick, [replace(here[0], cpu="Z80"), here[1]]).note
    assert "asv: commit 60c581e4 on another processor, Z80; pytest-benchmark: commit 60c581e4" in elsewhere


def test_the_page_shows_it_where_asked_for(quick: Results, front_ends: list[FrontEnd]) -> None:
    assert 'id="side-by-side"' not in write_report(quick.path).read_text()
    assert 'id="side-by-side"' in write_report(quick.path, front_ends).read_text()
