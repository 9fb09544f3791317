"""How the command behaves in a shell: help, completion, silence, pipes, terminals and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from matmulbench import train, verify
from matmulbench.cli import app
from matmulbench.dtypes import DTYPES
from matmulbench.ladder.plugins import kernels
from matmulbench.training.tasks import TASKS
from matmulbench.workload import PRESETS

MAIN = "from matmulbench.cli import main; main()"
Command = Callable[..., Any]
VERBS = ("run", "list", "verify", "measure", "train", "trace", "guard", "tune", "compare", "audit", "report", "fetch")
# What each verb calls once its arguments are understood.
WORK = {
    "list": ("matmulbench.api.availability", []),
    "verify": ("matmulbench.api.verify", []),
    "measure": ("matmulbench.api.measure", []),
    "train": ("matmulbench.api.train", []),
    "trace": ("matmulbench.api.trace_model", ["package.models:make"]),
    "guard": ("matmulbench.revision.kernel_at", ["kernel.py:matmul", "--against", "HEAD"]),
    "tune": ("matmulbench.tuning.tune", []),
    "compare": ("matmulbench.results.folder.load_results", ["a", "b"]),
    "audit": ("matmulbench.audit.verification.audit_verification", []),
    "report": ("matmulbench.results.folder.load_results", ["a"]),
    "fetch": ("matmulbench.data.fetch_mnist", ["mnist"]),
}


def test_the_verbs_are_all_there() -> None:
    assert tuple(typer.main.get_command(app).commands) == VERBS


def app_help(verb: str) -> str:
    return str(typer.main.get_command(app).commands[verb].help)  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_each_on_its_line(verb: str, matmulbench: Command) -> None:
    done = matmulbench(verb, "--help")
    assert done.returncode == 0
    help_ = done.stdout
    assert "\x1b" not in help_, "no colours when piped"
    examples = [line.strip() for line in help_.splitlines() if line.strip().startswith("$ ")]
    assert examples
    assert all(example.startswith(f"$ matmulbench {verb}") for example in examples)
    assert "```" not in help_
    assert not re.search("[\U0001f000-\U0001ffff]", help_), "what stands between colons is no emoji"
    assert max(map(len, re.findall(r"\$ matmulbench .*", app_help(verb)))) <= 76, "an example is not cut at 80 columns"


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_of_the_help_is_understood(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options in an example that do not exist, or no longer, are found here."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text("def matmul(a, b): ...")
    Path("model.py").write_text("def make(): ...")
    command = typer.main.get_command(app).commands[verb]
    for line in re.findall(r"\$ matmulbench (\S+)(.*)", command.help):
        words = line[1].partition("|")[0].partition(">")[0].split()
        command.make_context(line[0], words, resilient_parsing=False)


def test_every_option_has_help() -> None:
    for name, command in typer.main.get_command(app).commands.items():
        for parameter in command.params:
            assert parameter.help, f"{name}: {parameter.name}"


def test_version(matmulbench: Command) -> None:
    done = matmulbench("--version")
    assert (done.returncode, done.stdout) == (0, f"matmulbench {version('matmulbench')}\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("measure ", set(kernels())),
        ("measure num", {"numpy", "numpy-einsum", "numba", "numba-tiled"}),
        ("run --kernel tri", {"triple-loop"}),
        ("measure --workload 64x7", {"64x784x50"}),
        ("train --task ", set(TASKS)),
        ("run --preset ", set(PRESETS)),
        ("verify --dtype ", set(DTYPES)),
        ("list --format ", {"table", "csv", "json"}),
        ("audit --only m", {"measurement"}),
        ("fetch ", {"mnist"}),
        ("ver", {"verify"}),
    ],
)
def test_completion(
    words: str, expected: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"matmulbench {words}"
    monkeypatch.setenv("_MATMULBENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    with pytest.raises(SystemExit):
        app(prog_name="matmulbench")
    assert set(capsys.readouterr().out.split()) == expected


@pytest.mark.parametrize("words", ["compare ", "compare runs/a ru", "report "])
def test_folders_are_left_to_the_shell_to_complete(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MATMULBENCH_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"matmulbench {words}")
    with pytest.raises(SystemExit):
        app(prog_name="matmulbench")
    assert capsys.readouterr().out.strip() == "_files"


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit; sys.argv = ['matmulbench']\n"
        "heavy = ('torch', 'numba', 'numpy', 'pandas')\n"
        f"atexit.register(lambda: print([m for m in heavy if m in sys.modules]))\n{MAIN}"
    )
    words = {"_MATMULBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "matmulbench measure torc", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["torch", "[]"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["mesure"], "'measure'"),
        (["run", "--presets", "quick"], "--preset"),
        (["measure", "--format", "jsn"], "did you mean json?"),
        (["run", "--preset", "quik", "--workload", "8x8x8"], "did you mean quick?"),
        (["audit", "--only", "measurment"], "did you mean measurement?"),
        (["verify", "--dtype", "flot32"], "did you mean float32"),
    ],
)
def test_near_matches_are_suggested(matmulbench: Command, arguments: list[str], suggestion: str) -> None:
    done = matmulbench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert suggestion in done.stderr


def test_a_wrong_format_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, matmulbench: Command
) -> None:
    monkeypatch.setattr("matmulbench.api.measure", lambda *_, **__: pytest.fail("it measured"))
    assert matmulbench("measure", "--format", "xml").returncode == 2


@pytest.mark.parametrize("verb", WORK)
def test_ctrl_c_is_one_line_and_130(verb: str, matmulbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    target, arguments = WORK[verb]
    monkeypatch.setattr(target, interrupted)
    done = matmulbench(verb, *arguments)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "matmulbench: interrupted"
    assert "Traceback" not in done.stderr


@pytest.mark.posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (getattr(signal, "SIGHUP", 1), 129)])
def test_what_was_finished_is_shown_before_the_end(number: int, code: int) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("who started these tests, such as nohup, has the signal ignored")
    wrong = "matmulbench.audit.mutants.wrong_values:ones"  # which takes no time to see
    arguments = ["verify", wrong, "numpy", "--format", "csv", "--dtype", "float32"]
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stderr
    for line in running.stderr:
        if line.startswith("verify numpy"):
            running.send_signal(number)
            break
    out, err = running.communicate()
    assert running.returncode == code
    assert err.count("\n") == 1
    assert [line.split(",")[0] for line in out.splitlines()] == ["kernel", wrong]


PROGRESS = """
from matmulbench.cli.progress import show_progress
with show_progress({arguments}) as log:
    log("first [step]", 1.0)
    log("warning: it is hot")
    log("second step", 1.0)
"""


def on_terminal(arguments: str = "", code: str = PROGRESS, **environment: str) -> str:
    """Return what ``code`` writes to a terminal."""
    ours, theirs = os.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    code = code.replace("{arguments}", arguments)
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=plain | {"TERM": "xterm"} | environment, check=True)
    os.close(theirs)
    written = b""
    try:
        while some := os.read(ours, 65536):
            written += some
    except OSError:  # Linux says so at the end of a terminal
        pass
    finally:
        os.close(ours)
    return written.decode()


def piped(arguments: str) -> subprocess.CompletedProcess[str]:
    code = PROGRESS.format(arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_without_a_terminal_progress_is_plain_lines() -> None:
    done = piped("total_s=2.0")
    assert done.stderr == "first [step]\nwarning: it is hot\nsecond step\n"
    assert done.stdout == ""


@pytest.mark.posix
@pytest.mark.parametrize("arguments", ["", "total_s=2.0"])
def test_in_a_terminal_progress_is_a_bar_that_goes_and_warnings_stay(arguments: str) -> None:
    written = on_terminal(arguments)
    assert "\x1b[2K" in written, "lines are drawn over"
    assert "second step" in written
    assert written.count("warning: it is hot") == 1
    assert written.rstrip().endswith(("\x1b[2K", "\x1b[?25h")), "nothing of the bar is left"


@pytest.mark.posix
def test_no_color_and_a_dumb_terminal() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    assert colour.search(on_terminal())
    assert not colour.search(on_terminal(NO_COLOR="1"))
    assert on_terminal(TERM="dumb").split("\r\n")[:3] == ["first [step]", "warning: it is hot", "second step"]


@pytest.mark.usefixtures("shared_bench")
def test_verifying_and_training_say_what_they_do() -> None:  # and what is known is not done again
    said: list[str] = []
    verify("torch", ["float32"], "quick", progress=said.append)
    train("breast-cancer", "torch", budget_s=0.1, progress=said.append)
    assert said == ["verify torch float32", "verify torch float32: remembered", "train breast-cancer, 1 thread"]


@pytest.mark.posix
def test_quiet_says_nothing() -> None:
    assert on_terminal("quiet=True") == ""
    assert piped("quiet=True").stderr == ""


@pytest.mark.usefixtures("shared_bench")
def test_quiet_leaves_the_data(matmulbench: Command) -> None:
    done = matmulbench("measure", "torch", "--workload", "8x8x8", "--budget", "0.1", "--quiet", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2
