"""The triple loop on a GPU: a thread for each element of the result replaces the two outer loops."""

import torch
from numba import cuda

from matmulbench.ladder.cuda_launch import launch

TILE = (8, 32)  # the 32 threads that run in step have one row: they read neighbours in b, and the same number in a


@cuda.jit(cache=True)
def _one_element(a, b, c):  # type: ignore[no-untyped-def]
    m, k = a.shape
    n = b.shape[1]
    tile, across = cuda.blockIdx.x, (n + TILE[1] - 1) // TILE[1]
    i = tile // across * TILE[0] + cuda.threadIdx.y
    j = tile % across * TILE[1] + cuda.threadIdx.x
    if i < m and j < n:
        total = a.dtype.type(0)
        for p in range(k):
            total += a[i, p] * b[p, j]
        c[i, j] = total


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), every element by a thread of its own, from global memory."""
    return launch(_one_element, TILE, a, b)


matmul.device = "cuda"
matmul.dtypes = ("float32", "float64")
