r"""How far from the exact product a right result may be.

For any order of summation, and with or without fused multiply-add,

    \|ĉ − c\| ≤ γ_k·(\|A\|\|B\|) + k·η,    γ_k = k·u / (1 − k·u)

with u the unit roundoff and η the smallest subnormal number (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed., sections 3.1, 3.5 and 2.8). Products that are exactly zero round nothing, so that k is the
largest number of products in a sum with both factors nonzero. Strassen-type algorithms do not satisfy this for each
element, but satisfy a bound in a norm (Higham, ch. 23; Ballard et al., SIAM J. Matrix Anal. Appl. 37, 2016):

    max \|ĉ − c\| ≤ 8·γ_k · max_i ‖a_i‖₂ · max_j ‖b_j‖₂

whose 8 leaves room for a few levels of recursion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matmulbench.verification.reference import Float, product

Array = npt.NDArray[np.floating]
NORMWISE_FACTOR = 8.0


@dataclass(frozen=True)
class Judgement:
    r"""One result judged: ``verdict`` is pass, normwise or fail; ``residual`` is in units of k·u·(\|A\|\|B\|)."""

    verdict: str
    residual: float
    detail: str = ""


def gamma(k: int, dtype: np.dtype[np.floating]) -> float:
    """Return γ_k = k·u / (1 − k·u) for sums of ``k`` products in ``dtype``."""
    ku = k * unit_roundoff(dtype)
    return ku / (1 - ku)


def unit_roundoff(dtype: np.dtype[np.floating]) -> float:
    """Return u, half the distance from 1 to the next number of ``dtype``."""
    return float(np.finfo(dtype).eps) / 2


def effective_k(a: Array, b: Array) -> int:
    """Return an upper bound of how many products in one element of ``a`` @ ``b`` have both factors nonzero."""
    if not a.size or not b.size:
        return 0
    return int(min(np.count_nonzero(a, axis=1).max(), np.count_nonzero(b, axis=0).max()))


def unit(a: Array, b: Array) -> Float:
    r"""Return k·u·(\|A\|\|B\|), in which errors are given, for each element of ``a`` (m, k) @ ``b`` (k, n)."""
    magnitude: Float = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    return effective_k(a, b) * unit_roundoff(a.dtype) * magnitude


def norm_bound(a: Float, b: Float, k: int, dtype: np.dtype[np.floating]) -> float:
    """Return the largest error that the norm bound allows in any element of ``a`` (m, k) @ ``b`` (k, n)."""
    rows = np.sqrt(np.einsum("ij,ij->i", a, a).max(initial=0))
    columns = np.sqrt(np.einsum("ij,ij->j", b, b).max(initial=0))
    return float(NORMWISE_FACTOR * gamma(k, dtype) * rows * columns)


def judge(a: Array, b: Array, c: Array) -> Judgement:
    """Judge ``c`` (m, n) as the product of finite ``a`` (m, k) and ``b`` (k, n), all of one dtype."""
    dtype = a.dtype
    expected, rest = product(a, b)
    k = effective_k(a, b)
    error = np.abs((c.astype(np.float64) - expected) - rest)  # exact where the two are near
    underflow = k * float(np.finfo(dtype).smallest_subnormal)
    excess = np.maximum(error - underflow, 0)  # NaN stays NaN
    units = unit(a, b)
    ratio = np.divide(excess, units, out=np.where(excess == 0, 0.0, np.inf), where=units > 0)
    ratio[np.isnan(excess)] = np.inf
    residual = float(ratio.max(initial=0))
    if residual <= gamma(k, dtype) / (k * unit_roundoff(dtype)) if k else residual == 0:
        return Judgement("pass", residual)
    worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
    i, j = int(worst[0]), int(worst[1])
    detail = (
        f"c[{i}, {j}] is {c[i, j]:.9g}, expected {expected[i, j]:.9g}: "
        f"{residual:.3g} times k·u·(|A||B|), where 1 is allowed"
    )
    allowed = norm_bound(a.astype(np.float64), b.astype(np.float64), k, dtype)
    verdict = "normwise" if bool((error <= allowed).all()) else "fail"
    return Judgement(verdict, residual, detail)


def judge_exact(a: Array, b: Array, c: Array) -> Judgement:
    """Judge ``c`` as the product of integer-valued ``a`` and ``b``, whose sums are all representable."""
    expected = a.astype(np.int64) @ b.astype(np.int64)
    wrong = ~(c == expected)
    if not wrong.any():
        return Judgement("pass", 0.0)
    i, j = (int(index[0]) for index in np.nonzero(wrong))
    detail = (
        f"c[{i}, {j}] is {c[i, j]:.17g}, expected exactly {expected[i, j]} "
        f"({np.count_nonzero(wrong)} of {wrong.size} elements differ)"
    )
    if np.isnan(c[i, j]):
        detail += "; memory that was never set looks like this: begin with zeros"
    judgement = judge(a, b, c)
    return Judgement("fail" if judgement.verdict == "fail" else "normwise", judgement.residual, detail)
