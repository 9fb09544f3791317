"""The notebook runs from top to bottom, and is kept without outputs."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "ladder.ipynb"


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    found: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return ["".join(output["data"][kind]) for output in found if kind in output.get("data", {})]


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()


@pytest.mark.slow
@pytest.mark.timeout(300)  # half a minute on an idle machine
def test_it_climbs_the_ladder_on_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist_dir: str | None, less: str
) -> None:
    if mnist_dir:
        monkeypatch.setenv("MATMULBENCH_DATA", mnist_dir)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"budget_s=\d+", "budget_s=0.5", cell.source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(less))
    execute(notebook, tmp_path)
    tables = outputs(notebook, "text/html")
    climbed = next(table for table in tables if "roof_percent" in table)
    assert all(f"<td>{rung}</td>" in climbed for rung in ("triple-loop", "numba", "torch"))
    verdicts = re.findall(r"<td>mine.py:(\w+)</td>\s*<td>([\w-]+)</td>", "".join(tables))
    assert ("misprint", "failed-verification") in verdicts
    printed = "".join(
        output["text"] for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    assert re.search(
        r"c\[0, 0\] is \S+, expected exactly \S+ .*matmulbench verify mine.py:misprint --case 1x2x1", printed
    )
    assert ("outer_products", "ok") in verdicts
    assert "&lt;img" in next(table for table in tables if "outer_products: ✓ right" in table)
    assert any("5x784x10 · float32 · 1 thread" in table for table in tables)
    assert len(outputs(notebook, "image/png")) == 2


def test_where_mnist_is_absent_other_digits_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATMULBENCH_DATA", str(tmp_path / "nothing"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    climb = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("## The climb"))
    notebook.cells = [*notebook.cells[:climb], nbformat.v4.new_code_cell("workload")]
    execute(notebook, tmp_path)
    assert outputs(notebook, "text/plain")[-1] == "'5x64x10'"
