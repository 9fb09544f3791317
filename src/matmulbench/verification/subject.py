"""The kernel under examination: every call of it is watched, every result of it judged."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from matmulbench import isolation
from matmulbench.ladder import Kernel
from matmulbench.verification import bounds
from matmulbench.verification.case import ALGEBRAIC, Array, Case
from matmulbench.verification.result import judge_large

_KEPT = 4  # results kept alive, to see whether a later call changes them
_POISON = 3  # blocks of each size that are filled with NaN and freed before a call
_LARGE = 1 << 22  # multiplications above which a result is not compared in full
_BEYOND_CACHES = 1.2  # time grows a little faster than the volume, as operands and temporaries outgrow the caches
_SLOW_FIRST_CALL = 0.02  # a first call longer than this has compiled something
_EMPTY = (
    "an empty product has shape (m, n), and is 0 where k is 0; a kernel that does without says so, with "
    "`empty = False` as an attribute of the function"
)
_CONTIGUOUS = (
    "it is right where both operands are contiguous; training makes transposed views, which a.contiguous() would copy"
)
ARRAYS = '--operands numpy, or with `operands = "numpy"` as an attribute of the function'


class WrongError(Exception):
    """A kernel is wrong: the property that it fails, in which case, how, and how to see it again."""

    def __init__(self, prop: str, where: str, detail: str, repeat: str, case: Case | None = None) -> None:
        super().__init__(prop, where, detail)
        self.prop, self.where, self.detail, self.repeat, self.case = prop, where, detail, repeat, case

    def __str__(self) -> str:
        text = "; ".join([f"{self.prop}: {self.where}: {self.detail}", *getattr(self, "__notes__", ())])
        return f"{text}. Repeat: {self.repeat}" if self.repeat else text


@dataclass
class Subject:
    """A kernel with its name and dtype, and what has been seen of it so far."""

    spec: str
    kernel: Kernel
    dtype: str
    cases: int = 0
    residual: float = 0.0
    normwise: str | None = None
    normwise_case: Case | None = None
    notes: set[str] = field(default_factory=set)
    prop: str = "exactness"
    compiling: float = 0.0
    _shortest: float = math.inf
    _born: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))
    _seen_layouts: set[str] = field(default_factory=set)
    # The largest cases so far, volume and seconds: more than one, as any may have been held up.
    _largest: deque[tuple[Case, float]] = field(default_factory=lambda: deque([(Case(1, 1, 1), 1e-5)], maxlen=6))
    _kept: deque[tuple[torch.Tensor, Array]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def clock(self) -> float:
        """Return the seconds that this process has had, less what the kernel has spent on compiling itself.

        That is its processor time, at most the time of day (threads count once), so that a busy machine costs no
        coverage; and at least a third of the time of day, for kernels that wait.
        """
        wall, worked = time.perf_counter() - self._born[0], time.process_time() - self._born[1]
        return max(min(worked, wall), wall / 3) - self.compiling

    def predict(self, m: int, k: int, n: int) -> float:
        """Return the seconds that a product of this size should take, by the largest so far.

        Multiplications count, and elements of the result: a kernel may spend its time on either. What the shortest
        call took is taken for the cost of a call, of which a twentieth at most is work.
        """
        call = min(self._shortest, *(seconds for _, seconds in self._largest))

        def scaled(case: Case, seconds: float) -> float:
            larger = max(1.0, m * k * n / max(1, case.volume), m * n / max(1, case.m * case.n))
            return float(call + max(seconds - call, call / 20) * larger**_BEYOND_CACHES)

        return min(scaled(case, seconds) for case, seconds in self._largest)

    def repeat(self, case: Case | None = None) -> str:
        """Return a line of Python that shows a finding again."""
        if case is None:
            arguments = f"{self.prop!r}, {self.spec!r}, {self.dtype!r}"
            return f"`from matmulbench.verification import probe; print(probe({arguments}))`"
        arguments = f"{case.m}, {case.k}, {case.n}, {case.layout!r}, {case.dtype!r}, {case.values!r}, {case.seed}"
        return f"`from matmulbench.verification import Case; print(Case({arguments}).judge({self.spec!r}))`"

    def wrong(self, where: str, detail: str, case: Case | None = None, prop: str | None = None) -> WrongError:
        """Return the error that says how this kernel is wrong."""
        return WrongError(prop or self.prop, where, detail, self.repeat(case), case)

    def say(self, where: str) -> None:
        """Tell the parent what comes next, in case it is the last."""
        isolation.send((self.prop, where))

    def judge(self, case: Case) -> bounds.Judgement:
        """Multiply ``case`` and judge the result.

        Raises
        ------
        WrongError
            if the kernel mistreats its operands, or the result is wrong in form or value.
        """
        if not case.volume and not getattr(self.kernel, "empty", True):
            self.notes.add("empty operands were not tried: its attribute `empty` is False")
            return bounds.Judgement("pass", 0.0)
        try:
            return self._judge(case)
        except Exception as error:
            simpler, advice = replace(case, layout="NN"), _CONTIGUOUS
            if not case.volume:
                simpler, advice = replace(case, m=2, k=3, n=4), _EMPTY
            if simpler != case and not attempt(lambda: self._judge(simpler)):
                error.add_note(advice)
            raise

    def _judge(self, case: Case) -> bounds.Judgement:
        self.say(str(case))
        a, b = case.operands()
        before = self.clock()
        result = self.call(a, b, str(case), case)
        self.learn(case, self.clock() - before)
        if case.volume > _LARGE:
            self.say(str(case))
            judgement = judge_large(a, b, torch.from_numpy(result), case.exact)
        else:
            judgement = (bounds.judge_exact if case.exact else bounds.judge)(a.numpy(), b.numpy(), result)
        self.cases += 1
        self.residual = max(self.residual, judgement.residual)
        if judgement.verdict == "fail" or (judgement.verdict == "normwise" and case.values in ALGEBRAIC):
            named = self.prop in ("large sizes", "full precision")
            prop = self.prop if named else "exactness" if case.exact else "rounding"
            raise self.wrong(str(case), judgement.detail, case, prop)
        if judgement.verdict == "normwise" and case.values == "all-bits":
            for seed in (0, 1):  # operands rounded to fewer bits, or sums of operands rounded?
                self.judge(replace(case, values="lone", seed=seed))
        if judgement.verdict == "normwise" and not self.normwise:
            self.normwise_case = case
            self.normwise = f"only the norm bound holds, as for Strassen-type algorithms: {case}: {judgement.detail}"
        return judgement

    def learn(self, case: Case, seconds: float) -> None:
        """Take note of how long a case took, for :meth:`predict`."""
        if case.layout not in self._seen_layouts:
            self._seen_layouts.add(case.layout)
            if seconds > _SLOW_FIRST_CALL:
                self.compiling += seconds
                return
        self._shortest = min(self._shortest, seconds)
        if any(case.volume >= seen.volume or case.m * case.n >= seen.m * seen.n for seen, _ in self._largest):
            self._largest.append((case, seconds))

    def call(self, a: torch.Tensor, b: torch.Tensor, where: str, case: Case | None = None) -> Array:
        """Return the kernel's product of ``a`` and ``b`` as it stands when the kernel returns.

        Raises
        ------
        WrongError
            if an operand, or an earlier result, has changed, or the result is no fresh, plain tensor of the right
            shape and dtype.
        """
        before = [_fingerprint(operand) for operand in (a, b)]
        _poison(a.shape[0], b.shape[1], a.dtype)
        c = self.kernel(a, b)
        form = self._form(a, b, c)
        result = c.detach().clone().numpy() if not form else np.empty(0)
        for name, operand, kept in zip("ab", (a, b), before, strict=True):
            if _fingerprint(operand) != kept:
                raise self.wrong(where, f"operand {name} is not what it was before the call", case, "operands")
        if form:
            raise self.wrong(where, form, case, "result")
        self.settle(where)
        self._kept.append((c, result))
        return result

    def settle(self, where: str) -> None:
        """Check that no earlier result has changed since it was returned."""
        for earlier, as_returned in self._kept:
            if not _same_bits(earlier.detach().numpy(), as_returned):
                raise self.wrong(where, "a result returned earlier has changed since", None, "result")

    def _form(self, a: torch.Tensor, b: torch.Tensor, c: object) -> str | None:
        """Return what is wrong with the form of the result."""
        shape = (a.shape[0], b.shape[1])
        if type(c) is not torch.Tensor:
            got = "None" if c is None else f"a {type(c).__module__}.{type(c).__name__}".replace("builtins.", "")
            return f"the result is {got}, expected a torch.Tensor: {_remedy(c)}"
        if tuple(c.shape) != shape:
            form = "a row for each of a's, a column for each of b's"
            return f"the result has shape {tuple(c.shape)}, expected {shape}: {form}"
        if c.dtype != a.dtype:
            return f"the result is {c.dtype}, expected {a.dtype}: make it with dtype=a.dtype"
        if c.device != a.device or c.layout != torch.strided:
            return f"the result is {c.layout} on {c.device}, expected torch.strided on {a.device}"
        if c.requires_grad:
            return "the result requires a gradient, its operands do not"
        if c.numel() and any(stride == 0 and size > 1 for stride, size in zip(c.stride(), c.shape, strict=True)):
            return "elements of the result share memory (stride 0)"
        memory = c.untyped_storage()
        if not c.numel():
            return None
        for name, other in (
            ("operand a", a),
            ("operand b", b),
            *(("an earlier result", kept) for kept, _ in self._kept),
        ):
            if _overlap(memory, other.untyped_storage()):
                return f"the result shares memory with {name}"
        return None


def _remedy(c: object) -> str:
    """Say how a kernel that returned ``c`` comes to return a tensor."""
    if c is None:
        return "end the function with `return c`"
    if isinstance(c, np.ndarray):
        return f"return torch.from_numpy(c); or, if the kernel takes arrays too, say so with {ARRAYS}"
    return "return a fresh one of shape (m, n)"


def attempt(judge: Callable[[], object]) -> Exception | None:
    """Return the exception with which a kernel fails, if it does."""
    try:
        judge()
    except Exception as error:
        return error
    return None


def _overlap(x: torch.UntypedStorage, y: torch.UntypedStorage) -> bool:
    return x.data_ptr() < y.data_ptr() + y.nbytes() and y.data_ptr() < x.data_ptr() + x.nbytes()


def _same_bits(x: Array, y: Array) -> bool:
    return x.tobytes() == y.tobytes()


def _fingerprint(operand: torch.Tensor) -> tuple[object, ...]:
    """Return all that a kernel must leave alone: form, place, and every byte of the memory behind the view."""
    memory = torch.empty(0, dtype=torch.uint8).set_(operand.untyped_storage()).numpy().tobytes()
    content = memory if len(memory) < 1 << 20 else hash(memory)
    return (content, tuple(operand.shape), operand.stride(), operand.data_ptr(), operand.requires_grad)


def _poison(m: int, n: int, dtype: torch.dtype) -> None:
    """Leave NaN in the memory that the kernel will probably be given for its result."""
    with suppress(MemoryError, RuntimeError):
        blocks: list[object] = [torch.full((m, n), math.nan, dtype=dtype) for _ in range(_POISON)]
        blocks += [np.full((m, n), math.nan, dtype=str(dtype).removeprefix("torch.")) for _ in range(_POISON)]
        del blocks
