import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from matmulbench.cli import main
from matmulbench.data import DataError, mnist
from matmulbench.isolation import IMPORT_S, Host
from matmulbench.measurement.roof import Roof
from matmulbench.measurement.rounds import run_rounds
from matmulbench.pipeline import Bench, Job
from matmulbench.results.schema import Level, VerificationRow
from matmulbench.run import BUDGETS
from matmulbench.verification.api import verify_kernel

# Where tests run in the background, SIGINT is ignored, and children would inherit that: they are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what Windows cannot do."""
    if sys.platform == "win32" and item.get_closest_marker("posix"):
        pytest.skip("needs bash, a terminal, fork or signals, as POSIX has them")


BESIDE = Path(__file__).parents[2] / "shared" / "data" / "mnist"
# The files that take longest come first: with `--dist loadfile` the last one runs alone.
LONGEST = ("test_fleet.py", "test_pages.py", "test_verify.py", "test_mutants.py", "test_tiled.py", "test_run.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def mnist_dir():
    """Find MNIST's files, or skip."""
    folder = os.environ.get("MATMULBENCH_DATA") or (str(BESIDE) if BESIDE.is_dir() else None)
    try:
        mnist(folder)
    except DataError as error:
        pytest.skip(f"MNIST is needed: {error}")
    return folder


@dataclass
class Done:
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]

# What makes a process of its own brief: quick verification, little time, no roof measured and no charts drawn.
LESS = """
from dataclasses import replace
from matmulbench import pipeline, run
from matmulbench.fleet import dispatch
from matmulbench.measurement.roof import Roof
from matmulbench.report import write_report
from matmulbench.results.schema import Level
from matmulbench.verification.api import verify_kernel
def report(path):
    from matmulbench.report import charts
    charts.save_charts = lambda *_: []
    return write_report(path)
roof = Roof("float32", 1, 1e4, (Level("DRAM", None, 1e3, 1e3),), 1e-9)
pipeline.measure_roof = lambda *_: roof
pipeline.verify_kernel = lambda host, spec, dtype, effort: verify_kernel(host, spec, dtype, "quick")
run.write_report = dispatch.write_report = report
run.BUDGETS["quick"] = replace(run.BUDGETS["quick"], workload_s=0.1, first_s=0.1, task_s=0.5, model_s=1.0)
"""
BRIEF = LESS + "from matmulbench.cli import main; main()"


@pytest.fixture(scope="session")
def brief() -> list[str]:
    """Return how the command begins in a process of its own, where figures do not matter."""
    return [sys.executable, "-c", BRIEF]


@pytest.fixture(scope="session")
def less() -> str:
    """Return Python that makes a process of its own brief."""
    return LESS


@pytest.fixture(scope="session")
def brief_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the same as ``matmulbench``."""
    script = tmp_path_factory.mktemp("bin") / "matmulbench"
    script.write_text(f"#!{sys.executable}\n{BRIEF}")
    script.chmod(0o755)
    return script.parent


@pytest.fixture
def matmulbench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: a new one would spend its time on imports."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["matmulbench", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return Done(int(left.value.code or 0), *capfd.readouterr())

    return run


class _LastingBench(Bench):
    """Hosts that stay when a job closes them: to start one takes seconds, most of them to import torch."""

    def host(self, job: Job, threads: int, spin: bool = True) -> Host:
        if (threads, spin) not in self._hosts:
            host = self._hosts[threads, spin] = self.enter_context(Host(threads, spin=spin))
            host.close = host.end_children
        self._hosts[threads, spin].import_s = job.import_s
        return self._hosts[threads, spin]

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the pipeline work here."""

        def host(threads: int = 1, import_s: float = IMPORT_S) -> AbstractContextManager[Host]:
            return nullcontext(self.host(Job((), import_s=import_s), threads))

        monkeypatch.setattr("matmulbench.pipeline.Bench", lambda: nullcontext(self))
        for module in ("api", "pipeline"):
            monkeypatch.setattr(f"matmulbench.{module}.Host", host)


@pytest.fixture(scope="session")
def lasting_bench() -> Callable[[], AbstractContextManager[_LastingBench]]:
    """Return what opens a bench whose hosts stay."""

    @contextmanager
    def opened() -> Iterator[_LastingBench]:
        with _LastingBench() as bench:
            yield bench
            for host in bench._hosts.values():
                del host.close

    return opened


@pytest.fixture(scope="session")
def bench(lasting_bench: Callable[[], AbstractContextManager[_LastingBench]]) -> Iterator[_LastingBench]:
    """The hosts of all tests that change nothing in them."""
    with lasting_bench() as bench:
        yield bench


@pytest.fixture
def known_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no roof be measured, which takes seconds, and thrice as many where the machine is busy."""
    roof = Roof("float32", 1, 1e4, (Level("DRAM", None, 1e3, 1e3),), 1e-9)
    monkeypatch.setattr("matmulbench.pipeline.measure_roof", lambda *_: roof)


@pytest.fixture
def shared_bench(bench: _LastingBench, known_roof: None, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Let all jobs of a test be carried out there; kernels are to be named by absolute paths."""
    bench.use(monkeypatch)
    return bench


@pytest.fixture
def to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of trainings stand still until their schedules are finished, and then strike the end."""

    def run_to_the_end(candidates: list[Any], *more: Any, **options: Any) -> int:
        def clock() -> float:
            return 0.0 if any(one.unfinished and not one.failure for one in candidates) else math.inf

        with monkeypatch.context() as patch:
            patch.setattr("matmulbench.measurement.rounds.perf_counter", clock)
            return run_rounds(candidates, *more, **options)

    monkeypatch.setattr("matmulbench.training.accounting.run_rounds", run_to_the_end)


@pytest.fixture
def brief_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a quick run have little time for each product; trainings end with their schedules."""
    monkeypatch.setitem(BUDGETS, "quick", replace(BUDGETS["quick"], workload_s=0.1, first_s=0.1))


@pytest.fixture
def quick_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pipeline verify with the least effort, whatever it is asked for."""

    def verify(host: Host, spec: str, dtype: str, effort: str) -> VerificationRow:
        return verify_kernel(host, spec, dtype, "quick")

    monkeypatch.setattr("matmulbench.pipeline.verify_kernel", verify)


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports have no charts."""
    monkeypatch.setattr("matmulbench.report.charts.save_charts", lambda *_: [])


@pytest.fixture(scope="session")
def host(bench: Bench) -> Host:
    """One thread, to time with."""
    return bench.host(Job(()), 1)


@pytest.fixture(scope="session")
def checking_host(bench: Bench) -> Host:
    """Two threads, to verify with: races need company."""
    return bench.host(Job(()), 2, spin=False)
