"""One kernel in a training: its learner, its turns, and what was seen of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from torch import Tensor

from matmulbench.ladder import Kernel
from matmulbench.training.learners import Learner

# Long enough that a clock's resolution and what the last kernel left in the caches hardly count.
_TURN = 2e-3


class Stopwatch:
    """A kernel that notes how many seconds each product takes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.seconds: list[float] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        start = time.perf_counter()
        c = self.kernel(a, b)
        self.seconds.append(time.perf_counter() - start)
        return c


class Contestant:
    """A kernel (or, with ``kernel`` None, a learner without one) that trains turn by turn.

    Turns alternate: in one the whole is timed, in the next each product, so that no stopwatch runs inside what is
    called a step's time. After the end of the schedule the training begins again, for the clock alone.

    Parameters
    ----------
    name
        the kernel's.
    kernel
        what does the products.
    begin
        makes the learner as it is before the first step.
    steps
        the schedule's.
    step_estimate, allowance
        seconds that a step should take, and that all turns together may.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel | None,
        begin: Callable[[], Learner],
        steps: int,
        step_estimate: float,
        allowance: float,
    ) -> None:
        self.name, self.kernel, self.begin, self.schedule = name, kernel, begin, steps
        self.turn_steps = max(1, min(steps, int(_TURN / step_estimate)))
        self.turn_estimate = step_estimate * self.turn_steps
        self.allowance, self.spent = allowance, 0.0
        self.learner = begin()
        self.at = 0
        self.losses: list[float] = []
        self.learnt: Learner | None = None
        self.step_samples: dict[int, float] = {}  # round: seconds a step
        self.product_samples: list[list[float]] = []  # a turn: seconds of each product of a step

    @property
    def finished(self) -> bool:
        """Whether the schedule was done once."""
        return self.learnt is not None

    @property
    def affordable(self) -> bool:
        """Whether the allowance has room for another turn."""
        return self.spent + self.turn_estimate <= self.allowance

    def turn(self, number: int) -> None:
        """Do the turn of round ``number``."""
        steps = min(self.turn_steps, self.schedule - self.at)
        stopwatch = None
        # A step that lasts does not feel the stopwatch: it serves for both.
        both = self.turn_steps == 1
        if self.kernel and (both or number % 2):
            stopwatch = Stopwatch(self.kernel)
            self.learner.use(stopwatch)
        losses = []
        start = time.perf_counter()
        for step in range(self.at, self.at + steps):
            losses.append(self.learner.step(step))
        seconds = time.perf_counter() - start
        if stopwatch and self.kernel:
            self.learner.use(self.kernel)
            self.product_samples.append(np.reshape(stopwatch.seconds, (steps, -1)).mean(axis=0).tolist())
        if both or not stopwatch:
            self.step_samples[number] = seconds / steps
        self.spent += seconds
        self.turn_estimate = max(self.turn_estimate, seconds)
        if not self.finished:
            self.losses += map(float, losses)
        self.at += steps
        if self.at == self.schedule:
            self.learnt = self.learnt or self.learner
            self.learner, self.at = self.begin(), 0
