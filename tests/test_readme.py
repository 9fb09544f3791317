"""The README's figures are those of the committed reference run."""

import shutil
from pathlib import Path

from matmulbench.report.splice import splice
from matmulbench.results.folder import load_results
from matmulbench.workload import workloads

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_reference_run(tmp_path: Path) -> None:
    readme = Path(shutil.copy(ROOT / "README.md", tmp_path))
    shutil.copytree(ROOT / "results", tmp_path / "results")
    assert not splice(readme, load_results(tmp_path / "results" / "reference")), "run the command that it names"


def test_the_reference_run_has_every_workload_of_the_standard_preset() -> None:
    measured = load_results(ROOT / "results" / "reference").measurements
    assert set(measured["workload"]) == {str(workload) for workload in workloads("standard")}
    assert (measured["status"] == "ok").all()
