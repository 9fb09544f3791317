"""The mutants: kernels that are wrong, or that cheat, each with what is planted in it and how it must be found.

Right ones, unusual but not to be refused, are in :mod:`matmulbench.audit.mutants.right`; those that cheat in time, in
:mod:`matmulbench.audit.mutants.clocks`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matmulbench.ladder.operands import sizes

Function = Callable[[Tensor, Tensor], Any]  # not all return what they should
_MUTANTS: dict[str, Mutant] = {}


@dataclass(frozen=True)
class Mutant:
    """A planted kernel: where it is, what it does, and what must be found.

    ``expected`` holds the properties, statuses or reasons of which one must be named; for a right kernel the verdict.
    """

    spec: str
    does: str
    expected: tuple[str, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The function's name."""
        return self.spec.rpartition(":")[2]


def enter(name: str, does: str, kernel: Function, *expected: str, dtype: str = "float32") -> None:
    """Enter ``kernel`` as ``name`` of the calling module; ``expected``, else "exactness", must be found."""
    module = sys._getframe(1).f_globals
    module[name] = kernel
    spec = f"{module['__name__']}:{name}"
    _MUTANTS[spec] = Mutant(spec, does, expected or ("exactness",), dtype)


def mutants(*modules: str) -> list[Mutant]:
    """Return the mutants of ``modules``; without any, all that verification must judge, wrong ones first."""
    names = [f"{__name__}.{module}" for module in modules or ("wrong_values", "operands", "calls", "right")]
    for name in names:
        importlib.import_module(name)
    return [mutant for name in names for mutant in _MUTANTS.values() if mutant.spec.startswith(f"{name}:")]


def _filled(make: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: make(len(a), b.shape[1], dtype=a.dtype)


zeros, ones, uninitialised = _filled(torch.zeros), _filled(torch.ones), _filled(torch.empty)


def panels(a: Tensor, b: Tensor, size: int = 1, order: Callable[[range], Iterable[int]] = iter) -> Iterator[Tensor]:
    """Yield the products of ``size`` columns of a and rows of b each, whose sum is the product, in an ``order``."""
    return (a[:, p : p + size] @ b[p : p + size] for p in order(range(0, sizes(a, b)[1], size)))


def of_result(change: Callable[[Tensor], Any]) -> Function:
    """Make the kernel that returns what ``change`` makes of a right product."""
    return lambda a, b: change(a @ b)


def only(where: Callable[[int, int, int], bool], kernel: Function) -> Function:
    """Make the kernel that is ``kernel`` where m, k and n are such, and right, or an error, elsewhere."""
    return lambda a, b: kernel(a, b) if a.shape[1] == len(b) and where(len(a), len(b), b.shape[1]) else a @ b


def first(act: Callable[[Tensor, Tensor], object]) -> Function:
    """Make the kernel that does something, and then multiplies rightly if it still can."""
    return lambda a, b: (act(a, b), a @ b)[1]


def then(act: Callable[[Tensor, Tensor, Tensor], object]) -> Function:
    """Make the kernel that does something to a, b or the right product c before it returns this."""
    return lambda a, b: (c := a @ b, act(a, b, c))[0]


def remembering(left: Callable[[Tensor], Hashable], right: Callable[[Tensor], Hashable] | None = None) -> Function:
    """Make the kernel that remembers results by what ``left`` and ``right`` (else ``left``) make of a and b."""
    results: dict[Hashable, Tensor] = {}

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        key = (left(a), (right or left)(b), a.shape, b.shape, a.dtype)
        if key not in results:
            results[key] = a @ b
        return results[key].clone()

    return kernel
