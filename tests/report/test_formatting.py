import pytest

from matmulbench.report.formatting import (
    compared,
    factor,
    factor_interval,
    flop,
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
    [(2.084, "2.08× faster"), (1.0, "1.00×"), (1.004, "1.00×"), (0.997, "1.00×"), (9.999, "10.0× faster"),
     (0.48, "2.08× slower"), (1 / 39_123, "39,100× slower"), (41_234, "41,200× faster"), (0, "–"), (None, "–")],
)  # fmt: skip
def test_a_speedup_says_faster_or_slower(value: float | None, text: str) -> None:
    assert factor(value) == text


def test_intervals_of_speedups_have_the_same_form_and_two_ends_that_differ() -> None:
    assert factor_interval(2.05, 2.12) == "2.05–2.12× faster"
    assert factor_interval(1 / 40_000, 1 / 39_000) == "39,000–40,000× slower"
    assert factor_interval(0.98, 1.3) == "1.02× slower – 1.30× faster"
    assert factor_interval(0.13065, 0.13068) == "7.652–7.654× slower"
    assert factor_interval(1.05, 1.05) == "1.05× faster"
    assert factor_interval(None, 1.3) == "–"


def test_speedups_in_words() -> None:
    assert compared(2.0, "faster") == "2.00× faster"
    assert compared(1 / 39_100, "slower", "torch") == "39,100× slower than torch"
    assert compared(None, None, "torch") == "–"


@pytest.mark.parametrize(
    ("speedup", "verdict", "text"),
    [(1.01, "same", "as fast as torch"), (1.004, "faster", "as fast as torch"),
     (1.3, "unclear", "not clearly faster or slower than torch (1.11× slower – 1.50× faster)")],
)  # fmt: skip
def test_words_claim_no_more_than_the_verdict(speedup: float, verdict: str, text: str) -> None:
    assert compared(speedup, verdict, "torch", 0.9, 1.5) == text
    assert "faster" not in compared(speedup, verdict)


def test_floating_point_operations_have_a_unit() -> None:
    assert [flop(number) for number in (2, 78_400, 3_920_000_000)] == ["2.00 FLOP", "78.4 kFLOP", "3.92 GFLOP"]


def test_rates_and_shares_of_any_size_show_a_digit() -> None:
    assert rate(0.00026) == "0.0003"
    assert rate(98.44) == "98.4"
    assert percent(0.0008, of=100) == "0.0008 %"
    assert percent(0.9714) == "97.1 %"
