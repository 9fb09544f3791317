"""Large sizes, long in one dimension, in two, in all; and every bit at the sizes that the suite times."""

from __future__ import annotations

import math

from matmulbench.verification.case import Case
from matmulbench.verification.memory import Appetite, free_bytes
from matmulbench.verification.subject import Subject
from matmulbench.workload import PRESETS, Workload

_SHAPES = (
    "3x20000x2:NN", "20000x3x2:TN", "2x3x20000:NT", "255x256x257:NN", "64x784x50:NT", "16x50000x10:TN",
    "50000x16x10:NN", "10x16x50000:NT", "513x512x514:NN", "1025x1024x1023:NT",
)  # fmt: skip
_LONG_SUMS = {(3, 20_000, 2, "NN"), (2, 100_000, 3, "NT")}
_PER_BYTE = 4e-9  # seconds that a large case takes besides the product: to draw it, to watch it, to judge it
_PROMPT = 1.0  # seconds, as predicted, in which a product of the suite is tried even after the time is up
_LONG = 10**7  # multiplications: shapes below are long in one dimension only, and tried however busy the machine
_QUICK = 0.25  # seconds, as predicted, that they may take


def check(subject: Subject, seconds: float) -> None:
    """Multiply large operands, as far as memory and ``seconds`` allow.

    Raises
    ------
    WrongError
        if a result is wrong.
    """
    appetite = Appetite.measure(subject)
    end = subject.clock() + seconds
    for values in ("small-integers", "normal", "sparse"):
        for text in _SHAPES:
            sizes, layout = text.split(":")
            m, k, n = map(int, sizes.split("x"))
            case = Case(m, k, n, layout, subject.dtype, values, seed=6)
            expected = subject.predict(case.m, case.k, case.n)
            owed = values == "small-integers" and case.volume < _LONG and expected < _QUICK
            if subject.clock() + 1.5 * expected > end and not owed:
                continue
            _judge(subject, case, appetite)


def check_precision(subject: Subject, seconds: float) -> None:
    """Multiply numbers that need every bit, at the shapes that the suite times and at long sums.

    The error bound of a long sum is wide: operands that are rounded to fewer bits stay within it.

    Raises
    ------
    WrongError
        if a bit is lost, unless the kernel is of Strassen's type: see :meth:`Subject.judge`.
    """
    appetite = Appetite.measure(subject)
    end = subject.clock() + seconds
    suite = {(w.m, w.k, w.n, w.layout) for w in PRESETS["full"]} | _LONG_SUMS
    for *shape, layout in sorted(suite, key=lambda shape: shape[0] * shape[1] * shape[2]):
        # Of a large one, parts along its longest side first: the best prediction is from a product of its kind.
        for part in (64, 8, 1) if math.prod(shape) > _LONG else (1,):
            m, k, n = (-(-size // part) if size == max(shape) else size for size in shape)
            expected = subject.predict(m, k, n)
            judging = _PER_BYTE * Workload(m, k, n, dtype=subject.dtype).bytes
            owed = expected < min(seconds, _PROMPT) and judging < 2 * seconds
            if subject.clock() + expected + judging > end and not owed:
                break
            _judge(subject, Case(m, k, n, layout, subject.dtype, "all-bits", seed=6), appetite)


def _judge(subject: Subject, case: Case, appetite: Appetite | None) -> None:
    """Judge ``case`` if there is memory for it; else leave a note."""
    m, k, n = case.m, case.k, case.n
    needed, free = appetite.bytes(m, k, n) if appetite else 0, free_bytes()
    if needed <= free:
        subject.judge(case)
    else:
        subject.notes.add(
            f"not tried: {m}x{k}x{n}, predicted to need {needed:,} bytes of temporary memory, of {free:,} free"
        )
