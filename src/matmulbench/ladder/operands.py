"""The one check that every kernel shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sizes(a: torch.Tensor, b: torch.Tensor) -> tuple[int, int, int]:
    """Return m, k, n of the product of ``a`` (m, k) and ``b`` (k, n).

    Raises
    ------
    ValueError
        if the inner sizes differ; the message names both shapes.
    TypeError
        if the dtypes differ; the message names both.
    """
    m, k = a.shape
    k_b, n = b.shape
    if k != k_b:
        raise ValueError(f"``k`` differs: a is {tuple(a.shape)}, b is {tuple(b.shape)}")
    if a.dtype != b.dtype:
        raise TypeError(f"dtypes differ: a is {a.dtype}, b is {b.dtype}; convert one, as b.to(a.dtype) does")
    return m, k, n
