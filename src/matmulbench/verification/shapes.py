"""The cases: sizes set against each other, values that make errors large, and what the suite itself multiplies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from matmulbench.verification import EFFORTS, Effort
from matmulbench.verification.case import Case
from matmulbench.workload import LAYOUTS as WORKLOAD_LAYOUTS
from matmulbench.workload import PRESETS

Sizes = tuple[int, int, int]

TINY = (0, 1, 2, 3)
AWKWARD = (0, 1, 2, 3, 5, 7, 8, 9, 11, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 100, 127, 128, 129)
LAYOUTS = (*WORKLOAD_LAYOUTS, "RN", "NR", "CN", "NC", "ON", "NO", "XN", "NX", "YN", "NY", "RC", "CT", "OO")
ROUNDING = (
    *((3, k, 2) for k in (1, 2, 3, 4, 8, 17, 64, 129, 257)),
    *((size, size, size) for size in (8, 17, 33, 64, 100)),
    (5, 784, 10),
    (2, 5000, 2),
    (1, 2049, 1),
)
LARGE = (
    (3, 20000, 2, "NN"), (20000, 3, 2, "TN"), (2, 3, 20000, "NT"), (255, 256, 257, "NN"), (64, 784, 50, "NT"),
    (16, 50000, 10, "TN"), (50000, 16, 10, "NN"), (10, 16, 50000, "NT"), (513, 512, 514, "TT"),
    (1025, 1024, 1023, "NT"), (70_001, 1, 2, "NN"), (2, 1, 70_001, "NT"),  # beyond what 16 bits count
)  # fmt: skip
_SPLIT = 10**7  # multiplications
_LONG_SUMS = {(3, 20_000, 2, "NN"), (2, 100_000, 3, "NT")}
# Widths of layers that nets have, each as each size.
_WIDTHS = (192, 320, 512, 768, 1024, 4096)
_OF_NETS = {(*sizes, "NN") for w in _WIDTHS for sizes in ((w, 1, 2), (2, w, 2), (2, 1, w))}
_BETWEEN_GUARDS = (1, 2, 3, 5, 8, 9, 15, 17, 33, 65)


def grid(dtype: str, effort: Effort = EFFORTS["default"]) -> Iterator[Case]:
    """Yield small products of every layout, then every pair of awkward sizes in each pair of dimensions.

    With the largest effort, each size is set against all pairs of the others.
    """
    for m, k, n in sorted(itertools.product(TINY, repeat=3), key=math.prod):
        yield Case(m, k, n, dtype=dtype, values="integers")
    for layout in LAYOUTS:
        for sizes in ((1, 1, 1), (2, 3, 4), (4, 1, 3), (5, 7, 3)):
            yield Case(*sizes, layout, dtype, "integers")
    for size in AWKWARD:
        for sizes in ((1, size, 1), (size, 1, 1), (1, 1, size)):
            yield Case(*sizes, dtype=dtype, values="integers", seed=1)
        yield Case(2, size, 3, dtype=dtype, values="small-integers", seed=1)
    layouts = itertools.cycle(LAYOUTS)
    values = itertools.cycle(("integers", "small-integers", "normal", "sparse", "integers"))
    triples = {sizes for pair in itertools.product(AWKWARD[1:], repeat=2) for sizes in _with_third(*pair)}
    if effort.every_combination:
        triples |= {(m, k, n) for m in AWKWARD for k in AWKWARD for n in AWKWARD}
    for m, k, n in sorted(triples, key=lambda sizes: (math.prod(sizes), sizes)):
        yield Case(m, k, n, next(layouts), dtype, next(values), seed=1)


def _with_third(x: int, y: int) -> Iterator[Sizes]:
    third = AWKWARD[(x * 7 + y) % len(AWKWARD)] or 1
    for z in {1, 4, third}:
        yield from ((x, y, z), (x, z, y), (z, x, y))


def rounding(dtype: str) -> Iterator[Case]:
    """Yield values that make errors large, in order of cost."""
    for sizes in sorted(ROUNDING, key=math.prod):
        for values in ("small-integers", "normal", "scaled", "positive", "cancelling", "sparse"):
            yield Case(*sizes, "NN", dtype, values, seed=2)


def between_guards(dtype: str) -> Iterator[Case]:
    """Yield all small sizes against each other, in the layouts that training makes, in order of cost."""
    for number, (m, k, n) in enumerate(sorted(itertools.product(_BETWEEN_GUARDS, repeat=3), key=math.prod)):
        if number < 60 or number % 5 == 0:
            for layout in ("NN", "TN", "NT", "TT", "RR")[: 5 if number < 60 else 3]:
                yield Case(m, k, n, layout, dtype, "small-integers", seed=4)


def large(dtype: str) -> Iterator[Case]:
    """Yield products that are long in one dimension, in two, in all."""
    for values in ("small-integers", "normal", "sparse"):
        for m, k, n, layout in LARGE:
            yield Case(m, k, n, layout, dtype, values, seed=6)


def full_precision(dtype: str) -> Iterator[Case]:
    """Yield numbers that need every bit, in order of cost: at the shapes that the suite times, nets' and long sums.

    The error bound of a long sum is wide: operands that are rounded to fewer bits stay within it. Of a large product,
    parts along its longest side come first, as what it takes is best predicted from a product of its kind.
    """
    suite = {(w.m, w.k, w.n, w.layout) for w in PRESETS["full"]} | _LONG_SUMS | _OF_NETS
    for *sizes, layout in sorted(suite, key=lambda shape: (math.prod(shape[:3]), shape)):
        for part in (64, 8, 1) if math.prod(sizes) > _SPLIT else (1,):
            m, k, n = (-(-size // part) if size == max(sizes) else size for size in sizes)
            yield Case(m, k, n, layout, dtype, "all-bits", seed=6)
