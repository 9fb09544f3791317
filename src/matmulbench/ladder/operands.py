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
    """
    m, k = a.shape
    k_b, n = b.shape
    if k != k_b:
        raise ValueError(f"``k`` differs: a is {tuple(a.shape)}, b is {tuple(b.shape)}")
    return m, k, n
