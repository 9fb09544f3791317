"""Eviction: operands are put out of every cache, whatever caches there are.

To fill the caches with something else does not do it: a cache keeps what was used often from what passes through once.
(Where the last one holds 32 MB, 4 MB of operands stayed in it while 128 MB were written.) The processor has an
instruction that evicts a line from all caches of all cores.
"""

from __future__ import annotations

import platform
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types

from matmulbench.ladder.tiled.vectors import LINE, emitted

_POINTER = ir.IntType(8).as_pointer()


@emitted
def _evict_line(typing_context: Any, address: Any) -> Any:
    """Evict the cache line at ``address``."""
    kind = ir.FunctionType(ir.VoidType(), [_POINTER])

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _POINTER)
        if platform.machine().lower() in ("aarch64", "arm64"):
            builder.asm(kind, "dc civac, $0", "r", [pointer], side_effect=True)
        else:
            name = "llvm.x86.sse2.clflush"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [pointer])  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@numba.njit(cache=True)
def _evict_bytes(address: int, size: int) -> None:
    for place in range(address - address % LINE, address + size, LINE):
        _evict_line(place)


def evict(value: Any) -> None:
    """Evict a tensor or an array, or all in a list or tuple; other objects stay where they are."""
    if isinstance(value, list | tuple):
        for one in value:
            evict(one)
    elif isinstance(value, torch.Tensor):
        _evict_bytes(value.data_ptr(), value.nbytes)
    elif isinstance(value, np.ndarray):
        _evict_bytes(value.ctypes.data, value.nbytes)
