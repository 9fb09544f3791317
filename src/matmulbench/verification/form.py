"""The form of a call: operands that stay as they are, and a result that is a plain tensor with memory of its own."""

from __future__ import annotations

import ctypes
import inspect
import math
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch

from matmulbench.dtypes import DTYPES, filler, numpy_dtype

# How a kernel says that it takes numpy arrays.
ARRAYS = '`operands = "numpy"` as an attribute of the function, or with @numpy behind its name'
_POISONED = 3  # blocks that are filled with NaN and freed before a call
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # glibc alone has it
_M_PERTURB, _ONES = -6, 0x100  # mallopt(3): fresh memory has the complement of the lowest byte, 0xff: a NaN
_LARGEST_POISONED = 1 << 25  # bytes; a larger block is given back to the system at once, and serves nobody again


def fingerprint(operand: torch.Tensor) -> tuple[object, ...]:
    """Return all that a kernel must leave alone: form, place, and a checksum of all the memory behind the view."""
    content = torch.empty(0, dtype=torch.uint8).set_(operand.untyped_storage()).numpy()
    return zlib.crc32(content.data), tuple(operand.shape), operand.stride(), operand.data_ptr(), operand.requires_grad


def result_shape(a: torch.Tensor, b: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of the product of ``a`` and ``b``, two matrices or batches of them."""
    return (*a.shape[:-1], b.shape[-1])


def result_dtype(a: torch.Tensor) -> torch.dtype:
    """Return the dtype that the product of ``a`` and another has: its own, but that int8 gives int32."""
    known = DTYPES.get(str(a.dtype).removeprefix("torch."))
    return getattr(torch, known.result) if known else a.dtype


@contextmanager
def poisoned(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[None]:
    """Leave NaN in the memory that a kernel will probably be given for its result, and in all that glibc hands out."""
    name = str(dtype).removeprefix("torch.")
    if math.prod(shape) * dtype.itemsize <= _LARGEST_POISONED:
        with suppress(MemoryError, RuntimeError):
            blocks: list[object] = [torch.full(shape, filler(name), dtype=dtype) for _ in range(_POISONED)]
            blocks += [np.full(shape, filler(name), dtype=numpy_dtype(name)) for _ in range(_POISONED)]
            del blocks
    _fill_fresh_memory(_ONES)
    try:
        yield
    finally:
        _fill_fresh_memory(0)


def _fill_fresh_memory(pattern: int) -> None:
    if _mallopt:
        _mallopt(_M_PERTURB, pattern)


# What a kernel forks in a call would go on so for good: each read from a pipe would fill all that may come with NaN.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(_fill_fresh_memory, 0))


def wrong_form(a: torch.Tensor, b: torch.Tensor, c: object, returns: str = "torch.Tensor") -> str | None:
    """Return what is wrong with the form of ``c`` as the product of ``a`` and ``b``, and what to do about it.

    ``returns`` is what the kernel is to return: one of arrays gives arrays, of which tensors have been made here.
    """
    shape = result_shape(a, b)
    if type(c) is not torch.Tensor:
        got = "None" if c is None else f"a {type(c).__module__}.{type(c).__name__}".replace("builtins.", "")
        return f"the result is {got}, expected a {returns}: {_remedy(c)}"
    if tuple(c.shape) != shape:
        form = "a row for each of a's, a column for each of b's"
        return f"the result has shape {tuple(c.shape)}, expected {shape}: {form}"
    if c.dtype != (dtype := result_dtype(a)):
        wanted = "a.dtype" if dtype == a.dtype else dtype
        return f"the result is {c.dtype}, expected {dtype}: make it with dtype={wanted}"
    if c.device != a.device or c.layout != torch.strided:
        return f"the result is {c.layout} on {c.device}, expected torch.strided on {a.device}"
    if c.requires_grad:
        return "the result requires a gradient, its operands do not"
    if not c.numel():
        return None
    if any(stride == 0 and size > 1 for stride, size in zip(c.stride(), c.shape, strict=True)):
        return "elements of the result share memory (stride 0)"
    for name, operand in (("a", a), ("b", b)):
        if share_memory(c, operand):
            return f"the result shares memory with operand {name}: make a fresh one"
    return None


def _remedy(c: object) -> str:
    """Say how a kernel that returned ``c`` comes to return a tensor."""
    if c is None:
        return "end the function with `return c`"
    if inspect.iscoroutine(c):
        c.close()  # else Python complains that nobody waited for it
        return "make it a plain function, without `async`"
    if isinstance(c, np.ndarray):
        return f"return torch.from_numpy(c); or, if the kernel takes arrays too, say so with {ARRAYS}"
    return "return a fresh one of shape (m, n)"


def share_memory(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Tell whether the memory behind ``x`` and ``y`` overlaps."""
    first, second = x.untyped_storage(), y.untyped_storage()
    return (
        first.data_ptr() < second.data_ptr() + second.nbytes() and second.data_ptr() < first.data_ptr() + first.nbytes()
    )
