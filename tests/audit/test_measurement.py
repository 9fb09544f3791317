"""The audit finds what is planted, and can fail."""

from collections.abc import Iterator

import pytest

from matmulbench.audit import measurement, planted
from matmulbench.isolation import Host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(1) as host:
        yield host


def test_a_large_delay_is_called_slower_and_a_twin_is_not(host: Host) -> None:
    # Five times as long: on two loaded cores the size of a delay is known to a factor only.
    slower = measurement._pair(host, "16x16x16", "plain", "delayed_400", 2.0)
    assert slower.verdict == "slower", slower.reason
    assert slower.speedup < 0.5
    assert measurement._pair(host, "16x16x16", "plain", "twin", 1.0).verdict != "slower"


def test_a_spin_lasts_as_long_as_it_says(host: Host) -> None:
    row = measurement._pair(host, "1x1x1", "spin_2ms", "spin_2ms", 0.3)
    assert row.min_s == pytest.approx(2e-3, rel=0.2)


def test_a_check_that_does_not_hold_fails(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(planted.DURATIONS, "2 ms", 1e-3)
    monkeypatch.setattr(measurement, "DURATIONS", {"2 ms": 1e-3})
    (check,) = measurement.known_durations(host)
    assert not check.passed
