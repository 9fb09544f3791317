"""Operands misread by their layout, or damaged, and results of the wrong form."""
# ruff: noqa: E731 - a kernel is a line

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, first, of_result, only, then, uninitialised, zeros

# Right for some layouts only.


def _joined(when: Callable[..., bool]) -> Callable[[Tensor], Tensor]:
    """Make what reads a matrix as if it were contiguous, ``when`` its strides and then its sizes are such."""
    return lambda x: x.as_strided(x.shape, (x.shape[1], 1)) if when(*x.stride(), *x.shape) and min(x.shape) > 1 else x


def _expanded(x: Tensor) -> Tensor:
    return x.contiguous().flatten().cumsum(0).reshape(x.shape) if 0 in x.stride() and x.numel() > 1 else x


_transposed = _joined(lambda down, right, rows, columns: (down, right) == (1, rows))
_rows_joined = _joined(lambda down, right, rows, columns: right == 1 and down > columns)
_columns_joined = _joined(lambda down, right, rows, columns: (down, right) == (2 * columns, 2))
_of_flat: Function = lambda a, b: a.view(-1).view(a.shape) @ b.view(-1).view(b.shape)
_doubled: Function = lambda a, b: a @ b * (1 if a.is_contiguous() or b.is_contiguous() else 2)
_shifted: Function = lambda a, b: a @ b + (a.data_ptr() % 16 != 0 and a.is_contiguous())
_from_start: Function = lambda a, b: a.as_strided(a.shape, a.stride(), 0) @ b
_of_nothing = only(lambda m, k, n: 0 in (m, k, n), first(lambda a, b: a[0, 0] + b[0, 0]))
enter("transposed_left", "a transposed left operand is read as contiguous", lambda a, b: _transposed(a) @ b)
enter("transposed_right", "a transposed right operand is read as contiguous", lambda a, b: a @ _transposed(b))
enter("offset_ignored", "the offset of a view into its memory is ignored", _from_start)
enter("leading_dimension", "a leading dimension larger than the row is ignored", lambda a, b: _rows_joined(a) @ b)
enter("column_stride", "every second column is read as if none lay between", lambda a, b: a @ _columns_joined(b))
enter("expanded", "a stride of 0 is taken for 1", lambda a, b: a @ _expanded(b))
enter("both_transposed", "both operands transposed at once go wrong", _doubled, "exactness", "search", "IEEE")
enter("contiguous_only", "operands that are not contiguous are refused", _of_flat, "error")
enter("empty_refused", "an empty operand is an error", _of_nothing, "error")
enter("alignment", "memory that begins at no multiple of 16 is misread", _shifted, "addresses", "exactness")

# Memory that is not theirs, and operands that do not survive.


def _read(x: Tensor, start: int, end: int) -> None:
    """Read from element ``start`` to element ``end``."""
    if x.is_contiguous() and x.numel():
        ctypes.string_at(x.data_ptr() + start * x.element_size(), (end - start) * x.element_size())


def _write_behind(a: Tensor, b: Tensor) -> None:
    if a.is_contiguous() and a.numel():
        behind = a.data_ptr() + a.numel() * a.element_size()
        ctypes.memmove(behind, behind, 1)


def _damage_between(a: Tensor, b: Tensor, c: Tensor) -> None:
    if a.stride(0) == 2 * a.shape[1] and len(a) > 1 and a.stride(1) == 1:
        a.as_strided((1, 1), (1, 1), a.storage_offset() + a.shape[1]).zero_()


_in_vectors: Function = lambda a, b: _read(b, 0, -(-b.numel() // 8) * 8)
_over_b: Function = lambda a, b: b.copy_(a @ b) if len(a) == len(b) and 0 not in b.stride() else a @ b
for _name, _does, _kernel, *_expected in (
    ("read_behind", "one element behind a is read", first(lambda a, b: _read(a, 0, a.numel() + 1)), "crashed"),
    ("read_before", "one element before b is read", first(lambda a, b: _read(b, -1, 0)), "crashed"),
    ("vector_overread", "whole vectors of 8 are read, past the end of b", first(_in_vectors), "crashed"),
    ("write_behind", "one byte behind a is written, with what was there", first(_write_behind), "crashed"),
    ("borrows_a", "a is negated twice", first(lambda a, b: 0 in a.stride() or a.neg_().neg_()), "crashed"),
    ("damages_a", "a is scaled in place", then(lambda a, b, c: a.mul_(2)), "operands"),
    ("damages_b", "one element of b is set to zero", then(lambda a, b, c: b[-1:, -1:].zero_()), "operands"),
    ("damages_between", "what lies between the rows of a view is overwritten", then(_damage_between), "operands"),
    ("transposes_a", "a is transposed in place", then(lambda a, b, c: a.t_()), "operands"),
    ("over_b", "the result is written over b", _over_b, "operands", "result"),
):
    enter(_name, _does, _kernel, *_expected)

# Results of the wrong form.


class _Lazy(Tensor):
    """Looks like a tensor; a real one would compute when it is first read."""


def _in_buffers(count: int) -> Function:
    """Make the kernel that returns its results in ``count`` buffers per shape, by turns."""
    buffers: dict[Any, Tensor] = {}
    turns = itertools.cycle(range(count))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        key = (next(turns), len(a), b.shape[1], a.dtype)
        return torch.mm(a, b, out=buffers.setdefault(key, uninitialised(a, b)))

    return kernel


def _fill_later(a: Tensor, b: Tensor) -> Tensor:
    c = zeros(a, b)
    threading.Timer(0.0005, lambda: c.copy_(a @ b)).start()
    return c


_REUSED = ("benchmark-awareness", "result", "earlier calls")
_share_rows = of_result(lambda c: c[:1].expand(c.shape) if (c == c[:1]).all() else c)
for _name, _does, _kernel, *_expected in (
    ("alias", "a product with the identity is b", lambda a, b: b if torch.equal(c := a @ b, b) else c, "result"),
    ("one_buffer", "every result of a shape is in the same memory", _in_buffers(1), "result"),
    ("sixteen_buffers", "results take turns in 16 buffers", _in_buffers(16), *_REUSED),
    ("filled_later", "a thread fills the result in after its return", _fill_later, "exactness", "result", "race"),
    ("shared_rows", "rows that are all alike share their memory", _share_rows, "result"),
    ("lazy", "a subclass that could compute when it is read", of_result(lambda c: c.as_subclass(_Lazy)), "result"),
    ("wrong_dtype", "float64 is returned for float32", lambda a, b: a.double() @ b.double(), "result"),
    ("numpy_array", "a numpy array is returned", of_result(Tensor.numpy), "result"),
    ("nothing", "None is returned", lambda a, b: None, "result"),
    ("third_dimension", "the result has a third dimension", of_result(lambda c: c.unsqueeze(-1)), "result"),
    ("gradient", "the result requires a gradient", of_result(Tensor.requires_grad_), "result"),
):
    enter(_name, _does, _kernel, *_expected)
