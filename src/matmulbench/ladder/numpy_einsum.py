"""The same index equation, run by numpy's own C loop (no BLAS unless ``optimize`` is asked for)."""

import numpy as np
import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) as ``ik,kj->ij``."""
    sizes(a, b)  # einsum would broadcast an inner size of 1
    return torch.from_numpy(np.einsum("ik,kj->ij", a.numpy(), b.numpy()))


matmul.dtypes = ("float32", "float64", "float16")  # type: ignore[attr-defined]
matmul.accumulation = "float16"  # type: ignore[attr-defined]  # of halves: each step is rounded to one
