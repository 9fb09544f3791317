"""Randomised complete rounds: every kernel of a workload once a round, in random order, paired with the baseline.

This runs in a child (see :mod:`matmulbench.isolation`) whose threads are fixed. How many rounds are needed is looked
up at a few moments fixed beforehand (after a sixteenth, an eighth, … of the rounds that the budget allows); each look
has its share of the 5 % that an interval may err, so stopping early cannot spoil the coverage (Bonferroni).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from math import inf
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from matmulbench.isolation import describe, say
from matmulbench.ladder.plugins import load_kernel
from matmulbench.measurement.calibration import calibrate
from matmulbench.measurement.clock import calls_per_block, time_block
from matmulbench.measurement.conditions import Conditions
from matmulbench.measurement.cost import Cost, MakeOperands, extrapolate, learn_cost
from matmulbench.measurement.statistics import ratio_interval
from matmulbench.verification import check_result
from matmulbench.workload import Workload

if TYPE_CHECKING:
    from matmulbench.ladder import Kernel

TARGET = 0.01  # half-width of a ratio's interval at which a kernel needs no more rounds
LOOKS = 5
MIN_ROUNDS = 3
_EVICTING_BYTES = 2**27  # above any last cache
_EVICTION_S = 0.02  # about what evicting costs
_ALIKE = 0.5  # of the baseline's time for a call, up to its double: such kernels get the same number of calls a block
_SETTLE_S = 0.001  # until the threads of the library that was timed before sleep
_TURN_S = 0.02  # a kernel that takes longer a block sits out rounds, so that it takes no more time than the others


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes
    ----------
    threads
        how many threads each pool should have.
    limit_s
        a kernel of which one call takes longer is timed on a sub-problem; a quarter of its share of the budget,
        if not given.
    cold
        whether each call finds its operands in memory and not in a cache.
    in_full
        kernels that are never timed on a sub-problem, whatever a call takes.
    """

    threads: int = 1
    limit_s: float | None = None
    cold: bool = False
    in_full: tuple[str, ...] = ()


@dataclass
class Contestant:
    """One kernel in the rounds of one workload, and what has been seen of it."""

    spec: str
    kernel: Kernel
    cost: Cost
    call_s: float  # seconds of a call of what is timed, found in a trial block
    calls: int = 1
    every: int = 1
    samples: list[float] = field(default_factory=list)  # seconds per call of the whole workload
    paired: list[float] = field(default_factory=list)  # the baseline's sample of the same round
    calibration: list[tuple[float, float]] = field(default_factory=list)  # what fixed work took in the same round
    failure: dict[str, str] | None = None
    cold: bool = False

    @property
    def extrapolated(self) -> bool:
        """Whether a smaller problem stands in for the workload."""
        return self.cost.full_s > self.cost.call_s * 1.001

    @property
    def block_s(self) -> float:
        """Seconds that one turn takes."""
        return self.call_s * self.calls * (1.25 if self.extrapolated else 1) + (_EVICTION_S if self.cold else 0)

    def is_due(self, number: int, late: bool) -> bool:
        """Whether to take part in round ``number``; when it is ``late``, only to reach the least number of samples."""
        return len(self.samples) < MIN_ROUNDS if late else (number - 1) % self.every == 0

    def report(self) -> dict[str, Any]:
        """Return what the parent needs to make a row."""
        return {
            "kernel": self.spec,
            "extrapolated": self.extrapolated,
            "timed_on": str(self.cost.workload),
            "samples": self.samples,
            "baseline_samples": self.paired,
            "calibration_samples": self.calibration,
            "extra_bytes": self.cost.extra_bytes,
            **(self.failure or {"status": "ok"}),
        }


def measure_workload(
    workload: Workload, specs: list[str], baseline: str, budget_s: float, settings: Settings, seed: int = 0
) -> dict[str, Any]:
    """Measure every kernel of ``specs`` on ``workload`` for about ``budget_s`` seconds.

    Returns
    -------
    dict
        ``looks``: how many looks the confidence was shared among; ``cells``: what was seen of each kernel;
        ``warnings``: what was amiss with the machine.
    """
    start = perf_counter()
    limit_s = settings.limit_s or budget_s / (4 * len(specs))
    limits = {spec: inf if spec in settings.in_full else limit_s for spec in specs}
    order = random.Random(seed)
    operands = cache(lambda problem: problem.operands(seed))
    contestants, failed = _enter(workload, limits, operands)
    _align(contestants, baseline)
    calibrate()  # loads it
    conditions = Conditions(settings.threads)
    looks = 0
    if any(contestant.spec == baseline for contestant in contestants):
        left_s = max(budget_s - (perf_counter() - start), budget_s / 2)
        if settings.cold:
            _make_cold(contestants)
        looks = _hold_rounds(workload, contestants, baseline, left_s, order, operands)
    steady = max((one.calibration for one in contestants), key=len, default=[])
    reports = [contestant.report() for contestant in contestants] + failed
    return {"looks": looks, "cells": reports, "warnings": conditions.warnings(steady)}


def _enter(
    workload: Workload, limits: dict[str, float], operands: MakeOperands
) -> tuple[list[Contestant], list[dict[str, Any]]]:
    """Meet each kernel: load it, learn what it costs, calibrate its block."""
    contestants, failed = [], []
    for spec, limit_s in limits.items():
        say(("kernel", spec))
        try:
            kernel = load_kernel(spec)
            cost = learn_cost(kernel, workload, limit_s, operands)
            call_s, _ = time_block(kernel, *operands(cost.workload), calls_per_block(cost.call_s))
            contestant = Contestant(spec, kernel, cost, call_s, calls_per_block(call_s))
        except Exception as error:
            failed.append({"kernel": spec, **_failure(error)})
        else:
            contestants.append(contestant)
    return contestants, failed


def _align(contestants: list[Contestant], baseline: str) -> None:
    """Give kernels that are about as fast as the baseline its number of calls.

    The first call of a block finds cold caches: shared among 3 calls or among 4, that is a percent that would look
    like a difference.
    """
    base = next((one for one in contestants if one.spec == baseline), None)
    for one in contestants:
        if base and _ALIKE <= one.call_s / base.call_s <= 1 / _ALIKE:
            one.calls = base.calls


def _hold_rounds(
    workload: Workload,
    contestants: list[Contestant],
    baseline: str,
    budget_s: float,
    order: random.Random,
    operands: MakeOperands,
) -> int:
    turn = max(_TURN_S, *(one.block_s for one in contestants if one.spec == baseline))
    rounds = max(MIN_ROUNDS, int(budget_s / sum(min(one.block_s, turn) for one in contestants)))
    for one in contestants:
        one.every = max(1, min(round(one.block_s / turn), rounds // MIN_ROUNDS))
    looks = sorted({rounds >> shift for shift in range(LOOKS) if rounds >> shift >= 12} | {rounds})
    deadline = perf_counter() + 1.2 * budget_s
    for number in count(1):
        late = number > rounds or perf_counter() > deadline
        running = [one for one in contestants if not one.failure]
        turns = [one for one in running if one.spec == baseline or one.is_due(number, late)]
        order.shuffle(turns)
        fixed_s = calibrate()
        times = {one.spec: _turn(one, workload, operands) for one in turns}
        if (base := times.get(baseline)) is None:
            break  # without a baseline there are no ratios
        for one in turns:
            if (seconds := times[one.spec]) is not None:
                one.samples.append(seconds)
                one.paired.append(base)
                one.calibration.append(fixed_s)
        enough = all(len(one.samples) >= MIN_ROUNDS for one in contestants if not one.failure)
        if enough and (late or (number in looks and _settled(contestants, len(looks)))):
            break
    return len(looks)


def _turn(one: Contestant, workload: Workload, operands: MakeOperands) -> float | None:
    """Time one block, or the two sub-problems that stand in for a slow whole; check one of the results."""
    say(("kernel", one.spec))
    try:
        if not one.extrapolated:
            return _checked_block(one, operands(workload), one.calls)
        smaller_s = _checked_block(one, operands(one.cost.smaller), one.calls)
        reached_s = _checked_block(one, operands(one.cost.workload), one.calls)
        return extrapolate(one.cost, workload, smaller_s, reached_s)
    except Exception as error:
        one.failure = _failure(error)
        return None


class WrongResultError(Exception):
    """A result made inside the timed loop is wrong."""


def _checked_block(one: Contestant, operands: tuple[torch.Tensor, torch.Tensor], calls: int) -> float:
    a, b = operands
    _stir(a)
    _poison(a, b)
    if one.cold:
        _evict()
    if torch.get_num_threads() > 1:
        sleep(_SETTLE_S)
    seconds, kept = time_block(one.kernel, a, b, calls)
    # Checking costs more than a small block: a tenth of the time is spent on it, but never none.
    if not one.samples or random.random() < 0.1:
        finding = check_result(a, b, kept)
        if finding:
            raise WrongResultError(finding)
    return seconds


def _stir(a: torch.Tensor) -> None:
    """Redraw one row of ``a`` behind torch's back, so that a result remembered from earlier is wrong."""
    rows = a.numpy()
    row = random.randrange(rows.shape[0])
    rows[row] = np.random.default_rng().standard_normal(rows.shape[1], dtype=rows.dtype.type)


def _poison(a: torch.Tensor, b: torch.Tensor) -> None:
    """Leave NaN where the allocator will put the next result, so that a result never written shows."""
    a.new_full((a.shape[0], b.shape[1]), float("nan"))


def _make_cold(contestants: list[Contestant]) -> None:
    """Time single calls from now on: the second of a block would find its operands in the cache."""
    _evict()  # makes what evicts
    for one in contestants:
        one.calls, one.cold = 1, True


@cache
def _ballast() -> npt.NDArray[np.int8]:
    return np.zeros(_EVICTING_BYTES, np.int8)


def _evict() -> None:
    """Fill every cache with something else."""
    _ballast()[::64] += 1


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, WrongResultError):
        return {"status": "failed-verification", "reason": f"inside the timed loop: {error}"}
    outcome = describe(error)
    return {"status": str(outcome.status), "reason": outcome.reason or ""}


def _settled(contestants: list[Contestant], looks: int) -> bool:
    confidence = 1 - 0.05 / looks
    return all(
        ratio_interval(one.paired, one.samples, confidence).relative_half_width <= TARGET
        for one in contestants
        if one.samples and not one.failure
    )
