"""The triple loop again, compiled: the same three loops, the interpreter gone.

Compiled at the first call for each dtype and layout, and cached on disk for the next process.
"""

import numba
import numpy as np
import numpy.typing as npt
import torch

from matmulbench.ladder.operands import sizes

Array = npt.NDArray[np.floating]


@numba.njit(cache=True)
def _triple_loop(a: Array, b: Array, c: Array) -> None:
    m, k = a.shape
    n = b.shape[1]
    for i in range(m):
        for j in range(n):
            for p in range(k):
                c[i, j] += a[i, p] * b[p, j]


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) with the compiled triple loop."""
    m, _, n = sizes(a, b)
    c = torch.zeros(m, n, dtype=a.dtype)
    _triple_loop(a.numpy(), b.numpy(), c.numpy())
    return c


matmul.dtypes = ("float32", "float64")  # type: ignore[attr-defined]
