"""Tiles again, written for the whole block of threads at once; Triton's compiler puts them on the tensor cores."""

import torch
import triton
import triton.language as tl

from matmulbench.ladder.operands import sizes

_TUNED = 2**21  # multiplications, from which a second of tuning for every new shape is worth its while
_SMALL = {"ROWS": 32, "COLUMNS": 32, "DEPTH": 32, "num_warps": 4, "num_stages": 2}
_CONFIGS = [
    triton.Config({"ROWS": rows, "COLUMNS": columns, "DEPTH": depth}, num_warps=warps, num_stages=stages)
    for rows, columns, depth, warps, stages in (
        (32, 32, 32, 4, 3),
        (64, 64, 32, 4, 3),
        (128, 64, 32, 4, 3),
        (64, 128, 64, 4, 3),
        (128, 128, 64, 8, 3),
        (128, 256, 64, 8, 3),
    )
]
_INTEGERS = ["m", "k", "n", "a_row", "a_column", "b_row", "b_column"]


def _one_tile(  # type: ignore[no-untyped-def]
    a, b, c, m, k, n, a_row, a_column, b_row, b_column,
    SUM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tile, across = tl.program_id(0), tl.cdiv(n, COLUMNS)
    i = (tile // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    j = (tile % across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((ROWS, COLUMNS), SUM)
    for start in range(0, k, DEPTH):
        p = start + tl.arange(0, DEPTH).to(tl.int64)
        a_tile = tl.load(a + i * a_row + p[None, :] * a_column, (i < m) & (p[None, :] < k), 0)
        b_tile = tl.load(b + p[:, None] * b_row + j * b_column, (p[:, None] < k) & (j < n), 0)
        total = tl.dot(a_tile, b_tile, total, input_precision="ieee", out_dtype=SUM)  # no TF32
    tl.store(c + i * n + j, total.to(c.dtype.element_ty), (i < m) & (j < n))


# One program serves all small products. Of a tuned one there is a program for each set of sizes and strides that are 1
# or divisible by 16: that is what lets a thread read 16 bytes at once.
_small = triton.jit(_one_tile, do_not_specialize=_INTEGERS, do_not_specialize_on_alignment=["a", "b", "c"])
_tuned = triton.autotune(_CONFIGS, key=_INTEGERS)(triton.jit(_one_tile))
# Without tensor cores every multiplication is an instruction: to compile a large tile of them takes minutes.
_tuned_in_full = triton.autotune(_CONFIGS[:2], key=_INTEGERS)(triton.jit(_one_tile))


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply ``a`` (m, k) by ``b`` (k, n), every tile by a program of its own, with sums in 32 bits or more."""
    m, k, n = sizes(a, b)
    c = torch.empty(m, n, dtype=a.dtype, device=a.device)
    if not c.numel():
        return c
    tuned = _tuned if a.itemsize < 4 else _tuned_in_full
    kernel, config = (_small, _SMALL) if m * k * n < _TUNED else (tuned, {})
    total = tl.float64 if a.dtype is torch.float64 else tl.float32

    def grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(m, config["ROWS"]) * triton.cdiv(n, config["COLUMNS"]),)

    kernel[grid](a, b, c, m, k, n, *a.stride(), *b.stride(), SUM=total, **config)
    return c


matmul.device = "cuda"  # type: ignore[attr-defined]
matmul.dtypes = ("float32", "float64", "bfloat16", "float16")  # type: ignore[attr-defined]
