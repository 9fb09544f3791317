"""A run's folder loses nothing that was finished, and refuses what would mix."""

import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matmulbench.cli import app
from matmulbench.errors import InputWarning
from matmulbench.results.folder import FleetResults, FolderError, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, Status, TrainingRow, VerificationRow, columns

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


def test_a_run_from_before_there_were_devices_was_on_the_cpu(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row(), [1e-6])
        folder.add("training", TrainingRow("digits", "torch", 1))
    about, journal = tmp_path / "run.json", tmp_path / "journal.jsonl"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"schema_version": 5}))
    journal.write_text(journal.read_text().replace(', "device": "cpu"', ""))
    assert "device" not in journal.read_text()
    results = load_results(tmp_path)
    assert results.measurements["device"].tolist() == results.training["device"].tolist() == ["cpu"]


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


def test_resume_takes_the_same_kernels_in_another_order(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS | {"kernels": ["numpy", "torch"]}) as folder:
        folder.add("measurements", row("numpy"))
    with RunFolder(tmp_path, OPTIONS | {"kernels": ["torch", "numpy"]}, resume=True) as folder:
        assert folder.done("measurements", workload="5x784x10", dtype="float32", threads=1, kernel="numpy")
    with pytest.raises(FolderError, match=r"kernels was .*'torch', 'numpy'.*, is .*'torch', 'torch'"):
        RunFolder(tmp_path, OPTIONS | {"kernels": ["torch", "torch"]}, resume=True)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    for version in (99, 1, None, True, "3"):
        (tmp_path / "run.json").write_text(json.dumps({"schema_version": version}))
        with pytest.raises(
            FolderError, match=f"schema_version is {version!r}, this matmulbench reads 5 and 6: read it with"
        ):
            load_results(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"holds no run: there is no run.json"):
        load_results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=f"{tmp_path / 'absent'} holds no run: there is no such folder"):
        load_results(tmp_path / "absent")
    with pytest.raises(FolderError, match=r"file is a file: name the folder of a run$"):
        load_results(tmp_path / "file")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FolderError, match=f"file is a file: name the folder of a run, such as {tmp_path}"):
        load_results(tmp_path / "file")


def test_no_name_is_not_the_current_folder() -> None:
    for read in (load_results, lambda name: FleetResults.of([name, name])):
        with pytest.raises(FolderError, match="folder '': expected the folder of a run"):
            read("")
    done = CliRunner().invoke(app, ["report", ""])
    assert done.exit_code == 2


def test_a_run_without_its_journal_is_not_a_run_without_results(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    assert load_results(tmp_path).measurements.empty
    (tmp_path / "journal.jsonl").unlink()
    with pytest.raises(FolderError, match=r"holds no results: there is no journal.jsonl"):
        load_results(tmp_path)
    with RunFolder(tmp_path, OPTIONS, resume=True) as folder:
        assert not folder.done("measurements", workload="5x784x10", dtype="float32", threads=1, kernel="torch")


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


def entry(table: str = "measurements", **changes: Any) -> bytes:
    rows = {"measurements": row(), "training": TrainingRow("digits", "torch", 1, step_s=1e-3)}
    return json.dumps({"table": table, "row": asdict(rows.get(table, row())) | changes, "samples": []}).encode()


ODD = [
    b"\xff\xfe\x00", b"5", b"[1]", b"null", b"[" * 100_000, b"{}", b'{"table": "measurements", "row": {}}',
    entry("nonsense"), entry("roof"), entry(median_s=float("nan")), entry(status="superb"),
    entry(threads=-1), entry(median_s="fast"), entry(median_s=None),
    entry(ci_low_s=9.0), entry(ci_high_s=-1.0), entry(median_s=0), entry(m=True), entry(m=2**70), entry(speedup=1e-320),
    entry()[:-2] + b'1e999]}', entry()[:-1] + b', "warnings": "hot"}',
    entry(workload="5x784"), entry(dtype="int4"), entry(kernel=None), entry(kernel=["torch"]),
    entry()[:-2] + b', 0, "x"]}', entry()[:-1] + b', "calibration_samples": [[1, 2]]}',
    entry("training", matmul_share=1e-320),
    entry("training")[:-1] + b', "products": [{"which": "forward", "layer": 1, "seconds": 0}]}',
    entry("training")[:-1] + b', "products": [3]}', entry("training")[:-1] + b', "losses": [1], "loss_steps": [1, 2]}',
]  # fmt: skip


def test_odd_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row("numpy"))
        folder.add("training", TrainingRow("digits", "torch", 1, step_s=1e-3), losses=[2.0, None], loss_steps=[0, 9])
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b"\n".join([*ODD, b""]))
    with pytest.warns(InputWarning, match=f"passed over {len(ODD)} of {len(ODD) + 2} lines"):
        results = load_results(tmp_path)
    assert results.measurements["kernel"].tolist() == ["numpy"]
    assert len(results.training) == 1
    with pytest.warns(InputWarning), RunFolder(tmp_path, OPTIONS, resume=True) as folder:
        assert folder.done("training", task="digits", kernel="torch", threads=1)


def test_rows_with_other_columns_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(entry(colour="red").replace(b'"setup_s": null, ', b"") + b"\n")
    with pytest.warns(InputWarning) as warned:
        results = load_results(tmp_path)
    assert results.measurements["median_s"].tolist() == [1e-6]
    assert results.measurements.columns.tolist() == columns("measurements")
    assert str(warned[0].message) == f"{journal}: columns of measurements that are absent or unknown: colour, setup_s"
    assert warned[0].filename == __file__  # the line of the user that read it


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (entry(median_s=-1.0), r"measurements\.row\.median_s is -1\.0, expected another value"),
        (entry(threads="two"), r"measurements\.row\.threads is 'two', expected int"),
        (entry(median_s=None), r"measurements\.row is {'workload': .*, expected another value"),
        (
            entry().replace(b'"median_s": 1e-06, ', b""),
            r"measurements\.row is {'workload': .*, expected another value",
        ),
        (entry()[:-9], "it is cut short, or of no table"),
    ],
)
def test_why_a_line_is_passed_over_is_said(tmp_path: Path, line: bytes, reason: str) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    (tmp_path / "journal.jsonl").write_bytes(entry() + b"\n" + line + b"\n")
    with pytest.warns(InputWarning, match=f"passed over 1 of 2 lines, which no run wrote whole; line 2: {reason}"):
        load_results(tmp_path)


def test_a_journal_without_a_line_to_read_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    (tmp_path / "journal.jsonl").write_bytes(b"5\n")
    with pytest.warns(InputWarning), pytest.raises(FolderError, match=r"no line of journal.jsonl can be read"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([1], "expected an object, found list"),
        ({"options": None}, "options is None"),
        ({"options": {"baseline": 3}}, r"options\.baseline is 3, expected str"),
        ({"machine": None}, "machine is None, expected an object with cpu, cores"),
        ({"machine": {}}, r"machine\.cpu is None, expected str"),
        ({"machine": {"cpu": "some"}}, r"machine\.cores is None, expected int"),
        ({"versions": []}, "versions is "),
        ({"versions": {"numpy": "2"}}, r"versions\.torch is None, expected str"),
        ({"end": 5}, "end is 5"),
    ],
)
def test_an_odd_run_json_is_refused_in_a_sentence(tmp_path: Path, change: Any, message: str) -> None:
    with RunFolder(tmp_path, OPTIONS):
        pass
    file = tmp_path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change if isinstance(change, dict) else change))
    with pytest.raises(FolderError, match=message):
        load_results(tmp_path)
    with pytest.raises(FolderError, match=message):
        RunFolder(tmp_path, OPTIONS, resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\xff", "cannot be read as JSON"), (b"[" * 100_000, "cannot be read as JSON")],
)
def test_a_run_json_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(FolderError, match=f"run.json {message}"):
        load_results(tmp_path)


def test_texts_are_made_printable_before_they_are_written(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add(
            "verification", VerificationRow("\ud800.py:f", "float32", "error", finding="\x1b[31mred\n" + "x" * 10**7)
        )
    found = load_results(tmp_path).verification.iloc[0]
    assert found["kernel"] == "?.py:f"
    assert found["finding"].startswith("red xxx")
    assert len(found["finding"]) == 500


def test_what_was_lost_is_done_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("verification", VerificationRow("numpy", "float32", Status.LOST))
        folder.add("verification", VerificationRow("torch", "float32", Status.ERROR))
    with RunFolder(tmp_path, OPTIONS, resume=True) as folder:
        assert not folder.done("verification", kernel="numpy", dtype="float32")
        assert folder.done("verification", kernel="torch", dtype="float32")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_is_full_from_the_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json.new").symlink_to("/dev/full")
    with pytest.raises(FolderError, match="No space left on device; name another with --out"):
        RunFolder(tmp_path, OPTIONS)


def test_lines_of_windows_and_blank_lines_are_read_and_the_last_of_a_cell_counts(tmp_path: Path) -> None:
    with RunFolder(tmp_path, OPTIONS) as folder:
        folder.add("measurements", row())
    twice = [entry(median_s=3e-6), b"", entry(median_s=2e-6)]
    (tmp_path / "journal.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(twice) + b"\r\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_results(tmp_path).measurements["median_s"].tolist() == [2e-6]
