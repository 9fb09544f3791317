"""Operands in memory that the processes of a measurement share, seen through windows.

Each operand is a window into a longer row of random numbers; the next window begins a cache line further on. So no two
calls of a block need have the same operands, at no cost of time: every element is another one, while nearly all of the
memory is the same. In a second pair of rows the numbers recur from line to line: its windows lie at other addresses,
too, but hold the same values. A kernel that is faster there remembers what it has seen.
"""

from __future__ import annotations

import mmap
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matmulbench.dtypes import DTYPES, as_array
from matmulbench.isolation import system
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import torch

    from matmulbench.ladder.devices import Device

LINE = 64  # bytes from one window to the next: all windows have the same alignment
_LARGE = 2**25  # bytes of operands beyond which there is no second pair


def has_recurring(workload: Workload) -> bool:
    """Tell whether there is a second pair of rows, in which the numbers recur."""
    return workload.bytes <= _LARGE


def create(workload: Workload, windows: int) -> int:
    """Return the descriptor of a fresh file in memory that holds the operands of ``workload``."""
    return system.shared_file(sum(_lengths(workload, windows)) * (1 + has_recurring(workload)))


def _lengths(workload: Workload, windows: int) -> tuple[int, int]:
    """Return the bytes of both rows, whole pages."""

    def whole_pages(elements: int) -> int:
        return -(-(elements * DTYPES[workload.dtype].itemsize + windows * LINE) // mmap.PAGESIZE) * mmap.PAGESIZE

    left, right, _ = workload.elements
    return whole_pages(left), whole_pages(right)


def _draw(rng: np.random.Generator, size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Draw numbers, standard normal; integers from their whole range."""
    if DTYPES[dtype.name].is_integer:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, size, dtype=dtype.type, endpoint=True)
    if dtype.itemsize > 2:
        return rng.standard_normal(size, dtype=dtype.type)
    return rng.standard_normal(size, dtype=np.float32).astype(dtype)


class SharedOperands:
    """The operands in the file ``descriptor``, mapped; only the referee maps them ``writable``.

    On a ``device`` the windows are of a copy there; see :meth:`refresh`.
    """

    def __init__(
        self, workload: Workload, windows: int, descriptor: int, writable: bool = False, device: Device | None = None
    ) -> None:
        import torch  # the parent makes files, and need not load it

        self.workload, self.windows = workload, windows
        self._step = LINE // DTYPES[workload.dtype].itemsize
        left, right = _lengths(workload, windows)
        length = (left + right) * (1 + has_recurring(workload))
        self._memory = mmap.mmap(descriptor, length, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        os.close(descriptor)
        starts = [0, left, left + right, 2 * left + right]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # read-only, which is what it should be
            self.rows = [
                torch.frombuffer(self._memory, dtype=getattr(torch, workload.dtype), offset=start, count=size)
                for start, size in zip(starts, self._sizes() * (1 + has_recurring(workload)), strict=False)
            ]
        self._mapped = self.rows
        if device:
            self.rows = [row.to(device.place, copy=True) for row in self._mapped]
        self._views: dict[tuple[int, Workload, int], torch.Tensor] = {}

    def refresh(self) -> None:
        """Bring to the device what :meth:`perturb` may have changed."""
        if self.rows is not self._mapped:
            for there, here in zip(self.rows[:2], self._mapped[:2], strict=True):
                there.copy_(here)

    def _sizes(self) -> list[int]:
        """Return the elements of both rows."""
        return [elements + self.windows * self._step for elements in self.workload.elements[:2]]

    def fill(self) -> None:
        """Draw the numbers; those of the second pair recur from line to line."""
        rng = np.random.default_rng()
        for number, row in enumerate(self.rows):
            array = as_array(row)
            if number > 1:
                array[:] = np.resize(_draw(rng, self._step, array.dtype), len(array))
            elif array.dtype.itemsize > 2:
                rng.standard_normal(out=array, dtype=array.dtype.type)
            else:
                array[:] = _draw(rng, len(array), array.dtype)

    def perturb(self) -> None:
        """Change a number in every window of either operand, behind torch's back."""
        rng = np.random.default_rng()
        for row, size in zip(self.rows, self.workload.elements[:2], strict=False):
            array = as_array(row)
            every = max(min(size, 1024), len(array) // 4096)
            places = array[int(rng.integers(every)) :: every]
            places[:] = _draw(rng, len(places), array.dtype)

    def window(self, operand: int, problem: Workload, number: int, recurring: bool) -> torch.Tensor:
        """Return the left (0) or right (1) operand of ``problem``, the workload or part of it, in a window."""
        row = operand + 2 * recurring
        key = (row, problem, number)
        if key not in self._views:
            rows, columns = ((problem.m, problem.k), (problem.k, problem.n))[operand]
            strides: tuple[int, ...] = (1, rows) if problem.layout[operand] == "T" else (columns, 1)
            size = (*self._batch(problem), rows, columns)
            strides = (rows * columns, *strides)[-len(size) :]
            self._views[key] = self.rows[row].as_strided(size, strides, number * self._step)
        return self._views[key]

    def result_shape(self, problem: Workload) -> tuple[int, ...]:
        """Return the shape of the product of ``problem``."""
        return (*self._batch(problem), problem.m, problem.n)

    def _batch(self, problem: Workload) -> tuple[int, ...]:
        # A part of a batch is one, too, even if it has a single product.
        return (problem.batch,) if self.workload.batch > 1 else ()

    def pairs(self, problem: Workload, numbers: list[list[int]], recurring: bool) -> list[list[torch.Tensor]]:
        """Return the left and the right operands in the windows ``numbers``."""
        return [[self.window(i, problem, number, recurring) for number in numbers[i]] for i in (0, 1)]
