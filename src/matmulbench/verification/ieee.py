"""A kernel's arithmetic: what IEEE 754 says of NaN, infinities and subnormal numbers; and in which dtype it adds.

Not required, because right libraries differ: the sign of a zero (a sum that starts from +0 loses that of -0), and
the order in which finite sums could overflow. A Strassen-type kernel spreads NaN and Inf to more elements than it must;
that is allowed once the rounding has shown it to be one, but it may lose none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ml_dtypes
import numpy as np

from matmulbench.dtypes import DTYPES, as_tensor, numpy_dtype
from matmulbench.verification.case import Array, Case, arrange
from matmulbench.verification.kernel import KernelUnderTest

_SHAPES = ((1, 1, 1), (2, 3, 2), (3, 4, 5), (9, 10, 11), (17, 18, 19), (33, 34, 35))
_AT_LEAST = 2 * 3  # shapes and positions that no kernel is spared
_LARGE = 1e30
_ROWS, _PAIRS = 8, 64  # of products that cancel
_SIXTEEN_BITS, _FLOAT32 = 2.0**-16, 2.0**-36  # what sums of zero leave, relative to what is added, at least
_WRONG = 2.0**-4  # more than any of these leaves
_FAST_MATH = (
    "that there is neither NaN nor Inf is taken for granted, and what comes of them is left to chance; say what it may "
    'do instead, as quick: fastmath={"contract", "reassoc", "arcp", "nsz"}'
)
Special = tuple[str, Array, Array]


def _specials(a: Array, b: Array, i: int, p: int, j: int) -> Iterator[Special]:
    """Yield the operands with special values where the product ``a[i, p] * b[p, j]`` is, and a name for each."""
    inf, nan, numbers = np.inf, np.nan, ml_dtypes.finfo(a.dtype)  # type: ignore[no-untyped-call]
    both = [p, (p + 1) % a.shape[1]]
    column, row = np.s_[:, p], np.s_[p, :]
    half = 2.0 ** (np.log2(float(numbers.smallest_normal)) // 2 - 3)
    yield "NaN in a", _with(a, (i, p), nan), b
    yield "NaN in b", a, _with(b, (p, j), nan)
    yield "NaN · 0", _with(a, (i, p), nan), _with(b, row, 0)
    yield "0 · NaN", _with(a, column, 0), _with(b, (p, j), nan)
    yield "Inf in a", _with(a, (i, p), inf), b
    yield "-Inf in b", a, _with(b, (p, j), -inf)
    yield "Inf · 0 is NaN", _with(a, (i, p), inf), _with(b, row, 0)
    yield "0 · Inf is NaN", _with(a, column, 0), _with(b, (p, j), inf)
    yield "Inf - Inf is NaN", _with(a, (i, both), inf), _with(b, (both, j), [1, -1])
    yield "overflow to Inf", _with(a, (i, p), numbers.max), _with(b, row, np.where(b[p] < 0, -4, 4))
    yield (
        "large numbers that do not overflow",
        _with(0 * a, (i, p), numbers.max / a.dtype.type(8)),
        _with(b, (p, j), -4),
    )
    if a.dtype.name != "bfloat16":  # which processors multiply as if there were none
        yield "subnormal numbers", a * numbers.smallest_subnormal, b
        yield "products that underflow to subnormal numbers", a * a.dtype.type(half), b * b.dtype.type(half)
    yield "negative zero", _with(a, np.s_[i, :], -0.0), b


def _with(operand: Array, place: Any, values: Any) -> Array:
    changed = operand.copy()
    changed[place] = values
    return changed


def check_ieee(kernel: KernelUnderTest, seconds: float) -> None:
    """Multiply operands that hold special values.

    Raises
    ------
    WrongError
        if one does not come out as a sum of products has it, or does so by luck.
    """
    if name := _assumes_finite(kernel.kernel):
        raise kernel.wrong(f"{name} is compiled with numba's fastmath", _FAST_MATH)
    if DTYPES[kernel.dtype].is_integer:
        return
    end = kernel.pace.clock() + seconds
    rng = np.random.default_rng(5)
    tried = 0
    for m, k, n in _SHAPES:
        kernel.check(Case(m, k, n, "NN", kernel.dtype, "scaled", seed=5))  # normwise at this size?
        for position in ((m - 1, k - 1, n - 1), (0, 0, 0), (m // 2, k // 2, n // 2)):
            if tried >= _AT_LEAST and kernel.pace.clock() + 28 * kernel.pace.predict(m, k, n) > end:
                return
            tried += 1
            # Nonzero: all else in the sum is exact, and no zero meets an infinity by chance.
            a, b = (
                rng.choice((-3, -2, -1, 1, 2, 3), shape).astype(numpy_dtype(kernel.dtype)) for shape in ((m, k), (k, n))
            )
            for name, left, right in _specials(a, b, *position):
                where = f"{name}, {m}x{k}x{n} {kernel.dtype}, at i, p, j = {position}"
                for layout in ("NN", "TT")[: 2 if m * k * n > 1000 else 1]:
                    _check(kernel, left, right, layout, where)


def _assumes_finite(kernel: Any) -> str | None:
    """Return the name of the function, the kernel or one that it names, that LLVM may compile as if all were finite."""
    functions = [kernel]
    while wrapped := getattr(functions[-1], "__wrapped__", None):
        functions.append(wrapped)
    with suppress(TypeError, ValueError):  # it is not written in Python
        variables = inspect.getclosurevars(functions[-1])
        functions += [*variables.nonlocals.values(), *variables.globals.values()]
    for function in functions:
        options = getattr(function, "targetoptions", None)
        fast = options.get("fastmath") if isinstance(options, dict) else None
        if fast is True or {"fast", "nnan", "ninf"} & set(fast or ()):
            return str(function.__name__)
    return None


def _check(kernel: KernelUnderTest, a: Array, b: Array, layout: str, where: str) -> None:
    with np.errstate(all="ignore"):  # numpy's kernels warn of what is asked of them here
        result = kernel.call(arrange(a, layout[0]), arrange(b, layout[1]), where)
        wide = np.promote_types(a.dtype, np.float32)  # that of the sums
        expected = (a.astype(wide)[:, :, None] * b.astype(wide)[None]).sum(axis=1).astype(a.dtype)
    right = (result == expected) | (np.isnan(result) & np.isnan(expected))
    if kernel.normwise and not all(float(np.abs(each).max()) < _LARGE for each in (a, b)):
        # What is not finite, or large, may spread to other elements, but not get lost.
        right |= np.isfinite(expected) | ~np.isfinite(result)
    if not right.all():
        i, j = (int(index[0]) for index in np.nonzero(~right))
        raise kernel.wrong(where, f"c[{i}, {j}] is {float(result[i, j]):.9g}, expected {float(expected[i, j]):.9g}")


def find_accumulation(kernel: KernelUnderTest) -> str | None:
    """Return the dtype in which the kernel's sums are rounded; None for integers, and where there is no telling.

    It is found by products whose sum is zero, where what is left is the rounding of the sums. Sums of 16 bits leave
    more than one part in 2^16 of what they add, float32 less and float64 less still. Of the two dtypes of 16 bits,
    float16 alone overflows beyond 65,504.
    """
    kind = DTYPES[kernel.dtype]
    if kind.is_integer:
        return None
    rng, dtype = np.random.default_rng(4), numpy_dtype(kernel.dtype)
    a, b = np.zeros((2, _ROWS, 2 * _PAIRS))
    exponents = rng.integers(-kind.scale // 2, kind.scale // 2 + 1, _PAIRS)
    terms = rng.standard_normal((_ROWS, _PAIRS)).astype(dtype).astype(float) * 2.0**exponents
    factors = (1 + rng.random(_PAIRS)).astype(dtype).astype(float)
    for row, left in zip(a, terms, strict=True):  # each product and its negative, anywhere in the sum
        row[:_PAIRS], row[_PAIRS:] = left, -left
    b[:] = np.concatenate([factors, factors])
    order = rng.permutation(2 * _PAIRS)
    a, b = a[:, order].astype(dtype), b[:, order].astype(dtype)
    sums = kernel.call(as_tensor(a), as_tensor(np.ascontiguousarray(b.T)), "sums that cancel").astype(float)
    left_over = float(np.max(np.abs(sums) / (np.abs(a.astype(float)) @ np.abs(b.T.astype(float)))))
    if not left_over < _WRONG:
        return None
    if left_over >= _SIXTEEN_BITS:
        if kernel.dtype == "float16":
            return "float16"
        large = np.array([[512.0, 512.0, 1.0]]).astype(dtype)
        beyond = kernel.call(as_tensor(large), as_tensor(np.array([[512.0], [-512.0], [1.0]]).astype(dtype)), "2^18")
        return "bfloat16" if np.isfinite(beyond.astype(float)).all() else "float16"
    return "float32" if left_over >= _FLOAT32 else "float64"


def note_accumulation(kernel: KernelUnderTest) -> None:
    """Note the dtype in which the kernel adds, but for the usual: float32 and float64 in their own."""
    found = find_accumulation(kernel)
    if found and (found != kernel.dtype or DTYPES[found].is_narrow):
        kernel.notes.add(f"accumulates in {found}")
