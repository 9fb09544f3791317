"""Agreement: the same products by different kernels, compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification.bounds import unit_roundoff
from matmulbench.verification.case import Case
from matmulbench.verification.subject import Subject

_SHAPES = ((5, 7, 3), (17, 33, 9), (8, 300, 4), (33, 32, 31))


def _cases(dtype: str) -> list[Case]:
    return [Case(*shape, "NN", dtype, values, seed=12) for shape in _SHAPES for values in ("normal", "scaled")]


def results(spec: str, dtype: str) -> list[list[list[float]]]:
    """Return the products of the kernel ``spec``, in the child process, as nested lists."""
    subject = Subject(spec, load_kernel(spec), dtype)
    return [subject.call(*case.operands(), str(case), case).tolist() for case in _cases(dtype)]


def distances(all_results: Sequence[list[Any] | None], dtype: str) -> npt.NDArray[np.float64]:
    r"""Return the maximum difference between each two kernels, in units of k·u·(\|A\|\|B\|)."""
    square = np.full((len(all_results), len(all_results)), np.nan)
    for i, left in enumerate(all_results):
        for j, right in enumerate(all_results):
            if left is not None and right is not None:
                square[i, j] = max(map(_distance, _cases(dtype), left, right))
    return square


def _distance(case: Case, left: Any, right: Any) -> float:
    a, b = (np.abs(operand).astype(np.float64) for operand in case.arrays())
    unit = case.k * unit_roundoff(np.dtype(case.dtype)) * (a @ b)
    return float((np.abs(np.subtract(left, right)) / unit).max())
