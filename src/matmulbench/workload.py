"""Workloads: the products to be done, their FLOP and bytes, and the presets that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from matmulbench.dtypes import DTYPES, USUAL
from matmulbench.errors import UsageError, check_known, printable

if TYPE_CHECKING:
    import torch

LAYOUTS = ("NN", "TN", "NT", "TT")

_SIZE = "([1-9][0-9]{0,17})"
_TEXT = re.compile(rf"(?:{_SIZE}\*)?{_SIZE}x{_SIZE}x{_SIZE}(?::([nt]{{2}}))?")


@dataclass(frozen=True)
class Workload:
    """One product: ``a`` (m, k) times ``b`` (k, n), with the layout and dtype of its operands; or a batch of such.

    ``layout`` says which operand is a transposed *view*, as back-propagation makes: ``TN`` the left one,
    ``NT`` the right one, ``TT`` both, ``NN`` neither. Of a ``batch`` of more than one, the operands are (batch, m, k)
    and (batch, k, n).
    """

    m: int
    k: int
    n: int
    layout: str = "NN"
    dtype: str = "float32"
    batch: int = 1

    @classmethod
    def parse(cls, text: str, dtype: str = "float32") -> Workload:
        """Read the text form, ``5x784x10``, ``50x50000x784:TN`` or ``32*128x64x128``.

        Raises
        ------
        UsageError
            if the text has another form, a size is below 1 or the layout is unknown.
        """
        match = _TEXT.fullmatch(text.strip().lower().replace("×", "x"))
        if not match:
            raise UsageError(
                f"workload {printable(text, 60)!r}: expected MxKxN, MxKxN:LAYOUT or BATCH*MxKxN with sizes from 1 "
                f"and a layout of {', '.join(LAYOUTS)}, such as 5x784x10, 50x50000x784:TN or 32*128x64x128"
            )
        m, k, n = map(int, match.group(2, 3, 4))
        return cls(m, k, n, (match[5] or "NN").upper(), dtype, int(match[1] or 1))

    def __str__(self) -> str:
        batch = f"{self.batch}*" if self.batch > 1 else ""
        suffix = "" if self.layout == "NN" else f":{self.layout}"
        return f"{batch}{self.m}x{self.k}x{self.n}{suffix}"

    @property
    def flop(self) -> int:
        """Floating-point (or integer) operations: a multiplication and an addition for each of batch·m·k·n."""
        return 2 * self.batch * self.m * self.k * self.n

    @property
    def elements(self) -> tuple[int, int, int]:
        """Elements of a, of b and of the result."""
        m, k, n = self.m, self.k, self.n
        return self.batch * m * k, self.batch * k * n, self.batch * m * n

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: both operands read once, the result written once."""
        kind, (left, right, _) = DTYPES[self.dtype], self.elements
        return kind.itemsize * (left + right) + self.result_bytes

    @property
    def result_bytes(self) -> int:
        """Bytes of the result."""
        return DTYPES[self.dtype].result_itemsize * self.elements[2]

    @property
    def intensity(self) -> float:
        """FLOP per byte, the horizontal axis of the roofline model (Williams et al., CACM 2009)."""
        return self.flop / self.bytes

    def operands(self, seed: int | None = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw ``a`` and ``b``, standard normal, integers 32 times as large; transposed views as the layout says.

        Without a seed all their elements are 1.
        """
        import torch

        kind, dtype = DTYPES[self.dtype], getattr(torch, self.dtype)
        generator = torch.Generator().manual_seed(seed or 0)

        def draw(rows: int, columns: int, transposed: bool) -> torch.Tensor:
            shape = (columns, rows) if transposed else (rows, columns)
            batch = (self.batch,) if self.batch > 1 else ()
            if seed is None:
                drawn = torch.ones(*batch, *shape, dtype=dtype)
            else:
                wide = dtype if kind.itemsize > 2 else torch.float32
                drawn = torch.randn(*batch, *shape, generator=generator, dtype=wide)
                drawn = (32 * drawn).clamp(-127, 127).to(dtype) if kind.is_integer else drawn.to(dtype)
            return drawn.mT if transposed else drawn

        left, right = (letter == "T" for letter in self.layout)
        return draw(self.m, self.k, left), draw(self.k, self.n, right)


Product = tuple[int, str, Workload]
"""Layer, counted from 1; ``forward``, ``weight-gradient`` or ``input-gradient``; and the product itself."""


def layer_products(rows: int, layers: tuple[int, ...], dtype: str = "float32") -> list[Product]:
    """List the products of one training step of an MLP in the order in which it does them.

    A layer of ``n_in`` to ``n_out`` on ``rows`` samples needs ``x @ w`` forward; backward, from the last layer to the
    first, ``g.T @ x`` for its weight gradient, transposed, and, except for the first, ``g @ w.T`` for its input
    gradient.
    """
    pairs = list(enumerate(pairwise(layers), 1))
    products = [(i, "forward", Workload(rows, n_in, n_out, dtype=dtype)) for i, (n_in, n_out) in pairs]
    for i, (n_in, n_out) in reversed(pairs):
        products.append((i, "weight-gradient", Workload(n_out, rows, n_in, "TN", dtype)))
        if i > 1:
            products.append((i, "input-gradient", Workload(rows, n_out, n_in, "NT", dtype)))
    return products


def fair_parts(rows: int, parts: int) -> list[int]:
    """Share ``rows`` out as evenly as can be, the larger parts first."""
    return [rows // parts + (i < rows % parts) for i in range(parts)]


MNIST_LAYERS = (784, 50, 10)
BREAST_CANCER_LAYERS = (30, 14, 1)
MNIST_ROWS = 50_000
BREAST_CANCER_ROWS = 455  # 80 % of 569
BATCH = 64

FIRST = Workload(5, 784, 10)  # the first five images times a 784x10 weight matrix


USES = {FIRST: "five images of 784 pixels times 784x10 weights"}
"""What each workload of the presets is for, in words, by its shape and layout."""


def _square(*sizes: int) -> list[Workload]:
    squares = [Workload(size, size, size) for size in sizes]
    USES.update(dict.fromkeys(squares, "a square product"))
    return squares


def _step(rows: int, layers: tuple[int, ...]) -> list[Workload]:
    for layer, which, workload in layer_products(rows, layers):
        place = ("first", "second")[layer - 1]
        USES[workload] = f"{place} layer, {which.replace('-', ' ')}, {rows:,} rows ({'-'.join(map(str, layers))})"
    return [workload for _, _, workload in layer_products(rows, layers)]


PRESETS: dict[str, list[Workload]] = {
    "quick": [FIRST, *_step(BATCH, MNIST_LAYERS)[:1], *_square(64, 256)],
    "standard": [
        FIRST,
        *_step(BATCH, MNIST_LAYERS),
        *_step(MNIST_ROWS, MNIST_LAYERS),
        *_step(BREAST_CANCER_ROWS, BREAST_CANCER_LAYERS),
        *_square(64, 128, 256, 512, 1024),
    ],
}
PRESETS["full"] = [
    replace(workload, dtype=dtype) for dtype in USUAL for workload in [*PRESETS["standard"], *_square(2048)]
]
PRESETS["full"] += [
    Workload(size, size, size, dtype=dtype) for dtype in DTYPES if dtype not in USUAL for size in (256, 1024)
]


def workloads(preset: str = "standard") -> list[Workload]:
    """Return the workloads of a preset.

    Raises
    ------
    UsageError
        if there is no such preset; the message names near matches.
    """
    check_known("preset", preset, PRESETS)
    return list(PRESETS[preset])
