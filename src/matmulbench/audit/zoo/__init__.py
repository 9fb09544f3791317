"""The zoo: kernels that are wrong, or that cheat, each with what is planted in it and how it must be found.

The right ones, unusual but not to be refused, are in :mod:`matmulbench.audit.zoo.right`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Function = Callable[[torch.Tensor, torch.Tensor], Any]  # not all return what they should
F = TypeVar("F", bound=Function)
_CAGES = ("loops", "tiles", "values", "ieee", "layouts", "results", "calls", "watchers", "processes", "right")


@dataclass(frozen=True)
class Animal:
    """A kernel of the zoo: where it is, what is planted, and what must be found.

    ``expected`` holds the properties, or the statuses, of which one must be named; for a right kernel the verdict.
    """

    spec: str
    planted: str
    expected: tuple[str, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The function's name."""
        return self.spec.rpartition(":")[2]


ZOO: dict[str, Animal] = {}


def planted(what: str, *expected: str, dtype: str = "float32") -> Callable[[F], F]:
    """Enter the decorated kernel into the zoo: ``what`` is wrong, and ``expected`` must be found."""

    def enter(kernel: F) -> F:
        spec = f"{kernel.__module__}:{kernel.__name__}"
        ZOO[spec] = Animal(spec, what, expected, dtype)
        return kernel

    return enter


def animals() -> list[Animal]:
    """Return all kernels of the zoo, wrong ones first."""
    for cage in _CAGES:
        importlib.import_module(f"{__name__}.{cage}")
    return list(ZOO.values())
