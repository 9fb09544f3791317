"""torch's ``@``: the baseline."""

import torch

from matmulbench.ladder.operands import sizes


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n) with torch's BLAS."""
    try:
        return a @ b if a.dtype is not torch.int8 else _multiply_int8(a, b)
    except RuntimeError:  # looking only now costs nothing; beforehand, a tenth of a small product
        sizes(a, b)
        raise


def _multiply_int8(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply into int32, where ``@`` would wrap at 8 bits."""
    if a.dim() > 2:
        return torch.stack(list(map(_multiply_int8, a, b)))
    return torch._int_mm(_with_plain_strides(a), _with_plain_strides(b))


def _with_plain_strides(x: torch.Tensor) -> torch.Tensor:
    """Spare torch's int8 product what it gets wrong (2.13): an expanded row, and odd strides of a size of 1."""
    if x.is_contiguous():
        return x.view(-1).view(x.shape)
    return x.contiguous() if 0 in x.stride() else x


matmul.batched = True  # type: ignore[attr-defined]
