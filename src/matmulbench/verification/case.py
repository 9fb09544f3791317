"""A case: one pair of operands that can be made again from its shape, layout, dtype, values and seed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matmulbench.dtypes import DTYPES, DType, as_array, as_tensor, filler, numpy_dtype
from matmulbench.errors import UsageError, printable

Array = npt.NDArray[np.floating]

# One letter per operand. torch has no negative strides, so there is none here.
LAYOUT_LETTERS = {
    "N": "contiguous",
    "T": "a transposed view",
    "R": "every second row of a larger matrix",
    "C": "every second column of a larger matrix",
    "O": "the inside of a larger matrix, at an offset",
    "X": "one row expanded to all (stride 0)",
    "Y": "one column expanded to all (stride 0)",
}
SURROUNDED = set("RCO")  # of these, views whose neighbours in memory are filled with NaN
SPARSE = 4  # nonzero elements per row of a sparse left operand
_USUAL: dict[str, Any] = {"layout": "NN", "dtype": "float32", "values": "integers", "seed": 0}  # left out of a text
_TEXT = re.compile(rf"(\d{{1,9}})x(\d{{1,9}})x(\d{{1,9}})(?::([{''.join(LAYOUT_LETTERS)}]{{2}}))?")


@dataclass(frozen=True)
class Case:
    """One product to judge: ``a`` (m, k) times ``b`` (k, n).

    ``layout`` has a letter for each operand, of :data:`LAYOUT_LETTERS`; ``values`` is a name from :data:`VALUES`.
    """

    m: int
    k: int
    n: int
    layout: str = "NN"
    dtype: str = "float32"
    values: str = "normal"
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read the text form: ``2x2x1:TN``, and behind it, where they are not the usual ones, dtype, values and seed.

        ``2x2x1`` alone is ``2x2x1:NN,float32,integers,0``.

        Raises
        ------
        UsageError
            if the text has another form; the message names the part and what would be right.
        """
        shape, *more = text.split(",")
        match = _TEXT.fullmatch(shape)
        if not match:
            raise UsageError(
                f"case {printable(text, 60)!r}: expected MxKxN or MxKxN:LAYOUT, such as 2x2x1:TN, with a letter of "
                f"{', '.join(LAYOUT_LETTERS)} for each operand"
            )
        fields = _USUAL | ({"layout": match[4]} if match[4] else {})
        for part in more:
            name = "dtype" if part in DTYPES else "values" if part in VALUES else "seed"
            if name == "seed" and not re.fullmatch(r"\d{1,18}", part):
                known = ", ".join([*DTYPES, *VALUES])
                raise UsageError(f"case {printable(text, 60)!r}: {printable(part, 60)!r} is none of {known}; or a seed")
            fields[name] = int(part) if name == "seed" else part
        m, k, n = map(int, match.group(1, 2, 3))
        return cls(m, k, n, **fields)

    @property
    def text(self) -> str:
        """The short form that :meth:`parse` reads: one word for a shell, with all that makes the case again."""
        layout = "" if self.layout == _USUAL["layout"] else f":{self.layout}"
        more = [str(getattr(self, name)) for name in _USUAL if getattr(self, name) != _USUAL[name] and name != "layout"]
        return ",".join([f"{self.m}x{self.k}x{self.n}{layout}", *more])

    def __str__(self) -> str:
        layout = "" if self.layout == _USUAL["layout"] else f":{self.layout}"
        return f"{self.m}x{self.k}x{self.n}{layout} {self.dtype}, {self.values}, seed {self.seed}"

    @property
    def volume(self) -> int:
        """Multiplications in the product."""
        return self.m * self.k * self.n

    @property
    def kind(self) -> DType:
        """What the dtype means."""
        return DTYPES[self.dtype]

    @property
    def exact(self) -> bool:
        """Whether every summation order must give the same answer, bit for bit."""
        return self.values in EXACT or self.kind.is_integer

    def arrays(self) -> tuple[Array, Array]:
        """Draw the values of ``a`` (m, k) and ``b`` (k, n)."""
        rng = np.random.default_rng((self.seed, self.m, self.k, self.n))
        draw = INTEGERS.get(self.values, VALUES[self.values]) if self.kind.is_integer else VALUES[self.values]
        a, b = draw(rng, self)
        dtype = numpy_dtype(self.dtype)
        return a.astype(dtype, copy=False), b.astype(dtype, copy=False)

    def operands(self, beside: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``a`` (m, k) and ``b`` (k, n) in their layouts, with ``beside`` in the gaps, else NaN or 77."""
        a, b = self.arrays()
        return arrange(a, self.layout[0], beside), arrange(b, self.layout[1], beside)

    def described(self) -> dict[str, str]:
        """Return both operands, with their layouts, and the product, computed in float64, as texts."""
        a, b = self.operands()
        with np.errstate(all="ignore"):
            expected = (a.double().numpy() @ b.double().numpy()).astype(numpy_dtype(self.kind.result))
        operands = {
            name: f"{tuple(operand.shape)}, {LAYOUT_LETTERS[letter]}\n{shown(as_array(operand))}"
            for name, operand, letter in zip("ab", (a, b), self.layout, strict=True)
        }
        return operands | {"expected": shown(expected)}


def shown(values: Array) -> str:
    """Return a matrix as a text of a few lines: its corners, integers in full, else eight digits."""
    with np.errstate(invalid="ignore"):
        integers = values.astype(np.int64)
    values = values.astype(np.float64) if values.dtype.itemsize < 4 else values
    whole = bool((integers == values).all())
    return np.array2string(integers if whole else values, max_line_width=72, threshold=48, edgeitems=2, precision=7)


def arrange(values: Array, letter: str, beside: float | None = None) -> torch.Tensor:
    """Lay ``values`` (rows, columns) out as ``letter`` of :data:`LAYOUT_LETTERS` says, ``beside``, or NaN, in gaps."""
    rows, columns = values.shape
    gap = filler(values.dtype.name) if beside is None else beside

    def surrounded(height: int, width: int) -> torch.Tensor:
        return torch.full((height, width), gap, dtype=getattr(torch, values.dtype.name))

    tensor = as_tensor(np.ascontiguousarray(values))
    match letter:
        case "N":
            return tensor
        case "T":
            return as_tensor(np.ascontiguousarray(values.T)).t()
        case "R":
            view = surrounded(2 * rows, columns)[::2]
        case "C":
            view = surrounded(rows, 2 * columns)[:, ::2]
        case "O":
            view = surrounded(rows + 3, columns + 5)[1 : 1 + rows, 3 : 3 + columns]
        case "X":
            return tensor[:1].expand(rows, columns)
        case "Y":
            return tensor[:, :1].expand(rows, columns)
        case _:
            raise ValueError(f"layout {letter!r}: expected one of {', '.join(LAYOUT_LETTERS)}")
    view.copy_(tensor)
    return view


# --- values -------------------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, "Case"], tuple[Array, Array]]
Shape = tuple[int, int]


def _each(draw: Callable[[np.random.Generator, Case, Shape], Array]) -> Draw:
    """Draw both operands of a case alike."""
    return lambda rng, case: (draw(rng, case, (case.m, case.k)), draw(rng, case, (case.k, case.n)))


_normal = _each(lambda rng, _, shape: rng.standard_normal(shape))


def _scaled(rng: np.random.Generator, case: Case) -> tuple[Array, Array]:
    # The componentwise bound knows no scale; an absolute tolerance, or Strassen, does.
    a, b = _normal(rng, case)
    rows, inner, columns = (
        2.0 ** rng.integers(-case.kind.scale, case.kind.scale + 1, size) for size in (case.m, case.k, case.n)
    )
    return a * rows[:, None] * inner, b / inner[:, None] * columns


def _cancelling(rng: np.random.Generator, case: Case) -> tuple[Array, Array]:
    # The second half of each sum takes the first half back, all but its last bits.
    a, b = _normal(rng, case)
    half = case.k // 2
    a[:, half : 2 * half] = a[:, :half] * (1 + max(2.0**-20, 2.0 ** (4 - case.kind.digits)))
    b[half : 2 * half] = -b[:half]
    return a, b


def _integers_up_to(largest: Callable[[Case], int]) -> Draw:
    def draw(rng: np.random.Generator, case: Case, shape: Shape) -> Array:
        return rng.integers(-largest(case), largest(case), shape, endpoint=True).astype(np.float64)

    return _each(draw)


def _largest(case: Case, products: int) -> int:
    """Return the largest integer of which so many products can be added exactly."""
    return max(1, min(case.kind.exact, math.isqrt(case.kind.sum_limit // max(1, products))))


# k products of this size just fit: fewer bits in any accumulator, and something is lost.
_integers = _integers_up_to(lambda case: _largest(case, case.k))


def _small(case: Case) -> int:
    # Room for the larger intermediate sums of Strassen-type algorithms. Of narrow results, most are to be rounded.
    more = case.kind.is_narrow and case.k > 8
    return max(3, min(31, math.isqrt(2**20 // case.k))) if more else 3


def _sparse(rng: np.random.Generator, case: Case) -> tuple[Array, Array]:
    # Few products, so that each may have many bits however large k is.
    if case.layout[0] == "Y":  # one column for all of them: a row is all zero or not at all
        return _integers(rng, case)
    a, b = _integers_up_to(lambda case: _largest(case, SPARSE))(rng, case)
    if case.k > SPARSE:
        position = rng.permuted(np.broadcast_to(np.arange(case.k), (case.m, case.k)), axis=1)
        a[position >= SPARSE] = 0
    return a, b


def _odd(rng: np.random.Generator, case: Case, rows: int, columns: int) -> Array:
    """Draw integers that need every bit: the top one and the lowest are set, those between are random."""
    largest = 2**case.kind.digits
    # A large matrix repeats its first rows: to draw each element would take longer than the product.
    drawn = rng.integers(largest // 4, largest // 2, (min(rows, 64), columns)) * 2 + 1
    return np.resize((drawn * rng.choice((-1, 1), drawn.shape)).astype(numpy_dtype(case.dtype)), (rows, columns))


def _unless_expanded_inside(draw: Draw) -> Draw:
    """Draw integers where one column of a, or one row of b, is for all: it is all zero or not at all."""
    return lambda rng, case: (_integers if case.layout[0] == "Y" or case.layout[1] == "X" else draw)(rng, case)


@_unless_expanded_inside
def _all_bits(rng: np.random.Generator, case: Case) -> tuple[Array, Array]:
    # Every element of the product is one of a's, or one of b's, or the negative: each bit of it counts.
    m, k, n = case.m, case.k, case.n
    a, b = (np.zeros(shape, numpy_dtype(case.dtype)) for shape in ((m, k), (k, n)))
    a[::2, ::2] = _odd(rng, case, (m + 1) // 2, (k + 1) // 2)
    b[1::2] = _odd(rng, case, k // 2, n)
    if k:
        b[2 * rng.integers((k + 1) // 2, size=n), np.arange(n)] = rng.choice((-1, 1), n)
    if k > 1:
        a[np.arange(1, m, 2), 1 + 2 * rng.integers(k // 2, size=m // 2)] = rng.choice((-1, 1), m // 2)
    return a, b


@_unless_expanded_inside
def _lone(rng: np.random.Generator, case: Case) -> tuple[Array, Array]:
    # One product of all bits and 1, all else is zero: the sums of Strassen-type algorithms lose nothing of it.
    a, b = (np.zeros(shape, numpy_dtype(case.dtype)) for shape in ((case.m, case.k), (case.k, case.n)))
    if case.volume:
        i, p, j = (rng.integers(size) for size in (case.m, case.k, case.n))
        a[i, p], b[p, j] = (_odd(rng, case, 1, 1)[0, 0], 1)[:: -1 if case.seed % 2 else 1]
    return a, b


VALUES: dict[str, Draw] = {
    "normal": _normal,
    "positive": _each(lambda rng, _, shape: 1 + rng.random(shape)),  # nothing cancels: a bias grows with k
    "scaled": _scaled,
    "cancelling": _cancelling,
    "integers": _integers,
    "small-integers": _integers_up_to(_small),
    "sparse": _sparse,
    "all-bits": _all_bits,
    "lone": _lone,
}
# The smallest and the largest of all: pairs of products are too large for 16 bits.
_extremes = _each(lambda rng, case, shape: rng.choice((-case.kind.exact - 1, case.kind.exact), shape))
# What stands for them in integers.
INTEGERS: dict[str, Draw] = {
    "normal": _integers,
    # Nothing cancels: sums leave the integers that float32 has.
    "positive": _each(
        lambda rng, case, shape: rng.integers(case.kind.exact // 2, case.kind.exact, shape).astype(float)
    ),
    "scaled": _extremes,
    "cancelling": _extremes,
}
EXACT = ("integers", "small-integers", "sparse", "all-bits", "lone")
ALGEBRAIC = ("small-integers", "lone")  # exact for any algebraic algorithm, Strassen's included
