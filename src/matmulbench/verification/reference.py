"""What the product is, in enough extra precision that the reference's own error does not matter.

float64 is enough for operands of any other dtype. float64 operands are multiplied in double-double arithmetic: each
product and each sum is an exact pair (value, error), by Dekker's TwoProduct and Knuth's TwoSum (Muller et al.,
*Handbook of Floating-Point Arithmetic*, ch. 4), so that no wider type is needed and all
machines give the same answer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
_SPLITTER = 2.0**27 + 1  # halves a 53-bit significand (Veltkamp)
_CHUNK = 1 << 20  # products held at once, so that memory stays small


def product(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> tuple[Float, Float]:
    r"""Return the product of ``a`` (m, k) and ``b`` (k, n) as the sum of two float64 arrays, value and rest.

    Its error relative to \|A\|\|B\| is about k·2⁻¹⁰⁴ for float64 operands and k·2⁻⁵³ for others.
    """
    if a.dtype != np.float64:
        return a.astype(np.float64) @ b.astype(np.float64), np.zeros((len(a), b.shape[1]))
    return double_double(a.astype(np.float64), b.astype(np.float64))


def double_double(a: Float, b: Float) -> tuple[Float, Float]:
    """Return the product of float64 ``a`` (m, k) and ``b`` (k, n) as value and error, both (m, n)."""
    m, k = a.shape
    n = b.shape[1]
    value, error = np.zeros((m, n)), np.zeros((m, n))
    rows = max(1, _CHUNK // max(1, k * n))
    for top in range(0, m if k else 0, rows):
        block = slice(top, top + rows)
        value[block], error[block] = _sum(*_two_product(a[block].T[:, :, None], b[:, None, :]))
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
