"""Standard output and error as a shell may leave them: not UTF-8, closed, full, or with a reader that has left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matmulbench.results.folder import RunFolder
from matmulbench.results.schema import MeasurementRow

pytestmark = pytest.mark.posix
COMMAND = f"{sys.executable} -m matmulbench"
COMPARE = f"{COMMAND} compare $RUN $RUN"


@pytest.fixture(autouse=True)
def _a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run of one cell."""
    with RunFolder(tmp_path / "run", {"baseline": "torch"}) as folder:
        row = MeasurementRow("5x784x10", 5, 784, 10, "NN", "float32", 1, "numpy", median_s=1e-6)
        folder.add("measurements", row, [1e-6] * 12, calibration_samples=[[1e-3, 1e-3]] * 12)
    monkeypatch.setenv("RUN", str(tmp_path / "run"))


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line], env=os.environ | variables, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_table_is_shown_in_every_encoding(encoding: str) -> None:
    done = shell(COMPARE, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    table = done.stdout.decode(encoding)
    sign = "x" if encoding == "ascii" else "×"
    assert f"1.00{sign}" in table
    assert encoding == "cp1252" or "–" not in table, "which cp1252 has"
    assert "?" not in table


def test_json_loses_nothing_where_the_terminal_is_ascii(tmp_path: Path) -> None:
    mine = tmp_path / "größe.py"
    mine.write_text("def matmul(a, b): ...\n", "utf-8")
    (tmp_path / "pyproject.toml").write_text("[tool.matmulbench]\nkernels = ['größe.py:matmul']\n", "utf-8")
    done = shell(f"cd {tmp_path}; {COMMAND} verify --dtype float32 --format json", PYTHONIOENCODING="ascii")
    assert [row["kernel"] for row in json.loads(done.stdout)] == ["größe.py:matmul"]


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    done = shell(f"{COMPARE} {closed}")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_kernel_runs_where_standard_error_is_closed(tmp_path: Path) -> None:
    wrong = "def matmul(a, b):\n    print('called')\n    return a @ b + 1\n"  # which takes no time to see
    (tmp_path / "mine.py").write_text(wrong)
    done = shell(f"cd {tmp_path}; {COMMAND} verify mine.py:matmul --dtype float32 --format json 2>&-")
    assert done.returncode == 1
    assert [row["status"] for row in json.loads(done.stdout)] == ["failed-verification"]


def test_what_a_kernel_prints_need_not_be_in_the_streams_encoding(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def matmul(a, b):\n    print('≈')\n    return a @ b + 1\n", "utf-8")
    arguments = "mine.py:matmul --dtype float32 --format json"
    done = shell(f"cd {tmp_path}; {COMMAND} verify {arguments}", PYTHONIOENCODING="ascii")
    assert [row["status"] for row in json.loads(done.stdout)] == ["failed-verification"]
    assert rb"\u2248" in done.stderr


def test_a_kernel_runs_where_standard_output_is_a_file_and_standard_error_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def matmul(a, b):\n    print('called')\n    return a @ b + 1\n", "utf-8")
    done = shell(f"cd {tmp_path}; {COMMAND} verify mine.py:matmul --dtype float32 --format json > rows.json")
    assert [row["status"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["failed-verification"]
    assert b"called" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["--help", "list"])
def test_everything_is_shown_on_a_console_of_windows(verb: str) -> None:
    done = shell(f"{COMMAND} {verb}", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert "?" not in done.stdout.decode("cp1252")


def test_a_full_disk_behind_standard_output_is_said_in_one_line() -> None:
    for line in (f"{COMMAND} --version", f"PYTHONUNBUFFERED=1 {COMMAND} --help", COMPARE):
        done = shell(f"{line} > /dev/full", PYTHONUNBUFFERED="")
        assert (done.returncode, done.stderr) == (1, b"matmulbench: standard output: No space left on device\n"), line


def test_a_full_disk_behind_standard_error_changes_nothing() -> None:
    done = shell(f"{COMMAND} compare nowhere nowhere 2> /dev/full")
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_reader_that_left_does_not_change_the_exit_code() -> None:
    done = shell(f"({COMPARE}; echo $? >&2) | true")
    assert done.stderr == b"0\n"
