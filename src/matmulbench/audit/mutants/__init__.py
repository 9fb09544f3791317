"""The mutants: kernels that are wrong, or that cheat, each with what is planted in it and how it must be found.

The right ones, unusual but not to be refused, are in :mod:`matmulbench.audit.mutants.right`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

Function = Callable[[torch.Tensor, torch.Tensor], Any]  # not all return what they should
F = TypeVar("F", bound=Function)
_MODULES = ("wrong_values", "operands", "calls", "right")
_MUTANTS: dict[str, Mutant] = {}


@dataclass(frozen=True)
class Mutant:
    """A planted kernel: where it is, what is planted, and what must be found.

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


def enter(name: str, what: str, kernel: Function, *expected: str, dtype: str = "float32") -> None:
    """Enter ``kernel`` as ``name`` of its module: ``what`` is wrong, and ``expected`` (exactness) must be found."""
    setattr(sys.modules[kernel.__module__], name, kernel)
    spec = f"{kernel.__module__}:{name}"
    _MUTANTS[spec] = Mutant(spec, what, expected or ("exactness",), dtype)


def planted(what: str, *expected: str) -> Callable[[F], F]:
    """Enter the decorated kernel under its own name."""

    def decorate(kernel: F) -> F:
        enter(kernel.__name__, what, kernel, *expected)
        return kernel

    return decorate


def mutants() -> list[Mutant]:
    """Return all mutants, wrong ones first."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return list(_MUTANTS.values())
