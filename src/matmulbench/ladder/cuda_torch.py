"""torch's ``@`` on a GPU: cuBLAS, the baseline there."""

import torch

from matmulbench.ladder.operands import sizes

# Sums of products of 16 bits stay in float32: else cuBLAS may add parts of them in 16 bits.
torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) with cuBLAS."""
    try:
        return a @ b
    except RuntimeError:  # looking only now costs nothing; beforehand, a part of a small product's time
        sizes(a, b)
        raise


matmul.batched = True  # type: ignore[attr-defined]
matmul.device = "cuda"  # type: ignore[attr-defined]
matmul.dtypes = ("float32", "float64", "bfloat16", "float16")  # type: ignore[attr-defined]
