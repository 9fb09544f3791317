"""The table that sets other front ends' times beside the run's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from matmulbench.report.page import render
from matmulbench.report.tables import front_end_table
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd, read_front_end
from matmulbench.workload import Workload

FILES = Path(__file__).parents[1] / "results" / "front_ends"


@pytest.fixture(scope="module")
def front_ends() -> list[FrontEnd]:
    return [read_front_end(FILES / "asv"), read_front_end(FILES / "benchmark.json")]


def test_a_line_per_product_and_kernel_that_a_front_end_timed(quick: Results, front_ends: list[FrontEnd]) -> None:
    table = front_end_table(quick, front_ends)
    titles = ["source", "workload", "kernel", "theirs", "ours", "theirs / ours", "threads here"]
    assert [column.title for column in table.columns] == titles
    lines = {tuple(cell.text for cell in row[:3]): [cell.value for cell in row[3:]] for row in table.rows}
    assert ("asv", "5x784x10", "numpy") in lines
    assert ("asv", "64x784x50", "torch") not in lines, "asv did not time it"
    theirs, ours, ratio, threads = lines["pytest-benchmark", "5x784x10", "numpy"]
    rows = quick.measurements.query("workload == '5x784x10' and kernel == 'numpy'")
    assert (theirs, ours, threads) == (9.633999070501886e-06, rows["median_s"].item(), 1)
    assert ours
    assert theirs
    assert ratio == theirs / ours


def test_what_the_run_lacks_is_shown_without_a_ratio(quick: Results, front_ends: list[FrontEnd]) -> None:
    row = replace(front_ends[0].rows[0], workload="9x9x9", m=9, k=9, n=9)
    line = front_end_table(quick, [replace(front_ends[0], rows=[row])]).rows[-1]
    assert [cell.text for cell in line] == ["asv", "9x9x9", "numpy", "17.3 µs"]


def test_times_of_more_threads_have_no_ratio(
    make_run: Callable[..., Results], tmp_path: Path, front_ends: list[FrontEnd]
) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=(), threads=(2,), kernels=("numpy", "torch"))
    assert "theirs / ours" not in [column.title for column in front_end_table(run, front_ends).columns]


def test_origin_is_said(quick: Results, front_ends: list[FrontEnd]) -> None:
    here = [replace(one, cpu=quick.run["machine"]["cpu"]) for one in front_ends]
    assert front_end_table(quick, here).notes[1:] == ("asv: commit 60c581e4", "pytest-benchmark: commit 60c581e4")
    elsewhere = front_end_table(quick, [replace(here[0], cpu="Z80"), here[1]]).notes
    assert elsewhere[1] == "asv: commit 60c581e4 on another processor, Z80"


def test_the_page_shows_it_where_asked_for(quick: Results, front_ends: list[FrontEnd]) -> None:
    assert 'id="front-ends"' not in render(quick, [])
    assert 'id="front-ends"' in render(quick, [], front_ends)
