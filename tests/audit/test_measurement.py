"""The audit finds what is planted, and can fail."""

from types import SimpleNamespace

import pytest

from matmulbench.audit import measurement
from matmulbench.isolation import Host


@pytest.mark.timing
def test_a_large_delay_is_called_slower_and_a_twin_is_not(host: Host) -> None:
    slower = measurement._pair(host, "16x16x16", "plain", "delayed_400", 2.0)
    assert slower.verdict == "slower", slower.reason
    assert slower.speedup < 0.5
    assert measurement._pair(host, "16x16x16", "plain", "twin", 1.0).verdict != "slower"


@pytest.mark.timing
def test_a_spin_lasts_as_long_as_it_says(host: Host) -> None:
    row = measurement._pair(host, "1x1x1", "spin_2ms", "spin_2ms", 0.3)
    assert row.min_s == pytest.approx(2e-3, rel=0.2)


@pytest.mark.parametrize(("median_s", "passed"), [(2.01e-3, True), (1.97e-3, False), (None, False)])
def test_a_duration_is_held_to_a_percent(monkeypatch: pytest.MonkeyPatch, median_s: float | None, passed: bool) -> None:
    monkeypatch.setattr(measurement, "DURATIONS", {"2 ms": 2e-3})
    monkeypatch.setattr(measurement, "_pair", lambda *_: SimpleNamespace(median_s=median_s))
    (check,) = measurement.known_durations(None)  # type: ignore[arg-type]
    assert check.passed == passed


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        ([(0.98, 1.02, "same")] * 100, [True, True]),
        ([(0.98, 1.02, "same")] * 92 + [(1.01, 1.02, "same")] * 8, [False, True]),
        ([(0.98, 1.02, "same")] * 98 + [(0.98, 1.02, "faster")] * 2, [True, False]),
        ([(None, None, None)] * 100, [False, True]),
    ],
)
def test_a_kernel_against_itself_may_not_seem_to_differ(
    monkeypatch: pytest.MonkeyPatch, rows: list[tuple[float | None, float | None, str | None]], passed: list[bool]
) -> None:
    names = ("speedup_ci_low", "speedup_ci_high", "verdict")
    pairs = iter([SimpleNamespace(**dict(zip(names, row, strict=True))) for row in rows])
    monkeypatch.setattr(measurement, "_pair", lambda *_: next(pairs))
    checks = list(measurement.same_twice(None, "5x784x10", 100, 0))  # type: ignore[arg-type]
    assert [check.passed for check in checks] == passed
