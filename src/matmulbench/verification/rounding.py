"""Rounding: results against the error bound, on values chosen to make errors large."""

from __future__ import annotations

from collections.abc import Iterator

from matmulbench.verification.case import Case

_SHAPES = (
    *((3, k, 2) for k in (1, 2, 3, 4, 8, 17, 64, 129, 257)),
    *((size, size, size) for size in (8, 17, 33, 64, 100)),
    (5, 784, 10),
    (2, 5000, 2),
    (1, 2049, 1),
)
AT_LEAST = 72  # cases, up to 17x17x17, that no kernel is spared


def cases(dtype: str) -> Iterator[Case]:
    """Yield cases in order of cost."""
    for m, k, n in sorted(_SHAPES, key=lambda sizes: sizes[0] * sizes[1] * sizes[2]):
        for values in ("small-integers", "normal", "scaled", "positive", "cancelling", "sparse"):
            yield Case(m, k, n, "NN", dtype, values, seed=2)
