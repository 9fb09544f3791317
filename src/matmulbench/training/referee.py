"""The child that no kernel enters: how far losses may deviate, and which loss committed parameters have.

Training magnifies rounding: once an activation lands on the other side of zero, two runs part, by how much no bound
on a single product can tell. So the envelope is found by trying, as in Monte Carlo arithmetic (Parker, Pierce &
Eggert, Computing in Science & Engineering 2(4), 2000): the training is run in the kernels' own dtype while each
product is perturbed at random, :data:`PERTURBATION` times as much as its rounding would. How far such runs deviate from
the float64 reference, times :data:`SAFETY`, is what a kernel's curve may deviate. The rounding of an honest sum of k
terms is about sqrt(k)·u of the result (Higham & Mary, SIAM J. Sci. Comput. 41, 2019; u: the unit roundoff).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.errors import UsageError, printable
from matmulbench.training.custom_model import CustomModel, load_training, without_a_word
from matmulbench.training.trace import FAST_PATH, OPTIMISER, trace_steps
from matmulbench.training.trainers import ModuleTrainer, TimedKernel, TrainingProblem
from matmulbench.training.worker import read_parameters

PERTURBATION = 32
SAFETY = 4
RUNS = 2
_FLOOR = 64  # unit roundoffs of the largest loss: that of the loss's own sum, which no product perturbs
_ALIKE = 1024  # unit roundoffs between two losses that differ by rounding alone
_TRACE_S = 0.2  # seconds, about, that may go into tracing
_STATE = "it keeps a state besides its parameters: losses are those that the kernel's process reports"
_EAGER = "it is trained without torch.compile, which keeps torch's products: --compare-compile has a row for it"
_TRYING_S = 0.5  # in which batches are tried beforehand
_AGAIN_S = 30.0  # that may go into training again with plain torch, to see whose fault something is
_SAME_IN_DOUBLE = 0.05  # of the loss, by which that in float64 may differ, or the model does something else there

_problems: list[TrainingProblem] = []


def describe(
    task: str, seed: int, data_dir: str | None, options: dict[str, Any], quiet: bool = False
) -> dict[str, Any]:
    """Load the training; return its ``name``, ``batch_rows``, ``steps``, ``products`` and ``non_matmul_s``.

    Behind them, what a reader should know: ``notes``, on how it can be judged and what no kernel can do in it.
    """
    with without_a_word(quiet):
        problem = load_training(task, seed, data_dir, options)
    _problems[:] = [problem]
    notes: list[str] = []
    if isinstance(problem, CustomModel):
        problem.try_steps(problem.steps, _TRYING_S)
        left = _left_to_torch(problem)
        if not problem.products:
            raise UsageError(
                f"{problem.what}: a step has no matrix product that a kernel can do, expected nn.Linear, @ or another "
                f"in {' or '.join(USUAL)}{f'; {left}' if left else ''}"
            )
        with without_a_word(True):
            again = load_training(task, seed, data_dir, options)
        assert isinstance(again, CustomModel)
        notes = list(filter(None, [_EAGER * problem.compiled, *_assess(problem, again), left]))
    return {
        "name": problem.name,
        "batch_rows": problem.rows,
        "steps": problem.steps,
        "uneven": problem.uneven,
        "products": [[one.layer, one.which, str(one.workload), one.workload.dtype] for one in problem.products],
        "non_matmul_s": _time_non_matmul(problem),
        "notes": notes,
    }


def _assess(problem: CustomModel, again: CustomModel) -> list[str]:
    """Find out how the losses of kernels can be compared; return what a reader of their figures should know.

    ``again`` is the same model from another call of its factory: each kernel's process makes its own.
    """
    first, second, notes = problem.begin_plain(), again.begin_plain(), []
    tried = range(min(3, problem.steps, again.steps))
    losses, others = ([float(trainer.step(step)) for step in tried] for trainer in (first, second))
    rounding = _ALIKE * problem.roundoff
    problem.comparable = again.steps == problem.steps and _alike(losses, others, rounding)
    if not problem.comparable:
        return ["losses were not compared: the model does not do the same twice, even if it is seeded alike"]
    random = "it is random (dropout?), and seeded alike at each step"
    if why := random if problem.reseeds else _failure_in_double(problem, losses):
        problem.in_double, problem.reference_name = False, "plain torch"
        notes.append(f"losses compared with plain torch's in the model's own dtype: {why}")
    problem.judged = _decide(problem, first, len(tried) % problem.steps)
    return notes if problem.judged else [*notes, _STATE]


def look_again(step: int) -> str | None:
    """Return a note if, after ``step`` steps of a model with plain torch, its parameters alone do not decide the loss.

    If so, no kernel's loss is judged by its parameters from then on. What takes too long to tell is None, too.

    Raises
    ------
    UsageError
        if the model itself cannot do one of these steps.
    """
    problem = _problems[0]
    assert isinstance(problem, CustomModel)
    trainer = problem.try_steps(step, _AGAIN_S)
    if trainer and problem.judged:
        with suppress(Exception):  # a step that the model cannot do is found where a kernel takes it
            problem.judged = _decide(problem, trainer, step % problem.steps)
    return None if problem.judged else _STATE


def _decide(problem: TrainingProblem, trainer: ModuleTrainer, step: int) -> bool:
    """Tell whether another trainer with the parameters of ``trainer`` has its loss on the batch of ``step``."""
    judge = problem.begin_plain()
    theirs, own = trainer.parameters(), judge.parameters()
    if [one.shape for one in theirs] != [one.shape for one in own]:
        return False  # a cache that has grown, a layer that was made on the way
    with torch.no_grad():
        for one, other in zip(own, theirs, strict=True):
            one.copy_(other)
    return _alike([judge.loss_at(step)], [float(trainer.step(step))], _ALIKE * problem.roundoff)


def _failure_in_double(problem: CustomModel, losses: list[float]) -> str | None:
    """Say what the model does in float64, if that is something else than in its own dtype."""
    try:
        reference = problem.reference()
        found = float(reference.step(0))
        reference.step(problem.steps - 1)
    except Exception as error:
        return f"in float64 it ends in {type(error).__name__}: {printable(str(error), 160)}"
    if _alike(losses[:1], [found], _SAME_IN_DOUBLE):
        return None
    return f"in float64 its first loss is {found:.6g} instead of {losses[0]:.6g}"


def _alike(losses: list[float], others: list[float], tolerance: float) -> bool:
    return bool(np.allclose(losses, others, rtol=tolerance, atol=0, equal_nan=True))


def _left_to_torch(problem: CustomModel) -> str | None:
    """Say which products of a step no kernel can do, and why."""
    shares: dict[str, float] = {}
    own = {str(parameter.dtype).removeprefix("torch.") for parameter in problem.model.parameters()}
    for row in trace_steps(problem, _TRACE_S):
        reason, *_ = row["reason"].partition(";")
        if row["dtype"] in ("bfloat16", "float16") and row["dtype"] not in own:
            reason += ", by the optimiser" if row["module"] == OPTIMISER else ", autocast?"
        if reason:
            shares[reason] = shares.get(reason, 0.0) + row["share"]
    said = {reason: f"{reason} ({100 * share:.0f} % of a step)" for reason, share in shares.items()}
    unseen = said.pop(FAST_PATH, "")
    parts = {"left to torch": ", ".join(said.values()), "not told from the rest of a step": unseen}
    return "; ".join(f"{where}: {what}" for where, what in parts.items() if what) or None


def _time_non_matmul(problem: TrainingProblem) -> float:
    """Return the seconds of a step that no kernel changes."""
    stopwatch = TimedKernel(torch.matmul)
    trainer = problem.begin(stopwatch)
    found = []
    for step in range(3):
        trainer.prepare(step, step + 1)
        stopwatch.seconds.clear()
        start = time.perf_counter()
        trainer.step(step)
        found.append(time.perf_counter() - start - sum(stopwatch.seconds))
    return min(found)


def rounding_envelope(
    problem: TrainingProblem, steps: int, seconds: float = float("inf")
) -> tuple[list[float], list[float]]:
    """Train the reference and the perturbed runs for ``steps`` steps, or as many as ``seconds`` allow.

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
    """torch's product with a random error added to each element: normal, with the size of the module's docstring."""

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


def envelope(steps: int, seconds: float, rows: int | None) -> list[Any]:
    """Return the reference's loss at each step, how far a kernel's may be from it, and what the reference is.

    Of the first ``rows`` rows alone, if not None. Both lists are empty where there is nothing to compare.
    """
    problem = _problems[0] if rows is None else _problems[0].few(rows)
    if not problem.comparable:
        return [[], [], problem.reference_name]
    return [*rounding_envelope(problem, steps, seconds), problem.reference_name]


def judge_parameters(step: int, plain: bool, accuracies: bool, descriptors: list[int]) -> list[float | None]:
    """Return the loss that the committed parameters have on the batch of ``step``, and perhaps both accuracies.

    The loss is None where the parameters alone do not decide it.
    """
    problem = _problems[0]
    if not (problem.comparable and problem.judged):
        os.close(descriptors[0])
        return [None, None, None]
    trainer = problem.begin_plain() if plain else problem.begin(torch.matmul)
    read_parameters(trainer, descriptors[0])
    shares = problem.accuracies(trainer) if accuracies else (None, None)
    return [trainer.loss_at(step), *shares]
