"""Wrong numbers: by index, by tile, by precision, of NaN, infinities and subnormal numbers, and of 16 and 8 bits."""
# ruff: noqa: E731 - a kernel is a line

from collections.abc import Callable

import torch
from torch import Tensor

from matmulbench.audit.mutants import Function, enter, of_result, ones, only, panels, then, uninitialised, zeros

_SEARCHED, _ROUNDED, _LONG = ("exactness", "search"), ("exactness", "rounding"), ("exactness", "rounding", "search")
_ANYTHING, _LARGE, _MISMATCH, _BITS = ("exactness", "race"), "large sizes", "shape mismatch", "full precision"


def _sum(a: Tensor, b: Tensor, *part: int | None) -> Tensor:
    """Multiply what ``slice(*part)`` leaves of the inner size."""
    return a[:, slice(*part)] @ b[slice(*part)]


def _whole(size: int, tile: int) -> int:
    """Return how much of ``size`` whole tiles cover; less than one tile counts as whole."""
    return size if size < tile else size - size % tile


# Bounds and indices.


_long: Callable[[int, int, int], bool] = lambda m, k, n: k >= 100
_less_middle: Function = lambda a, b: a @ b - a[:, (middle := len(b) // 2), None] * b[middle]
_over_rows: Function = lambda a, b: a[:, [*range(len(a))]] @ b[[*range(len(a))]]  # an error where m > k
_rows_shifted: Function = lambda a, b: a[[1, *range(1, len(a))]] @ b
_shorter: Function = lambda a, b: _sum(a, b, min(a.shape[1], len(b)))
_panels: Function = lambda a, b: sum((_sum(a, b, p, p + 128) for p in range(0, a.shape[1], 128)), zeros(a, b))
_exchange = then(lambda a, b, c: c.index_copy_(1, torch.tensor([3, 7]), c[:, [7, 3]]))
_row_off = of_result(lambda c: c + (torch.arange(len(c)) == 100)[:, None])
for _name, _does, _where, _kernel, *_expected in (
    ("middle_k_missing", "one product amid long sums is left out", _long, _less_middle, *_LONG),
    ("first_row_shifted", "the first row has the second's index", lambda m, k, n: m > 1, _rows_shifted),
    ("transposed_square", "a square result is transposed", lambda m, k, n: m == n, of_result(torch.t), *_SEARCHED),
    ("square_b_transposed", "a square b is transposed", lambda m, k, n: k == n, lambda a, b: a @ b.t(), *_SEARCHED),
    ("operands_exchanged", "operands change places", lambda m, k, n: m == k == n, lambda a, b: b @ a, *_SEARCHED),
    ("columns_exchanged", "two columns change places from n = 8 on", lambda m, k, n: n >= 8, _exchange, *_SEARCHED),
    ("rows_127", "a prime size goes wrong: 127 rows", lambda m, k, n: m == 127, _row_off, *_SEARCHED),
    ("no_outer_product", "an inner size of 1 is not computed", lambda m, k, n: k == 1, zeros),
    ("empty_sum", "an empty sum is left uninitialised", lambda m, k, n: k == 0, uninitialised, *_ANYTHING),
):
    enter(_name, _does, only(_where, _kernel), *_expected)
enter("article", "k runs over range(m), as in the article", _over_rows, "exactness", "error")
enter("wrong_extent", "k runs over min(m, k), as the article's does at best", lambda a, b: _sum(a, b, len(a)))
enter("first_k_missing", "the first product of each sum is left out", lambda a, b: _sum(a, b, 1, None))
enter("last_k_missing", "the last product of each sum is left out", lambda a, b: _sum(a, b, -1))
enter("last_k_doubled", "the last product of each sum is added twice", lambda a, b: a @ b + _sum(a, b, -1, None))
enter("last_row_missing", "the last row is not computed", then(lambda a, b, c: c[-1:].zero_()))
enter("last_column_missing", "the last column is not computed", then(lambda a, b, c: c[:, -1:].zero_()))
enter("transposed_result", "the result is transposed", of_result(torch.t), "result")
enter("squeezed", "an outer size of 1 is squeezed away", of_result(torch.squeeze), "result")
enter("shorter_extent", "the sum ends where the shorter operand does, though their sizes differ", _shorter, _MISMATCH)
enter("unchecked_panels", "panels of 128 take b's rows without a look at its size", _panels, _MISMATCH)

# Tiles, and sizes above which something else happens.

_twice: Function = lambda a, b: _sum(a, b, _whole(len(b), 8)) + _sum(a, b, -8, None)
_last_tile: Function = lambda a, b: _sum(a, b, max(0, len(b) - 1) // 32 * 32, None)
_repeat_row = then(lambda a, b, c: c[10_000:].copy_(c[: len(c) - 10_000][-1:]))
_element_off = then(lambda a, b, c: c[len(c) // 3, c.shape[1] // 3].add_(300))


def _k_tail(tile: int) -> Function:
    return lambda a, b: _sum(a, b, _whole(a.shape[1], tile))


for _tile in (4, 8, 16, 32, 64, 128, 512):
    _expected = ["exactness", *(["rounding"] if _tile > 32 else []), *([_LARGE] if _tile > 128 else [])]
    enter(f"k_tail_{_tile}", f"the inner tail of tiles of {_tile} is forgotten", _k_tail(_tile), *_expected)
_overlaps = only(lambda m, k, n: k > 8 and k % 8 > 0, _twice)
enter("tail_counted_twice", "the last inner tile is moved back to fit, and counts some products twice", _overlaps)
enter("tiles_overwrite", "each inner tile of 32 overwrites the one before", _last_tile, *_ROUNDED)
enter("row_tail", "rows behind whole tiles of 8 are zero", then(lambda a, b, c: c[_whole(len(c), 8) :].zero_()))
enter("above_10000_rows", "rows beyond 10,000 repeat an earlier one", _repeat_row, _LARGE)
enter("above_300_columns", "columns beyond 300 are not computed", then(lambda a, b, c: c[:, 300:].zero_()), _LARGE)
enter("index_overflow", "an inner index of 16 bits overflows", lambda a, b: _sum(a, b, 2**15), _LARGE)
_off_if_large = only(lambda m, k, n: m * k * n > 10**8, _element_off)
enter("one_element_when_large", "one element is off above 100 million multiplications", _off_if_large, _LARGE)

# Too few bits, constants, and numbers that are a little off.


def _in(dtype: torch.dtype, change: Callable[[Tensor], Tensor] | None = None) -> Function:
    """Make the kernel that multiplies in ``dtype``, and returns what ``change`` makes of it, else a's dtype."""
    return lambda a, b: (change or (lambda c: c.to(a.dtype)))(a.to(dtype) @ b.to(dtype))


def _with_bits(x: Tensor, bits: int) -> Tensor:
    mantissa, exponent = x.frexp()
    rounded: Tensor = (mantissa * 2**bits).round().ldexp(exponent - bits)
    return rounded


def _of_bits(bits: int) -> Function:
    return lambda a, b: _with_bits(a, bits) @ _with_bits(b, bits)


def _fourier(a: Tensor, b: Tensor) -> Tensor:
    k = a.shape[1]
    left, right = torch.fft.fft(a, n=2 * k, dim=1), torch.fft.fft(b.flip(0), n=2 * k, dim=0)
    sums: Tensor = torch.fft.ifft(left[:, :, None] * right, dim=1)
    return sums.real[:, k - 1].contiguous()


def _winograd(a: Tensor, b: Tensor) -> Tensor:
    """Multiply by Winograd's inner product of 1968."""
    pairs = a.shape[1] // 2 * 2
    c = a[:, pairs:] @ b[pairs:]
    a0, a1, b0, b1 = a[:, 0:pairs:2], a[:, 1:pairs:2], b[0:pairs:2], b[1:pairs:2]
    for p in range(pairs // 2):
        c += (a0[:, p, None] + b1[p]) * (a1[:, p, None] + b0[p])
    return c - (a0 * a1).sum(1)[:, None] - (b0 * b1).sum(0)


_on_top: Function = lambda a, b: uninitialised(a, b).add_(a @ b)
_no_small: Function = lambda a, b: torch.where(a.abs() < 1e-2, 0, a) @ b
_single = _in(torch.float32)
_timed = only(lambda *mkn: mkn == (64, 784, 50), _of_bits(16))
_trained = only(lambda *mkn: mkn == (50, 64, 784), lambda a, b: a @ _with_bits(b, 23))
enter("zeros", "zeros", zeros)
enter("ones", "ones", ones)
enter("uninitialised", "uninitialised memory", uninitialised, *_ANYTHING)
enter("no_initial_zero", "summed on top of uninitialised memory", _on_top, *_ANYTHING)
enter("half", "accumulated in half precision", _in(torch.float16))
enter("bfloat16", "computed in bfloat16", _in(torch.bfloat16))
enter("tf32", "operands rounded to 11 bits, as TF32 does", _of_bits(11))
enter("tf32_when_long", "operands rounded to 11 bits where k is at least 100", only(_long, _of_bits(11)), *_LONG)
enter("single_for_double", "float64 computed in float32", _single, dtype="float64")
enter("single_for_double_when_long", "the same from k = 100 on", only(_long, _single), *_LONG, dtype="float64")
enter("bits_16_at_the_suites_shape", "operands rounded to 16 bits at a shape that is timed", _timed, _BITS)
enter("bits_23_at_the_suites_shape", "b rounded to 23 bits at a shape of training", _trained, _BITS)
enter("result_in_half", "the sum is rounded to half precision once", of_result(lambda c: c.half().to(c.dtype)))
enter("truncated", "truncated to integers", of_result(torch.trunc), *_ROUNDED)
enter("absolute", "the absolute value", of_result(torch.abs))
enter("shifted", "a constant of 1e-6 is added", of_result(lambda c: c + 1e-6))
enter("clamped", "large results are clamped", of_result(lambda c: c.clamp(-1e4, 1e4)))
enter("relative_error", "a relative error of 1e-5", of_result(lambda c: c * (1 + 1e-5)), *_ROUNDED)
enter("one_element_off", "one element is 0.1 % too large", then(lambda a, b, c: c[:1, :1].mul_(1.001)))
enter("small_elements_skipped", "small elements of a are taken for zero", _no_small, "rounding", "search")
_in_spectrum = only(lambda *mkn: 0 not in mkn, _fourier)
enter("fourier", "a fast Fourier transform, with errors that know no scale", _in_spectrum, *_ROUNDED)
enter("winograd_1968", "Winograd's inner product, unstable where a and b differ in scale", _winograd, *_ROUNDED)

# NaN, infinities and subnormal numbers.


_flush: Callable[[Tensor], Tensor] = lambda x: torch.where(x.abs() < torch.finfo(x.dtype).tiny, x * 0, x)
_skip_zeros: Function = lambda a, b: torch.where(a[:, :, None] == 0, 0, a[:, :, None] * b).sum(1)
_no_nan: Callable[[Tensor], Tensor] = lambda x: torch.where(x.isnan(), 0, x)
_saturate: Callable[[Tensor], Tensor] = lambda c: c.clamp(-(largest := torch.finfo(c.dtype).max), largest)
for _name, _does, _kernel in (
    ("nan_spread", "one NaN makes all of it NaN", lambda a, b: (a @ b).masked_fill(a.isnan().any(), torch.nan)),
    ("zeros_skipped", "zeros are skipped, so that 0 · Inf and 0 · NaN are 0", _skip_zeros),
    ("result_cleaned", "NaN and Inf in the result become numbers", of_result(torch.nan_to_num)),
    ("nan_swallowed", "NaN in the operands becomes zero", lambda a, b: _no_nan(a) @ _no_nan(b)),
    ("saturated", "overflow is clamped to the largest number", of_result(_saturate)),
    ("inf_lost", "Inf comes out as NaN", of_result(lambda c: c.masked_fill(c.isinf(), torch.nan))),
    ("inf_unsigned", "Inf loses its sign", of_result(lambda c: c.masked_fill(c.isinf(), torch.inf))),
    ("subnormals_flushed", "subnormal operands become zero", lambda a, b: _flush(a) @ _flush(b)),
    ("underflow_flushed", "subnormal results are flushed to zero", of_result(_flush)),
    ("early_overflow", "a scaling of a overflows too early", lambda a, b: (a * 64) @ b / 64),
):
    enter(_name, _does, _kernel, "IEEE")
enter("nan_everywhere", "NaN everywhere", of_result(lambda c: torch.full_like(c, torch.nan)))

# Of 16 and 8 bits: sums in too few bits, results rounded in the wrong way, saturation, wrapping.

_NARROW = ("exactness", "rounding", "search", "batches", "large sizes", "race")
_BFLOAT, _HALF, _FLOAT, _INT = torch.bfloat16, torch.float16, torch.float32, torch.int32
_from_64: Callable[[int, int, int], bool] = lambda m, k, n: k >= 64


def _summed_in(dtype: torch.dtype, block: int = 1) -> Function:
    """Make the kernel that rounds its sums to ``dtype`` after every ``block`` products."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        total = zeros(a.float(), b)
        for part in panels(a.float(), b.float(), block):
            total = (total + part).to(dtype).float()
        return total.to(a.dtype)

    return kernel


def _upper_half(of: Callable[[Tensor], Tensor]) -> Function:
    """Make the kernel that takes the upper half of what ``of`` makes of a sum's bits for the bfloat16 result."""
    return _in(_FLOAT, lambda c: (of(c.view(torch.int32)) >> 16).to(torch.int16).view(_BFLOAT))


def _saturating_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Add products by two into 16 bits, as VPMADDUBSW does, which saturate."""
    pairs = (part.clamp(-(2**15), 2**15 - 1) for part in panels(a.int(), b.int(), 2))
    return sum(pairs, zeros(a.int(), b))


_twice_rounded = _in(_FLOAT, lambda c: _with_bits(c, 11).bfloat16())
for _sums, _dtype in ((_BFLOAT, "bfloat16"), (_HALF, "bfloat16"), (_HALF, "float16")):
    _name = f"sums_in_{_sums}_for_{_dtype}".replace("torch.", "")
    enter(_name, f"{_dtype} sums kept in {_sums}", _summed_in(_sums), *_NARROW, dtype=_dtype)
    _kernel = only(_from_64, _summed_in(_sums))
    enter(f"{_name}_long", f"{_dtype} sums in {_sums} from k = 64 on", _kernel, *_NARROW, dtype=_dtype)
    enter(f"{_name}_by_block", f"{_dtype} sums go to {_sums} after 32", _summed_in(_sums, 32), *_NARROW, dtype=_dtype)
for _name, _does, _kernel, _dtype in (
    ("to_odd", "rounded to odd", _upper_half(lambda bits: bits | ((bits & 0xFFFF) != 0).int() << 16), "bfloat16"),
    ("cut_off", "the result is cut off", _upper_half(lambda bits: bits), "bfloat16"),
    ("ties_away", "ties go away from zero", _upper_half(lambda bits: bits + 0x8000), "bfloat16"),  # not to even
    ("rounded_twice", "rounded to 11 bits, then to 8", _twice_rounded, "bfloat16"),
    ("through_bfloat16", "halves by way of bfloat16", _in(_FLOAT, lambda c: c.bfloat16().half()), "float16"),
    ("wraps_at_8_bits", "the result wraps at 8 bits", _in(_INT, lambda c: c.to(torch.int8).int()), "int8"),
    ("wraps_at_16_bits", "sums wrap at 16 bits", _in(_INT, lambda c: c.to(torch.int16).int()), "int8"),
    ("wraps_at_24_bits", "sums wrap at 24 bits", _in(_INT, lambda c: (c << 8) >> 8), "int8"),
    ("saturates_at_16_bits", "sums saturate at 16 bits", _in(_INT, lambda c: c.clamp(-(2**15), 2**15 - 1)), "int8"),
    ("saturating_pairs", "sums of two products saturate at 16 bits", _saturating_pairs, "int8"),
    ("int8_in_float32", "integers are added in float32", _in(_FLOAT, lambda c: c.int()), "int8"),
    ("int8_unsigned", "a is taken for unsigned", lambda a, b: a.view(torch.uint8).int() @ b.int(), "int8"),
):
    enter(_name, _does, _kernel, *_NARROW, dtype=_dtype)
for _name, _does, _kernel in (
    ("half_saturates", "halves too large become the largest", _in(_FLOAT, lambda c: c.clamp(-65504, 65504).half())),
    ("inputs_flushed", "subnormal halves become zero", lambda a, b: _flush(a) @ _flush(b)),
    ("results_flushed", "subnormal results of halves become zero", of_result(_flush)),
):
    enter(_name, _does, _kernel, "IEEE", "rounding", dtype="float16")
