"""A kernel against what it was at another commit: the old file with its helpers, both in turns, an exit code."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml

from matmulbench.cli import app
from matmulbench.errors import UsageError
from matmulbench.revision import kernel_at

WORKFLOW = Path(__file__).parents[2] / "docs" / "howto" / "kernel.yml"
Command = Callable[..., Any]
OPTIONS = ["--against", "HEAD", "--workload", "128x128x128", "--budget", "1", "--format", "json"]
KERNEL = "from helper import multiply\ndef matmul(a, b):\n    return multiply(a, b)\n"
ONCE = "def multiply(a, b):\n    return a @ b\n"
FOUR_TIMES = "def multiply(a, b):\n    a @ b; a @ b; a @ b\n    return a @ b\n"
WRONG = "def multiply(a, b):\n    return 1.001 * (a @ b)\n"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose first commit has no kernel, the second a kernel below a folder, and the helper beside it."""
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "nothing")
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "helper.py").write_text(ONCE)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "once")
    monkeypatch.chdir(folder)
    return folder


def loaded(spec: str) -> subprocess.CompletedProcess[str]:
    """Call a kernel in a process that has imported no other."""
    code = f"from matmulbench import load_kernel; print(load_kernel({spec!r})(0, 0))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def verdicts(done: Any) -> dict[str, str]:
    """Return what is said of each kernel, by the last part of its path."""
    return {Path(row["kernel"]).name: row["verdict"] for row in json.loads(done.stdout)}


@pytest.mark.usefixtures("shared_bench")
def test_a_slower_helper_is_found_and_the_two_are_told_apart(repository: Path, matmulbench: Command) -> None:
    (repository / "helper.py").write_text(FOUR_TIMES)
    done = matmulbench("guard", f"{repository}/kernel.py:matmul", *OPTIONS)
    assert done.returncode == 1
    assert verdicts(done) == {"kernel.py:matmul": "slower", "HEAD": "baseline"}
    assert "matmulbench-" not in done.stdout + done.stderr, "where the old version lies meanwhile is nobody's affair"


@pytest.mark.parametrize(("verdict", "code"), [("faster", 0), ("unclear", 0), ("slower", 1)])
def test_the_verdict_decides(
    repository: Path, monkeypatch: pytest.MonkeyPatch, matmulbench: Command, verdict: str, code: int
) -> None:
    def measure(spec: str, *_: object, baseline: str, **__: object) -> pd.DataFrame:
        kernels = {"kernel": [spec, baseline], "verdict": [verdict, "baseline"]}
        return pd.DataFrame({**kernels, "status": "ok", "reason": None})

    monkeypatch.setattr("matmulbench.api.measure", measure)
    assert matmulbench("guard", "kernel.py:matmul", *OPTIONS).returncode == code


@pytest.mark.usefixtures("shared_bench")
def test_a_wrong_one_is_no_gain_and_mending_one_is_no_failure(repository: Path, matmulbench: Command) -> None:
    kernel = f"{repository}/kernel.py:matmul"
    (repository / "helper.py").write_text(WRONG)
    assert matmulbench("guard", kernel, *OPTIONS).returncode == 1
    git(repository, "commit", "--quiet", "--all", "--message", "wrong")
    (repository / "helper.py").write_text(ONCE)
    done = matmulbench("guard", kernel, *OPTIONS)
    assert done.returncode == 0
    assert "the baseline HEAD was refused" in done.stdout
    assert "Repeat:" not in done.stdout, "the old version is no longer there"


@pytest.mark.usefixtures("shared_bench")
@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [("import fastext", "unavailable", "No module named 'fastext'"), ("open('weights')", "error", "FileNotFoundError")],
)
def test_where_the_old_one_cannot_be_imported_there_is_nothing_to_compare_with(
    repository: Path, matmulbench: Command, line: str, status: str, reason: str
) -> None:
    (repository / "helper.py").write_text(f"{line}\n{ONCE}")
    git(repository, "commit", "--quiet", "--all", "--message", "needs what is not in git")
    (repository / "helper.py").write_text(FOUR_TIMES)
    done = matmulbench("guard", f"{repository}/kernel.py:matmul", *OPTIONS)
    assert done.returncode == 2
    assert "at HEAD, it is" in done.stderr
    assert reason in done.stderr
    assert {row["status"] for row in json.loads(done.stdout)} == {"ok", status}, "what was timed is shown"


def test_a_file_or_module_of_a_package_meets_the_old_package(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "__init__.py").touch()
    (repository / "kernel.py").write_text("from . import helper\ndef matmul(a, b):\n    return helper.VERSION\n")
    for version in ("old", "new"):
        (repository / "helper.py").write_text(f"VERSION = {version!r}\n")
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "--message", version)
    for named in ("kernel.py:matmul", "kernels.kernel:matmul"):
        monkeypatch.chdir(repository if named.startswith("kernel.py") else repository.parent)
        with kernel_at(named, "HEAD~1") as spec:
            monkeypatch.chdir(Path(spec).anchor)  # `python -c` would find the new package here
            assert loaded(spec).stdout == "old\n"
    assert not Path(spec.rpartition(":")[0]).exists()


def test_a_package_in_memory_does_not_pass_for_another_of_its_name(tmp_path: Path) -> None:
    package = tmp_path / "matmulbench"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "errors.py").write_text("def matmul(a, b): ...")
    assert "errors.py is not what Python finds as matmulbench.errors" in loaded(f"{package}/errors.py:matmul").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernel.py:matmul", "--against", "HAED"], "revision 'HAED': git knows no such branch, tag or commit"),
        (["kernel.py:matmul", "--against", "--all"], "revision '--all': git knows no such branch"),
        (["kernel.py:matmul", "--against", "HEAD~1"], "'kernel.py:matmul': at HEAD~1 there is no file 'kernel.py'"),
        (["kernel.py:newer", "--against", "HEAD"], "'kernel.py:newer at HEAD': no function 'newer'; it has: matmul"),
        (["numpy", "--against", "HEAD"], "kernel 'numpy': expected path/to/file.py:function, or package.module:"),
        (["json.decoder:scan", "--against", "HEAD"], "kernel 'json.decoder:scan': expected path/to/file.py:function"),
        (["kernel.py", "--against", "HEAD"], "kernel 'kernel.py': which function?"),
        (["/tmp/matmulbench-nowhere.py:f", "--against", "HEAD"], "there is no file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(repository: Path, matmulbench: Command, arguments: list[str], message: str) -> None:
    (repository / "kernel.py").write_text(KERNEL + "def newer(a, b): ...\n")
    done = matmulbench("guard", *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


def test_the_workflow_of_the_documentation_gives_a_command_that_is_understood() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    steps = workflow["jobs"]["guard"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0, "the old version is in the history"
    name, verb, *words = shlex.split(steps[-1]["run"].replace("${{ github.base_ref }}", "main"))
    assert (name, verb) == ("matmulbench", "guard")
    given = typer.main.get_command(app).commands[verb].make_context(verb, words).params
    assert given["against"] == "origin/main"
    assert given["budget"] == 20


def test_a_file_in_no_repository_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "kernel.py").write_text("def matmul(a, b): ...")
    with pytest.raises(UsageError, match="is in no git repository"), kernel_at(f"{tmp_path}/kernel.py:matmul", "HEAD"):
        pass


def test_what_archives_leave_out_and_submodules_come_with_it(repository: Path) -> None:
    top = repository.parent
    (top / "within").mkdir()
    git(top / "within", "init", "--quiet")
    (top / "within" / "deep.py").write_text("VALUE = 3\n")
    git(top / "within", "add", ".")
    git(top / "within", "commit", "--quiet", "--message", "within")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "./within", "kernels/deep")
    (top / ".gitattributes").write_text("helper.py export-ignore\nkernel.py export-ignore\n")
    (repository / "kernel.py").write_text(
        "import helper\nfrom deep.deep import VALUE\ndef matmul(a, b): return VALUE\n"
    )
    git(top, "add", ".gitattributes", "kernels")
    git(top, "commit", "--quiet", "--message", "with a submodule")
    with kernel_at("kernel.py:matmul", "HEAD") as old:
        assert loaded(old).stdout == "3\n"


def test_what_a_hook_has_in_its_environment_is_of_no_account(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "kernel.py").write_text("def matmul(a, b): return 'old'\n")
    git(repository, "commit", "--quiet", "--all", "--message", "old")
    other = repository.parent / "other"
    git(repository.parent, "worktree", "add", "--quiet", "-b", "other", str(other))
    monkeypatch.setenv("GIT_DIR", str(repository.parent / ".git" / "worktrees" / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", "nowhere")
    monkeypatch.chdir(other)
    with kernel_at("kernels/kernel.py:matmul", "HEAD") as old:
        assert loaded(old).stdout == "old\n"


def test_in_a_clone_without_its_history_that_is_said(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shallow = tmp_path_factory.mktemp("shallow") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{repository.parent}", str(shallow)], check=True)
    with (
        pytest.raises(UsageError, match=r"revision 'HEAD~1': .*; this clone lacks older commits: `git fetch --unsh"),
        kernel_at(f"{shallow}/kernels/kernel.py:matmul", "HEAD~1"),
    ):
        pass


def test_why_git_refuses_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with (
        pytest.raises(UsageError, match=r"git says: .*dubious ownership.*safe\.directory"),
        kernel_at("kernel.py:matmul", "HEAD"),
    ):
        pass


def test_where_git_is_missing_that_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="install git"), kernel_at("kernel.py:matmul", "HEAD"):
        pass
