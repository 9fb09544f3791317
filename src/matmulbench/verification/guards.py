"""Memory safety: operands that end, or begin, at memory which nobody may touch, and that nobody may write.

A kernel that reads or writes one element beyond an operand dies of it, and its process is reported as crashed.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import torch

from matmulbench.dtypes import as_array, as_tensor
from matmulbench.isolation.system import protect
from matmulbench.verification import shapes
from matmulbench.verification.kernel import KernelUnderTest

_QUICK_S = 1e-3
_AT_LEAST = (20, 150)  # cases that no kernel is spared, nor one that is quick: on a busy machine, too


def guarded(operand: torch.Tensor, at_end: bool) -> torch.Tensor:
    """Return ``operand``, not empty, in memory that is read-only, with an inaccessible page on either side.

    Its last element touches the page behind it, or its first (not ``at_end``) the page before it.
    """
    steps = zip(operand.shape, operand.stride(), strict=True)
    stored = as_array(operand.as_strided([1 + sum((size - 1) * stride for size, stride in steps)], [1]))
    page = mmap.PAGESIZE
    inside = -(-stored.nbytes // page) * page
    memory = mmap.mmap(-1, inside + 2 * page)
    offset = page + (inside - stored.nbytes if at_end else 0)
    array = np.frombuffer(memory, stored.dtype, stored.size, offset)
    array[...] = stored
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect(start, page, readable=False)
    protect(start + page, inside, readable=True)
    protect(start + page + inside, page, readable=False)
    return as_tensor(array).as_strided(operand.shape, operand.stride())


def check_memory_safety(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply between guard pages.

    Raises
    ------
    WrongError
        for a wrong value; for a touch of what is not the operand's there is no return.
    """
    end = kernel.pace.clock() + seconds
    for number, case in enumerate(shapes.between_guards(kernel.dtype)):
        expected = kernel.pace.predict(case.m, case.k, case.n)
        mandatory = number < _AT_LEAST[expected < _QUICK_S]
        if kernel.pace.clock() + 2 * expected > end and not mandatory:
            return
        for at_end in (True, False):
            side = "end" if at_end else "begin"
            where = f"{case}, operands that {side} at an inaccessible page and are read-only"
            a, b = (guarded(operand, at_end) for operand in case.operands())
            kernel.check_exact(a, b, where)
