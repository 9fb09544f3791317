"""The child that no kernel enters: the float64 reference, its envelope, and what committed parameters are worth."""

from __future__ import annotations

import time
from typing import Any

import torch

from matmulbench.dtypes import USUAL
from matmulbench.errors import UsageError
from matmulbench.training.custom_model import CustomModel, load_training
from matmulbench.training.envelope import rounding_envelope
from matmulbench.training.trace import FAST_PATH, Tracer
from matmulbench.training.trainers import TimedKernel, TrainingProblem
from matmulbench.training.worker import read_parameters

_problems: list[TrainingProblem] = []


def describe(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Load the training; return its ``name``, ``rows`` of a batch, ``steps``, ``products`` and ``non_matmul_s``.

    Behind them, what a reader should know: ``notes``, on how it can be judged and what no kernel can do in it.
    """
    problem = load_training(task, seed, data_dir, options)
    _problems[:] = [problem]
    notes: list[str] = []
    if isinstance(problem, CustomModel):
        left = _left_to_torch(problem)
        if not problem.products():
            raise UsageError(
                f"{problem.what}: a step has no matrix product that a kernel can do, expected nn.Linear, @ or another "
                f"in {' or '.join(USUAL)}{f'; {left}' if left else ''}"
            )
        again = load_training(task, seed, data_dir, options)
        assert isinstance(again, CustomModel)
        notes = [*problem.assess(again), *([left] if left else [])]
    return {
        "name": problem.name,
        "rows": problem.rows,
        "steps": problem.steps,
        "products": [[one.layer, one.which, str(one.workload), one.workload.dtype] for one in problem.products()],
        "non_matmul_s": _time_non_matmul(problem),
        "notes": notes,
    }


def _left_to_torch(problem: CustomModel) -> str | None:
    """Say which products of a step no kernel can do, and why."""
    trainer = problem.begin_plain()
    start = time.perf_counter()
    with Tracer(trainer.model) as tracer:
        trainer.step(0)
    step_s = time.perf_counter() - start
    shares: dict[str, float] = {}
    for product, _, _, seconds in tracer.calls:
        reason, *_ = product.reason.partition(";")
        if product.dtype in ("bfloat16", "float16"):
            reason += ", autocast?"
        if reason:
            shares[reason] = shares.get(reason, 0.0) + seconds / step_s
    said = [f"{reason} ({share:.0%} of a step)" for reason, share in shares.items() if reason != FAST_PATH]
    unseen = [f"not told from the rest of a step: {FAST_PATH} ({shares[FAST_PATH]:.0%})"] if FAST_PATH in shares else []
    return "; ".join([*([f"left to torch: {', '.join(said)}"] if said else []), *unseen]) or None


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
    trainer = problem.begin_plain() if plain else problem.begin(torch.matmul)
    read_parameters(trainer, descriptors[0])
    shares = problem.accuracies(trainer) if accuracies else (None, None)
    return [trainer.loss_at(step) if problem.comparable and problem.judged else None, *shares]
