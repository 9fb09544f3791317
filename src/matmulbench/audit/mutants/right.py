"""Right kernels that look unusual: none may be refused."""
# ruff: noqa: E731 - a kernel is a line

import math
import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.linalg import blas
from torch import Tensor
from torch.nn import functional

from matmulbench.audit.mutants import Function, enter, panels, zeros
from matmulbench.ladder.operands import sizes


def strassen(a: Tensor, b: Tensor) -> Tensor:
    """Multiply with seven products of halves instead of eight, down to 16."""
    m, k, n = sizes(a, b)
    if min(m, k, n) <= 16:
        return a @ b
    a, b = (functional.pad(x, (0, x.shape[1] % 2, 0, x.shape[0] % 2)) for x in (a, b))
    (a11, a12), (a21, a22) = (row.chunk(2, 1) for row in a.chunk(2))
    (b11, b12), (b21, b22) = (row.chunk(2, 1) for row in b.chunk(2))
    m1, m2, m3 = strassen(a11 + a22, b11 + b22), strassen(a21 + a22, b11), strassen(a11, b12 - b22)
    m4, m5 = strassen(a22, b21 - b11), strassen(a11 + a12, b22)
    m6, m7 = strassen(a21 - a11, b11 + b12), strassen(a12 - a22, b21 + b22)
    upper = torch.cat([m1 + m4 - m5 + m7, m3 + m5], 1)
    lower = torch.cat([m2 + m4, m1 - m2 + m3 + m6], 1)
    return torch.cat([upper, lower])[:m, :n].contiguous()


def _kahan(a: Tensor, b: Tensor) -> Tensor:
    total = lost = zeros(a, b)
    for part in panels(a, b):
        term = part - lost
        new = total + term
        # Where the sum is not finite the correction would be NaN for Inf.
        lost = torch.where(new.isfinite(), (new - total) - term, 0)
        total = new
    return total


def _in_order(order: Callable[[range], Iterable[int]]) -> Function:
    """Make the kernel that sums the products of each element in an ``order`` of k."""
    return lambda a, b: sum(panels(a, b, order=order), zeros(a, b))


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    _, k, _ = sizes(a, b)
    if k <= 1:
        return a[:, :1] * b[:1] if k else zeros(a, b)
    return _pairwise(a[:, : k // 2], b[: k // 2]) + _pairwise(a[:, k // 2 :], b[k // 2 :])


def _interleaved(count: int) -> Function:
    """Make the kernel with ``count`` sums, of every so many products each, as vector units have them."""
    return lambda a, b: sum(a[:, lane::count] @ b[lane::count] for lane in range(count))


def _blocked(a: Tensor, b: Tensor) -> Tensor:
    rows = ([sum(panels(x, y, 24), zeros(x, y)) for y in torch.split(b, 24, 1)] for x in torch.split(a, 24))
    return torch.cat([torch.cat(row, 1) for row in rows])


def _exact_sums(a: Tensor, b: Tensor) -> Tensor:
    if a.numel() * b.shape[1] > 2000 or a.dtype == torch.float64 or not (a.isfinite().all() and b.isfinite().all()):
        return (a.double() @ b.double()).to(a.dtype)
    rows, columns = a.double().tolist(), b.t().double().tolist()
    sums = [[math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in rows]
    return torch.tensor(sums, dtype=torch.float64).reshape(len(a), b.shape[1]).to(a.dtype)


def _scipy_blas(a: Tensor, b: Tensor) -> Tensor:
    if 0 in (*a.shape, *b.shape):
        return zeros(a, b)
    gemm = blas.sgemm if a.dtype == torch.float32 else blas.dgemm
    return torch.from_numpy(gemm(1.0, a.numpy(), b.numpy()))


_kept: dict[object, Tensor] = {}
_columns: Function = lambda a, b: torch.stack([a @ x for x in b.t()], 1) if b.shape[1] else zeros(a, b)
_fortran: Function = lambda a, b: torch.from_numpy(np.dot(*map(np.asfortranarray, (a, b))))
_to_kept: Function = lambda a, b: a @ _kept.setdefault((b.shape, b.dtype), torch.empty_like(b)).copy_(b)
for _name, _does, _kernel, _verdict in (
    ("strassen", "Strassen's algorithm down to 16", strassen, "normwise"),
    ("kahan", "Kahan's compensated sum", _kahan, "pass"),
    ("reversed_order", "from the last product to the first", _in_order(reversed), "pass"),
    ("random_order", "in another order each time", _in_order(lambda k: random.sample(k, len(k))), "pass"),
    ("pairwise", "pairwise sums", _pairwise, "pass"),
    ("blocked", "tiles of 24, with their tails", _blocked, "pass"),
    ("double_sums", "float64 sums for float32", lambda a, b: (a.double() @ b.double()).to(a.dtype), "pass"),
    ("exact_sums", "exact sums, rounded once", _exact_sums, "pass"),
    ("transposed_view", "a transposed view as the result", lambda a, b: (b.t() @ a.t()).t(), "pass"),
    ("columns", "by column", _columns, "pass"),
    ("full_broadcast", "all products, then the sum", lambda a, b: (a[:, :, None] * b[None]).sum(1), "pass"),
    ("split_k", "two sums, of every second product", _interleaved(2), "pass"),
    ("eight_accumulators", "eight sums, of every eighth product", _interleaved(8), "pass"),
    ("linear", "torch.nn.functional.linear", lambda a, b: functional.linear(a, b.t()), "pass"),
    ("batched", "a batch of one", lambda a, b: torch.bmm(a[None], b[None])[0], "pass"),
    ("scipy_blas", "the result is in column order, from scipy's BLAS", _scipy_blas, "pass"),
    ("padded_result", "part of a larger matrix", lambda a, b: functional.pad(a @ b, (0, 3))[:, : b.shape[1]], "pass"),
    ("kept_workspace", "packed copies in a buffer that is kept", _to_kept, "pass"),
    ("column_order", "numpy.dot on arrays in column order", _fortran, "pass"),
):
    enter(_name, f"nothing: {_does}", _kernel, _verdict)
