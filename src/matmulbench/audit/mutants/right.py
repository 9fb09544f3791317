"""Right kernels that look unusual: none may be refused."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import math
import random

import numpy as np
import torch
from scipy.linalg import blas

from matmulbench.audit.mutants import planted
from matmulbench.ladder.operands import sizes


def _zeros(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, _, n = sizes(a, b)
    return torch.zeros(m, n, dtype=a.dtype)


@planted("nothing: Strassen's algorithm down to 16", "normwise")
def strassen(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, k, n = sizes(a, b)
    if min(m, k, n) <= 16:
        return a @ b
    a, b = (torch.nn.functional.pad(x, (0, x.shape[1] % 2, 0, x.shape[0] % 2)) for x in (a, b))
    (a11, a12), (a21, a22) = (row.chunk(2, 1) for row in a.chunk(2))
    (b11, b12), (b21, b22) = (row.chunk(2, 1) for row in b.chunk(2))
    m1, m2, m3 = strassen(a11 + a22, b11 + b22), strassen(a21 + a22, b11), strassen(a11, b12 - b22)
    m4, m5 = strassen(a22, b21 - b11), strassen(a11 + a12, b22)
    m6, m7 = strassen(a21 - a11, b11 + b12), strassen(a12 - a22, b21 + b22)
    upper = torch.cat([m1 + m4 - m5 + m7, m3 + m5], 1)
    lower = torch.cat([m2 + m4, m1 - m2 + m3 + m6], 1)
    return torch.cat([upper, lower])[:m, :n].contiguous()


@planted("nothing: Kahan's compensated sum", "pass")
def kahan(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total, lost = _zeros(a, b), _zeros(a, b)
    for p in range(a.shape[1]):
        term = a[:, p, None] * b[p] - lost
        new = total + term
        # Where the sum is not finite the correction would be NaN for Inf.
        lost = torch.where(new.isfinite(), (new - total) - term, 0)
        total = new
    return total


@planted("nothing: from the last product to the first", "pass")
def reversed_order(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = _zeros(a, b)
    for p in reversed(range(a.shape[1])):
        c += a[:, p, None] * b[p]
    return c


@planted("nothing: in another order each time", "pass")
def random_order(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    order = torch.tensor(random.sample(range(a.shape[1]), a.shape[1]), dtype=torch.long)
    c = _zeros(a, b)
    for p in order:
        c += a[:, p, None] * b[p]
    return c


@planted("nothing: pairwise sums", "pass")
def pairwise(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    _, k, _ = sizes(a, b)
    if k <= 1:
        return a[:, :1] * b[:1] if k else _zeros(a, b)
    return pairwise(a[:, : k // 2], b[: k // 2]) + pairwise(a[:, k // 2 :], b[k // 2 :])


@planted("nothing: tiles of 24, with their tails", "pass")
def blocked(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    (m, k), n = a.shape, b.shape[1]
    c = _zeros(a, b)
    for i in range(0, m, 24):
        for j in range(0, n, 24):
            for p in range(0, k, 24):
                c[i : i + 24, j : j + 24] += a[i : i + 24, p : p + 24] @ b[p : p + 24, j : j + 24]
    return c


@planted("nothing: float64 sums for float32", "pass")
def double_sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.double() @ b.double()).to(a.dtype)


@planted("nothing: exact sums, rounded once", "pass")
def exact_sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.numel() * b.shape[1] > 2000 or a.dtype == torch.float64 or not (a.isfinite().all() and b.isfinite().all()):
        return double_sums(a, b)
    columns = b.t().double().tolist()
    rows = a.double().tolist()
    sums = [[math.fsum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in rows]
    return torch.tensor(sums, dtype=torch.float64).reshape(len(a), b.shape[1]).to(a.dtype)


@planted("nothing: (bᵀ aᵀ)ᵀ, a transposed view as the result", "pass")
def transposed_view(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (b.t() @ a.t()).t()


@planted("nothing: column by column", "pass")
def columns(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack([a.mv(b[:, j]) for j in range(b.shape[1])], 1) if b.shape[1] else _zeros(a, b)


@planted("nothing: all products at once, then the sum", "pass")
def full_broadcast(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, :, None] * b[None]).sum(1)


@planted("nothing: two halves of k, summed at the end", "pass")
def split_k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    half = a.shape[1] // 2
    return a[:, :half] @ b[:half] + a[:, half:] @ b[half:]


@planted("nothing: eight interleaved accumulators, as vector units have", "pass")
def eight_accumulators(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    parts = [a[:, lane::8] @ b[lane::8] for lane in range(8)]
    return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]))


@planted("nothing: torch.nn.functional.linear", "pass")
def linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(a, b.t())


@planted("nothing: a batch of one", "pass")
def batched(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.bmm(a[None], b[None])[0]


@planted("nothing: the result is in column order, from scipy's BLAS", "pass")
def scipy_blas(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if 0 in (*a.shape, *b.shape):
        return _zeros(a, b)
    gemm = blas.sgemm if a.dtype == torch.float32 else blas.dgemm
    return torch.from_numpy(gemm(1.0, a.numpy(), b.numpy()))


@planted("nothing: the result is part of a larger matrix of its own", "pass")
def padded_result(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    padded = torch.empty(len(a), b.shape[1] + 3, dtype=a.dtype)
    padded[:, : b.shape[1]] = a @ b
    return padded[:, : b.shape[1]]


@planted("nothing: packed copies in a buffer that is kept", "pass")
def kept_workspace(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    workspace = _workspaces.setdefault((b.shape, b.dtype), torch.empty(b.shape, dtype=b.dtype))
    workspace.copy_(b)
    return a @ workspace


_workspaces: dict[object, torch.Tensor] = {}


@planted("nothing: numpy.dot on arrays in column order", "pass")
def column_order(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.dot(np.asfortranarray(a.numpy()), np.asfortranarray(b.numpy())))
