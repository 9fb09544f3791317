"""In which dtype a kernel adds: found by products whose sum is zero, where what is left is the rounding of the sums.

Sums of 16 bits leave more than one part in 2^16 of what they add, float32 less and float64 less still. Of the two
dtypes of 16 bits, float16 alone overflows beyond 65,504.
"""

from __future__ import annotations

import numpy as np

from matmulbench.dtypes import DTYPES, as_tensor, numpy_dtype
from matmulbench.verification.kernel import KernelUnderTest

_ROWS, _PAIRS = 8, 64
_SIXTEEN_BITS, _FLOAT32 = 2.0**-16, 2.0**-36  # what is left, relative to what is added, at least
_WRONG = 2.0**-4  # more than any of these leaves


def find_accumulation(kernel: KernelUnderTest) -> str | None:
    """Return the dtype in which the kernel's sums are rounded; None for integers, and where there is no telling."""
    kind = DTYPES[kernel.dtype]
    if kind.is_integer:
        return None
    rng, dtype = np.random.default_rng(4), numpy_dtype(kernel.dtype)
    a, b = np.zeros((2, _ROWS, 2 * _PAIRS))
    exponents = rng.integers(-kind.scale // 2, kind.scale // 2 + 1, _PAIRS)
    terms = rng.standard_normal((_ROWS, _PAIRS)).astype(dtype).astype(float) * 2.0**exponents
    factors = (1 + rng.random(_PAIRS)).astype(dtype).astype(float)
    for row, left in zip(a, terms, strict=True):  # each product and its negative, anywhere in the sum
        row[:_PAIRS], row[_PAIRS:] = left, -left
    b[:] = np.concatenate([factors, factors])
    order = rng.permutation(2 * _PAIRS)
    a, b = a[:, order].astype(dtype), b[:, order].astype(dtype)
    sums = kernel.call(as_tensor(a), as_tensor(np.ascontiguousarray(b.T)), "sums that cancel").astype(float)
    left_over = float(np.max(np.abs(sums) / (np.abs(a.astype(float)) @ np.abs(b.T.astype(float)))))
    if not left_over < _WRONG:
        return None
    if left_over >= _SIXTEEN_BITS and kernel.dtype == "float16":
        return "float16"
    if left_over >= _SIXTEEN_BITS:
        large = np.array([[512.0, 512.0, 1.0]]).astype(dtype)
        beyond = kernel.call(as_tensor(large), as_tensor(np.array([[512.0], [-512.0], [1.0]]).astype(dtype)), "2^18")
        return "bfloat16" if np.isfinite(beyond.astype(float)).all() else "float16"
    if left_over >= _FLOAT32:
        return "float32"
    return "float64"


def note_accumulation(kernel: KernelUnderTest) -> None:
    """Note the dtype in which the kernel adds, but for the usual: float32 and float64 in their own."""
    found = find_accumulation(kernel)
    if found and (found != kernel.dtype or DTYPES[found].is_narrow):
        kernel.notes.add(f"accumulates in {found}")
