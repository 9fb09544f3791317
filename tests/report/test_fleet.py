"""The report above several machines."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from matmulbench.cli import app
from matmulbench.comparison import compare, differences
from matmulbench.errors import UsageError
from matmulbench.report import write_report
from matmulbench.report.fleet import by_workload, differences_table, order_changes, sentences, winners_table
from matmulbench.results.folder import FleetResults, FolderError, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, VerificationRow

KERNELS = ("numpy", "numba", "torch")
# Microseconds, and what they differ by from the interval's ends: on the second machine numba comes before numpy.
TIMES = {"old": {"numpy": (10, 0.1), "numba": (20, 0.1), "torch": (15, 0.1)}} | {
    "new": {"numpy": (10, 0.1), "numba": (5, 0.1), "torch": (9.9, 0.2)}
}


def write(path: Path, times: dict[str, tuple[float, float]], torch: str = "2.13", cpu: str = "a processor") -> None:
    versions = {"torch": torch, "numpy": "2.4"}
    with RunFolder(path, {"baseline": "torch"}, machine={"cpu": cpu, "cores": 2}, versions=versions) as folder:
        for kernel, (micro, width) in times.items():
            folder.add("verification", VerificationRow(kernel, "float32", verdict="pass"))
            row = MeasurementRow("8x8x8", 8, 8, 8, "NN", "float32", 1, kernel, roof_percent=50.0, samples=9)
            row.median_s, row.ci_low_s, row.ci_high_s = ((micro + d) * 1e-6 for d in (0, -width, width))
            if kernel != "torch":
                row.speedup = times["torch"][0] / micro
                row.speedup_ci_low, row.speedup_ci_high = ((times["torch"][0]) / (micro + d) for d in (width, -width))
                row.verdict = "faster" if row.speedup > 1 else "slower"
            folder.add("measurements", row, [row.median_s] * 9, calibration_samples=[[1e-3, 1e-6]] * 9)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    write(tmp_path / "old", TIMES["old"], torch="2.12")
    write(tmp_path / "new", TIMES["new"], cpu="another processor")
    return tmp_path


def load(path: Path) -> FleetResults:
    found = load_results(path)
    assert isinstance(found, FleetResults)
    return found


def test_a_folder_of_runs_is_read_as_one(fleet: Path) -> None:
    found = load(fleet)
    assert list(found.machines) == ["new", "old"]
    assert list(found.measurements["machine"]) == ["new"] * 3 + ["old"] * 3
    assert len(found.verification) == 6
    assert len(found.training) == 0
    assert {entry["machine"] for entry in found.journal} == {"new", "old"}


def test_who_wins_and_that_the_order_changes(fleet: Path) -> None:
    found = load(fleet)
    [row] = winners_table(found).records
    assert row["old"] == "numpy"
    assert row["new"] == "numba"
    [by] = by_workload(found).values()
    assert set(order_changes(by, "torch")) == {("numba", "numpy", "new", "old"), ("numba", "torch", "new", "old")}
    assert sentences(found)[0] == "2 machines: the order of kernels changes on 1 of 1 product."
    assert "numba is before numpy on new, behind it on old" in sentences(found)[1]


def test_overlapping_intervals_are_no_change_and_no_single_winner(tmp_path: Path) -> None:
    write(tmp_path / "a", {"numpy": (10, 0.5), "torch": (10.2, 0.1)})
    write(tmp_path / "b", {"numpy": (10.3, 0.5), "torch": (10.2, 0.1)})
    found = load(tmp_path)
    assert "on no product does the order of kernels change" in sentences(found)[0]
    [row] = winners_table(found).records
    assert row["a"] == "numpy or torch"


def test_what_differs_is_listed_and_what_does_not_is_not(fleet: Path) -> None:
    facts = {row["fact"]: row for row in differences_table(load(fleet)).records}
    assert facts.keys() == {"cpu", "torch"}
    assert (facts["torch"]["old"], facts["torch"]["new"]) == ("2.12", "2.13")


def test_the_page_has_every_figure_and_links_to_each_machine(fleet: Path) -> None:
    page = write_report(fleet).read_text()
    for name in ("old", "new"):
        assert f'<a href="{name}/report.html">{name}</a>' in page
    assert "5.00 µs, 50.0 %, 1.98× faster" in page
    assert "20.0 µs, 50.0 %, 1.33× slower" in page
    assert "<h1>matmulbench</h1>" in page
    assert page.count("</main>") == 1


def test_folders_that_were_run_apart(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    apart = tmp_path_factory.mktemp("apart")
    write(apart / "x" / "monday", TIMES["old"])
    write(apart / "y" / "monday", TIMES["new"])
    done = CliRunner().invoke(app, ["report", str(apart / "x" / "monday"), str(apart / "y" / "monday")])
    assert done.exit_code == 0, done.output
    assert (apart / "report.html").is_file()
    assert 'href="x/monday/report.html"' in (apart / "report.html").read_text()
    assert "the order of kernels changes on 1 of 1 product" in done.output
    assert CliRunner().invoke(app, ["report", str(fleet / "old"), str(apart / "none")]).exit_code == 2
    spliced = CliRunner().invoke(app, ["report", str(fleet / "old"), str(fleet / "new"), "--splice", "README.md"])
    assert spliced.exit_code == 2
    for option in ("--splice", "--with"):
        done = CliRunner().invoke(app, ["report", str(fleet), option, "README.md"])
        assert done.exit_code == 2
        assert "name one, such as" in done.stderr


def test_fleets_are_compared_machine_by_machine(fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    later = tmp_path_factory.mktemp("later")
    write(later / "old", {kernel: (2 * time, width) for kernel, (time, width) in TIMES["old"].items()}, torch="2.12")
    write(later / "third", TIMES["new"])
    compared = compare(load(fleet), load(later))
    assert set(compared["machine"]) == {"old"}
    assert (compared["verdict"] == "slower").all()
    assert differences(load(fleet), load(later)) == []
    with pytest.raises(UsageError, match="runs of several machines: name one"):
        compare(load(fleet), load_results(later / "old"))
    done = CliRunner().invoke(app, ["compare", str(fleet), str(later)])
    assert done.exit_code == 1
    assert "old" in done.output


def test_one_broken_run_is_named(fleet: Path) -> None:
    run = json.loads((fleet / "old" / "run.json").read_text())
    (fleet / "old" / "run.json").write_text(json.dumps(run | {"schema_version": 0}))
    with pytest.raises(FolderError, match="old: schema_version"):
        load_results(fleet)
