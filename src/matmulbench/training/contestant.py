"""One kernel in a training: its learner, its turns, and what was seen of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from torch import Tensor

from matmulbench.ladder import Kernel
from matmulbench.measurement.statistics import median_interval
from matmulbench.training.learners import Learner

# Seconds; long enough that the clock's resolution and what the last kernel left in the caches hardly count.
_TURN = 2e-3
_TURNS = 60  # timed, for an interval of a few percent
_MARGIN = 1.5  # for turns that take longer than foretold
_PRECISE = 0.01  # half-width of the interval, as a share of the time, that is good enough


class Stopwatch:
    """A kernel that notes how many seconds each product takes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.seconds: list[float] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply and note."""
        start = time.perf_counter()
        c = self.kernel(a, b)
        self.seconds.append(time.perf_counter() - start)
        return c


class Contestant:
    """A kernel (or, with ``kernel`` None, a learner without one) that trains turn by turn.

    A turn is one step, or as many as fill 2 ms. Turns alternate: in one the whole is timed, in the next each product,
    so that no stopwatch runs inside what is called a step's time. After the end of the schedule the training begins
    again, for the clock alone.

    Parameters
    ----------
    name
        the kernel's.
    kernel
        what does the products.
    begin
        makes the learner as it is before the first step.
    schedule
        steps of the whole training.
    step_estimate
        seconds that a step should take.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel | None,
        begin: Callable[[], Learner],
        schedule: int,
        step_estimate: float,
    ) -> None:
        self.name, self.kernel, self.begin, self.schedule = name, kernel, begin, schedule
        self.turn_steps = max(1, min(schedule, int(_TURN / step_estimate)))
        self.turn_estimate = step_estimate * self.turn_steps
        self.spent = self.allowance = 0.0  # seconds
        self.turns = 0
        self.learner = begin()
        self.at = 0  # the next step
        self.losses: list[float] = []
        self.learnt: Learner | None = None  # as it is at the end of the schedule
        self.step_samples: dict[int, float] = {}  # round: seconds a step
        self.product_samples: list[list[float]] = []  # a turn: seconds of each product of a step
        self.rest_samples: list[float] = []  # a turn: seconds of a step besides its products

    @property
    def wish(self) -> float:
        """Seconds for what is still missing: steps of the schedule, or turns for a precise time."""
        missing_turns = 0
        if not self.learnt:
            missing_turns += (self.schedule - self.at) // self.turn_steps + 1
        if len(self.step_samples) < _TURNS:
            missing_turns += _TURNS
        elif median_interval(list(self.step_samples.values())).relative_half_width > _PRECISE:
            missing_turns += _TURNS // 2
        return _MARGIN * missing_turns * self.turn_estimate

    @property
    def affordable(self) -> bool:
        """Whether the allowance has room for another turn."""
        return self.spent + self.turn_estimate <= self.allowance

    def turn(self, number: int) -> None:
        """Take the turn of round ``number``."""
        steps = min(self.turn_steps, self.schedule - self.at)
        both = self.turn_steps == 1  # a step that lasts does not feel the stopwatch
        stopwatch = None
        if self.kernel and (both or number % 2):
            stopwatch = Stopwatch(self.kernel)
            self.learner.use(stopwatch)
        losses = []
        start = time.perf_counter()
        for step in range(self.at, self.at + steps):
            losses.append(self.learner.step(step))  # noqa: PERF401  # a comprehension hides what is timed
        seconds = time.perf_counter() - start
        if stopwatch and self.kernel:
            self.learner.use(self.kernel)
            products = np.reshape(stopwatch.seconds, (steps, -1)).mean(axis=0)
            self.product_samples.append(products.tolist())
            self.rest_samples.append(seconds / steps - float(products.sum()))
        if both or not stopwatch:
            self.step_samples[number] = seconds / steps
        self.spent += seconds
        self.at += steps
        if not self.learnt:
            self.losses += map(float, losses)
        if self.at == self.schedule:
            self.learnt = self.learnt or self.learner
            self.learner, self.at = self.begin(), 0
