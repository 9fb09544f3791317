"""The inner loop becomes one element-wise product and a sum, both run in C."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), one row times one column at a time."""
    m, _, n = sizes(a, b)
    c = torch.zeros(m, n, dtype=a.dtype)
    for i in range(m):
        for j in range(n):
            c[i, j] = (a[i, :] * b[:, j]).sum()
    return c


matmul.dtypes = ("float32", "float64")  # type: ignore[attr-defined]
