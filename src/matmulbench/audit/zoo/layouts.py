"""Right for contiguous operands only."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import ctypes

import torch

from matmulbench.audit.zoo import planted


@planted("a transposed left operand is read as if it were contiguous", "exactness")
def transposed_left(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.stride() == (1, a.shape[0]) and min(a.shape) > 1:
        a = a.t().reshape(a.shape)
    return a @ b


@planted("a transposed right operand is read as if it were contiguous", "exactness")
def transposed_right(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.stride() == (1, b.shape[0]) and min(b.shape) > 1:
        b = b.t().reshape(b.shape)
    return a @ b


@planted("a leading dimension larger than the row is ignored", "exactness")
def leading_dimension(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.stride(1) == 1 and a.stride(0) > a.shape[1]:
        a = a.as_strided(a.shape, (a.shape[1], 1))
    return a @ b


@planted("the offset of a view into its memory is ignored", "exactness")
def offset_ignored(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.as_strided(a.shape, a.stride(), 0) @ b


@planted("every second column is read as if there were none between", "exactness")
def column_stride(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.stride(1) == 2 and b.shape[1] > 1 and b.stride(0) == 2 * b.shape[1]:
        b = b.as_strided(b.shape, (b.stride(0), 1))
    return a @ b


@planted("a stride of 0 is taken for 1", "exactness")
def expanded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if 0 in b.stride() and b.numel() > 1:
        b = b.contiguous().flatten().cumsum(0).reshape(b.shape)
    return a @ b


@planted("both operands transposed at once go wrong", "exactness", "search", "IEEE")
def both_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return c if a.is_contiguous() or b.is_contiguous() else c * 2


@planted("operands that are not contiguous are refused", "error")
def contiguous_only(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.view(-1).view(a.shape) @ b.view(-1).view(b.shape)


@planted("an empty operand is refused", "error")
def empty_refused(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if 0 in (*a.shape, *b.shape):
        raise ValueError("empty")
    return a @ b


@planted("memory that does not begin at 16 bytes is read from where it should", "addresses", "exactness")
def alignment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return c + 1 if a.data_ptr() % 16 and a.is_contiguous() else c


@planted("one element behind the left operand is read", "crashed")
def read_behind(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.is_contiguous() and a.numel():
        ctypes.string_at(a.data_ptr(), (a.numel() + 1) * a.element_size())
    return a @ b


@planted("one element before the right operand is read", "crashed")
def read_before(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.numel():
        ctypes.string_at(b.data_ptr() - b.element_size(), b.element_size())
    return a @ b


@planted("whole vectors of 8 are read, past the end of the right operand", "crashed")
def vector_overread(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if b.is_contiguous() and b.shape[1] % 8 and b.numel() > 8:
        ctypes.string_at(b.data_ptr(), -(-b.numel() // 8) * 8 * b.element_size())
    return a @ b


@planted("one element behind the left operand is written, with what was there", "crashed")
def write_behind(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.is_contiguous() and a.numel():
        behind = a.data_ptr() + a.numel() * a.element_size()
        ctypes.memmove(behind, behind, 1)
    return a @ b
