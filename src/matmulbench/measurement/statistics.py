"""Medians and intervals that keep their coverage on a noisy machine.

Interval of a median: order statistics, which need no assumption about the tails (Conover, *Practical Nonparametric
Statistics*, 3.2). Rounds near in time resemble each other, so the binomial's n is the *effective* number of rounds:
n divided by the autocorrelation time of the signs about the median, estimated with Geyer's initial positive sequence
(Geyer, Statistical Science 7, 1992). Where so few rounds admit no order statistic at that confidence, Student's
interval widens it. Where the rounds come from several processes, it is no narrower than Student's over the processes'
medians: what a process happens to be like differs when all is started again, however many rounds each of them had
(Kalibera & Jones, *Rigorous benchmarking in reasonable time*, ISMM 2013).

A ratio of times of the same rounds is free of the machine's drift; a time is not, and seconds cannot tell what minutes
bring. Hence the interval of a time is wider: it predicts another run's median from how the run's own quarters differ.
Such drift (flicker noise) makes neighbouring stretches of any length differ by as much (Allan, Proc. IEEE 54, 1966).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special  # scipy.stats would take half a second to import

CONFIDENCE = 0.95
FALSE_ALARM = 0.01  # how often a verdict may be wrong, over all kernels of a workload
SAME = 0.02  # the smallest difference of interest
PROCESSES = 4  # from which on their medians tell how much processes differ
PROCESS_ROUNDS = 6  # from which on a process's median is more than a round's chance
PARTS = 4  # of a run: the least that tell how they scatter, and the furthest apart


@dataclass(frozen=True)
class Interval:
    """A median with an interval about it."""

    median: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a share of the median."""
        return (self.high - self.low) / (2 * abs(self.median))

    @property
    def figures(self) -> tuple[float, float | None, float | None]:
        """Median, low and high; no ends where a single sample leaves them open, none below 0."""
        if not np.isfinite(self.high):
            return self.median, None, None
        return self.median, max(self.low, 0.0), self.high

    def widened(self, share: float) -> Interval:
        """Return the interval with both ends moved outwards by ``share`` of themselves."""
        return Interval(self.median, self.low / (1 + share), self.high * (1 + share))

    def within(self, low: float, high: float) -> bool:
        """Tell whether the whole interval lies between ``low`` and ``high``."""
        return low <= self.low and self.high <= high


def autocorrelation_time(samples: npt.NDArray[np.float64]) -> float:
    """Return the integrated autocorrelation time of ``samples`` (n,), in samples; at least 1.

    So many neighbouring samples tell as much of the median as one independent sample would.
    """
    signs = np.sign(samples - np.median(samples))
    n = len(signs)
    power = float(signs @ signs)
    if n < 8 or power == 0:
        return 1.0
    spectrum = np.abs(np.fft.rfft(signs - signs.mean(), 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[: n // 2] / power
    # Sums of neighbouring lags, from lag 0 on, are positive in theory: the first that is not is noise.
    pairs = correlation[0:-1:2] + correlation[1::2]
    positive = pairs[: int(np.argmax(pairs <= 0))] if (pairs <= 0).any() else pairs
    return max(1.0, float(2 * positive.sum() - 1))


def median_interval(
    samples: npt.ArrayLike, confidence: float = CONFIDENCE, processes: npt.ArrayLike | None = None
) -> Interval:
    """Return the median of ``samples`` (n,), in time order, with its ``confidence`` interval.

    ``processes`` (n,) tells which process each came from; if not given, it was one. One sample alone has an infinite
    interval.
    """
    values = np.asarray(samples, dtype=np.float64)
    median = float(np.median(values))
    n = len(values)
    if n < 2:
        return Interval(median, -np.inf, np.inf)
    effective = max(2.0, n / autocorrelation_time(values))
    # The interval from the r-th smallest to the r-th largest covers with 1 − 2·P(Binomial(n, ½) < r).
    tosses = int(effective)
    rank = int(np.searchsorted(special.bdtr(np.arange(tosses + 1), tosses, 0.5), (1 - confidence) / 2))
    ordered = np.sort(values)
    below = max(0, int(np.floor(rank * n / effective)) - 1)
    low, high = float(ordered[below]), float(ordered[n - 1 - below])
    if rank == 0:
        reach = float(special.stdtrit(effective - 1, (1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(effective))
        low, high = min(low, median - reach), max(high, median + reach)
    reach = 0.0 if processes is None else _reach_of_processes(values, np.asarray(processes), confidence)
    return Interval(median, min(low, median - reach), max(high, median + reach))


def time_interval(samples: npt.ArrayLike, processes: npt.ArrayLike | None = None) -> Interval:
    """Return the median of positive ``samples`` (n,), in time order, with the interval in which another run's falls.

    Student's interval, on logarithms, of the difference between two medians that scatter like those of the run's
    quarters; no narrower than :func:`median_interval`, which takes the same ``processes``.
    """
    logarithms = np.log(np.asarray(samples, dtype=np.float64))
    known = median_interval(logarithms, processes=processes)
    medians = [float(np.median(part)) for part in np.array_split(logarithms, PARTS) if len(part)]
    reach = 0.0
    if len(medians) == PARTS:
        reach = float(special.stdtrit(PARTS - 1, (1 + CONFIDENCE) / 2) * np.sqrt(2) * np.std(medians, ddof=1))
    low, high = min(known.low, known.median - reach), max(known.high, known.median + reach)
    median = float(np.median(np.asarray(samples, dtype=np.float64)))
    return Interval(median, min(median, float(np.exp(low))), max(median, float(np.exp(high))))


def _reach_of_processes(values: npt.NDArray[np.float64], processes: npt.NDArray[Any], confidence: float) -> float:
    """Return half of Student's interval over the processes' medians, each with its share of the samples."""
    names, counts = np.unique(processes, return_counts=True)
    names, counts = names[counts >= PROCESS_ROUNDS], counts[counts >= PROCESS_ROUNDS]
    if (n := len(names)) < PROCESSES:
        return 0.0
    medians = np.array([np.median(values[processes == name]) for name in names])
    shares = counts / counts.sum()
    error = np.sqrt(n / (n - 1) * np.sum((shares * (medians - shares @ medians)) ** 2))
    return float(special.stdtrit(n - 1, (1 + confidence) / 2) * error)


def ratio_interval(
    baseline: npt.ArrayLike,
    kernel: npt.ArrayLike,
    confidence: float = CONFIDENCE,
    processes: npt.ArrayLike | None = None,
) -> Interval:
    """Return the speedup: the median over rounds of baseline time / kernel time, paired round by round."""
    return median_interval(np.asarray(baseline, float) / np.asarray(kernel, float), confidence, processes)


def verdict(speedup: Interval, cautious: Interval) -> str:
    """Return ``same``, ``faster``, ``slower`` or ``unclear``.

    ``speedup`` is the interval that the table shows; ``cautious`` the wider one, corrected for all comparisons of
    the table, that has to exclude 1 before a difference is claimed. One below the smallest of interest never is.
    """
    if speedup.within(1 - SAME, 1 + SAME):
        return "same"
    if cautious.low > 1 and speedup.median >= 1 + SAME:
        return "faster"
    return "slower" if cautious.high < 1 and speedup.median <= 1 - SAME else "unclear"
