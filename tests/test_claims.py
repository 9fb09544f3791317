"""The README's ratios, judged by intervals made up; nothing is timed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from matmulbench.claims import judge, verify_claims
from matmulbench.cli import app
from matmulbench.errors import UsageError
from matmulbench.measurement.statistics import Interval
from matmulbench.report.output import as_grid
from matmulbench.results.folder import Results, RunFolder, load_results
from matmulbench.results.schema import MeasurementRow, Status, frame

CLAIM = Interval(2.0, 1.9, 2.1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.95, 2.05, "holds"),
        (2.05, 2.5, "holds"),
        (2.2, 2.3, "holds"),  # the claim is widened by 10 %, to 2.31
        (2.32, 2.4, "faster here"),
        (2.32, 9.0, "faster here"),  # vague, and yet above
        (1.5, 1.74, "holds"),  # 1.9 / 1.1 is 1.727
        (1.5, 1.72, "slower here"),
        (0.1, 1.72, "slower here"),
        (1.0, 2.0, "holds"),
        (1.0, 2.1, "unclear"),
        (0.0, float("inf"), "unclear"),
    ],
)
def test_judge(low: float, high: float, verdict: str) -> None:
    assert judge(CLAIM, Interval((low + high) / 2, low, high)) == verdict


def row(kernel: str, speedup: float | None, workload: str = "5x784x10", **other: Any) -> MeasurementRow:
    m, k, n = map(int, workload.split("x"))
    one = MeasurementRow(workload, m, k, n, "NN", "float32", 1, kernel, **other)
    if speedup:
        one.median_s, one.speedup = 1e-5 / speedup, speedup
        one.speedup_ci_low, one.speedup_ci_high = 0.99 * speedup, 1.01 * speedup
    return one


@pytest.fixture
def reference(tmp_path: Path) -> Results:
    with RunFolder(tmp_path / "reference", {"baseline": "torch"}) as folder:
        for kernel, speedup in (("torch", 1.0), ("numpy", 1.5), ("numba", 0.2), ("einsum", 0.5), ("row-slice", 0.02)):
            folder.add("measurements", row(kernel, speedup))
        folder.add("measurements", row("numpy", 3.0, "64x64x64"))  # which the README does not show
    return load_results(tmp_path / "reference")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answer for this machine; hear what was asked."""
    asked: dict[str, Any] = {}

    def measure(kernels: list[str], workloads: list[Any], **options: Any) -> pd.DataFrame:
        asked.update(kernels=kernels, workloads=list(map(str, workloads)), **options)
        crashed = row("einsum", None, status=str(Status.CRASHED), reason="SIGSEGV")
        found = [row("torch", 1.0), row("numpy", 1.5), row("numba", 0.4), crashed, row("row-slice", 0.01)]
        return frame("measurements", found)

    monkeypatch.setattr("matmulbench.measurement.api.measure", measure)
    return asked


def test_each_ratio_of_the_readme_is_measured_again(reference: Results, here: dict[str, Any]) -> None:
    claims = verify_claims(reference, budget_s=40)
    assert here["kernels"] == ["row-slice", "einsum", "numba", "numpy"]
    assert (here["workloads"], here["threads"], here["baseline"]) == (["5x784x10"], 1, "torch")
    assert here["budget_s"] == 40
    assert dict(zip(claims["kernel"], claims["verdict"], strict=True)) == {
        "row-slice": "slower here",
        "einsum": "failed",
        "numba": "faster here",
        "numpy": "holds",
    }
    numba = claims.set_index("kernel").loc["numba"]
    assert (numba["claimed"], numba["here"], numba["here_ci_high"]) == (0.2, 0.4, 0.404)
    assert claims.set_index("kernel").loc["einsum", "reason"] == "SIGSEGV"


def test_the_table_gives_the_reason(reference: Results, here: dict[str, Any]) -> None:
    grid = as_grid(verify_claims(reference))
    texts = {line[1].text: [cell.text for cell in line[2:]] for line in grid.rows}
    assert texts["numpy"] == ["1.50×", "1.48–1.52×", "1.50×", "1.48–1.52×", "holds"]
    assert texts["einsum"][2:] == ["–", "–", "failed: SIGSEGV"]


@pytest.mark.parametrize(
    ("ends", "reason", "says"),
    [
        ((0.5, 2.0), None, "unclear: a larger --budget narrows the interval"),
        ((0.5, 2.0), "other load", "unclear: other load"),
        ((None, None), "one round", "unclear: one round"),
    ],
)
def test_the_unclear_says_why(
    reference: Results, monkeypatch: pytest.MonkeyPatch, ends: tuple[Any, Any], reason: str | None, says: str
) -> None:
    def measure(kernels: list[str], *_: Any, **__: Any) -> pd.DataFrame:
        found = [row(kernel, 1.0, reason=reason) for kernel in kernels]
        for one in found:
            one.speedup_ci_low, one.speedup_ci_high = ends
        return frame("measurements", found)

    monkeypatch.setattr("matmulbench.measurement.api.measure", measure)
    verdicts = {line[1].text: line[-1].text for line in as_grid(verify_claims(reference)).rows}
    assert verdicts["numpy"] == says


def test_a_run_without_ratios_claims_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"baseline": "torch"}) as folder:
        folder.add("measurements", row("torch", 1.0))
    with pytest.raises(UsageError, match="no speedup against torch, so nothing is claimed"):
        verify_claims(load_results(tmp_path / "run"))


@pytest.mark.parametrize(("speedup", "status"), [(1.5, 0), (3.0, 1), (0.5, 1)])
def test_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], speedup: float, status: int
) -> None:
    with RunFolder(tmp_path / "run", {"baseline": "torch"}) as folder:
        for one in (row("torch", 1.0), row("numpy", 1.5)):
            folder.add("measurements", one)

    def measure(*_: Any, **__: Any) -> pd.DataFrame:
        return frame("measurements", [row("torch", 1.0), row("numpy", speedup)])

    monkeypatch.setattr("matmulbench.measurement.api.measure", measure)
    with pytest.raises(SystemExit) as left:
        app(["verify-claims", str(tmp_path / "run"), "--format", "csv"])
    assert left.value.code == status
    assert capsys.readouterr().out.startswith("workload,dtype,threads,kernel,verdict,claimed,")
