"""One kernel's examination, in the child process: property after property, the cheap cases first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification import rounding, shapes
from matmulbench.verification.case import Case
from matmulbench.verification.effort import EFFORTS, Effort
from matmulbench.verification.subject import Subject, WrongError


@dataclass
class Report:
    """What the examination found: ``finding`` in words where ``verdict`` is not pass."""

    verdict: str
    residual: float
    cases: int
    finding: str | None = None
    case: Case | None = None


def _shapes(subject: Subject, effort: Effort) -> None:
    shapes.judge_all(subject, shapes.grid(subject.dtype), 0.25 * effort.seconds)


def _search(subject: Subject, effort: Effort) -> None:
    shapes.search(subject, effort.examples, 0.15 * effort.seconds)


def _rounding(subject: Subject, effort: Effort) -> None:
    shapes.judge_all(subject, rounding.cases(subject.dtype), 0.2 * effort.seconds)


PROPERTIES: dict[str, Callable[[Subject, Effort], None]] = {
    "exactness": _shapes,
    "rounding": _rounding,
    "search": _search,
}


def examine(spec: str, dtype: str, effort: str = "default") -> Report:
    """Examine the kernel ``spec`` for ``dtype``. What the kernel raises is raised here."""
    subject = Subject(spec, load_kernel(spec), dtype)
    for name, examine_property in PROPERTIES.items():
        subject.prop = name
        try:
            examine_property(subject, EFFORTS[effort])
        except WrongError as error:
            return Report("fail", subject.residual, subject.cases, str(error), error.case)
    verdict = "normwise" if subject.normwise else "pass"
    return Report(verdict, subject.residual, subject.cases, subject.normwise)
