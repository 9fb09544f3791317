r"""The judge of one product of any size; and a cheaper one, for results that a timed loop or a training has made.

Small products are compared with a float64 reference in full. Large ones are judged in full at some rows and columns
(first, last, random) and by Freivalds' check (*Probabilistic machines can use less running time*, IFIP 1977):
C·X = A·(B·X) for a few random columns X of ±1. Flipping the sign that meets the largest error of a row moves that row's
sum by twice the error, so an error above the tolerance escapes one column with probability at most 1/2: one wrong row
escapes all 12 with probability at most 1/4096.

The tolerance of an element is min(8·k, 64·√k)·u·max‖a_i‖₂·max‖b_j‖₂. The first is the norm bound of
:mod:`~matmulbench.verification.bounds`, which a Strassen-type kernel meets too; beyond k = 64 it says so little that
the probabilistic bound takes over (Higham & Mary, SIAM J. Sci. Comput. 41, 2019, with λ = 64: still no tighter than
the theory for every order of summation, up to k = 4096). A sum of n elements with random signs may be off by √n times
as much.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from matmulbench.dtypes import DType
from matmulbench.verification.bounds import Array, Judgement, judge, judge_exact, norms, traits

Index = npt.NDArray[np.int64]

FULL = 1 << 24  # multiplications up to which check_result compares every element
LARGE = 1 << 22  # multiplications up to which judge_product does
COLUMNS = 12  # of Freivalds' check
SAMPLE = 8  # rows (and columns) compared in full in a large product: so many first, last and random ones


def check_result(a: Array, b: Array, c: Array, seed: int = 0, accumulation: str | None = None) -> str | None:
    """Return None if ``c`` (m, n) is the product of ``a`` (m, k) and ``b`` (k, n), else what is wrong, in words.

    Results that meet only the norm bound are right here: which kernels may do so, verification has decided.
    Where an operand holds NaN or Inf, the result must not be finite. ``seed`` chooses what is
    sampled, and ``accumulation`` is the dtype of the sums, where it is not the usual one.
    """
    (m, k), n = a.shape, b.shape[1]
    with np.errstate(all="ignore"):
        if m * k * n <= FULL:
            return _compare(a, b, c, np.arange(m), np.arange(n), accumulation)
        rng = np.random.default_rng(seed)
        columns = np.arange(n) if k * n <= FULL else _sample(n, rng)
        finding = _compare(a, b, c, _sample(m, rng), columns, accumulation)
        return finding or freivalds(a, b, c, rng, accumulation=accumulation)


def _sample(size: int, rng: np.random.Generator) -> Index:
    ends = np.arange(min(size, SAMPLE))
    return np.unique(np.concatenate([ends, size - 1 - ends, rng.integers(0, size, SAMPLE)]))


def tolerance(k: int, kind: DType, accumulation: str | None = None) -> float:
    """Return the error allowed in an element, in units of the product of the largest row and column norms."""
    return float(min(8 * k, 64 * np.sqrt(k)) * kind.unit_roundoff(accumulation))


def _largest_norm(rows: Array) -> float:
    lengths = norms(rows)
    return float(lengths[np.isfinite(lengths)].max(initial=0))


def _compare(
    left: Array, right: Array, result: Array, rows: Index, columns: Index, accumulation: str | None = None
) -> str | None:
    """Compare the elements at ``rows`` and ``columns`` with a float64 product."""
    a, b = left[rows].astype(np.float64), right[:, columns].astype(np.float64)
    c = result[np.ix_(rows, columns)].astype(np.float64)
    expected = a @ b
    kind = traits(left)
    allowed = tolerance(a.shape[1], kind, accumulation) * _largest_norm(a) * _largest_norm(b.T)
    allowed = allowed + kind.rounding * np.abs(expected) + kind.underflow * a.shape[1]
    right_here = np.abs(c - expected) <= allowed
    right_here |= ~np.isfinite(expected.astype(result.dtype)) & ~np.isfinite(c)  # overflows where the dtype does
    if right_here.all():
        return None
    i, j = (int(index[0]) for index in np.nonzero(~right_here))
    wrong = np.count_nonzero(~right_here)
    numbers = f"c[{rows[i]}, {columns[j]}] is {c[i, j]:.17g}, expected {expected[i, j]:.17g}"
    return f"{numbers} ({wrong} of {c.size} elements looked at are wrong)"


def freivalds(
    left: Array,
    right: Array,
    result: Array,
    rng: np.random.Generator,
    slack: float = 1.0,
    accumulation: str | None = None,
) -> str | None:
    """Compare ``result`` (m, n) times random signs with ``left`` (m, k) times (``right`` (k, n) times the same signs).

    Batches have a size in front of these. Returns what is wrong, in words. A row that is far off escapes with
    probability 2^-COLUMNS (Freivalds, *Probabilistic machines can use less running time*, 1977). ``slack`` multiplies
    the error that is allowed.
    """
    kind = traits(left)
    if kind.is_narrow:
        # Integers are exact in float64; of 16 bits, float32 is what a kernel adds in.
        wide = np.float64 if kind.is_integer else np.float32
        left, right, result = left.astype(wide), right.astype(wide), result.astype(wide)
    n = right.shape[-1]
    signs = rng.integers(0, 2, (n, COLUMNS)).astype(left.dtype) * 2 - 1
    folded = right @ signs
    difference = np.abs(result @ signs - left @ folded).max(axis=-1)
    rows, columns = norms(left), norms(right.swapaxes(-1, -2))
    finite = np.isfinite(rows)
    if not np.isfinite(folded).all() or not finite.any():
        return None  # what is not finite spreads to every row: the sampled rows must do
    allowed = (
        slack * tolerance(left.shape[-1], kind, accumulation) * np.sqrt(n) * rows[finite].max() * columns.max(initial=0)
    )
    if kind.rounding:
        allowed = allowed + 4 * slack * kind.rounding * np.sqrt(n) * np.nanmax(np.abs(result), initial=0)
    wrong = ~(difference <= allowed) & finite
    if not wrong.any():
        return None
    i = int(np.argmax(wrong))
    return (
        f"row {i}, summed with random signs, is off by {difference.flat[i]:.3g}, expected at most {float(allowed):.3g} "
        f"({np.count_nonzero(wrong)} of {wrong.size} rows are wrong)"
    )


def judge_product(a: Array, b: Array, c: Array, exact: bool, accumulation: str | None = None) -> Judgement:
    """Judge ``c`` (m, n) as the product of finite ``a`` (m, k) and ``b`` (k, n), with sums of dtype ``accumulation``.

    ``exact`` says that all sums are representable integers. Up to :data:`LARGE` multiplications every element is
    compared. Beyond, C·x = A·(B·x) must hold for exact products in integers modulo 2⁶⁴, for which no sum is too large.
    An element that is off by an odd multiple of 2^q escapes a random column x with probability 2^(q - 64), and q is at
    most 54 for numbers of 53 bits: of both columns, less than one in a million. Other large products are sampled.
    """
    if len(a) * b.size <= LARGE or (exact and traits(a).is_narrow):  # which may be rounded, or have no norm bound
        return (judge_exact if exact else judge)(a, b, c, accumulation)
    wrong = _inexact(a, b, c) if exact else None
    if exact and not wrong:
        return Judgement("pass", 0.0)
    usual = None if exact else accumulation
    finding = check_result(a, b, c, accumulation=usual)
    residual = _worst_residual(a, b, c, usual) if wrong or finding else 0.0
    return Judgement("fail" if finding else "normwise" if wrong else "pass", residual, wrong or finding or "")


def _worst_residual(a: Array, b: Array, c: Array, accumulation: str | None) -> float:
    """Return the residual of the element that is furthest from a float64 product, by its sum of absolute values."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(left @ right - c) / np.maximum(np.abs(left) @ np.abs(right), np.finfo(np.float64).tiny)
    error[np.isnan(error)] = np.inf
    i, j = np.unravel_index(int(error.argmax()), error.shape)
    return judge(a[[i]], b[:, [j]], c[np.ix_([i], [j])], accumulation).residual


def _inexact(a: Array, b: Array, c: Array) -> str | None:
    """Return which element of ``c`` is not exactly the product of the integers in ``a`` and ``b``."""
    x = np.random.default_rng(7).integers(-(2**63), 2**63, (b.shape[1], 2))
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, to which it is not equal
        integers = c.astype(np.int64)
    wrong = ~((integers == c) & (np.abs(c) <= 2.0**53)).all(axis=1)
    wrong |= (integers @ x != a.astype(np.int64) @ (b.astype(np.int64) @ x)).any(axis=1)
    if not wrong.any():
        return None
    i = int(np.argmax(wrong))
    expected = a[i].astype(np.int64) @ b.astype(np.int64)
    j = int(np.argmax(~(c[i] == expected)))
    rows = f"{np.count_nonzero(wrong)} of {len(wrong)} rows are wrong"
    return f"c[{i}, {j}] is {c[i, j]:.17g}, expected exactly {expected[j]} ({rows})"
