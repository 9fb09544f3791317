"""How far a loss curve may deviate from the float64 reference by rounding alone.

Training magnifies rounding: once an activation lands on the other side of zero, two runs part, by how much no bound
on a single product can tell. So the envelope is found by trying, as in Monte Carlo arithmetic (Parker, Pierce &
Eggert, Computing in Science & Engineering 2(4), 2000): the training is run in the kernels' own dtype while each
product is perturbed at random, :data:`PERTURBATION` times as much as its rounding would. How far such runs deviate from
the float64 reference, times :data:`SAFETY`, is what a kernel's curve may deviate. The rounding of an honest sum of k
terms is about sqrt(k)·u of the result (Higham & Mary, SIAM J. Sci. Comput. 41, 2019; u: the unit roundoff).
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from matmulbench.dtypes import DTYPES
from matmulbench.training.trainers import TrainingProblem

PERTURBATION = 32
SAFETY = 4
RUNS = 2
_FLOOR = 64  # unit roundoffs of the largest loss: that of the loss's own sum, which no product perturbs


def rounding_envelope(
    problem: TrainingProblem, steps: int, seconds: float = float("inf")
) -> tuple[list[float], list[float]]:
    """Train the float64 reference and the perturbed runs for ``steps`` steps, fewer if ``seconds`` would not do.

    Returns the reference's loss at each step, and how far a kernel's may be from it.
    """
    deadline = time.monotonic() + seconds
    runs = [problem.reference(), *(problem.begin(_Perturbed(problem.roundoff, seed)) for seed in range(RUNS))]
    losses: list[list[float]] = []
    while len(losses) < steps and (time.monotonic() < deadline or not losses):
        try:
            losses.append([float(run.step(len(losses))) for run in runs])
        except Exception:  # a model that takes no batch of fewer rows, or float64 only so far
            break
        if not np.isfinite(losses[-1]).all():  # a schedule that diverges: from here on nothing can be compared
            losses.pop()
            break
    curves = np.array(losses).reshape(-1, len(runs)).T
    reference, perturbed = curves[0], curves[1:]
    deviation = np.maximum.accumulate(np.abs(perturbed - reference).max(axis=0))
    floor = _FLOOR * problem.roundoff * np.abs(reference).max(initial=0)
    return reference.tolist(), (SAFETY * deviation + floor).tolist()


class _Perturbed:
    """torch's product, each element off by a normal deviate of the size that the envelope's rule says."""

    def __init__(self, roundoff: float, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.roundoff = roundoff

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        c = a @ b
        # Of 16 bits, each operand and the result are rounded, too, but at random: the errors do not grow with k.
        relative = PERTURBATION * self.roundoff * a.shape[1] ** 0.5
        relative += SAFETY * DTYPES[str(c.dtype).removeprefix("torch.")].rounding
        size = relative * float(c.square().mean().sqrt())
        return c.add_(torch.randn(c.shape, generator=self.generator, dtype=c.dtype), alpha=size)
