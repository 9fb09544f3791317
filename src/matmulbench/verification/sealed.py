"""What is not left to the kernel's own process: some of its results are judged where it never was.

Most cases are judged beside the kernel, which is quick. A kernel that disarms the judge there is wrong here.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import asdict
from typing import Any

import numpy as np

from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification import bounds
from matmulbench.verification.case import Case
from matmulbench.verification.examination import confirm, examine, judge_randomised


def load(spec: str) -> None:
    """Import a kernel; what that raises says why it cannot be had."""
    load_kernel(spec)


def examine_here(spec: str, dtype: str, effort: str) -> dict[str, Any]:
    """Examine a kernel, and return the report's fields."""
    return asdict(examine(spec, dtype, effort))


def confirm_here(spec: str, case: dict[str, Any]) -> str | None:
    """Judge one case again; see :func:`~matmulbench.verification.examination.confirm`."""
    return confirm(spec, Case(**case))


def judge_randomised_here(spec: str, dtype: str, count: int, seconds: float) -> dict[str, Any]:
    """Judge random cases; see :func:`~matmulbench.verification.examination.judge_randomised`."""
    return asdict(judge_randomised(spec, dtype, count, seconds))


def multiply(spec: str, cases: list[dict[str, Any]], descriptors: list[int]) -> None:
    """Multiply ``cases`` and write the results, one after the other, into the shared file."""
    kernel = load_kernel(spec)
    with mmap.mmap(descriptors[0], 0) as memory:
        os.close(descriptors[0])
        for fields in cases:
            case = Case(**fields)
            result = kernel(*case.operands()).detach().contiguous().numpy()
            if result.shape != (case.m, case.n) or result.dtype != case.dtype:
                raise ValueError(f"the result of {case} is {result.shape} of {result.dtype}")
            memory.write(result.tobytes())


def judge(cases: list[dict[str, Any]], allow_normwise: bool, descriptors: list[int]) -> str | None:
    """Judge what :func:`multiply` wrote; return the first finding, or None."""
    with mmap.mmap(descriptors[0], 0, prot=mmap.PROT_READ) as memory:
        os.close(descriptors[0])
        for fields in cases:
            case = Case(**fields)
            content = memory.read(case.m * case.n * np.dtype(case.dtype).itemsize)
            result = np.frombuffer(content, case.dtype).reshape(case.m, case.n)
            judged = (bounds.judge_exact if case.exact else bounds.judge)(*case.arrays(), result)
            if judged.verdict == "fail" or (judged.verdict == "normwise" and not allow_normwise):
                return f"{case}: {judged.detail}"
    return None
