"""Tiles whose tails are forgotten, and sizes above which something else happens."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import torch

from matmulbench.audit.zoo import planted


def _k_tail(a: torch.Tensor, b: torch.Tensor, tile: int) -> torch.Tensor:
    k = a.shape[1]
    whole = k if k < tile else k - k % tile
    return a[:, :whole] @ b[:whole]


@planted("the inner tail of tiles of 4 is forgotten", "exactness")
def k_tail_4(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 4)


@planted("the inner tail of tiles of 8 is forgotten", "exactness")
def k_tail_8(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 8)


@planted("the inner tail of tiles of 16 is forgotten", "exactness")
def k_tail_16(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 16)


@planted("the inner tail of tiles of 32 is forgotten", "exactness")
def k_tail_32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 32)


@planted("the inner tail of tiles of 64 is forgotten", "exactness", "rounding")
def k_tail_64(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 64)


@planted("the inner tail of tiles of 128 is forgotten", "exactness", "rounding")
def k_tail_128(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 128)


@planted("the inner tail of tiles of 512 is forgotten", "exactness", "rounding", "large sizes")
def k_tail_512(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _k_tail(a, b, 512)


@planted("the rows behind whole tiles of 8 are zero", "exactness")
def row_tail(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if len(c) >= 8:
        c[len(c) - len(c) % 8 :] = 0
    return c


@planted("the columns behind whole tiles of 16 are left uninitialised", "exactness", "race")
def column_tail(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    n = b.shape[1]
    c = torch.empty(len(a), n, dtype=a.dtype)
    whole = n if n < 16 else n - n % 16
    c[:, :whole] = a @ b[:, :whole]
    return c


@planted("the last inner tile is moved back to fit, and counts some products twice", "exactness")
def tail_counted_twice(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    k = a.shape[1]
    if k < 8 or k % 8 == 0:
        return a @ b
    whole = k - k % 8
    return a[:, :whole] @ b[:whole] + a[:, k - 8 :] @ b[k - 8 :]


@planted("each inner tile of 32 overwrites the one before", "exactness", "rounding")
def tiles_overwrite(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for start in range(0, a.shape[1], 32):
        c = a[:, start : start + 32] @ b[start : start + 32]
    return c


@planted("columns beyond 300 are not computed", "large sizes")
def above_300_columns(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    c[:, 300:] = 0
    return c


@planted("rows beyond 10,000 repeat earlier ones", "large sizes")
def above_10000_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if len(c) > 10_000:
        c[10_000:] = c[: len(c) - 10_000][-1]
    return c


@planted("an inner index of 16 bits overflows", "large sizes")
def index_overflow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, : 2**15] @ b[: 2**15]


@planted("one element is off in products of more than 100 million multiplications", "large sizes")
def one_element_when_large(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if a.numel() * b.shape[1] > 10**8:
        c[len(c) // 3, c.shape[1] // 3] += 300
    return c
