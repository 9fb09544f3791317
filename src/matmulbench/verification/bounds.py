r"""How far from the exact product a right result may be.

For any order of summation, and with or without fused multiply-add,

    \|ĉ − c\| ≤ γ_k·(\|A\|\|B\|) + k·η,    γ_k = k·u / (1 − k·u)

with u the unit roundoff and η the smallest subnormal number (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed., sections 3.1, 3.5 and 2.8). Products that are exactly zero round nothing, so that k is the
largest number of products in a sum with both factors nonzero. Strassen-type algorithms do not satisfy this for each
element, but satisfy a bound in a norm (Higham, ch. 23; Ballard et al., SIAM J. Matrix Anal. Appl. 37, 2016):

    max \|ĉ − c\| ≤ 8·γ_k · max_i ‖a_i‖₂ · max_j ‖b_j‖₂

whose 8 leaves room for a few levels of recursion.

Operands of 16 bits are added in float32, unless a kernel declares otherwise, and the sum is rounded to their dtype:
then u is the unit roundoff of the sums, and to either bound comes u_out·\|c\| for that last step. Integers are exact
or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matmulbench.dtypes import DTYPES, DType, numpy_dtype

Array = npt.NDArray[np.floating]
Float = npt.NDArray[np.float64]
NORMWISE_FACTOR = 8.0
_SPLITTER = 2.0**27 + 1  # halves a 53-bit significand (Veltkamp)
_CHUNK = 1 << 20  # products held at once, so that memory stays small


@dataclass(frozen=True)
class Judgement:
    r"""One result judged: ``verdict`` is pass, normwise or fail; ``residual`` is in the units of :func:`unit`."""

    verdict: str
    residual: float
    detail: str = ""


def traits(array: npt.NDArray[np.generic]) -> DType:
    """Return what the dtype of an operand means."""
    return DTYPES[array.dtype.name]


def gamma(k: int, u: float) -> float:
    """Return γ_k = k·u / (1 − k·u); where that says nothing, k·u, which holds as well (Jeannerod & Rump, 2013)."""
    return k * u / (1 - k * u) if k * u < 0.5 else k * u


def effective_k(a: Array, b: Array) -> int:
    """Return an upper bound of how many products in one element of ``a`` @ ``b`` have both factors nonzero."""
    if not a.size or not b.size:
        return 0
    return int(min(np.count_nonzero(a, axis=1).max(), np.count_nonzero(b, axis=0).max()))


def unit(a: Array, b: Array, accumulation: str | None = None) -> Float:
    r"""Return k·u·(\|A\|\|B\|) + u_out·\|c\|, in which errors are given, for each element of ``a`` @ ``b``.

    u is the unit roundoff of the sums, u_out that of a result with fewer bits than they have, else 0. For integers
    it is 1.
    """
    kind, left, right = traits(a), a.astype(np.float64), b.astype(np.float64)
    magnitude: Float = np.abs(left) @ np.abs(right)
    if kind.is_integer:
        return np.ones_like(magnitude)
    units: Float = effective_k(a, b) * kind.unit_roundoff(accumulation) * magnitude
    return units + kind.rounding * np.abs(left @ right) if kind.rounding else units


def norms(a: Array) -> Array:
    """Return the norm of each row of ``a`` (…, rows, columns)."""
    lengths: Array = np.sqrt(np.einsum("...ij,...ij->...i", a, a))
    return lengths


def norm_bound(a: Float, b: Float, k: int, u: float) -> float:
    """Return the largest error that the norm bound allows in any element of ``a`` (m, k) @ ``b`` (k, n)."""
    return float(NORMWISE_FACTOR * gamma(k, u) * norms(a).max(initial=0) * norms(b.T).max(initial=0))


def product(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> tuple[Float, Float]:
    r"""Return the product of ``a`` (m, k) and ``b`` (k, n) as the sum of two float64 arrays, value and rest.

    float64 is enough for operands of any other dtype. float64 operands are multiplied in double-double arithmetic: each
    product and each sum is an exact pair (value, error), by Dekker's TwoProduct and Knuth's TwoSum (Muller et al.,
    *Handbook of Floating-Point Arithmetic*, ch. 4), so that no wider type is needed and all machines give the same
    answer. Its error relative to \|A\|\|B\| is about k·2⁻¹⁰⁴ then, and k·2⁻⁵³ for other operands.
    """
    left, right = a.astype(np.float64), b.astype(np.float64)
    if a.dtype != np.float64:
        return left @ right, np.zeros((len(a), b.shape[1]))
    m, k = a.shape
    n = b.shape[1]
    value, error = np.zeros((m, n)), np.zeros((m, n))
    rows = max(1, _CHUNK // max(1, k * n))
    for top in range(0, m if k else 0, rows):
        block = slice(top, top + rows)
        value[block], error[block] = _sum(*_two_product(left[block].T[:, :, None], right[:, None, :]))
    return value, error


def _sum(value: Float, error: Float) -> tuple[Float, Float]:
    """Sum the pairs over the first axis, halving it until one is left."""
    while (k := len(value)) > 1:
        half = k // 2
        total, lost = _two_sum(value[:half], value[half : 2 * half])
        rest = error[:half] + error[half : 2 * half] + lost
        value, error = np.concatenate([total, value[2 * half :]]), np.concatenate([rest, error[2 * half :]])
    return value[0], error[0]


def _two_sum(x: Float, y: Float) -> tuple[Float, Float]:
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _split(x: Float) -> tuple[Float, Float]:
    scaled = _SPLITTER * x
    high = scaled - (scaled - x)
    return high, x - high


def _two_product(x: Float, y: Float) -> tuple[Float, Float]:
    total = x * y
    x_high, x_low = _split(x)
    y_high, y_low = _split(y)
    return total, ((x_high * y_high - total) + x_high * y_low + x_low * y_high) + x_low * y_low


def judge(a: Array, b: Array, c: Array, accumulation: str | None = None) -> Judgement:
    """Judge ``c`` (m, n) as the product of finite ``a`` (m, k) and ``b`` (k, n).

    The sums may be of the dtype ``accumulation``; by default they are as :data:`~matmulbench.dtypes.DTYPES` has them.
    """
    kind = traits(a)
    u = kind.unit_roundoff(accumulation)
    expected, rest = product(a, b)
    k = effective_k(a, b)
    error = np.abs((c.astype(np.float64) - expected) - rest)  # exact where the two are near
    with np.errstate(over="ignore"):
        error[(c == expected.astype(c.dtype)) & ~np.isfinite(c)] = 0  # it overflows, as it must
    excess = np.maximum(error - k * kind.underflow, 0)  # NaN stays NaN
    units = unit(a, b, accumulation)
    ratio = np.divide(excess, units, out=np.where(excess == 0, 0.0, np.inf), where=units > 0)
    ratio[np.isnan(excess)] = np.inf
    residual = float(ratio.max(initial=0))
    if residual <= gamma(k, u) * (1 + kind.rounding) / (k * u) if k else residual == 0:
        return Judgement("pass", residual)
    worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
    i, j = int(worst[0]), int(worst[1])
    formula = "k·u·(|A||B|) + u_out·|c|" if kind.rounding else "k·u·(|A||B|)"
    detail = (
        f"c[{i}, {j}] is {float(c[i, j]):.9g}, expected {expected[i, j]:.9g}: "
        f"{residual:.3g} times {formula}, where 1 is allowed"
    )
    allowed = norm_bound(a.astype(np.float64), b.astype(np.float64), k, u) + kind.rounding * np.abs(expected)
    telling = NORMWISE_FACTOR * gamma(k, u) < 1  # else it would allow a result of zeros
    verdict = "normwise" if telling and bool((error <= allowed).all()) else "fail"
    return Judgement(verdict, residual, detail)


def exact_product(a: Array, b: Array) -> npt.NDArray[np.generic]:
    """Return the product of integer-valued ``a`` and ``b``, rounded once to the dtype of the result."""
    exact = a.astype(np.float64) @ b.astype(np.float64)  # whose sums are representable
    with np.errstate(over="ignore"):
        rounded: npt.NDArray[np.generic] = exact.astype(numpy_dtype(traits(a).result))
    return rounded


def judge_exact(a: Array, b: Array, c: Array, accumulation: str | None = None) -> Judgement:
    """Judge ``c`` as the product of integer-valued ``a`` and ``b``, whose sums are all representable.

    Where sums of the dtype ``accumulation`` are not, the bound of :func:`judge` holds instead.
    """
    kind, expected = traits(a), exact_product(a, b)
    wrong = ~(c == expected)
    if accumulation:
        wrong &= np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) <= 1 / kind.unit_roundoff(accumulation)
    if not wrong.any():
        return judge(a, b, c, accumulation) if accumulation else Judgement("pass", 0.0)
    i, j = (int(index[0]) for index in np.nonzero(wrong))
    detail = (
        f"c[{i}, {j}] is {float(c[i, j]):.17g}, expected exactly {float(expected[i, j]):.17g} "
        f"({np.count_nonzero(wrong)} of {wrong.size} elements differ)"
    )
    if kind.is_integer:
        return Judgement("fail", np.inf, detail)
    judgement = judge(a, b, c, accumulation)
    return Judgement("fail" if judgement.verdict == "fail" else "normwise", judgement.residual, detail)
