"""torch's ``@``: the baseline."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) with torch's BLAS."""
    try:
        return a @ b
    except RuntimeError:  # looking only now costs nothing; beforehand, a tenth of a small product
        sizes(a, b)
        raise


matmul.batched = True  # type: ignore[attr-defined]
