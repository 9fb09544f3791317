"""Tiles in shared memory: each number is read from global memory once for 16 threads, not once for each."""

import torch
from numba import cuda

from matmulbench.ladder.cuda_launch import launch

SIDE = 16
TILE = (SIDE, SIDE)


@cuda.jit(cache=True)
def _one_tile(a, b, c):  # type: ignore[no-untyped-def]
    m, k = a.shape
    n = b.shape[1]
    tile, across = cuda.blockIdx.x, (n + SIDE - 1) // SIDE
    y, x = cuda.threadIdx.y, cuda.threadIdx.x
    i = tile // across * SIDE + y
    j = tile % across * SIDE + x
    a_tile = cuda.shared.array(TILE, a.dtype)
    b_tile = cuda.shared.array(TILE, a.dtype)
    zero = a.dtype.type(0)
    total = zero
    for start in range(0, k, SIDE):
        a_tile[y, x] = a[i, start + x] if i < m and start + x < k else zero
        b_tile[y, x] = b[start + y, j] if start + y < k and j < n else zero
        cuda.syncthreads()  # both tiles are there
        for p in range(SIDE):
            total += a_tile[y, p] * b_tile[p, x]
        cuda.syncthreads()  # no thread needs them any more
    if i < m and j < n:
        c[i, j] = total


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), every tile of 16 by 16 by a block of threads that share what they read."""
    return launch(_one_tile, TILE, a, b)


matmul.device = "cuda"
matmul.dtypes = ("float32", "float64")
