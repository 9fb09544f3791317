"""How the rungs written with ``numba.cuda`` are started: a block of threads for each tile of the result."""

from __future__ import annotations

import functools
from typing import Any

import numba_cuda  # noqa: F401  # takes the place of numba's own CUDA, which is no longer looked after
import torch
from numba import cuda

from matmulbench.ladder.operands import sizes


@functools.cache
def _stream(handle: int) -> Any:
    return cuda.external_stream(handle)


def launch(kernel: Any, tile: tuple[int, int], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Start ``kernel`` with a thread for each element of the product, in blocks of ``tile`` rows and columns; return c.

    It runs on torch's current stream, between what torch has queued there before and after. Where numba simulates a
    GPU (``NUMBA_ENABLE_CUDASIM=1``), the operands are CPU tensors, and it has run on return.
    """
    m, _, n = sizes(a, b)
    c = torch.empty(m, n, dtype=a.dtype, device=a.device)
    rows, columns = tile
    # In one dimension, which alone may have more than 65,535 blocks.
    blocks = -(-m // rows) * -(-n // columns)
    if not c.is_cuda:
        kernel[blocks, (columns, rows)](a.numpy(), b.numpy(), c.numpy())
    elif blocks:
        kernel[blocks, (columns, rows), _stream(torch.cuda.current_stream(c.device).cuda_stream)](a, b, c)
    return c
