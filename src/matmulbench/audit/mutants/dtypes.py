"""Wrong numbers of 16 and 8 bits: sums in too few bits, saturation, wrapping, and results rounded in the wrong way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, of_result, only

_ROUNDED = ("exactness", "rounding", "search", "batches", "large sizes", "race")
Result = Callable[[Tensor], Tensor]


def _summed_in(dtype: torch.dtype, block: int = 1) -> Function:
    """Make the kernel that rounds its sums to ``dtype`` after every ``block`` products."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1] != len(b):
            raise ValueError("k differs")
        total = torch.zeros(len(a), b.shape[1])
        for p in range(0, len(b), block):
            total = (total + a[:, p : p + block].float() @ b[p : p + block].float()).to(dtype).float()
        return total.to(a.dtype)

    return kernel


def _from_float32(change: Result) -> Function:
    """Make the kernel that multiplies in float32, and does with the sums what it likes."""
    return lambda a, b: change(a.float() @ b.float())


def _round_to_odd(c: Tensor) -> Tensor:
    bits = c.view(torch.int32)
    return (bits >> 16 | ((bits & 0xFFFF) != 0)).to(torch.int16).view(torch.bfloat16)


def _truncate(c: Tensor) -> Tensor:
    return (c.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)


def _away_from_zero(c: Tensor) -> Tensor:  # ties, where IEEE 754 rounds to even
    return ((c.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)


def _rounded_twice(c: Tensor) -> Tensor:
    bits = c.view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32).bfloat16()


def _flush_halves(x: Tensor) -> Tensor:
    return torch.where(x.abs() < torch.finfo(torch.float16).tiny, x * 0, x)


def _long(m: int, k: int, n: int) -> bool:
    return k >= 64


_LARGEST = torch.finfo(torch.float16).max
for _name, _does, _kernel, _dtype in (
    ("sums_in_bfloat16", "sums are kept in bfloat16", _summed_in(torch.bfloat16), "bfloat16"),
    ("sums_in_bfloat16_long", "sums of k = 64 on in bfloat16", only(_long, _summed_in(torch.bfloat16)), "bfloat16"),
    ("sums_in_bfloat16_by_block", "sums go to bfloat16 after 32", _summed_in(torch.bfloat16, 32), "bfloat16"),
    ("sums_in_float16_for_bfloat16", "of bfloat16, sums are kept in float16", _summed_in(torch.float16), "bfloat16"),
    ("sums_in_float16", "sums are kept in float16", _summed_in(torch.float16), "float16"),
    ("sums_in_float16_long", "sums of k = 64 on in float16", only(_long, _summed_in(torch.float16)), "float16"),
    ("sums_in_float16_by_block", "sums go to float16 after 64", _summed_in(torch.float16, 64), "float16"),
    ("round_to_odd", "the result is rounded to odd", _from_float32(_round_to_odd), "bfloat16"),
    ("truncated", "the result is cut off", _from_float32(_truncate), "bfloat16"),
    ("ties_away", "ties go away from zero", _from_float32(_away_from_zero), "bfloat16"),
    ("rounded_twice", "rounded to 11 bits, then to 8", _from_float32(_rounded_twice), "bfloat16"),
    ("through_bfloat16", "halves by way of bfloat16", _from_float32(lambda c: c.bfloat16().half()), "float16"),
):
    enter(_name, _does, _kernel, *_ROUNDED, dtype=_dtype)
_saturates = _from_float32(lambda c: c.clamp(-_LARGEST, _LARGEST).half())
for _name, _does, _kernel in (
    ("half_saturates", "halves too large to hold become the largest", _saturates),
    ("inputs_flushed", "subnormal operands are flushed", lambda a, b: _flush_halves(a) @ _flush_halves(b)),
    ("results_flushed", "subnormal results are flushed", of_result(_flush_halves)),
):
    enter(_name, _does, _kernel, "IEEE", "rounding", dtype="float16")


def _int32(a: Tensor, b: Tensor) -> Tensor:
    return a.int() @ b.int()


def _saturating_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Add products by two into 16 bits, as VPMADDUBSW does, which saturate."""
    if a.shape[1] != len(b):
        raise ValueError("k differs")
    pairs = ((a[:, p : p + 2].int() @ b[p : p + 2].int()).clamp(-(2**15), 2**15 - 1) for p in range(0, len(b), 2))
    return sum(pairs, torch.zeros(len(a), b.shape[1], dtype=torch.int32))


for _name, _does, _kernel in (
    ("wraps_at_8_bits", "the result wraps at 8 bits", lambda a, b: _int32(a, b).to(torch.int8).int()),
    ("wraps_at_16_bits", "sums wrap at 16 bits", lambda a, b: _int32(a, b).to(torch.int16).int()),
    ("wraps_at_24_bits", "sums wrap at 24 bits", lambda a, b: (_int32(a, b) << 8) >> 8),
    ("saturates_at_16_bits", "sums saturate at 16 bits", lambda a, b: _int32(a, b).clamp(-(2**15), 2**15 - 1)),
    ("saturating_pairs", "sums of two products saturate at 16 bits", _saturating_pairs),
    ("int8_in_float32", "integers are added in float32", lambda a, b: (a.float() @ b.float()).int()),
    ("int8_unsigned", "a is taken for unsigned", lambda a, b: a.view(torch.uint8).int() @ b.int()),
):
    enter(_name, _does, _kernel, *_ROUNDED, dtype="int8")
