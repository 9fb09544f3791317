"""A project's own settings: what its pyproject.toml may say, and what is stronger than it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matmulbench.cli.config import load_config
from matmulbench.errors import UsageError
from matmulbench.pipeline import Job

Command = Callable[..., Any]
TABLE = """
[project]
name = "mine"
[tool.matmulbench]
kernels = ["kernels/my.py:matmul", "numpy"]
workloads = ["8x8x8", "16x8x4:TN"]
threads = [1, 2]
baseline = "einsum"
data_dir = "data/mnist"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a kernel of its own, and be in it."""
    (tmp_path / "pyproject.toml").write_text(TABLE)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "my.py").write_text("def matmul(a, b):\n    return a @ b\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_stands_for_options(project: Path) -> None:
    assert load_config() == {
        "kernel": ["kernels/my.py:matmul", "numpy"],
        "workload": ["8x8x8", "16x8x4:TN"],
        "threads": "1,2",
        "baseline": "einsum",
        "data_dir": "data/mnist",
    }


def test_paths_are_relative_to_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "src" / "mine"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    found = load_config()
    assert found["kernel"] == ["../../kernels/my.py:matmul", "numpy"]
    assert found["data_dir"] == "../../data/mnist"


def test_a_path_on_another_drive_stays_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def relpath(path: Path) -> str:  # as on Windows
        if path.name == "mnist":
            raise ValueError("path is on mount 'D:', start on mount 'C:'")
        return str(path)

    monkeypatch.setattr("os.path.relpath", relpath)
    assert load_config()["data_dir"] == str(project / "data" / "mnist")


def test_the_nearest_file_with_a_table_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = project / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    (inner / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    assert load_config()["baseline"] == "einsum", "a file without the table is passed over"
    (inner / "pyproject.toml").write_text("[tool.matmulbench]\nthreads = 1\n")
    assert load_config() == {"threads": "1"}, "nothing is taken from a file further up"


def test_one_value_need_not_be_a_list(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.matmulbench]\nkernels = 'numpy'\nworkloads = '8x8x8'\n")
    assert load_config() == {"kernel": ["numpy"], "workload": ["8x8x8"]}


def test_no_table_is_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert load_config() == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("kernel = ['numpy']", "key 'kernel' is unknown: did you mean kernels?"),
        ("kernels = []", "kernels: expected a value such as 'my.py:matmul' or ['my.py:matmul'], found []"),
        ("kernels = [3]", "kernels: expected a value such as 'my.py:matmul' or ['my.py:matmul'], found [3]"),
        ("kernels = ['nmpy']", "kernels: kernel 'nmpy' is unknown: did you mean numpy"),
        ("kernels = ['your.py:matmul']", "kernels: kernel 'your.py:matmul': there is no file 'your.py'"),
        ("workloads = ['5x784']", "workloads: workload '5x784': expected MxKxN"),
        ("threads = '1'", "threads: expected a value such as 1 or [1, 2], found '1'"),
        ("threads = true", "threads: expected a value such as 1 or [1, 2], found True"),
        ("threads = []", "threads: expected a value such as 1 or [1, 2], found []"),
        ("baseline = 'torhc'", "baseline: kernel 'torhc' is unknown: did you mean torch?"),
        ("kernels = ['my.py']", "kernels: kernel 'my.py': there is no file 'my.py'"),
        ("kernels = ['~nosuchuser/my.py:f']", "kernels: kernel '~nosuchuser/my.py:f': there is no"),
        ("threads = 99999", "threads: threads '99999': expected counts from 1 to"),
        ("baseline = ['torch']", "baseline: expected a value such as 'torch', found ['torch']"),
        ("data_dir = 1", "data_dir: expected a value such as 'data/mnist', found 1"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(f"[tool.matmulbench]\n{table}\n")
    with pytest.raises(UsageError) as found:
        load_config()
    assert str(found.value).startswith(f"pyproject.toml, [tool.matmulbench]: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.matmulbench\n", "pyproject.toml cannot be read: "),
        ("[tool]\nmatmulbench = 3\n", "pyproject.toml, [tool.matmulbench]: expected a table, found 3"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError) as found:
        load_config()
    assert str(found.value).startswith(message)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, matmulbench: Command) -> Callable[..., Job]:
    """Return the job that ``matmulbench measure`` would carry out."""
    jobs: list[Job] = []

    def carry_out(job: Job, *_: object) -> None:
        jobs.append(job)
        raise SystemExit(0)

    monkeypatch.setattr("matmulbench.api.carry_out", carry_out)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))

    def run(*arguments: str) -> Job:
        assert matmulbench("measure", *arguments).returncode == 0
        return jobs[-1]

    return run


def test_precedence_of_threads(project: Path, monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Job]) -> None:
    """Each step of defaults < table < environment < command line, strongest first."""
    monkeypatch.setenv("MATMULBENCH_THREADS", "3")
    assert measured("--threads", "4").threads == (4,)
    assert measured().threads == (3,)
    monkeypatch.delenv("MATMULBENCH_THREADS")
    assert measured().threads == (1, 2)
    (project / "pyproject.toml").unlink()
    assert measured().threads == (1,)


def test_the_command_line_replaces_kernels_workloads_and_baseline(project: Path, measured: Callable[..., Job]) -> None:
    job = measured()
    assert job.specs == ["kernels/my.py:matmul", "numpy", "einsum"]
    assert [str(workload) for workload, _ in job.workloads] == ["8x8x8", "16x8x4:TN"]
    assert job.baseline == "einsum"
    job = measured("row-slice", "--workload", "2x2x2", "--baseline", "torch")
    assert job.specs == ["row-slice", "torch"]
    assert [str(workload) for workload, _ in job.workloads] == ["2x2x2"]
    assert job.baseline == "torch"


def test_precedence_of_the_data_folder(project: Path, monkeypatch: pytest.MonkeyPatch, matmulbench: Command) -> None:
    folders = []

    def train(*_: Any, data_dir: str | None, **__: Any) -> None:
        folders.append(data_dir)
        raise SystemExit(0)

    monkeypatch.setattr("matmulbench.api.train", train)
    for arguments, variable in ((["--data-dir", "line"], "variable"), ([], "variable"), ([], None)):
        if variable:
            monkeypatch.setenv("MATMULBENCH_DATA", variable)
        else:
            monkeypatch.delenv("MATMULBENCH_DATA", raising=False)
        matmulbench("train", "--threads", "1", *arguments)
    assert folders == ["line", "variable", "data/mnist"]


def test_a_wrong_data_folder_of_the_table_is_named_as_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch, matmulbench: Command
) -> None:
    monkeypatch.delenv("MATMULBENCH_DATA", raising=False)

    def said(*arguments: str) -> str:
        return str(matmulbench("train", "numpy", "--threads", "1", "--task", "mnist", *arguments).stderr)

    where = "[tool.matmulbench] of pyproject.toml: data_dir: "
    assert said() == f"matmulbench: {where}data-dir 'data/mnist': there is no such folder or file\n"
    for other in ("line", "mnist", "data/mnist2", "data"):
        assert said("--data-dir", other) == f"matmulbench: data-dir {other!r}: there is no such folder or file\n"


def test_list_shows_the_projects_own(project: Path, monkeypatch: pytest.MonkeyPatch, matmulbench: Command) -> None:
    def availability(custom: list[str], *_: object) -> list[dict[str, str]]:
        return [{"name": name, "about": "", "status": "available"} for name in custom]

    monkeypatch.setattr("matmulbench.api.availability", availability)
    rows = {(row["kind"], row["name"]) for row in json.loads(matmulbench("list", "--format", "json").stdout)}
    assert rows > {("kernel", "kernels/my.py:matmul"), ("workload", "16x8x4:TN")}


def test_a_bad_table_ends_the_verbs_that_take_it_alone(project: Path, matmulbench: Command) -> None:
    (project / "pyproject.toml").write_text("[tool.matmulbench]\nthread = 1\n")
    taken, other = matmulbench("measure"), matmulbench("report", "nowhere")
    assert taken.returncode == other.returncode == 2
    assert taken.stderr == (
        "matmulbench: pyproject.toml, [tool.matmulbench]: key 'thread' is unknown: did you mean threads?\n"
    )
    assert "nowhere" in other.stderr
