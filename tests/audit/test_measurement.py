"""The audit finds what is planted, and can fail."""

import itertools
from types import SimpleNamespace

import pytest

from matmulbench.audit import MEASUREMENT, measurement
from matmulbench.isolation import Host


@pytest.mark.timing
def test_a_large_delay_is_called_slower_and_a_twin_is_not(host: Host) -> None:
    slower = measurement._planted(host, "16x16x16", "delayed_400", "plain", 2.0)
    assert slower.verdict == "slower", slower.reason
    assert slower.speedup < 0.5
    assert measurement._planted(host, "16x16x16", "twin", "plain", 1.0).verdict != "slower"


@pytest.mark.timing
def test_a_spin_lasts_as_long_as_it_says(host: Host) -> None:
    row = measurement._planted(host, "1x1x1", "spin_2ms", "spin_2ms", 0.3)
    assert row.min_s == pytest.approx(2e-3, rel=0.2)


@pytest.mark.parametrize("part", MEASUREMENT)
def test_each_part_is_the_function_of_its_name(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(measurement, part.replace("-", "_"), lambda host, quick, progress: [f"{part}, {quick}"])
    assert [*measurement.audit_measurement(part, True, print)] == [f"{part}, True"]


@pytest.mark.parametrize(("median_s", "passed"), [(2.01e-3, True), (1.97e-3, False), (None, False)])
def test_a_duration_is_held_to_a_percent(monkeypatch: pytest.MonkeyPatch, median_s: float | None, passed: bool) -> None:
    monkeypatch.setattr(measurement, "DURATIONS", {"spin_2ms": 2e-3})
    monkeypatch.setattr(measurement, "_planted", lambda *_: SimpleNamespace(median_s=median_s))
    (check,) = measurement.durations(None, True, print)  # type: ignore[arg-type]
    assert check.passed == passed


@pytest.mark.parametrize(
    ("odd", "passed"),
    [
        ((0.98, 1.02, "same"), [True, True]),
        ((1.01, 1.02, "same"), [False, True]),
        ((0.98, 1.02, "faster"), [True, False]),
        ((None, None, None), [False, False]),
    ],
)
def test_a_kernel_against_itself_may_not_seem_to_differ(
    monkeypatch: pytest.MonkeyPatch, odd: tuple[float | None, float | None, str | None], passed: list[bool]
) -> None:
    names = ("speedup_ci_low", "speedup_ci_high", "verdict")
    rows = itertools.cycle([(0.98, 1.02, "same")] * 9 + [odd])
    monkeypatch.setattr(
        measurement, "_planted", lambda *_: SimpleNamespace(**dict(zip(names, next(rows), strict=True)))
    )
    checks = list(measurement.same_twice(None, True, lambda _: None))  # type: ignore[arg-type]
    assert [check.passed for check in checks[:2]] == passed
