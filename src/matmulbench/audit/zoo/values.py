"""Wrong values: too few bits, constants, and numbers that are a little off."""
# ruff: noqa: D103 - what a kernel does stands in its decorator

import torch

from matmulbench.audit.zoo import planted


def _through(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (a.to(dtype) @ b.to(dtype)).to(a.dtype)


def _tf32(x: torch.Tensor) -> torch.Tensor:
    return (x.float().contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32).to(x.dtype)


@planted("zeros", "exactness")
def zeros(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(a), b.shape[1], dtype=a.dtype)


@planted("ones", "exactness")
def ones(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(a), b.shape[1], dtype=a.dtype)


@planted("uninitialised memory", "exactness", "race")
def uninitialised(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(a), b.shape[1], dtype=a.dtype)


@planted("summed on top of uninitialised memory", "exactness", "race")
def no_initial_zero(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.empty(len(a), b.shape[1], dtype=a.dtype).add_(a @ b)


@planted("accumulated in half precision", "exactness")
def half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _through(a, b, torch.float16)


@planted("computed in bfloat16", "exactness")
def bfloat16(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _through(a, b, torch.bfloat16)


@planted("operands cut to 10 bits, as TF32 does", "exactness")
def tf32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _tf32(a) @ _tf32(b)


@planted("operands cut to 10 bits where k is at least 100", "exactness", "rounding", "search")
def tf32_when_long(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return tf32(a, b) if a.shape[1] >= 100 else a @ b


def _rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    mantissa, exponent = x.frexp()
    rounded: torch.Tensor = (mantissa * 2**bits).round().ldexp(exponent - bits)
    return rounded


@planted("operands rounded to 16 bits at a shape that the suite times, and at no other", "full precision")
def bits_16_at_the_suites_shape(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    here = (*a.shape, b.shape[1]) == (64, 784, 50)
    return _rounded(a, 16) @ _rounded(b, 16) if here else a @ b


@planted("the right operand rounded to 23 bits at a shape that training makes, and at no other", "full precision")
def bits_23_at_the_suites_shape(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ (_rounded(b, 23) if (*a.shape, b.shape[1]) == (50, 64, 784) else b)


@planted("the sum is rounded to half precision once", "exactness")
def result_in_half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).half().to(a.dtype)


@planted("float64 computed in float32", "exactness", dtype="float64")
def single_for_double(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _through(a, b, torch.float32)


@planted("float64 computed in float32 where k is at least 100", "exactness", "rounding", "search", dtype="float64")
def single_for_double_when_long(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _through(a, b, torch.float32) if a.shape[1] >= 100 else a @ b


@planted("truncated to integers", "rounding", "exactness")
def truncated(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).trunc()


@planted("rounded to four decimals", "rounding", "exactness")
def four_decimals(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b * 1e4).round() / 1e4


@planted("the absolute value", "exactness")
def absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).abs()


@planted("one element is 0.1 % too large", "exactness")
def one_element_off(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    c = a @ b
    c[:1, :1] *= 1.001
    return c


@planted("a constant of 1e-6 is added", "exactness")
def shifted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b + 1e-6


@planted("small elements of a are taken for zero", "rounding", "search")
def small_elements_skipped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.where(a.abs() < 1e-2, 0, a) @ b


@planted("large results are clamped", "exactness")
def clamped(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b).clamp(-1e4, 1e4)


@planted("a relative error of 1e-5", "exactness", "rounding")
def relative_error(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b * (1 + 1e-5)


@planted("computed by a fast Fourier transform, with errors that know no scale", "exactness", "rounding")
def fourier(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if 0 in (*a.shape, *b.shape):
        return zeros(a, b)
    k = a.shape[1]
    left, right = torch.fft.fft(a, n=2 * k, dim=1), torch.fft.fft(b.flip(0), n=2 * k, dim=0)
    c: torch.Tensor = torch.fft.ifft(left[:, :, None] * right, dim=1).real[:, k - 1].contiguous()
    return c


@planted("Winograd's inner product of 1968, unstable where a and b differ in scale", "rounding", "exactness")
def winograd_1968(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    pairs = a.shape[1] // 2 * 2
    c = a[:, pairs:] @ b[pairs:]
    a0, a1, b0, b1 = a[:, 0:pairs:2], a[:, 1:pairs:2], b[0:pairs:2], b[1:pairs:2]
    for p in range(pairs // 2):
        c += (a0[:, p, None] + b1[p]) * (a1[:, p, None] + b0[p])
    return c - (a0 * a1).sum(1)[:, None] - (b0 * b1).sum(0)
