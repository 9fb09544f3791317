"""Three Python loops over single elements: the definition of the product, and the slowest way to get it."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), element by element."""
    m, k, n = sizes(a, b)
    c = torch.zeros(m, n, dtype=a.dtype)
    for i in range(m):
        for j in range(n):
            for p in range(k):
                c[i, j] += a[i, p] * b[p, j]
    return c


matmul.dtypes = ("float32", "float64")  # type: ignore[attr-defined]
