"""Two runs compared: drift of the machine is no regression, a slower kernel is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from matmulbench.cli import app
from matmulbench.comparison import compare, differences, summary
from matmulbench.results.folder import Results, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, Status


def run(
    path: Path, seconds: float, clock: float = 1.0, status: str = Status.OK, rounds: int = 40, crowd: float = 1.0
) -> Results:
    """A run in which one kernel takes ``seconds`` on a machine that is slower by ``clock``; 0.5 % noise.

    ``crowd``: by how much calls are slower beyond that.
    """
    rng = np.random.default_rng(int(1e6 * seconds * clock))
    calibration = [1e-3 * clock, 1e-3 * clock * crowd] * np.exp(0.005 * rng.standard_normal((rounds, 2)))
    samples = seconds * clock * np.exp(0.005 * rng.standard_normal(rounds))
    row = MeasurementRow("5x784x10", 5, 784, 10, "NN", "float32", 1, "numpy", status=status)
    row.median_s = float(np.median(samples))
    with RunFolder(path, {"baseline": "torch"}) as folder:
        folder.add("measurements", row, list(samples), calibration_samples=calibration.tolist())
    return load_results(path)


@pytest.mark.parametrize(
    ("seconds", "clock", "verdict"),
    [(1.0, 1.0, "same"), (1.0, 1.3, "same"), (1.1, 1.0, "slower"), (1.1, 0.8, "slower"), (0.9, 1.3, "faster")],
)
def test_verdict(tmp_path: Path, seconds: float, clock: float, verdict: str) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", seconds, clock))
    assert frame["verdict"].tolist() == [verdict]
    assert frame["speedup"][0] == pytest.approx(1 / seconds, rel=0.01)
    assert frame["drift_arithmetic"][0] == pytest.approx(clock, rel=0.01)
    assert frame["drift_calls"][0] == pytest.approx(clock, rel=0.01)


@pytest.mark.parametrize(("seconds", "verdict"), [(1.0, "unclear"), (1.3, "unclear"), (1.7, "slower"), (0.9, "faster")])
def test_where_calls_are_slowed_more_than_arithmetic_a_kernel_may_be_in_between(
    tmp_path: Path, seconds: float, verdict: str
) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", seconds, crowd=1.5))
    assert frame["verdict"].tolist() == [verdict]
    assert frame["drift_calls"][0] == pytest.approx(1.5, rel=0.01)


def test_few_rounds_are_unclear(tmp_path: Path) -> None:
    frame = compare(run(tmp_path / "a", 1.0, rounds=3), run(tmp_path / "b", 1.05, rounds=3))
    assert frame["verdict"].tolist() == ["unclear"]


def test_a_kernel_that_no_longer_works_is_broken(tmp_path: Path) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0, status=Status.CRASHED))
    assert frame["verdict"].tolist() == ["broken"]


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.0)
    assert differences(a, b) == []
    b.run["versions"]["numpy"] = "1.0"
    assert "versions: numpy was" in differences(a, b)[0]


def test_the_verdicts_are_counted_and_the_measured_ratio_is_kept(tmp_path: Path) -> None:
    frame = compare(run(tmp_path / "a", 1.0), run(tmp_path / "b", 1.1, clock=1.3))
    assert frame["ratio"][0] == pytest.approx(1.43, rel=0.01)
    assert summary(frame) == "1 slower"
    many = pd.DataFrame({"verdict": ["same"] * 186 + ["slower"] + ["faster"] * 2})
    assert summary(many) == "2 faster, 1 slower, 186 same"
    assert summary(many[:0]) == "nothing to compare"


def test_the_command_counts_first_and_shows_only_what_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "a", 1.0)
    run(tmp_path / "b", 1.1)
    command = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    every, faster = (CliRunner().invoke(app, [*command, *only]) for only in ([], ["--only", "faster"]))
    assert (every.exit_code, faster.exit_code) == (1, 1)
    assert every.stdout.startswith("1 slower\n")
    assert "numpy" in every.stdout
    assert faster.stdout.startswith("1 slower\n")
    assert "numpy" not in faster.stdout
    assert "verdict 'sloower' is unknown: did you mean slower?" in str(
        CliRunner().invoke(app, [*command, "--only", "sloower"]).stderr
    )
