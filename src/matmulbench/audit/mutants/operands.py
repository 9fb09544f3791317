"""Operands misread by their layout, or damaged, and results of the wrong form."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import ctypes
import threading
import time
from typing import Any

import torch
from torch import Tensor

from matmulbench.audit.mutants import enter, planted

# Right for contiguous operands only.


def _misread(x: Tensor) -> Tensor:
    """Read a transposed matrix as if it were contiguous."""
    return x.t().reshape(x.shape) if x.stride() == (1, x.shape[0]) and min(x.shape) > 1 else x


enter("transposed_left", "a transposed left operand is read as contiguous", lambda a, b: _misread(a) @ b)
enter("transposed_right", "a transposed right operand is read as contiguous", lambda a, b: a @ _misread(b))
enter(
    "offset_ignored",
    "the offset of a view into its memory is ignored",
    lambda a, b: a.as_strided(a.shape, a.stride(), 0) @ b,
)
enter(
    "contiguous_only",
    "operands that are not contiguous are refused",
    lambda a, b: a.view(-1).view(a.shape) @ b.view(-1).view(b.shape),
    "error",
)


@planted("a leading dimension larger than the row is ignored", "exactness")
def leading_dimension(a: Tensor, b: Tensor) -> Tensor:
    if a.stride(1) == 1 and a.stride(0) > a.shape[1]:
        a = a.as_strided(a.shape, (a.shape[1], 1))
    return a @ b


@planted("every second column is read as if there were none between", "exactness")
def column_stride(a: Tensor, b: Tensor) -> Tensor:
    if b.stride(1) == 2 and b.shape[1] > 1 and b.stride(0) == 2 * b.shape[1]:
        b = b.as_strided(b.shape, (b.stride(0), 1))
    return a @ b


@planted("a stride of 0 is taken for 1", "exactness")
def expanded(a: Tensor, b: Tensor) -> Tensor:
    if 0 in b.stride() and b.numel() > 1:
        b = b.contiguous().flatten().cumsum(0).reshape(b.shape)
    return a @ b


@planted("both operands transposed at once go wrong", "exactness", "search", "IEEE")
def both_transposed(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return c if a.is_contiguous() or b.is_contiguous() else c * 2


@planted("an empty operand is refused", "error")
def empty_refused(a: Tensor, b: Tensor) -> Tensor:
    if 0 in (*a.shape, *b.shape):
        raise ValueError("empty")
    return a @ b


@planted("memory that does not begin at 16 bytes is read from where it should", "addresses", "exactness")
def alignment(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return c + 1 if a.data_ptr() % 16 and a.is_contiguous() else c


# Memory that is not theirs.


def _read(x: Tensor, first: int, beyond: int) -> None:
    """Read from element ``first`` to element ``beyond``."""
    if x.is_contiguous() and x.numel():
        ctypes.string_at(x.data_ptr() + first * x.element_size(), (beyond - first) * x.element_size())


@planted("one element behind the left operand is read", "crashed")
def read_behind(a: Tensor, b: Tensor) -> Tensor:
    _read(a, 0, a.numel() + 1)
    return a @ b


@planted("one element before the right operand is read", "crashed")
def read_before(a: Tensor, b: Tensor) -> Tensor:
    _read(b, -1, 0)
    return a @ b


@planted("whole vectors of 8 are read, past the end of the right operand", "crashed")
def vector_overread(a: Tensor, b: Tensor) -> Tensor:
    if b.numel() > 8 and b.shape[1] % 8:
        _read(b, 0, -(-b.numel() // 8) * 8)
    return a @ b


@planted("one element behind the left operand is written, with what was there", "crashed")
def write_behind(a: Tensor, b: Tensor) -> Tensor:
    if a.is_contiguous() and a.numel():
        behind = a.data_ptr() + a.numel() * a.element_size()
        ctypes.memmove(behind, behind, 1)
    return a @ b


# Operands that do not survive.


@planted("a is scaled in place", "operands")
def damages_a(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    a *= 2
    return c


@planted("one element of b is set to zero", "operands")
def damages_b(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    b[-1:, -1:] = 0
    return c


@planted("what lies between the rows of a view is overwritten", "operands")
def damages_between(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    if a.stride(0) == 2 * a.shape[1] and len(a) > 1 and a.stride(1) == 1:
        a.as_strided((1, 1), (1, 1), a.storage_offset() + a.shape[1]).zero_()
    return c


@planted("a is transposed in place", "operands")
def transposes_a(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    a.t_()
    return c


@planted("the sign of a is changed in place, twice", "crashed")
def borrows_a(a: Tensor, b: Tensor) -> Tensor:
    if 0 not in a.stride():
        a.neg_().neg_()
    return a @ b


@planted("the result is written over b", "operands", "result")
def over_b(a: Tensor, b: Tensor) -> Tensor:
    return b.copy_(a @ b) if len(a) == len(b) and 0 not in b.stride() else a @ b


# Results of the wrong form.


@planted("a product with the identity is a view of the operand", "result")
def alias(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return b if c.shape == b.shape and torch.equal(c, b) else c


_buffers: dict[Any, Tensor] = {}
_turn = [0]


def _buffer(number: int, a: Tensor, b: Tensor) -> Tensor:
    key = (number, len(a), b.shape[1], a.dtype)
    if key not in _buffers:
        _buffers[key] = torch.empty(len(a), b.shape[1], dtype=a.dtype)
    return _buffers[key]


@planted("every result of a shape is in the same memory", "result")
def one_buffer(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b, out=_buffer(0, a, b))


@planted("results take turns in sixteen buffers", "benchmark-awareness", "result", "earlier calls")
def sixteen_buffers(a: Tensor, b: Tensor) -> Tensor:
    _turn[0] += 1
    return torch.mm(a, b, out=_buffer(_turn[0] % 16, a, b))


@planted("the result is filled in by a thread after it was returned", "exactness", "result", "race")
def filled_later(a: Tensor, b: Tensor) -> Tensor:
    c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)

    def fill() -> None:
        time.sleep(0.0005)
        c.copy_(a @ b)

    threading.Thread(target=fill, daemon=True).start()
    return c


@planted("rows that are all alike share their memory", "result")
def shared_rows(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return c[:1].expand(c.shape) if (c == c[:1]).all() else c


class _Lazy(Tensor):
    """Looks like a tensor; a real one would compute when it is first read."""


enter("lazy", "a subclass that could compute when it is read", lambda a, b: (a @ b).as_subclass(_Lazy), "result")
enter("wrong_dtype", "float64 is returned for float32", lambda a, b: a.double() @ b.double(), "result")
enter("numpy_array", "a numpy array is returned", lambda a, b: (a @ b).numpy(), "result")
enter("nothing", "None is returned", lambda a, b: None, "result")
enter("third_dimension", "the result has a third dimension", lambda a, b: (a @ b).unsqueeze(-1), "result")
enter("gradient", "the result requires a gradient", lambda a, b: (a @ b).requires_grad_(), "result")
