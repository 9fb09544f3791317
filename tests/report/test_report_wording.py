import pytest

from matmulbench.report.wording import (
    factor,
    factor_interval,
    faster,
    percent,
    rate,
    seconds,
    seconds_interval,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.5e-6, "7.50 µs"), (2e-11, "0.0200 ns"), (4e-8, "40.0 ns"), (0.2931, "293 ms"), (0.99996, "1.00 s"),
        (119.0, "119 s"), (129.0, "2.15 min"), (20880, "5.80 h"), (None, "–"), (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)  # fmt: skip
def test_seconds_have_a_unit_and_three_digits(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_an_interval_of_times_keeps_one_unit_for_both_ends() -> None:
    assert seconds_interval(0.9991, 1.0012) == "0.999–1.00 s"
    assert seconds_interval(None, 1.0) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.084, "2.08×"), (1.0, "1.00×"), (9.999, "10.0×"), (0.48, "0.48×"), (0.0996, "0.10×"), (0.02, "1/50.0"),
     (1 / 39_123, "1/39,100"), (41_234, "41,200×"), (0, "–"), (None, "–")],
)  # fmt: skip
def test_a_speedup_far_below_one_is_a_fraction(value: float | None, text: str) -> None:
    assert factor(value) == text


def test_intervals_of_speedups() -> None:
    assert factor_interval(2.05, 2.12) == "2.05–2.12×"
    assert factor_interval(1 / 40_000, 1 / 39_000) == "1/40,000–1/39,000"
    assert factor_interval(0.09, 0.11) == "1/11.1–0.11×"


def test_speedups_in_words() -> None:
    assert faster(2.0) == "2.00× faster"
    assert faster(1 / 39_100) == "39,100× slower"
    assert faster(1.0) == "as fast"


def test_rates_and_shares_of_any_size_show_a_digit() -> None:
    assert rate(0.00026) == "0.0003"
    assert rate(98.44) == "98.4"
    assert percent(0.0008, of=100) == "0.0008 %"
    assert percent(0.9714) == "97.1 %"
