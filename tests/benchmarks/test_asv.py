"""asv tracks what the package's own pipeline measures, and takes no time itself."""

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

pytest.importorskip("asv_runner", reason="the extra asv is not installed")
FILE = Path(__file__).parents[2] / "benchmarks" / "asv_suite" / "ladder.py"


@pytest.fixture(scope="module")
def ladder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("asv_ladder", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_that_is_tracked_has_a_unit_and_comes_from_the_pipeline(
    ladder: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def stand_in(verb: str) -> None:
        def pipeline(*arguments: object, **_: object) -> pd.DataFrame:
            asked.append(verb)
            return pd.DataFrame(columns=["workload", "dtype", "kernel", "task"])

        monkeypatch.setattr("matmulbench." + verb, pipeline, raising=False)

    for verb in ("measure", "train", "verify"):
        stand_in(verb)
    suites = [suite for name, suite in inspect.getmembers(ladder, inspect.isclass) if suite.__module__ == "asv_ladder"]
    for suite in suites:
        benchmarks = [name for name in dir(suite) if not name.startswith("_") and callable(getattr(suite, name))]
        tracked = [name for name in benchmarks if name != "setup_cache"]
        assert all(name.startswith("track_") and getattr(suite, name).unit for name in tracked), tracked
        if hasattr(suite, "setup_cache"):
            suite().setup_cache()
    assert sorted(asked) == ["measure", "measure", "measure", "train", "verify"]
    assert "50x50000x784:TN" in ladder.Layers.params[0]


def test_what_was_not_timed_whole_is_skipped_with_the_reason(
    ladder: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {"status": "ok", "extrapolated": False, "median_s": 2e-6, "speedup": 4.0, "reason": None}
    rows = ladder.by_cell(
        pd.DataFrame(
            [
                {"workload": "8x8x8", "kernel": "fast", **right},
                {"workload": "8x8x8", "kernel": "slow", **right, "extrapolated": True},
                {"workload": "8x8x8", "kernel": "wrong", **right, "status": "failed-verification", "reason": "NaN"},
                {"workload": "8x8x8", "kernel": "alone", **right, "speedup": float("nan"), "reason": "no baseline"},
            ]
        ),
        "workload",
        "kernel",
    )
    small = ladder.Small()
    assert small.track_time(rows, "8x8x8", "fast") == 2e-6
    assert small.track_against_torch(rows, "8x8x8", "fast") == 0.25
    for kernel, reason in {
        "slow": "too slow to be timed whole",
        "wrong": "failed-verification: NaN",
        "alone": "no speedup: no baseline",
        "absent": "left out, for it is too slow for the budget",
    }.items():
        with pytest.raises(NotImplementedError, match=reason):
            small.track_against_torch(rows, "8x8x8", kernel)
        assert capsys.readouterr().out == f"8x8x8 with {kernel}: {reason}\n"
