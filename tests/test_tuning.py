"""Tuning: the fastest plan of those that multiply rightly is kept."""

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import asdict
from threading import Event

import pandas as pd
import pytest

from matmulbench import tuning
from matmulbench.errors import InputWarning, UsageError
from matmulbench.isolation import Outcome
from matmulbench.ladder.tiled.kernel import matmul
from matmulbench.ladder.tiled.plan import VARIABLE, current
from matmulbench.report.tables import tuning_table
from matmulbench.results.schema import VerificationRow
from matmulbench.status import Status
from matmulbench.workload import Workload

MAIN = [sys.executable, "-c", "from matmulbench.cli import main; main()"]
START_S = 30.0  # to start Python and print, on a busy machine
PLANS = {"float32 large": ["8x3 tiles"]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


class Kernel:
    """Stands in for the kernel's module; a call takes as long, on a clock of its own, as its options say."""

    def __init__(self, seconds, wrong=()):
        self.seconds, self.wrong, self.now, self.options = seconds, wrong, 0.0, ()

    def fits(self, options):
        return "4x3 tiles" not in options

    def use(self, dtype, shape, options):
        self.options = options

    def matmul(self, a, b):
        for option in self.options:
            self.now += self.seconds.get(option, 1.0) - 1.0
        self.now += 1.0
        c = a @ b
        if {*self.options} & {*self.wrong}:
            c[0, 0] += 1
        return c


def tuned(monkeypatch, kernel, threads=1, seconds=600.0):
    class Clock:
        def __init__(self):
            self.start = kernel.now

        def stop(self):
            return [self.start, kernel.now, kernel.now - self.start]

    monkeypatch.setattr(tuning, "Stopwatch", Clock)
    monkeypatch.setattr(tuning, "TIMED", {"large": "4x5x6"})
    monkeypatch.setattr(tuning, "CHECKED", {"large": "3x4x5:TN 7x2x1"})
    row, options = tuning.tune_shape(kernel, threads, "float32", "large", seconds)
    assert kernel.options == options, "what won is in force"
    return row, options


def test_the_fastest_options_of_each_stage_win_together(monkeypatch):
    row, options = tuned(monkeypatch, Kernel({"9x3 tiles": 0.9, "8x3 tiles": 0.8, "A packed": 0.75}))
    assert options == ("8x3 tiles", "A packed")
    assert row.plan == "8x3 tiles, A packed"
    assert row.speedup == pytest.approx(1 / 0.55)
    assert row.second == "8x3 tiles"
    assert row.second_speedup == pytest.approx(1 / 0.8)


def test_the_table_says_what_won_by_how_much_and_what_came_second(monkeypatch):
    row, _ = tuned(monkeypatch, Kernel({"8x3 tiles": 0.8, "A packed": 0.75}))
    table = tuning_table(pd.DataFrame([asdict(row)]))
    cells = {column.title: column.cell(table.records[0]).text for column in table.columns}
    assert cells["plan"] == "8x3 tiles, A packed"
    assert cells["against the heuristics"] == "1.82× faster"
    assert (cells["next best"], cells["its speedup"]) == ("8x3 tiles", "1.25× faster")


def test_the_heuristics_stay_where_nothing_is_faster(monkeypatch):
    row, options = tuned(monkeypatch, Kernel({"8x3 tiles": 1.1, "A packed": 0.99}))
    assert options == ()
    assert (row.plan, row.speedup, row.second) == ("heuristics", 1.0, "A packed")


def test_an_option_that_multiplies_wrongly_is_never_used(monkeypatch):
    row, options = tuned(monkeypatch, Kernel({"8x3 tiles": 0.1, "9x3 tiles": 0.9}, wrong=["8x3 tiles"]))
    assert options == ("9x3 tiles",)
    assert "8x3 tiles: c[0, 0] is" in row.refused


def test_options_that_change_nothing_on_one_thread_are_not_tried(monkeypatch):
    faster = {"rows shared out": 0.5, "4x3 tiles": 0.1}
    assert tuned(monkeypatch, Kernel(faster), threads=1)[1] == ()
    assert tuned(monkeypatch, Kernel(faster), threads=2)[1] == ("rows shared out",)


def test_what_would_take_longer_than_is_left_is_not_tried(monkeypatch):
    row, options = tuned(monkeypatch, Kernel({"8x3 tiles": 0.5}), seconds=2.0)
    assert (row.plan, row.tried, row.speedup, options) == ("not tried", 0, None, ())


class Child:
    """Stands in for the process that tunes; one that is ``stuck`` is killed when the time is up."""

    def __init__(self, found, stuck=False):
        self.found, self.stuck, self.killed = found, stuck, Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def fork(self, request):
        return self

    def end_children(self):
        self.killed.set()

    def call(self, request, **_):
        self.request = request
        if self.stuck:
            assert self.killed.wait(10)
            return Outcome(Status.CRASHED, reason="SIGKILL")
        return Outcome(Status.OK, self.found)


def in_a(child, monkeypatch):
    monkeypatch.setattr(tuning, "Host", lambda threads, variables: child)


def test_what_won_is_kept_and_where_is_said(monkeypatch, cache):
    in_a(Child(([{"plan": "8x3 tiles"}], PLANS)), monkeypatch)
    rows = tuning.tune(1)
    assert current(1) == {"float32 large": ("8x3 tiles",)}
    [file] = rows["kept"]
    assert file.startswith(str(cache))
    assert tuning_table(rows).notes == (f"Kept, for every later run, in {file}",)


def test_a_budget_is_a_hard_limit(monkeypatch):
    child = Child(None, stuck=True)
    in_a(child, monkeypatch)
    with pytest.raises(UsageError, match=r"budget 0\.2: it ended before what won was verified"):
        tuning.tune(1, 0.2)
    assert current(1) == {}


def tuned_here(monkeypatch, verdicts, kept, tried=1):
    def tune_shape(kernel, threads, dtype, shape, seconds):
        won = ("8x3 tiles",) if (dtype, shape) == ("float32", "large") else ()
        return tuning.Tuned(threads, dtype, shape, "", tried=tried), won

    def verify(host, spec, dtype, effort):
        return VerificationRow(spec, dtype, verdicts.get(dtype, Status.OK), finding="c[0, 0] is wrong")

    monkeypatch.setattr(tuning, "tune_shape", tune_shape)
    monkeypatch.setattr(tuning, "Host", lambda threads, variables: nullcontext(seen.append(variables[VARIABLE])))
    monkeypatch.setattr(tuning, "verify_kernel", verify)
    seen = []
    return *tuning.tune_here(1, 1.0, kept), seen


def test_the_kernel_is_verified_with_what_won(monkeypatch):
    _, plans, seen = tuned_here(monkeypatch, {}, {"float64 deep": ("direct",)})
    assert plans == {"float32 large": ("8x3 tiles",)}
    assert seen == ['{"float32 large": ["8x3 tiles"]}']


def test_what_was_kept_of_classes_that_are_not_tried_stays(monkeypatch):
    _, plans, _ = tuned_here(monkeypatch, {}, {"float64 deep": ("direct",)}, tried=0)
    assert plans == {"float64 deep": ("direct",), "float32 large": ("8x3 tiles",)}


def test_plans_that_fail_verification_are_not_kept(monkeypatch):
    rows, plans, _ = tuned_here(monkeypatch, {"float64": Status.FAILED_VERIFICATION}, {})
    assert {row["refused"] for row in rows} == {"float64: c[0, 0] is wrong"}
    assert plans is None
    in_a(Child((rows, plans)), monkeypatch)
    assert tuning_table(tuning.tune(1)).notes == ("Nothing is kept",)
    assert current(1) == {}


def test_a_cache_that_cannot_be_written_costs_one_line(monkeypatch, cache):
    in_a(Child(([asdict(tuning.Tuned(1, "float32", "large", "8x3 tiles"))], PLANS)), monkeypatch)
    (cache / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    with pytest.warns(InputWarning, match="the plans are not kept: .*Not a directory") as warned:
        assert len(tuning.tune(1)) == 1
    assert len(warned) == 1


def test_what_cannot_be_used_is_named():
    with pytest.raises(UsageError, match="budget 0: expected seconds above 0"):
        tuning.tune(1, 0)
    with pytest.raises(UsageError, match="threads '0'"):
        tuning.tune(0)


def test_without_numba_it_says_what_is_missing(tmp_path):
    (tmp_path / "numba.py").write_text("raise ModuleNotFoundError(\"No module named 'numba'\")")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([*MAIN, "tune"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "matmulbench: tune needs numba-tiled: No module named 'numba'"


def test_the_command_shows_what_won_and_ends_in_time():
    for dtype in tuning.DTYPES:  # compiled here, and found by the command: that may take longer than its budget
        matmul(*Workload(8, 8, 8, dtype=dtype).operands())
    command = [*MAIN, "tune", "--budget", "24", "--format", "csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=24 + START_S)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.startswith("threads,dtype,shapes,plan,speedup")
    won = {" ".join(fields[1:3]): fields[3] for fields in (line.split(",") for line in lines)}
    assert len(won) == 8
    assert "tune numba-tiled for deep products in float64, threads 1" in done.stderr
    assert current(1).keys() == {key for key, plan in won.items() if plan.strip('"') not in ("heuristics", "not tried")}
