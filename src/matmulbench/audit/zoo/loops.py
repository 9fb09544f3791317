"""Wrong bounds and indices."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import torch

from matmulbench.audit.zoo import planted


@planted(
    "k runs over range(m), as in the article: too few products, or an index out of range",
    "exactness",
    "error",
)
def article(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = torch.zeros(a.shape[0], b.shape[1], dtype=a.dtype)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for p in range(a.shape[0]):
                c[i, j] += a[i, p] * b[p, j]
    return c


@planted("k runs over min(m, k), as the article's does where it does not stop", "exactness")
def wrong_extent(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, : a.shape[0]] @ b[: a.shape[0]]


@planted("the first product of each sum is left out", "exactness")
def first_k_missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, 1:] @ b[1:]


@planted("the last product of each sum is left out", "exactness")
def last_k_missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, : max(0, a.shape[1] - 1)] @ b[: max(0, len(b) - 1)]


@planted("the last product of each sum is added twice", "exactness")
def last_k_doubled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b + a[:, -1:] @ b[-1:]


@planted("one product in the middle of long sums is left out", "exactness", "rounding", "search")
def middle_k_missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    k = a.shape[1]
    return a @ b if k < 100 else a @ b - a[:, k // 2, None] * b[k // 2]


@planted("the last row is not computed", "exactness")
def last_row_missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    c[-1:] = 0
    return c


@planted("the last column is not computed", "exactness")
def last_column_missing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    c[:, -1:] = 0
    return c


@planted("the first row is computed with the second row's index", "exactness")
def first_row_shifted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if len(c) > 1:
        c[0] = c[1]
    return c


@planted("the result is transposed", "result")
def transposed_result(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).t()


@planted("the result is transposed where it is square, so that its shape is right", "exactness", "search")
def transposed_square(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return c.t().contiguous() if c.shape[0] == c.shape[1] else c


@planted("b is taken for its transpose where it is square", "exactness", "search")
def square_b_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ (b.t() if b.shape[0] == b.shape[1] else b)


@planted("the operands are exchanged where all sizes agree", "exactness", "search")
def operands_exchanged(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b @ a if a.shape == b.shape and len(a) == a.shape[1] else a @ b


@planted("two columns are exchanged from n = 8 on", "exactness", "search")
def columns_exchanged(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    if c.shape[1] >= 8:
        c[:, [3, 7]] = c[:, [7, 3]]
    return c


@planted("an outer size of 1 is squeezed away", "result")
def squeezed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).squeeze()


@planted("an inner size of 1 is not computed", "exactness")
def no_outer_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(a), b.shape[1], dtype=a.dtype) if a.shape[1] == 1 else a @ b


@planted("an empty sum is left uninitialised", "exactness", "race")
def empty_sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if a.shape[1] else torch.empty(len(a), b.shape[1], dtype=a.dtype)


@planted("a prime size goes wrong: 127 rows", "exactness", "search")
def rows_127(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    return c if len(a) != 127 else c + (torch.arange(127) == 100)[:, None]


@planted("the sum ends where the shorter operand does, though their sizes differ", "shape mismatch")
def shorter_extent(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    k = min(a.shape[1], len(b))
    return a[:, :k] @ b[:k]


@planted("panels of 128, whose rows of b are taken without a look at its size", "shape mismatch")
def unchecked_panels(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
    for start in range(0, a.shape[1], 128):
        c += a[:, start : start + 128] @ b[start : start + 128]
    return c
