"""The README's figures are those of the committed reference run; its table is narrow enough for a page.

That its commands do what they say, and print what it shows, :mod:`test_pages` sees to.
"""

import re
import shutil
from pathlib import Path

from matmulbench.ladder import LADDER
from matmulbench.report.splice import BEGIN, END, splice
from matmulbench.results.folder import load_results
from matmulbench.workload import workloads

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SPLICED = README.partition(BEGIN)[2].partition(END)[0]


def test_the_readme_shows_the_reference_run(tmp_path: Path) -> None:
    readme = Path(shutil.copy(ROOT / "README.md", tmp_path))
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert not splice(readme, load_results(tmp_path / "results" / "reference")), "run the command that it names"


def test_the_table_has_four_columns_and_a_row_for_each_rung() -> None:
    head, rule, *rows = [line for line in SPLICED.splitlines() if line.startswith("|")]
    assert head == "| kernel | time | vs torch | % of roof |"
    assert rule == "| :-- | --: | --: | --: |"
    assert [row.split("|")[1].strip() for row in rows] == [rung.name for rung in LADDER]
    form = r"\| [\w-]+ \| ≈? ?[\d.,]+ [nµm]?s \| ([\d.,]+× (faster|slower)|unclear|baseline|as fast) \| [\d.]+ % \|"
    assert [row for row in rows if not re.fullmatch(form, row)] == []


def test_the_first_screen_says_how_to_begin_and_where_to_read_on() -> None:
    first, _, _ = README.partition(BEGIN)
    for needed in ("Clone", "$ make bench", "$ make test", "$ . .venv/bin/activate", "Linux"):
        assert needed in first
    for page in ("tutorial.md", "howto/own-kernel.md", "explanation/statistics.md", "explanation/biases.md"):
        assert f"(docs/{page})" in first


def test_every_page_and_picture_that_it_names_exists() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_reference_run_has_every_workload_of_the_standard_preset() -> None:
    measured = load_results(ROOT / "results" / "reference").measurements
    assert set(measured["workload"]) == {str(workload) for workload in workloads("standard")}
    assert (measured["status"] == "ok").all()
