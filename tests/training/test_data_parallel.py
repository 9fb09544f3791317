"""Several processes train one task: as one would, and whatever one of them does costs its kernel's row alone."""

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest

import matmulbench
from matmulbench.errors import UsageError
from matmulbench.isolation.system import cores, missing
from matmulbench.training import accounting
from matmulbench.training.accounting import TrainingCandidate, train_kernels
from matmulbench.training.ranks import Ranks

ONE_RANK = Path(__file__).with_name("one_rank.py")


@pytest.fixture(autouse=True)
def _leaves_nothing(host, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    deadline = time.monotonic() + 10
    while host.pid and psutil.Process(host.pid).children(recursive=True):
        assert time.monotonic() < deadline, "a rank is left"
        time.sleep(0.05)
    assert not list(tmp_path.iterdir()), "a folder is left"


def account(host, *specs, task="breast-cancer", workers=1, budget=4.0, **options):
    found = train_kernels(host, task, list(specs), "torch", budget, options=options, workers=workers)
    return {row.kernel: (row, extra) for row, extra in found}


@pytest.mark.parametrize(
    ("task", "workers", "options"),
    [
        ("breast-cancer", 2, {}),  # 228 and 227 rows
        ("digits", 3, {"epochs": 1}),  # 22, 21 and 21
        ("digits", 2, {"epochs": 1, "batch_size": 96, "dtype": "float64"}),
    ],
)
def test_the_losses_are_those_of_one_process_with_the_whole_batch(host, to_the_end, task, workers, options):
    several = account(host, "einsum", task=task, workers=workers, budget=20.0, **options)
    alone = account(host, "einsum", task=task, budget=20.0, **options)
    for spec in ("torch", "einsum", "torch.nn"):
        (row, extra), (other, theirs) = several[spec], alone[spec]
        assert (row.status, row.workers, other.workers) == ("ok", workers, 1), row.reason
        assert (row.steps, row.extrapolated) == (other.steps, False)
        assert extra["losses"] == pytest.approx(theirs["losses"], rel=1e-9 if "dtype" in options else 2e-5)
        assert row.test_accuracy == pytest.approx(other.test_accuracy, abs=0.01)


@pytest.mark.timing
def test_a_kernel_like_the_baseline_is_predicted_to_gain_nothing(host):
    row, _ = account(host, "einsum", workers=2, budget=5.0)["einsum"]
    assert row.predicted_speedup == pytest.approx(1, abs=0.3)


def test_what_a_row_says_of_several_workers(host, to_the_end):
    rows = account(host, "einsum", workers=2, budget=20.0)
    row, extra = rows["einsum"]
    assert 0 < row.communication_share < 1 - row.matmul_share < 1
    assert extra["products"][0]["workload"] == "228x30x14", "its own part of the batch"
    assert row.predicted_speedup > 0
    assert row.measured_ci_low <= row.measured_speedup <= row.measured_ci_high
    assert rows["torch.nn"][0].communication_share is None
    assert account(host, "einsum", budget=0.1)["einsum"][0].communication_share is None


def test_several_workers_of_a_slow_kernel_are_slow(host):
    row, _ = account(host, "row-slice", workers=2, budget=0.3)["row-slice"]
    assert (row.status, row.workers) == ("ok", 2)
    assert row.predicted_speedup < 0.5


@pytest.mark.parametrize(
    ("kernel", "status", "reason"),
    [
        ("crashes", "crashed", "rank 1 of 2: SIGSEGV"),
        ("ends", "crashed", "rank 1 of 2: the process ended itself with exit code 3"),
        ("raises", "error", "rank 1 of 2: RuntimeError: inconsistent tensor size"),
        ("stops", "timeout", "rank 1 of 2: no sign of life for 4 s"),
        ("coarse", "failed-verification", "it learns differently: at step"),
    ],
)
def test_what_one_rank_does_costs_its_kernels_row_alone(host, to_the_end, monkeypatch, kernel, status, reason):
    monkeypatch.setattr(accounting, "_SILENCE_S", 4.0)
    spec = f"{ONE_RANK}:{kernel}"
    rows = account(host, spec, workers=2, budget=20.0)
    assert (rows[spec][0].status, rows[spec][0].workers) == (status, 2), rows[spec][0].reason
    assert rows[spec][0].reason.startswith(reason)
    assert rows[spec][0].step_s is rows[spec][0].communication_share is None
    for spec in ("torch", "torch.nn"):
        assert rows[spec][0].status == "ok", rows[spec][0].reason


@pytest.mark.posix
def test_a_rank_that_someone_else_kills_gets_another_process(host, monkeypatch, to_the_end):
    pids, turns = [], []
    init, take_turn = Ranks.__init__, TrainingCandidate.take_turn

    def noted(self, *arguments):
        init(self, *arguments)
        pids.append(self.pids[1])

    def killing(one, number):
        turns.append(number)
        if len(turns) == 5:
            os.kill(pids[0], signal.SIGKILL)
        take_turn(one, number)

    monkeypatch.setattr(Ranks, "__init__", noted)
    monkeypatch.setattr(TrainingCandidate, "take_turn", killing)
    rows = account(host, "torch", task="digits", workers=2, budget=20.0, epochs=1)
    assert not psutil.pid_exists(pids[0])
    assert len(pids) > 2
    assert {row.status for row, _ in rows.values()} == {"ok"}, rows["torch"][0].reason


@pytest.mark.skipif(len(cores()) < 2 or "pinning" in str(missing()), reason="needs two cores, and to be kept to one")
def test_each_rank_has_a_core_of_its_own(host, monkeypatch):
    pinned, take_turn = [], TrainingCandidate.take_turn

    def watched(one, number):
        take_turn(one, number)
        pinned.append([psutil.Process(pid).cpu_affinity() for pid in one._child.pids])

    monkeypatch.setattr(TrainingCandidate, "take_turn", watched)
    account(host, "torch", workers=2, budget=0.3)
    assert pinned
    assert all(len(first) == len(second) == 1 and first != second for first, second in pinned)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", 10_000])
def test_so_many_workers_there_cannot_be(workers):
    expected = "this machine has" if workers == 10_000 else "expected a whole number above 0"
    with pytest.raises(UsageError, match=f"workers {workers!r}.*{expected}"):
        matmulbench.train("breast-cancer", "numpy", workers=workers)


def test_more_workers_than_rows(host):
    with pytest.raises(UsageError, match="workers 3: expected 2 at most, the rows of a batch of digits"):
        account(host, "torch", task="digits", workers=3, batch_size=2)


@pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")
def test_what_does_not_go_with_workers(monkeypatch):
    for task, more, what in (
        (f"{ONE_RANK.with_name('factories.py')}:good", {}, "model '.*factories.py:good'"),
        ("digits", {"compare_compile": True}, "compare-compile"),
    ):
        with pytest.raises(UsageError, match=f"workers 2 does not go with {what}: expected a task and kernels alone"):
            matmulbench.train(task, "numpy", workers=2, **more)
