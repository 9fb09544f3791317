"""A kernel of one's own on the command line: what it is set beside, and what it takes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matmulbench.cli import main
from matmulbench.ladder import LADDER
from matmulbench.run import Run

RUNGS = tuple(rung.name for rung in LADDER)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text("def matmul(a, b):\n    return a.astype(a.dtype).dot(b)\n")
    return f"{path}:matmul"


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Run]:
    """Return the plan that ``run`` makes of its arguments, in a folder without settings, and carry out none."""

    class CaughtError(Exception):
        pass

    def execute(run: Run, *_: object, **__: object) -> None:
        raise CaughtError(run)

    def run(*arguments: str) -> Run:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Run, "execute", execute)
        monkeypatch.setattr(sys, "argv", ["matmulbench", "run", *arguments])
        with pytest.raises(CaughtError) as caught:
            main()
        plan: Run = caught.value.args[0]
        return plan

    return run


def test_the_whole_ladder_stands_beside_it_within_a_minute(planned: Callable[..., Run], mine: str) -> None:
    plan = planned("--kernel", mine)
    assert plan.job.specs == [*RUNGS, mine]
    assert plan.preset == "quick"
    assert plan.seconds < 60


def test_rungs_that_are_named_are_all_that_stand_beside_it(planned: Callable[..., Run], mine: str) -> None:
    assert planned("--kernel", mine, "--kernel", "numpy").job.specs == [mine, "numpy", "torch"]


def test_a_preset_that_is_named_is_kept(planned: Callable[..., Run], mine: str) -> None:
    assert planned("--kernel", mine, "--preset", "standard").preset == "standard"


def test_without_a_kernel_the_preset_is_standard(planned: Callable[..., Run]) -> None:
    plan = planned()
    assert plan.preset == "standard"
    assert plan.job.specs[: len(RUNGS)] == [*RUNGS]


def test_operands_go_with_the_name_and_with_the_baselines(planned: Callable[..., Run], mine: str) -> None:
    plan = planned("--kernel", mine, "--kernel", "numpy", "--baseline", mine, "--operands", "numpy")
    assert plan.job.specs == [f"{mine}@numpy", "numpy"]
    assert plan.job.baseline == f"{mine}@numpy"


@pytest.mark.usefixtures("shared_bench")
def test_a_kernel_of_arrays_is_measured(matmulbench: Callable[..., Any], mine: str) -> None:
    options = ["--operands", "numpy", "--workload", "8x8x8", "--budget", "0.1", "--format", "json"]
    done = matmulbench("measure", mine, *options)
    assert done.returncode == 0
    assert {row["kernel"]: row["status"] for row in json.loads(done.stdout)} == {f"{mine}@numpy": "ok", "torch": "ok"}
