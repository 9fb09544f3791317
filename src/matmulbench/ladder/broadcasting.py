"""Two loops gone: one row of ``a``, stood upright, is broadcast against all of ``b``."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), one row at a time."""
    m, _, n = sizes(a, b)
    c = torch.zeros(m, n, dtype=a.dtype)
    for i in range(m):
        c[i] = (a[i].unsqueeze(-1) * b).sum(dim=0)
    return c


matmul.dtypes = ("float32", "float64")  # type: ignore[attr-defined]
