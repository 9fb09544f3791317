"""What children are asked during verification.

Most cases are judged in the kernel's own process, which is quick. Some results go to a process that the kernel never
entered, so that a kernel that disables the judge in its own process is found out.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from matmulbench.dtypes import DTYPES, as_array, as_tensor, numpy_dtype
from matmulbench.errors import printable
from matmulbench.ladder.plugins import load_kernel
from matmulbench.verification.case import Case, shown
from matmulbench.verification.examination import advise
from matmulbench.verification.examination import examine as examine_kernel
from matmulbench.verification.kernel import KernelUnderTest, WrongError
from matmulbench.verification.result import judge_product
from matmulbench.verification.search import randomised
from matmulbench.workload import Workload

_CORNER = 256  # rows and columns
_QUICK = 1 << 20  # multiplications


def load(spec: str) -> None:
    """Import a kernel; what that raises says why it is not available."""
    load_kernel(spec)


def examine(spec: str, dtype: str, effort: str) -> dict[str, Any]:
    """Examine a kernel, and return the report's fields."""
    return asdict(examine_kernel(spec, dtype, effort))


def confirm(spec: str, case: dict[str, Any]) -> str | None:
    """Check a case that failed once more, alone, in a process without a past.

    Returns None if it always fails in one way, else what its answers say of the kernel.
    """
    again = Case(**case)
    kernel = KernelUnderTest(spec, load_kernel(spec), again.dtype)

    def failure() -> str | None:
        try:
            return "normwise" if kernel.check(again).verdict != "pass" else None
        except WrongError as error:
            return error.detail

    answers = [failure() for _ in range(20 if again.volume < _QUICK else 3)]
    wrong = [answer for answer in answers if answer]
    if len(wrong) == len(answers) and len(set(wrong)) == 1:
        return None
    times = f"times of {len(answers)}"
    if wrong:
        return (
            f"race: an error that moves, by a race, by chance or by memory that was never set: {again} is wrong "
            f"{len(wrong)} {times}, in {len(set(wrong))} ways"
        )
    return (
        f"earlier calls: {again} is right {len(answers)} {times} in a process that has done nothing else; "
        "what it remembers of earlier calls makes it wrong, or a race that is seldom seen"
    )


def repeat(spec: str, case: dict[str, Any]) -> dict[str, Any]:
    """Check one case: the report's fields, and ``got``, the result as a text."""
    again = Case(**case)
    kernel = KernelUnderTest(spec, load_kernel(spec), again.dtype)
    wrong = None
    try:
        kernel.check(again)
    except WrongError as error:
        wrong = error
    except Exception as error:
        advise(kernel, error)
        raise
    result: Any = kernel.kernel(*again.operands())
    got = shown(as_array(result)) if isinstance(result, torch.Tensor) else printable(repr(result))
    return asdict(kernel.report(wrong)) | {"got": got}


def check_randomised(spec: str, dtype: str, count: int, seconds: float) -> dict[str, Any]:
    """Check ``count`` random cases of any shape up to 140, layout and values; a slow kernel gets smaller ones.

    All ``count`` are checked: ``seconds`` is what they may take if they are predicted well.
    """
    kernel = KernelUnderTest(spec, load_kernel(spec), dtype)
    try:
        for case in randomised(kernel, count, seconds):
            kernel.check(case)
    except WrongError as error:
        return asdict(kernel.report(error))
    return asdict(kernel.report())


def multiply(spec: str, cases: list[dict[str, Any]], descriptors: list[int]) -> None:
    """Multiply ``cases`` and write the results, one after the other, into the shared file."""
    kernel = load_kernel(spec)
    with mmap.mmap(descriptors[0], 0) as memory:
        os.close(descriptors[0])
        for fields in cases:
            case = Case(**fields)
            result = as_array(kernel(*case.operands()).contiguous())
            if result.shape != (case.m, case.n) or result.dtype.name != case.kind.result:
                raise ValueError(f"the result of {case} is {result.shape} of {result.dtype}")
            memory.write(result.tobytes())


def product_error(spec: str, workload: Workload) -> float:
    """Return what precision costs: the norm of a product's error over that of the product.

    The operands are standard normal, then rounded to the dtype: integers after a scaling that makes the largest of them
    the largest that there is. Of large results, a corner is compared with the float64 product of what was drawn.
    """
    rng, kind = np.random.default_rng(3), DTYPES[workload.dtype]
    m, n = min(workload.m, _CORNER), min(workload.n, _CORNER)
    drawn = rng.standard_normal((m, workload.k)), rng.standard_normal((workload.k, n))
    scales = [np.abs(each).max() / kind.exact if kind.is_integer else 1.0 for each in drawn]
    scaled = [each / scale for each, scale in zip(drawn, scales, strict=True)]
    a, b = ((np.rint(x) if kind.is_integer else x).astype(numpy_dtype(kind.name)) for x in scaled)
    c = as_array(load_kernel(spec)(as_tensor(a), as_tensor(b))).astype(np.float64) * math.prod(scales)
    expected = drawn[0] @ drawn[1]
    return float(np.linalg.norm(c - expected) / np.linalg.norm(expected))


def judge_results(
    cases: list[dict[str, Any]], allow_normwise: bool, accumulation: str | None, descriptors: list[int]
) -> str | None:
    """Judge what :func:`multiply` wrote; return the first finding, or None."""
    with mmap.mmap(descriptors[0], 0, access=mmap.ACCESS_READ) as memory:
        os.close(descriptors[0])
        for fields in cases:
            case = Case(**fields)
            content = memory.read(case.m * case.n * case.kind.result_itemsize)
            result = np.frombuffer(content, numpy_dtype(case.kind.result)).reshape(case.m, case.n)
            judgement = judge_product(*case.arrays(), result, case.exact, accumulation)
            if judgement.verdict == "fail" or (judgement.verdict == "normwise" and not allow_normwise):
                return f"{case}: {judgement.detail}"
    return None
