"""Large sizes: long in one dimension, in two, in all."""

from __future__ import annotations

from matmulbench.verification.case import Case
from matmulbench.verification.memory import Appetite, free_bytes
from matmulbench.verification.subject import Subject

_SHAPES = (
    "3x20000x2:NN", "20000x3x2:TN", "2x3x20000:NT", "255x256x257:NN", "64x784x50:NT", "16x50000x10:TN",
    "50000x16x10:NN", "10x16x50000:NT", "513x512x514:NN", "1025x1024x1023:NT",
)  # fmt: skip
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
            needed, free = appetite.bytes(m, k, n) if appetite else 0, free_bytes()
            if needed > free:
                subject.notes.add(
                    f"not tried: {m}x{k}x{n}, predicted to need {needed:,} bytes of temporary memory, of {free:,} free"
                )
            else:
                subject.judge(case)
