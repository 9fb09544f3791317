"""Cases judged one after the other, as far as time and memory allow; of those that fail, the smallest is reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

import torch

from matmulbench.isolation.serve import describe
from matmulbench.status import Status
from matmulbench.verification.case import LAYOUT_LETTERS, VALUES, Case
from matmulbench.verification.kernel import KernelUnderTest, WrongError, attempt
from matmulbench.workload import Workload

# Shapes of a and b that have no product: less than a tile apart, by a tile, and with an operand turned over.
MISMATCHES = (
    ((3, 4), (5, 6)), ((3, 5), (4, 6)), ((3, 4), (6, 4)), ((4, 3), (4, 6)), ((7, 8), (9, 10)),
    ((8, 128), (256, 8)), ((8, 256), (128, 8)), ((64, 784), (783, 50)),
)  # fmt: skip
_QUICK_S = 0.25  # by a prediction that is too long on a busy machine, where threads wait for each other
_OVERTIME_S = 10.0  # that a property takes at most beyond its share, if the kernel is slow and its cases mandatory
_PROMPT_S = 0.4  # as predicted, in which a large exact product is tried even after the time is up
_PER_BYTE_S = 2e-9  # what a large case takes besides the product: to draw it, to observe it, to judge it
_SHRINK_S = 1.0


def check_all(kernel: KernelUnderTest, cases: Iterable[Case], seconds: float, at_least: int = 0) -> None:
    """Check ``cases`` in order for about ``seconds``, leaving out those that would take too long.

    The first ``at_least`` are checked even on a machine that is busy, if the kernel is quick enough.

    Raises
    ------
    WrongError
        for the smallest failing case that a short search finds below the first; or what the kernel itself raises there.
    """
    end = kernel.pace.clock() + seconds
    for number, case in enumerate(cases):
        now, expected = kernel.pace.clock(), kernel.pace.predict(case.m, case.k, case.n)
        mandatory = number < at_least and expected < _QUICK_S and now < end + _OVERTIME_S
        if now > end and not mandatory:
            return
        if now + expected > end and not mandatory:
            continue
        try:
            kernel.check(case)
        except Exception as error:
            raise smallest(kernel, case, error) from None


def check_mismatches(kernel: KernelUnderTest) -> None:
    """Multiply operands whose inner sizes differ: any exception is right, a result is named in a note."""
    for a, b in MISMATCHES:
        where = f"a {a}, b {b} {kernel.dtype}"
        kernel.announce(where)
        left, right = (torch.ones(shape, dtype=getattr(torch, kernel.dtype)) for shape in (a, b))
        if not attempt(lambda: kernel.kernel(left, right)):  # noqa: B023  # it is called at once
            kernel.notes.add(
                f"shape mismatch: {where}: returns a result, though the inner sizes {a[1]} and {b[0]} differ: "
                "begin with `assert a.shape[1] == b.shape[0]`"
            )
            return


def randomised(kernel: KernelUnderTest, count: int, seconds: float, largest: int = 140) -> Iterator[Case]:
    """Yield ``count`` random cases, those of a slow kernel no larger than ``seconds`` allow."""
    random = Random(1)
    volume, per_case = 64, seconds / count
    for number in range(count):
        side = round((2 * volume) ** (1 / 3))
        if number % 5 == 4 and kernel.pace.predict(side, side, side) < per_case:
            volume = min(2 * volume, largest**3)
        while True:
            m, k, n = (int((largest + 1) ** random.random()) - (random.random() < 0.05) for _ in range(3))
            if m * k * n <= volume:
                break
        layout = "".join(random.choices(list(LAYOUT_LETTERS), k=2))
        yield Case(m, k, n, layout, kernel.dtype, random.choice(list(VALUES)), seed=number)


def smallest(kernel: KernelUnderTest, case: Case, error: Exception) -> Exception:
    """Return the exception of the smallest case found that fails as ``case`` does, with ``error``."""
    end = kernel.pace.clock() + _SHRINK_S
    if kernel.pace.predict(case.m, case.k, case.n) > _SHRINK_S / 4:
        return error

    def failure(case: Case) -> Exception | None:
        found = attempt(lambda: kernel.check(case))
        alike = type(found) is type(error) and getattr(found, "prop", None) == getattr(error, "prop", None)
        return found if alike else None

    simpler: Case | None = case
    while simpler and kernel.pace.clock() < end:
        case, simpler = simpler, next(filter(failure, _simpler(simpler)), None)
    return failure(case) or error  # once more, so that it is announced last


def _simpler(case: Case) -> Iterator[Case]:
    """Yield cases with one thing simpler than in ``case``: its layout, a size, or sizes that are equal."""
    if case.layout != "NN":
        yield replace(case, layout="NN")
    for names in ("mkn", "mk", "kn", "mn", "m", "k", "n"):
        size, *others = {getattr(case, name) for name in names}
        if not others:
            for smaller in dict.fromkeys((0, 1, 2, size // 2, size - size // 4, size - 1)):
                if min(1, case.volume) <= smaller < size:
                    yield replace(case, **dict.fromkeys(names, smaller))


def check_large(kernel: KernelUnderTest, cases: Iterable[Case], seconds: float) -> None:
    """Check large ``cases`` in order, as far as memory and ``seconds`` allow; what needs more memory is noted.

    Exact ones that are predicted to be quick are checked even after the time is up.

    Raises
    ------
    WrongError
        if a result is wrong.
    """
    end = kernel.pace.clock() + seconds
    for case in cases:
        workload = Workload(case.m, case.k, case.n, dtype=case.dtype)
        expected = kernel.pace.predict(case.m, case.k, case.n) + _PER_BYTE_S * workload.bytes
        mandatory = case.values in ("small-integers", "all-bits") and expected < _PROMPT_S
        if kernel.pace.clock() + expected > end and not mandatory:
            continue
        try:
            kernel.check(case)
        except Exception as error:
            if isinstance(error, WrongError) or describe(error)[0] != Status.OUT_OF_MEMORY:
                raise
            kernel.notes.add(f"not judged: {workload}, for which it needs more memory than it may take")
