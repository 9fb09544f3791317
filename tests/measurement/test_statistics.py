"""Intervals mean what they say: coverage is counted, not asserted from theory."""

import numpy as np
import numpy.typing as npt
import pytest

from matmulbench.measurement.rounds import ANALYSES, TARGET
from matmulbench.measurement.statistics import (
    Interval,
    autocorrelation_time,
    median_interval,
    ratio_interval,
    time_interval,
    verdict,
)

Floats = npt.NDArray[np.float64]


def noise(rng: np.random.Generator, n: int, correlation: float) -> Floats:
    """Heavy-tailed (Student, 2 degrees of freedom), autocorrelated noise with median 0."""
    shocks = rng.standard_t(2, n + 50)
    values = np.zeros(n + 50)
    for i in range(1, n + 50):
        values[i] = correlation * values[i - 1] + shocks[i]
    return values[50:]


@pytest.mark.parametrize(("n", "correlation"), [(5, 0.0), (25, 0.0), (25, 0.5), (100, 0.5), (400, 0.8)])
def test_coverage_under_heavy_tails_and_autocorrelation(n: int, correlation: float) -> None:
    rng = np.random.default_rng(1)
    intervals = [median_interval(noise(rng, n, correlation)) for _ in range(400)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert covered >= 0.92


def test_stopping_early_does_not_spoil_the_coverage() -> None:
    """The rule of the rounds, on noise of a size that stops it at different looks in different trials."""
    rng = np.random.default_rng(2)
    confidence = 1 - 0.05 / ANALYSES
    covered, stopped = [], []
    for _ in range(300):
        ratios = 1 + 0.02 * noise(rng, 192, 0.3)
        for n in (192 >> shift for shift in reversed(range(ANALYSES))):
            interval = median_interval(ratios[:n], confidence)
            if interval.relative_half_width <= TARGET:
                break
        covered.append(interval.low <= 1 <= interval.high)
        stopped.append(n)
    assert len(set(stopped)) >= 3, "the trials should stop at different looks"
    assert np.mean(covered) >= 0.95


@pytest.mark.parametrize(("processes", "difference"), [(4, 0.02), (8, 0.02), (8, 0.0), (16, 0.01)])
def test_processes_that_differ_are_part_of_the_interval(processes: int, difference: float) -> None:
    rng = np.random.default_rng(4)
    of_process = np.repeat(np.arange(processes), 25)
    covered = []
    for _ in range(400):
        samples = (difference * rng.standard_normal(processes))[of_process] + 0.03 * rng.standard_t(3, len(of_process))
        interval = median_interval(samples, processes=of_process)
        covered.append(interval.low <= 0 <= interval.high)
    assert np.mean(covered) >= 0.93


def test_a_chance_in_processes_of_few_rounds_does_not_widen_the_interval() -> None:
    samples = np.array([1.0, 1.01, 0.99, 1.0, 9.0, 1.01, 1.0, 0.99])
    assert median_interval(samples, processes=np.repeat(np.arange(4), 2)) == median_interval(samples)


def test_independent_samples_count_in_full_and_repeated_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    fresh = rng.standard_normal(2000)
    assert autocorrelation_time(fresh) < 1.3
    assert autocorrelation_time(np.repeat(fresh, 10)) == pytest.approx(10, rel=0.3)


def test_pairing_removes_the_drift_that_both_share() -> None:
    drift = np.linspace(1, 2, 60)
    assert ratio_interval(2 * drift, drift) == Interval(2, 2, 2)


def test_one_sample_has_no_interval() -> None:
    assert median_interval([3.0]) == Interval(3.0, -np.inf, np.inf)


@pytest.mark.parametrize(
    ("shown", "cautious", "expected"),
    [
        ((0.99, 1.01), (0.98, 1.02), "same"),
        ((1.001, 1.01), (1.0005, 1.02), "same"),
        ((1.05, 1.10), (1.03, 1.12), "faster"),
        ((0.80, 0.90), (0.70, 0.95), "slower"),
        ((1.01, 1.10), (0.99, 1.12), "unclear"),
        ((0.90, 1.10), (0.80, 1.20), "unclear"),
        ((1.003, 1.025), (1.001, 1.03), "unclear"),  # a difference there is, but not one of interest
    ],
)
def test_verdicts(shown: tuple[float, float], cautious: tuple[float, float], expected: str) -> None:
    middle = sum(shown) / 2
    assert verdict(Interval(middle, *shown), Interval(middle, *cautious)) == expected


def _drift(rng: np.random.Generator, n: int) -> Floats:
    """Drift of standard deviation 1 at all scales of time (1/f noise), as machines have it."""
    frequencies = np.arange(1, n // 2 + 1)
    waves = rng.standard_normal((2, n // 2)) / np.sqrt(frequencies)
    drift = np.fft.irfft(np.concatenate([[0], waves[0] + 1j * waves[1]]), n)
    return np.asarray(drift / drift.std())


@pytest.mark.parametrize(("drift", "scatter"), [(0.01, 0.03), (0.01, 0.01), (0.0, 0.03)])
def test_on_a_machine_that_drifts_another_runs_time_is_in_the_interval(drift: float, scatter: float) -> None:
    rng = np.random.default_rng(6)
    runs, rounds, inside, narrow = 10, 100, [], []
    for _ in range(60):
        hour = np.exp(drift * _drift(rng, 2 * runs * rounds)).reshape(2 * runs, rounds)[::2]  # with pauses between
        times = [run * np.exp(scatter * rng.standard_t(3, rounds)) for run in hour]
        for found, interval in ((inside, time_interval), (narrow, median_interval)):
            each = [interval(run) for run in times]
            found += [one.low <= other.median <= one.high for one in each for other in each if other is not one]
    assert np.mean(inside) >= 0.92
    assert not drift or np.mean(narrow) < 0.8


def test_of_few_samples_the_interval_of_a_time_is_the_medians() -> None:
    few = [1.0, 1.1, 1.3]
    of_logarithms = median_interval(np.log(few))
    assert time_interval(few) == Interval(1.1, np.exp(of_logarithms.low), np.exp(of_logarithms.high))
    assert time_interval([1e-3, 1.0]).low > 0
    assert time_interval([3.0]) == Interval(3.0, 0.0, np.inf)


@pytest.mark.parametrize("seconds", [3e-6, 7e-6, 1e-4 / 3])
def test_equal_samples_have_their_median_in_the_interval(seconds: float) -> None:
    interval = time_interval([seconds] * 8)
    assert interval.low <= interval.median == seconds <= interval.high
