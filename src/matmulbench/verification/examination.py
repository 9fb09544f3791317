"""One kernel's examination, in the child process: property after property, the cheap cases first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from matmulbench.ladder.plugins import arity_advice, load_kernel
from matmulbench.verification import guards, honesty, ieee, large, rounding, shapes
from matmulbench.verification.case import Case
from matmulbench.verification.effort import EFFORTS, Effort
from matmulbench.verification.state import difference, process_state
from matmulbench.verification.subject import ARRAYS, Subject, WrongError


@dataclass
class Report:
    """What the examination found: ``finding`` in words where ``verdict`` is not pass, or where there is a note."""

    verdict: str
    residual: float
    cases: int
    finding: str | None = None
    case: Case | None = None


Property = Callable[[Subject, Effort, float], None]


def _exactness(subject: Subject, effort: Effort, seconds: float) -> None:
    shapes.judge_all(subject, shapes.grid(subject.dtype, effort.every_combination), seconds, at_least=400)


def _rounding(subject: Subject, effort: Effort, seconds: float) -> None:
    shapes.judge_all(subject, rounding.cases(subject.dtype), seconds, rounding.AT_LEAST)


def _search(subject: Subject, effort: Effort, seconds: float) -> None:
    shapes.search(subject, effort.examples, seconds)


# Each property with its share of the time.
PROPERTIES: dict[str, tuple[float, Property]] = {
    "exactness": (0.2, _exactness),
    "earlier calls": (0.05, lambda subject, _, seconds: honesty.check_earlier_calls(subject, seconds)),
    "addresses": (0.01, lambda subject, _, seconds: honesty.check_addresses(subject, seconds)),
    "rounding": (0.12, _rounding),
    "IEEE": (0.1, lambda subject, _, seconds: ieee.check(subject, seconds)),
    "watched": (0.12, lambda subject, _, seconds: honesty.check_watched(subject, seconds)),
    "race": (0.08, lambda subject, _, seconds: honesty.check_repetition(subject, seconds)),
    "search": (0.12, _search),
    "memory safety": (0.1, lambda subject, _, seconds: guards.check(subject, seconds)),
    "large sizes": (0.2, lambda subject, _, seconds: large.check(subject, seconds)),
    "full precision": (0.2, lambda subject, _, seconds: large.check_precision(subject, seconds)),
    "shape mismatch": (0.0, lambda subject, *_: shapes.check_mismatches(subject)),
}


def examine(spec: str, dtype: str, effort: str = "default", only: str | None = None) -> Report:
    """Examine the kernel ``spec`` for ``dtype``, on all properties or on one. What the kernel raises is raised here."""
    before = process_state()
    subject = Subject(spec, load_kernel(spec), dtype)
    cost = EFFORTS[effort]
    try:
        _check_state(subject, before, "when it is imported")
        for name, (share, check) in PROPERTIES.items():
            if only in (None, name):
                subject.prop = name
                check(subject, cost, share * cost.seconds)
                subject.settle("after the last call")
                _check_state(subject, before, "after its calls")
    except WrongError as error:
        _advise(subject, error)
        return Report("fail", subject.residual, subject.cases, str(error), error.case)
    except Exception as error:
        _advise(subject, error)
        raise
    finding = "; ".join(filter(None, [subject.normwise, *sorted(subject.notes)])) or None
    verdict = "normwise" if subject.normwise else "pass"
    return Report(verdict, subject.residual, subject.cases, finding, subject.normwise_case)


def _check_state(subject: Subject, before: dict[str, object], when: str) -> None:
    if changed := difference(before, process_state()):
        raise subject.wrong(when, changed, prop="state")


def _advise(subject: Subject, error: Exception) -> None:
    """Add to ``error`` what to do about it, where that is plain to see."""
    if ARRAYS not in str(error) and not _is_right(subject, torch.from_numpy) and _is_right(subject, np.asarray):
        error.add_note(f"it takes numpy arrays: say so with {ARRAYS}")
    elif isinstance(error, TypeError) and (advice := arity_advice(subject.kernel, error)):
        error.add_note(advice)


def _is_right(subject: Subject, convert: Callable[[Any], Any]) -> bool:
    """Say whether the kernel is right on a small product of operands that ``convert`` made of arrays."""
    a, b = np.ones((2, 3), subject.dtype), np.ones((3, 4), subject.dtype)
    try:
        return np.array_equal(subject.kernel(convert(a), convert(b)), a @ b)
    except Exception:
        return False


def judge_randomised(spec: str, dtype: str, count: int, seconds: float) -> Report:
    """Judge ``count`` random cases of any shape up to 140, layout and values; a slow kernel gets smaller ones.

    All ``count`` are judged: ``seconds`` is what they may take if they are predicted well.
    """
    subject = Subject(spec, load_kernel(spec), dtype)
    try:
        for case in shapes.randomised(subject, count, seconds):
            subject.judge(case)
    except WrongError as error:
        return Report("fail", subject.residual, subject.cases, str(error), error.case)
    verdict = "normwise" if subject.normwise else "pass"
    return Report(verdict, subject.residual, subject.cases, subject.normwise, subject.normwise_case)


def probe(prop: str, spec: str, dtype: str) -> str | None:
    """Examine one property of the kernel ``spec``, here in this process: what is found, in words, or None."""
    return examine(spec, dtype, only=prop if prop in PROPERTIES else None).finding


def confirm(spec: str, case: Case, times: int = 20) -> str | None:
    """Judge ``case`` alone, in a process without a past: None if it fails in one way, else what that says of it."""
    subject = Subject(spec, load_kernel(spec), case.dtype)

    def failure() -> str | None:
        try:
            return "normwise" if subject.judge(case).verdict != "pass" else None
        except WrongError as error:
            return error.detail

    answers = [failure() for _ in range(times if case.volume < 1 << 20 else 3)]
    wrong = [answer for answer in answers if answer]
    if len(wrong) == len(answers) and len(set(wrong)) == 1:
        return None
    if wrong:
        return (
            f"race: an error that moves, by a race, by chance or by memory that was never set: {case} is wrong "
            f"{len(wrong)} times of {len(answers)}, in {len(set(wrong))} ways"
        )
    return (
        f"earlier calls: {case} is right {len(answers)} times of {len(answers)} in a process that has done nothing else"
    )
