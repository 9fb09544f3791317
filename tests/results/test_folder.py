"""A run's folder loses nothing that was finished, and refuses what would mix."""

import json
import os
from pathlib import Path

import pytest

from matmulbench.results.folder import FolderError, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, VerificationRow, columns

OPTIONS = {"preset": "quick", "baseline": "torch"}


def row(kernel: str = "torch") -> MeasurementRow:
    return MeasurementRow("5x784x10", 5, 784, 10, "NN", "float32", 1, kernel, median_s=1e-6)


def test_rows_come_back_with_the_contracts_columns(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row(), [1e-6, 2e-6])
        folder.add("verification", VerificationRow("torch", "float32", verdict="pass"))
    results = load_results(tmp_path)
    assert list(results.measurements.columns) == columns("measurements")
    assert results.measurements["median_s"].tolist() == [1e-6]
    assert results.journal[0]["samples"] == [1e-6, 2e-6]
    header = (tmp_path / "verification.csv").read_text().splitlines()[0]
    assert header == "kernel,dtype,status,verdict,residual,cases,finding"
    assert json.loads((tmp_path / "run.json").read_text())["end"]


def test_results_say_what_they_hold_in_a_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row(), [1e-6, 2e-6])
    said = repr(load_results(tmp_path))
    assert said == f"<Results of {tmp_path}: 0 rows of verification, 1 rows of measurements, 0 rows of training>"


def test_a_row_is_on_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row())
        assert len(load_results(tmp_path).measurements) == 1


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    with pytest.raises(FolderError, match="holds a run already; continue it with --resume"):
        RunFolder(tmp_path, OPTIONS)


def test_a_run_going_on_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS), pytest.raises(FolderError, match="another run is writing there"):
        RunFolder(tmp_path, OPTIONS, resume=True)


def test_resume_knows_what_was_done_and_survives_a_half_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row("numpy"))
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"table": "measurements", "row": {"kern')
    with RunFolder(tmp_path, OPTIONS, resume=True) as folder:
        key = {"workload": "5x784x10", "dtype": "float32", "threads": 1}
        assert folder.done("measurements", kernel="numpy", **key)
        assert not folder.done("measurements", kernel="torch", **key)
        folder.add("measurements", row("torch"))
    assert set(load_results(tmp_path).measurements["kernel"]) == {"numpy", "torch"}


def test_resume_refuses_other_options_and_names_them(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    with pytest.raises(FolderError, match="options differ: preset was 'quick', is 'full'"):
        RunFolder(tmp_path, OPTIONS | {"preset": "full"}, resume=True)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(FolderError, match="schema_version is 99"):
        load_results(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"holds no run: there is no run.json"):
        load_results(tmp_path)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file: File exists; name another with --out"):
        RunFolder(tmp_path / "file", OPTIONS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row("numpy"))
        whole = folder._journal
        folder._journal = open("/dev/full", "ab", buffering=0)  # noqa: SIM115  # stands in for the folder's own
        with pytest.raises(FolderError, match=r"No space left on device while writing journal.jsonl"):
            folder.add("measurements", row("torch"))
        folder._journal = whole
    assert load_results(tmp_path).measurements["kernel"].tolist() == ["numpy"]
