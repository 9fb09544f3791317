"""IEEE 754 arithmetic: NaN, infinities, overflow and subnormal numbers, as a sum of products treats them.

Not required, because right libraries differ: the sign of a zero (a sum that starts from +0 loses that of -0), and
the order in which finite sums could overflow. A Strassen-type kernel spreads NaN and Inf to more elements than it must;
that is allowed once the rounding has shown it to be one, but it may lose none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from matmulbench.verification.case import Array, Case, arrange
from matmulbench.verification.subject import Subject

_SHAPES = ((1, 1, 1), (2, 3, 2), (3, 4, 5), (9, 10, 11), (17, 18, 19), (33, 34, 35))
_LARGE = 1e30
Special = Callable[[Array, Array, int, int, int], None]


def _nan_left(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, p] = np.nan


def _nan_right(a: Array, b: Array, i: int, p: int, j: int) -> None:
    b[p, j] = np.nan


def _nan_times_zero(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, p] = np.nan
    b[p, :] = 0


def _zero_times_nan(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[:, p] = 0
    b[p, j] = np.nan


def _inf_left(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, p] = np.inf


def _inf_right(a: Array, b: Array, i: int, p: int, j: int) -> None:
    b[p, j] = -np.inf


def _inf_times_zero(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, p] = np.inf
    b[p, :] = 0


def _zero_times_inf(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[:, p] = 0
    b[p, j] = np.inf


def _inf_minus_inf(a: Array, b: Array, i: int, p: int, j: int) -> None:
    other = (p + 1) % a.shape[1]
    a[i, [p, other]] = np.inf
    b[p, j], b[other, j] = 1, -1


def _overflow(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, p] = np.finfo(a.dtype).max
    b[p, :] = np.where(b[p, :] < 0, -4, 4)


def _large(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[:] = 0
    a[i, p] = np.finfo(a.dtype).max / 8
    b[p, j] = -4


def _subnormal(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[:] *= np.finfo(a.dtype).smallest_subnormal


def _subnormal_product(a: Array, b: Array, i: int, p: int, j: int) -> None:
    half = 2.0 ** (np.log2(np.finfo(a.dtype).smallest_normal) // 2 - 3)
    a[:] *= half
    b[:] *= half


def _negative_zero(a: Array, b: Array, i: int, p: int, j: int) -> None:
    a[i, :] = -0.0


SPECIALS: dict[str, Special] = {
    "NaN in a": _nan_left,
    "NaN in b": _nan_right,
    "NaN · 0": _nan_times_zero,
    "0 · NaN": _zero_times_nan,
    "Inf in a": _inf_left,
    "-Inf in b": _inf_right,
    "Inf · 0 is NaN": _inf_times_zero,
    "0 · Inf is NaN": _zero_times_inf,
    "Inf - Inf is NaN": _inf_minus_inf,
    "overflow to Inf": _overflow,
    "large numbers that do not overflow": _large,
    "subnormal numbers": _subnormal,
    "products that underflow to subnormal numbers": _subnormal_product,
    "negative zero": _negative_zero,
}


def _probes(dtype: str) -> Iterator[tuple[str, Array, Array]]:
    rng = np.random.default_rng(5)
    for m, k, n in _SHAPES:
        for position in ((m - 1, k - 1, n - 1), (0, 0, 0), (m // 2, k // 2, n // 2)):
            for name, special in SPECIALS.items():
                # Small nonzero integers: all else in the sum is exact.
                a = (rng.integers(1, 4, (m, k)) * rng.choice([-1, 1], (m, k))).astype(dtype)
                b = (rng.integers(1, 4, (k, n)) * rng.choice([-1, 1], (k, n))).astype(dtype)
                special(a, b, *position)
                yield f"{name}, {m}x{k}x{n} {dtype}, at i, p, j = {position}", a, b


def check(subject: Subject, seconds: float) -> None:
    """Multiply operands that hold special values.

    Raises
    ------
    WrongError
        if one does not come out as a sum of products has it.
    """
    end = subject.clock() + seconds
    seen: tuple[int, ...] = ()
    for number, (where, a, b) in enumerate(_probes(subject.dtype)):
        (m, k), n = a.shape, b.shape[1]
        now = subject.clock()
        if number >= 2 * 3 * len(SPECIALS) and (now > end or now + 2 * subject.predict(m, k, n) > end):
            return
        if (m, k, n) != seen:
            seen = (m, k, n)
            subject.judge(Case(m, k, n, "NN", subject.dtype, "scaled", seed=5))  # normwise at this size?
        subject.say(where)
        for layout in ("NN", "TT")[: 2 if m * k * n > 1000 else 1]:
            with np.errstate(all="ignore"):  # numpy's kernels warn of what is asked of them here
                result = subject.call(arrange(a, layout[0]), arrange(b, layout[1]), where)
                expected = (a[:, :, None] * b[None]).sum(axis=1)
            subject.cases += 1
            right = (result == expected) | (np.isnan(result) & np.isnan(expected))
            if subject.normwise and not (np.abs(a).max() < _LARGE and np.abs(b).max() < _LARGE):
                # What is not finite, or large, may spread to other elements, but not get lost.
                right |= np.isfinite(expected) | ~np.isfinite(result)
            if not right.all():
                i, j = (int(index[0]) for index in np.nonzero(~right))
                raise subject.wrong(where, f"c[{i}, {j}] is {result[i, j]:.9g}, expected {expected[i, j]:.9g}")
