"""The child that no kernel enters: the float64 reference, its envelope, and what committed parameters are worth."""

from __future__ import annotations

import time
from typing import Any

import torch

from matmulbench.training.envelope import rounding_envelope
from matmulbench.training.learners import Subject
from matmulbench.training.own_model import load_training
from matmulbench.training.worker import TimedKernel, read_parameters

_subjects: list[Subject] = []


def describe(task: str, seed: int, data_dir: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Load the training; return its ``name``, ``rows`` of a batch, ``steps``, ``products`` and ``non_matmul_s``."""
    subject = load_training(task, seed, data_dir, options)
    _subjects[:] = [subject]
    return {
        "name": subject.name,
        "rows": subject.rows,
        "steps": subject.steps,
        "products": [[layer, which, str(product), product.dtype] for layer, which, product in subject.products()],
        "non_matmul_s": _time_non_matmul(subject),
    }


def _time_non_matmul(subject: Subject) -> float:
    """Return the seconds of a step that no kernel changes."""
    stopwatch = TimedKernel(torch.matmul)
    learner = subject.begin(stopwatch)
    found = []
    for step in range(3):
        stopwatch.seconds.clear()
        start = time.perf_counter()
        learner.step(step)
        found.append(time.perf_counter() - start - sum(stopwatch.seconds))
    return min(found)


def envelope(steps: int, seconds: float, rows: int | None) -> list[list[float]]:
    """Return the reference's loss at each step and how far a kernel's may be from it; of ``rows`` rows, if not all."""
    subject = _subjects[0] if rows is None else _subjects[0].few(rows)
    found = rounding_envelope(subject, steps, seconds)
    return [found.reference.tolist(), found.width.tolist()]


def judge_parameters(step: int, plain: bool, accuracies: bool, descriptors: list[int]) -> list[float | None]:
    """Return the loss that the committed parameters have on the batch of ``step``, and perhaps both accuracies."""
    subject = _subjects[0]
    learner = subject.begin_plain() if plain else subject.begin(torch.matmul)
    read_parameters(learner, descriptors[0])
    shares = subject.accuracies(learner) if accuracies else (None, None)
    return [learner.loss_at(step), *shares]
