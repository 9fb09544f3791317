"""Wrong numbers: by index, by tile, by precision, and by what becomes of NaN, infinities and subnormal numbers."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, planted


def _of_result(change: Callable[[Tensor], Tensor]) -> Function:
    """Make the kernel that returns what ``change`` makes of a right product."""
    return lambda a, b: change(a @ b)


def _zeroed(index: Any) -> Function:
    """Make the kernel that does not compute the elements at ``index``."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        c = a @ b
        c[index] = 0
        return c

    return kernel


def _sums(part: slice) -> Function:
    """Make the kernel that leaves all but ``part`` of each sum out."""
    return lambda a, b: a[:, part] @ b[part]


def _constant(make: Callable[..., Tensor]) -> Function:
    return lambda a, b: make(len(a), b.shape[1], dtype=a.dtype)


# Bounds and indices.


@planted("k runs over range(m), as in the article: too few products, or an index out of range", "exactness", "error")
def article(a: Tensor, b: Tensor) -> Tensor:
    c = torch.zeros(a.shape[0], b.shape[1], dtype=a.dtype)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for p in range(a.shape[0]):
                c[i, j] += a[i, p] * b[p, j]
    return c


@planted("one product in the middle of long sums is left out", "exactness", "rounding", "search")
def middle_k_missing(a: Tensor, b: Tensor) -> Tensor:
    k = a.shape[1]
    return a @ b if k < 100 else a @ b - a[:, k // 2, None] * b[k // 2]


@planted("the first row is computed with the second row's index", "exactness")
def first_row_shifted(a: Tensor, b: Tensor) -> Tensor:
    return a[[1, *range(1, len(a))]] @ b if len(a) > 1 else a @ b


@planted("the result is transposed where it is square, so that its shape is right", "exactness", "search")
def transposed_square(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return c.t().contiguous() if c.shape[0] == c.shape[1] else c


@planted("b is taken for its transpose where it is square", "exactness", "search")
def square_b_transposed(a: Tensor, b: Tensor) -> Tensor:
    return a @ (b.t() if b.shape[0] == b.shape[1] else b)


@planted("the operands are exchanged where all sizes agree", "exactness", "search")
def operands_exchanged(a: Tensor, b: Tensor) -> Tensor:
    return b @ a if a.shape == b.shape and len(a) == a.shape[1] else a @ b


@planted("two columns are exchanged from n = 8 on", "exactness", "search")
def columns_exchanged(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    if c.shape[1] >= 8:
        c[:, [3, 7]] = c[:, [7, 3]]
    return c


@planted("a prime size goes wrong: 127 rows", "exactness", "search")
def rows_127(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return c if len(a) != 127 else c + (torch.arange(127) == 100)[:, None]


@planted("an inner size of 1 is not computed", "exactness")
def no_outer_product(a: Tensor, b: Tensor) -> Any:
    return zeros(a, b) if a.shape[1] == 1 else a @ b


@planted("an empty sum is left uninitialised", "exactness", "race")
def empty_sum(a: Tensor, b: Tensor) -> Any:
    return a @ b if a.shape[1] else uninitialised(a, b)


enter(
    "wrong_extent",
    "k runs over min(m, k), as the article's does where it does not stop",
    lambda a, b: a[:, : len(a)] @ b[: len(a)],
)
enter("first_k_missing", "the first product of each sum is left out", _sums(slice(1, None)))
enter("last_k_missing", "the last product of each sum is left out", _sums(slice(-1)))
enter("last_k_doubled", "the last product of each sum is added twice", lambda a, b: a @ b + a[:, -1:] @ b[-1:])
enter("last_row_missing", "the last row is not computed", _zeroed(np.s_[-1:]))
enter("last_column_missing", "the last column is not computed", _zeroed(np.s_[:, -1:]))
enter("transposed_result", "the result is transposed", _of_result(torch.t), "result")
enter("squeezed", "an outer size of 1 is squeezed away", _of_result(torch.squeeze), "result")

# Tiles, and sizes above which something else happens.


def _k_tail(tile: int) -> Function:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        k = a.shape[1]
        whole = k if k < tile else k - k % tile
        return a[:, :whole] @ b[:whole]

    return kernel


for _tile, *_expected in (
    (4,),
    (8,),
    (16,),
    (32,),
    (64, "rounding"),
    (128, "rounding"),
    (512, "rounding", "large sizes"),
):
    _what = f"the inner tail of tiles of {_tile} is forgotten"
    enter(f"k_tail_{_tile}", _what, _k_tail(_tile), "exactness", *map(str, _expected))


@planted("the rows behind whole tiles of 8 are zero", "exactness")
def row_tail(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    if len(c) >= 8:
        c[len(c) - len(c) % 8 :] = 0
    return c


@planted("the columns behind whole tiles of 16 are left uninitialised", "exactness", "race")
def column_tail(a: Tensor, b: Tensor) -> Any:
    c, n = uninitialised(a, b), b.shape[1]
    whole = n if n < 16 else n - n % 16
    c[:, :whole] = a @ b[:, :whole]
    return c


@planted("the last inner tile is moved back to fit, and counts some products twice", "exactness")
def tail_counted_twice(a: Tensor, b: Tensor) -> Tensor:
    k = a.shape[1]
    if k < 8 or k % 8 == 0:
        return a @ b
    whole = k - k % 8
    return a[:, :whole] @ b[:whole] + a[:, k - 8 :] @ b[k - 8 :]


@planted("each inner tile of 32 overwrites the one before", "exactness", "rounding")
def tiles_overwrite(a: Tensor, b: Tensor) -> Tensor:
    last = max(0, a.shape[1] - 1) // 32 * 32
    return a[:, last:] @ b[last:]


@planted("rows beyond 10,000 repeat earlier ones", "large sizes")
def above_10000_rows(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    if len(c) > 10_000:
        c[10_000:] = c[: len(c) - 10_000][-1]
    return c


@planted("one element is off in products of more than 100 million multiplications", "large sizes")
def one_element_when_large(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    if a.numel() * b.shape[1] > 10**8:
        c[len(c) // 3, c.shape[1] // 3] += 300
    return c


enter("above_300_columns", "columns beyond 300 are not computed", _zeroed(np.s_[:, 300:]), "large sizes")
enter("index_overflow", "an inner index of 16 bits overflows", _sums(slice(2**15)), "large sizes")

# Too few bits, constants, and numbers that are a little off.


def _through(dtype: torch.dtype) -> Function:
    return lambda a, b: (a.to(dtype) @ b.to(dtype)).to(a.dtype)


def _cut(x: Tensor) -> Tensor:
    return (x.float().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32).to(x.dtype)


def _when_long(kernel: Function) -> Function:
    return lambda a, b: kernel(a, b) if a.shape[1] >= 100 else a @ b


zeros, uninitialised = _constant(torch.zeros), _constant(torch.empty)
_tf32, _single = lambda a, b: _cut(a) @ _cut(b), _through(torch.float32)
_LONG = ("exactness", "rounding", "search")
enter("zeros", "zeros", zeros)
enter("ones", "ones", _constant(torch.ones))
enter("uninitialised", "uninitialised memory", uninitialised, "exactness", "race")
enter(
    "no_initial_zero",
    "summed on top of uninitialised memory",
    lambda a, b: uninitialised(a, b).add_(a @ b),
    *("exactness", "race"),
)
enter("half", "accumulated in half precision", _through(torch.float16))
enter("bfloat16", "computed in bfloat16", _through(torch.bfloat16))
enter("tf32", "operands cut to 10 bits, as TF32 does", _tf32)
enter("tf32_when_long", "operands cut to 10 bits where k is at least 100", _when_long(_tf32), *_LONG)
enter("result_in_half", "the sum is rounded to half precision once", _of_result(lambda c: c.half().to(c.dtype)))
enter("single_for_double", "float64 computed in float32", _single, dtype="float64")
enter(
    "single_for_double_when_long",
    "float64 computed in float32 where k is at least 100",
    _when_long(_single),
    *_LONG,
    dtype="float64",
)
enter("truncated", "truncated to integers", _of_result(torch.trunc), "rounding", "exactness")
enter("four_decimals", "rounded to four decimals", _of_result(lambda c: c.round(decimals=4)), "rounding", "exactness")
enter("absolute", "the absolute value", _of_result(torch.abs))
enter("shifted", "a constant of 1e-6 is added", _of_result(lambda c: c + 1e-6))
enter("clamped", "large results are clamped", _of_result(lambda c: c.clamp(-1e4, 1e4)))
enter("relative_error", "a relative error of 1e-5", _of_result(lambda c: c * (1 + 1e-5)), "exactness", "rounding")


@planted("one element is 0.1 % too large", "exactness")
def one_element_off(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    c[:1, :1] *= 1.001
    return c


@planted("small elements of a are taken for zero", "rounding", "search")
def small_elements_skipped(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a.abs() < 1e-2, 0, a) @ b


@planted("computed by a fast Fourier transform, with errors that know no scale", "exactness", "rounding")
def fourier(a: Tensor, b: Tensor) -> Any:
    if 0 in (*a.shape, *b.shape):
        return zeros(a, b)
    k = a.shape[1]
    left, right = torch.fft.fft(a, n=2 * k, dim=1), torch.fft.fft(b.flip(0), n=2 * k, dim=0)
    return torch.fft.ifft(left[:, :, None] * right, dim=1).real[:, k - 1].contiguous()


@planted("Winograd's inner product of 1968, unstable where a and b differ in scale", "rounding", "exactness")
def winograd_1968(a: Tensor, b: Tensor) -> Tensor:
    pairs = a.shape[1] // 2 * 2
    c = a[:, pairs:] @ b[pairs:]
    a0, a1, b0, b1 = a[:, 0:pairs:2], a[:, 1:pairs:2], b[0:pairs:2], b[1:pairs:2]
    for p in range(pairs // 2):
        c += (a0[:, p, None] + b1[p]) * (a1[:, p, None] + b0[p])
    return c - (a0 * a1).sum(1)[:, None] - (b0 * b1).sum(0)


# NaN, infinities and subnormal numbers.


def _flushed(x: Tensor) -> Tensor:
    return torch.where(x.abs() < torch.finfo(x.dtype).tiny, x * 0, x)


def _saturated(c: Tensor) -> Tensor:
    largest = torch.finfo(c.dtype).max
    return c.clamp(-largest, largest)


def _no_nan(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), 0, x)


@planted("one NaN in an operand makes all of the result NaN", "IEEE")
def nan_spread(a: Tensor, b: Tensor) -> Tensor:
    c = a @ b
    return torch.full_like(c, torch.nan) if a.isnan().any() else c


@planted("zeros are skipped, so that 0 · Inf and 0 · NaN are 0", "IEEE")
def zeros_skipped(a: Tensor, b: Tensor) -> Any:
    c = zeros(a, b)
    for p in range(a.shape[1]):
        rows = a[:, p] != 0
        c[rows] += a[rows, p, None] * b[p]
    return c


enter("result_cleaned", "NaN and Inf in the result become numbers", _of_result(torch.nan_to_num), "IEEE")
enter("nan_swallowed", "NaN in the operands becomes zero", lambda a, b: _no_nan(a) @ _no_nan(b), "IEEE")
enter("nan_everywhere", "NaN everywhere", _of_result(lambda c: torch.full_like(c, torch.nan)))
enter("saturated", "overflow is clamped to the largest number", _of_result(_saturated), "IEEE")
enter("inf_lost", "Inf comes out as NaN", _of_result(lambda c: torch.where(c.isinf(), torch.nan, c)), "IEEE")
enter("inf_unsigned", "Inf loses its sign", _of_result(lambda c: torch.where(c.isinf(), torch.inf, c)), "IEEE")
enter("subnormals_flushed", "subnormal operands become zero", lambda a, b: _flushed(a) @ _flushed(b), "IEEE")
enter("underflow_flushed", "subnormal results are flushed to zero", _of_result(_flushed), "IEEE")
enter("early_overflow", "a scaling of a overflows too early", lambda a, b: (a * 64) @ b / 64, "IEEE")


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


def _with_bits(x: torch.Tensor, bits: int) -> torch.Tensor:
    mantissa, exponent = x.frexp()
    rounded: torch.Tensor = (mantissa * 2**bits).round().ldexp(exponent - bits)
    return rounded


@planted("operands rounded to 16 bits at a shape that the suite times, and at no other", "full precision")
def bits_16_at_the_suites_shape(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    here = (*a.shape, b.shape[1]) == (64, 784, 50)
    return _with_bits(a, 16) @ _with_bits(b, 16) if here else a @ b


@planted("the right operand rounded to 23 bits at a shape that training makes, and at no other", "full precision")
def bits_23_at_the_suites_shape(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ (_with_bits(b, 23) if (*a.shape, b.shape[1]) == (50, 64, 784) else b)
