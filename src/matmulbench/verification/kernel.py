"""The kernel under test: each call of it is observed, each result of it judged."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from matmulbench import isolation
from matmulbench.dtypes import DTYPES, as_array, declared_accumulation
from matmulbench.isolation.system import quoted
from matmulbench.ladder import Kernel
from matmulbench.results.schema import VerificationRow
from matmulbench.status import Status
from matmulbench.verification import EFFORTS, Effort
from matmulbench.verification.bounds import Judgement
from matmulbench.verification.case import ALGEBRAIC, EXACT, SURROUNDED, Array, Case
from matmulbench.verification.form import fingerprint, poisoned, result_dtype, result_shape, share_memory, wrong_form
from matmulbench.verification.pace import Pace
from matmulbench.verification.result import LARGE, judge_product

_KEPT = 4  # results kept alive, to see whether a later call changes them
_SIZES = ("large sizes", "full precision")  # properties that a finding names, not what is wrong with the values
_CONTIGUOUS = (
    "it is right where both operands are contiguous; training makes transposed views, which a.contiguous() would copy"
)
_EXPANDED = (
    "it is right where no elements of an operand share memory; one that writes to its operands, if only for a while, "
    "is wrong where they do (stride 0): work on a copy, as a.clone() makes"
)
_UNSET = "; memory that was never set looks like this: begin with zeros"
_READ_BESIDE = "; what lies beside the operands' elements looks like this: go by data_ptr() and stride()"
_BESIDE = "it is right where 0, not NaN, lies beside the operands' elements: it multiplies by 0 what it reads there"


class WrongError(Exception):
    """A kernel is wrong: the property that it fails, in which case, how, and how to see it again."""

    def __init__(self, prop: str, where: str, detail: str, repeat: str, case: Case | None = None) -> None:
        super().__init__(prop, where, detail)
        self.prop, self.where, self.detail, self.repeat, self.case = prop, where, detail, repeat, case

    def __str__(self) -> str:
        text = "; ".join([f"{self.prop}: {self.where}: {self.detail}", *getattr(self, "__notes__", ())])
        return f"{text}. Repeat: {self.repeat}" if self.repeat else text


@dataclass
class KernelUnderTest:
    """A kernel with its name and dtype, and what has been seen of it so far.

    ``prop`` is the property that is being examined, ``last`` the case tried last. ``normwise`` holds the case and the
    words, once only the norm bound held.
    """

    spec: str
    kernel: Kernel
    dtype: str
    effort: Effort = EFFORTS["default"]
    prop: str = "exactness"
    cases: int = 0
    residual: float = 0.0
    normwise: tuple[Case, str] | None = None
    notes: set[str] = field(default_factory=set)
    last: Case | None = None
    pace: Pace = field(default_factory=Pace)
    _kept: deque[tuple[torch.Tensor, Array]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def __post_init__(self) -> None:
        self.accumulation = declared_accumulation(self.kernel, self.dtype)

    def report(self, error: WrongError | None = None) -> dict[str, Any]:
        """Return what was found, up to ``error`` if there was one, as what JSON has.

        ``row`` holds the fields of a :class:`~matmulbench.results.schema.VerificationRow`, ``case`` those of the case
        that shows a verdict other than pass, and ``accumulation`` the dtype in which the kernel says that it adds.
        """
        case, words = (error.case, str(error)) if error else self.normwise or (None, None)
        verdict = "fail" if error else "normwise" if case else "pass"
        notes = [] if error else sorted(self.notes)
        finding = "; ".join([*([words] if words else []), *notes]) or None
        status = Status.FAILED_VERIFICATION if error else Status.OK
        row = VerificationRow(self.spec, self.dtype, status, verdict, self.residual, self.cases, finding)
        return {"row": asdict(row), "case": case and asdict(case), "accumulation": self.accumulation}

    def wrong(self, where: str, detail: str, case: Case | None = None, prop: str | None = None) -> WrongError:
        """Return the error that says how this kernel is wrong."""
        return WrongError(prop or self.prop, where, detail, self._repeat(case), case)

    def announce(self, where: str, case: Case | None = None) -> None:
        """Send the parent what comes next, in case it is the last, and the command that repeats it."""
        isolation.send((f"{self.prop}: {where}", self._repeat(case), case and asdict(case)))

    def _repeat(self, case: Case | None) -> str:
        what = f"--case {case.text}" if case else f"--dtype {self.dtype}"
        return f"`matmulbench verify {quoted(self.spec)} {what}`"

    def check(self, case: Case) -> Judgement:
        """Multiply ``case`` and judge the result.

        Raises
        ------
        WrongError
            if the kernel mistreats its operands, or the result is wrong in form or value.
        """
        if not case.volume and not getattr(self.kernel, "empty", True):
            self.notes.add("empty operands were not tried: its attribute `empty` is False")
            return Judgement("pass", 0.0)
        try:
            return self._check(case)
        except Exception as error:
            simpler: list[tuple[Case, float | None, str]] = []
            if getattr(error, "prop", "") != "operands":  # which says itself what to do
                if set(case.layout) & SURROUNDED:
                    simpler.append((case, 0.0, _BESIDE))
                for layout, advice in ((re.sub("[XY]", "T", case.layout), _EXPANDED), ("NN", _CONTIGUOUS)):
                    simpler.append((replace(case, layout=layout), None, advice))
            if not case.volume:
                # Not integers: next to them a small error is rounded away.
                empty = replace(case, m=case.m or 2, k=case.k or 3, n=case.n or 4, values="normal")
                simpler.append((empty, None, self._advice_on_empty(case)))
            if attempt(lambda: self._check(case)):  # it does not come and go
                for other, beside, advice in simpler:
                    same = (other, beside) == (case, None)
                    if not same and not attempt(lambda: self._check(other, beside)):  # noqa: B023  # called at once
                        error.add_note(advice)
                        break
            self.last = case
            self.announce(str(case), case)
            raise

    def _advice_on_empty(self, case: Case) -> str:
        name = getattr(self.kernel, "__name__", "matmul")
        zeros = " of zeros" if case.m * case.n else ""
        return (
            f"it is right where no size is 0; {case.m}x{case.k}x{case.n} should give a ({case.m}, {case.n}) "
            f"tensor{zeros}; a kernel that does without empty operands says so with `{name}.empty = False`"
        )

    def _check(self, case: Case, beside: float | None = None) -> Judgement:
        self.last = case
        a, b = case.operands(beside)
        before = self.pace.clock()
        result = self.call(a, b, str(case), case)
        self.pace.learn(case, self.pace.clock() - before)
        if case.volume > LARGE:
            self.announce(str(case), case)  # to judge it may take as long again
        judgement = self.judge(as_array(a), as_array(b), result, str(case), case.values, case)
        if judgement.verdict == "normwise":
            algebraic = "lone" if case.values == "all-bits" else "small-integers"
            for seed in (0, 1):  # is it wrong at this shape, or does it only round sums of operands?
                self._check(replace(case, values=algebraic, seed=seed))
        if judgement.verdict == "normwise" and not self.normwise:
            words = f"only the norm bound holds, as for Strassen-type algorithms: {case}: {judgement.detail}"
            self.normwise = case, words
        return judgement

    def check_exact(self, a: torch.Tensor, b: torch.Tensor, where: str) -> None:
        """Multiply ``a`` and ``b``, small integers, named in the finding as ``where``: the product must be exact.

        Raises
        ------
        WrongError
            if it is not, or an operand was mistreated.
        """
        self.judge(as_array(a), as_array(b), self.call(a, b, where), where, "small-integers")

    def judge(self, a: Array, b: Array, c: Array, where: str, values: str, case: Case | None = None) -> Judgement:
        """Judge ``c`` as the product of arrays that hold ``values``, by what the kernel says of its sums.

        Raises
        ------
        WrongError
            if it is wrong; the finding says ``where``, and how to repeat ``case`` if it is one.
        """
        exact = values in EXACT or DTYPES[self.dtype].is_integer
        judgement = judge_product(a, b, c, exact, self.accumulation)
        self.residual = max(self.residual, judgement.residual)
        if judgement.verdict == "fail" or (judgement.verdict == "normwise" and values in ALGEBRAIC):
            prop = "exactness" if exact else "rounding"  # where the property is no other than to be right
            beside = case and set(case.layout) & SURROUNDED
            hint = (_READ_BESIDE if beside else _UNSET) if " is nan, " in judgement.detail else ""
            raise self.wrong(where, judgement.detail + hint, case, prop if case and self.prop not in _SIZES else None)
        return judgement

    def call(self, a: torch.Tensor, b: torch.Tensor, where: str, case: Case | None = None) -> Array:
        """Announce the call, and return the kernel's product of ``a`` and ``b`` as it stands when the kernel returns.

        Raises
        ------
        WrongError
            if an operand, or an earlier result, has changed, or the result is no fresh, plain tensor of the right
            shape and dtype.
        """
        self.announce(where, case)
        before = fingerprint(a), fingerprint(b)
        with poisoned(result_shape(a, b), result_dtype(a)):
            c: Any = self.kernel(a, b)
        self.cases += 1
        form = wrong_form(a, b, c, getattr(self.kernel, "returns", "torch.Tensor"))
        result: Array = np.empty(0) if form else as_array(c.detach().clone())
        for name, operand, was in zip("ab", (a, b), before, strict=True):
            if fingerprint(operand) != was:
                detail = f"operand {name} is not what it was before the call: work on a copy, as {name}.clone() makes"
                raise self.wrong(where, detail, case, "operands")
        if form:
            raise self.wrong(where, form, case, "result")
        if c.numel() and any(share_memory(c, earlier) for earlier, _ in self._kept):
            raise self.wrong(where, "the result shares memory with an earlier result: make a fresh one", None, "result")
        self.check_kept_results(where)
        self._kept.append((c, result))
        return result

    def check_kept_results(self, where: str) -> None:
        """Check that no earlier result has changed since it was returned."""
        for earlier, as_returned in self._kept:
            if as_array(earlier).tobytes() != as_returned.tobytes():
                raise self.wrong(where, "a result returned earlier has changed since", None, "result")


def attempt(check: Callable[[], object]) -> Exception | None:
    """Return the exception with which a kernel fails, if it does."""
    try:
        check()
    except Exception as error:
        return error
    return None
