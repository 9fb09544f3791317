"""A kernel against what it was at another commit: the old file with its helpers, both in turns, an exit code."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from matmulbench.cli import app, main
from matmulbench.errors import UsageError
from matmulbench.revision import kernel_at

WORKFLOW = Path(__file__).parents[2] / "docs" / "howto" / "kernel.yml"
OPTIONS = ["--workload", "128x128x128", "--budget", "1"]
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


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matmulbench", "guard", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


Guard = Callable[..., tuple[int, str, str]]


def loaded(spec: str) -> subprocess.CompletedProcess[str]:
    """Call a kernel in a process that has imported no other."""
    code = f"from matmulbench import load_kernel; print(load_kernel({spec!r})(0, 0))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_slower_helper_is_found_and_the_two_are_told_apart(repository: Path, guard: Guard) -> None:
    (repository / "helper.py").write_text(FOUR_TIMES)
    code, out, err = guard("kernel.py:matmul", "--against", "HEAD", *OPTIONS)
    assert code == 1
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "slower" in rows["kernel.py:matmul"]
    assert "baseline" in rows["HEAD"]
    assert "matmulbench-" not in out + err, "where the old version lies meanwhile is nobody's affair"


def test_a_faster_one_is_all_well(repository: Path, guard: Guard) -> None:
    (repository / "helper.py").write_text(FOUR_TIMES)
    git(repository, "commit", "--quiet", "--all", "--message", "four times")
    (repository / "helper.py").write_text(ONCE)
    code, out, _ = guard("kernel.py:matmul", "--against", "HEAD", *OPTIONS, "--format", "json")
    assert code == 0
    assert {row["kernel"]: row["verdict"] for row in json.loads(out)}["kernel.py:matmul"] == "faster"


def test_a_wrong_one_is_no_gain_and_mending_one_is_no_failure(repository: Path, guard: Guard) -> None:
    (repository / "helper.py").write_text(WRONG)
    assert guard("kernel.py:matmul", "--against", "HEAD", *OPTIONS)[0] == 1
    git(repository, "commit", "--quiet", "--all", "--message", "wrong")
    (repository / "helper.py").write_text(ONCE)
    code, out, _ = guard("kernel.py:matmul", "--against", "HEAD", *OPTIONS)
    assert code == 0
    assert "the baseline HEAD was refused" in out
    assert "Repeat:" not in out, "the old version is no longer there"


def test_a_file_of_a_package_meets_the_old_package(repository: Path) -> None:
    (repository / "__init__.py").touch()
    (repository / "kernel.py").write_text("from . import helper\ndef matmul(a, b):\n    return helper.VERSION\n")
    for version in ("old", "new"):
        (repository / "helper.py").write_text(f"VERSION = {version!r}\n")
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "--message", version)
    with kernel_at("kernel.py:matmul", "HEAD~1") as spec:
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
        (["numpy", "--against", "HEAD"], "kernel 'numpy': expected path/to/file.py:function"),
        (["kernel.py", "--against", "HEAD"], "kernel 'kernel.py': which function?"),
        (["/tmp/matmulbench-nowhere.py:f", "--against", "HEAD"], "there is no file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(repository: Path, guard: Guard, arguments: list[str], message: str) -> None:
    (repository / "kernel.py").write_text(KERNEL + "def newer(a, b): ...\n")
    code, out, err = guard(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


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


def test_where_git_is_missing_that_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="install git"), kernel_at("kernel.py:matmul", "HEAD"):
        pass
