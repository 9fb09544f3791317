"""No loop left: the product written as an index equation. torch hands it to its BLAS."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) as ``ik,kj->ij``."""
    sizes(a, b)  # einsum would broadcast an inner size of 1
    return torch.einsum("ik,kj->ij", a, b)


matmul.dtypes = ("float32", "float64", "bfloat16", "float16")  # type: ignore[attr-defined]
