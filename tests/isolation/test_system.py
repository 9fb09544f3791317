"""Systems that lack what Linux has: played on Linux, by taking it away (``bare_system/sitecustomize.py``)."""

import os
import subprocess
import sys
import threading
from multiprocessing import Pipe, reduction
from pathlib import Path

import psutil
import pytest

from matmulbench.errors import UsageError
from matmulbench.isolation.system import missing, quoted, send_descriptor, shared_file, start_method
from matmulbench.results.folder import load_results

BARE = Path(__file__).parent / "bare_system"
# What every part of the suite stands on: children and their ends, shared operands, guard pages, the clock, the referee.
MAIN_PARTS = (
    "isolation/test_isolation.py",
    "verification/test_guards.py",
    "measurement/test_referee.py",
    "measurement/test_stopwatch.py",
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="plays other systems on Linux")


def bare_environment(method: str) -> dict[str, str]:
    paths = filter(None, [str(BARE), os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "MATMULBENCH_START_METHOD": method}


def bare(*arguments: str, method: str = "spawn") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=bare_environment(method), capture_output=True, text=True, check=False)


@linux
def test_linux_lacks_nothing_unless_it_may_not_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATMULBENCH_START_METHOD", "fork")
    assert missing() == []
    monkeypatch.setenv("MATMULBENCH_START_METHOD", "spawn")
    assert [text.partition(":")[0] for text in missing()] == [
        "this system lacks fork",
        "this system lacks orphans' return",
    ]


def test_an_unknown_way_to_start_processes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATMULBENCH_START_METHOD", "clone")
    with pytest.raises(UsageError, match=r"MATMULBENCH_START_METHOD='clone': expected .*spawn on this system"):
        start_method()


@linux
def test_fork_is_refused_where_there_is_none() -> None:
    done = bare("-m", "matmulbench", "verify", "numpy", method="fork")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("MATMULBENCH_START_METHOD='fork': expected spawn on this system")
    assert "Traceback" not in done.stderr


@linux
@pytest.mark.timeout(600)
def test_the_main_parts_pass_on_a_bare_system() -> None:
    tests = Path(__file__).parents[1]
    done = bare("-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(tests / part) for part in MAIN_PARTS))
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@linux
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_a_bare_system_says_what_it_lacks(tmp_path: Path, brief: list[str]) -> None:
    less = ["--kernel", "numpy", "--baseline", "numpy", "--workload", "64x64x64"]
    done = bare(*brief[1:], "run", "--preset", "quick", *less, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    results = load_results(tmp_path / "run")
    for frame in (results.verification, results.measurements, results.training):
        assert set(frame["status"]) == {"ok"}
    notes = results.run["notes"]
    for lacking in ("fork", "a limit of memory", "pinning", "a census of processor time", "a seal on shared operands"):
        assert any(note.startswith(f"this system lacks {lacking}:") for note in notes), notes
    assert "this system lacks a census of processor time" in (tmp_path / "run" / "report.html").read_text()


BUSY = "import os, time; from matmulbench.isolation.system import die_with_parent; die_with_parent(); " + (
    "print(os.getpid(), flush=True); time.sleep(100)"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"


@pytest.mark.parametrize("environment", [None, pytest.param(bare_environment("spawn"), marks=linux)], ids=["", "bare"])
def test_a_busy_child_ends_with_its_parent(environment: dict[str, str] | None) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        child.wait(20)


def test_a_shared_file_has_its_size_and_no_name() -> None:
    descriptor = shared_file(12345)
    try:
        found = os.fstat(descriptor)
        assert found.st_size == 12345
        assert sys.platform == "win32" or found.st_nlink == 0
    finally:
        os.close(descriptor)


@linux
def test_a_child_that_ends_before_it_takes_a_file_is_noticed_where_files_are_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduction, "ACKNOWLEDGE", True)  # macOS
    ours, theirs = Pipe()
    descriptor = shared_file(1)

    def end() -> None:
        os.read(theirs.fileno(), 1)
        theirs.close()

    threading.Thread(target=end).start()
    try:
        with pytest.raises(OSError, match="acknowledgement"):
            send_descriptor(ours, descriptor, os.getpid())
    finally:
        os.close(descriptor)
        ours.close()


def test_a_command_to_be_typed_is_quoted_as_the_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert quoted("my kernels/k.py:f") == "'my kernels/k.py:f'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert quoted(r"C:\my kernels\k.py:f") == r'"C:\my kernels\k.py:f"'
    assert quoted(r"C:\k.py:f") == r"C:\k.py:f"


@pytest.mark.posix
def test_a_limit_of_files_that_shared_memory_exceeds_is_named() -> None:
    child = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99)); from matmulbench.isolation import "
    command = [sys.executable, "-c", child + "system; system.shared_file(1000)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "UsageError: 1,000 bytes are to be shared in memory, a limit (ulimit -f) allows fewer" in done.stderr
