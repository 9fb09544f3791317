"""Large sizes, cheaply: Freivalds' check in exact arithmetic, and rows compared in full.

With integer operands every number in C·x = A·(B·x) is an integer below 2⁵³, so that float64 makes no error. For a wrong
row at most one value of each x_j, of 2^q, hides the error: it escapes two columns with probability at most 2^(-2q).
q is at least 10 here: less than one in a million.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from matmulbench.verification.case import Case
from matmulbench.verification.memory import Appetite, free_bytes
from matmulbench.verification.result import check_result
from matmulbench.verification.subject import Subject

_SHAPES = (
    "3x20000x2:NN", "20000x3x2:TN", "2x3x20000:NT", "256x257x255:NN", "511x64x513:TN",
    "16x50000x10:TN", "50000x16x10:NN", "10x16x50000:NT", "513x512x514:NN", "1025x1024x1023:NT",
)  # fmt: skip


def check(subject: Subject, seconds: float) -> None:
    """Multiply large operands, as far as memory and ``seconds`` allow.

    Raises
    ------
    WrongError
        if a result is wrong.
    """
    end = subject.clock() + seconds
    appetite = Appetite.measure(subject)
    for text in _SHAPES:
        sizes, layout = text.split(":")
        m, k, n = map(int, sizes.split("x"))
        for values in ("integers" if subject.dtype == "float32" else "small-integers", "normal"):
            case = Case(m, k, n, layout, subject.dtype, values, seed=6)
            if subject.clock() + 1.5 * subject.predict(case.volume) > end:
                continue
            needed = appetite.bytes(m, k, n) if appetite else 0
            if needed > free_bytes():
                subject.notes.add(
                    f"not tried: {m}x{k}x{n}, predicted to need {needed:,} bytes of temporary memory, of {free_bytes():,} free"
                )
                continue
            _judge(subject, case)


def _judge(subject: Subject, case: Case) -> None:
    subject.say(str(case))
    a, b = case.operands()
    before = subject.clock()
    result = subject.call(a, b, str(case), case)
    subject.learn(case, subject.clock() - before)
    subject.cases += 1
    if loose := check_result(a, b, torch.from_numpy(result)):
        raise subject.wrong(str(case), loose, case)
    if case.exact and (row := _wrong_row(a.numpy(), b.numpy(), result)) is not None:
        if case.values == "small-integers":
            raise subject.wrong(str(case), f"row {row} fails Freivalds' check in exact integers", case)
        subject.normwise = subject.normwise or f"only the norm bound holds: {case}: row {row} is not exact"


def _wrong_row(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> int | None:  # type: ignore[type-arg]
    n = b.shape[1]
    largest = max(1.0, float(np.abs(a).max()) * float(np.abs(b).max()) * a.shape[1])
    bits = int(math.log2(2.0**53 / (largest * n)))
    x = np.random.default_rng(7).integers(0, 2 ** min(bits, 30), (n, 2)).astype(np.float64)
    wrong = ~(c.astype(np.float64) @ x == a.astype(np.float64) @ (b.astype(np.float64) @ x)).all(axis=1)
    return int(np.nonzero(wrong)[0][0]) if wrong.any() else None
