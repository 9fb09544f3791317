"""NaN, infinities and subnormal numbers mistreated."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import torch

from matmulbench.audit.zoo import planted


@planted("NaN and Inf in the result become numbers", "IEEE")
def result_cleaned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(a @ b)


@planted("NaN in the operands becomes zero", "IEEE")
def nan_swallowed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(a.isnan(), 0, a) @ torch.where(b.isnan(), 0, b)


@planted("NaN everywhere", "exactness")
def nan_everywhere(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.full((len(a), b.shape[1]), torch.nan, dtype=a.dtype)


@planted("one NaN in an operand makes all of the result NaN", "IEEE")
def nan_spread(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return torch.full_like(c, torch.nan) if a.isnan().any() else c


@planted("zeros are skipped, so that 0 · Inf and 0 · NaN are 0", "IEEE")
def zeros_skipped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for p in range(a.shape[1]):
        rows = a[:, p] != 0
        c[rows] += a[rows, p, None] * b[p]
    return c


@planted("overflow is clamped to the largest number", "IEEE")
def saturated(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    largest = torch.finfo(a.dtype).max
    return (a @ b).clamp(-largest, largest)


@planted("Inf comes out as NaN", "IEEE")
def inf_lost(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return torch.where(c.isinf(), torch.nan, c)


@planted("Inf loses its sign", "IEEE")
def inf_unsigned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return torch.where(c.isinf(), torch.inf, c)


@planted("subnormal operands are flushed to zero", "IEEE")
def subnormals_flushed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    tiny = torch.finfo(a.dtype).tiny
    return torch.where(a.abs() < tiny, a * 0, a) @ torch.where(b.abs() < tiny, b * 0, b)


@planted("subnormal results are flushed to zero", "IEEE")
def underflow_flushed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return torch.where(c.abs() < torch.finfo(a.dtype).tiny, c * 0, c)


@planted("a scaling by the largest element overflows too early", "IEEE")
def early_overflow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * 64) @ b / 64
