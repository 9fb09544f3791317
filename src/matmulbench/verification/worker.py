"""What children are asked during verification: to examine a kernel, property after property, and to look once more.

Most cases are judged in the kernel's own process, which is quick. Some results go to a process that the kernel never
entered, so that a kernel that disables the judge in its own process is found out.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import torch

from matmulbench.dtypes import (
    ACCUMULATIONS,
    DTYPES,
    USUAL,
    MissingDtypeError,
    as_array,
    as_tensor,
    check_taken,
    numpy_dtype,
)
from matmulbench.errors import printable
from matmulbench.ladder.devices import DEVICES
from matmulbench.ladder.plugins import arity_advice, load_kernel
from matmulbench.verification import EFFORTS, shapes, statefulness
from matmulbench.verification.batches import check_batches
from matmulbench.verification.case import Case, shown
from matmulbench.verification.form import ARRAYS
from matmulbench.verification.guards import check_memory_safety
from matmulbench.verification.ieee import check_ieee, find_accumulation, note_accumulation
from matmulbench.verification.kernel import KernelUnderTest, WrongError, attempt
from matmulbench.verification.result import judge_product
from matmulbench.verification.search import check_all, check_large, check_mismatches, randomised
from matmulbench.verification.state import changed_settings, note_settings
from matmulbench.workload import Workload

_GRID, _ROUNDING = 400, 72  # cases of either, up to 17x17x17 of the latter, that no kernel is spared
_CORNER = 256  # rows and columns
_QUICK = 1 << 20  # multiplications
_ADVICE_S = 1.0  # for cases that a kernel must pass before it is advised to declare something

# Each property with its share of the time, and how a kernel is examined in so many seconds: the cheap cases first.
PROPERTIES: dict[str, tuple[float, Callable[[KernelUnderTest, float], None]]] = {
    "exactness": (
        0.2,
        lambda kernel, seconds: check_all(kernel, shapes.grid(kernel.dtype, kernel.effort), seconds, _GRID),
    ),
    "earlier calls": (0.05, statefulness.check_earlier_calls),
    "addresses": (0.0, lambda kernel, _: statefulness.check_addresses(kernel)),
    "rounding": (0.12, lambda kernel, seconds: check_all(kernel, shapes.rounding(kernel.dtype), seconds, _ROUNDING)),
    "batches": (0.05, check_batches),
    "IEEE": (0.1, check_ieee),
    "benchmark-awareness": (0.12, statefulness.check_awareness),
    "race": (0.08, statefulness.check_repetition),
    "search": (
        0.06,
        lambda kernel, seconds: check_all(kernel, randomised(kernel, kernel.effort.examples, seconds), seconds),
    ),
    "memory safety": (0.1, check_memory_safety),
    "large sizes": (0.2, lambda kernel, seconds: check_large(kernel, shapes.large(kernel.dtype), seconds)),
    "full precision": (0.2, lambda kernel, seconds: check_large(kernel, shapes.full_precision(kernel.dtype), seconds)),
    "shape mismatch": (0.0, lambda kernel, _: check_mismatches(kernel)),
    "accumulation": (0.0, lambda kernel, _: note_accumulation(kernel)),
}


def find_device(device: str) -> None:
    """Make a device usable; what that raises says why there is none."""
    if there := DEVICES[device]:
        there.require()


def load(spec: str) -> None:
    """Import a kernel; what that raises says why it is not available."""
    load_kernel(spec)


def examine(spec: str, dtype: str, effort: str = "default", only: str | None = None) -> dict[str, Any]:
    """Examine the kernel ``spec`` for ``dtype``, on all properties or on one, and return the report.

    What the kernel raises is raised here.
    """
    note_settings()
    processes = set(_processes())
    kernel = KernelUnderTest(spec, load_kernel(spec), dtype, EFFORTS[effort])
    _check_taken(kernel)
    try:
        _check_settings(kernel, "when it is imported")
        for name, (share, check) in PROPERTIES.items():
            if only in (None, name):
                kernel.prop = name
                check(kernel, share * kernel.effort.seconds)
                kernel.check_kept_results("after the last call")
                _check_settings(kernel, "after its calls")
    except WrongError as error:
        _advise(kernel, error)
        _advise_on_accumulation(kernel, error)
        return kernel.report(error)
    except Exception as error:
        _advise(kernel, error)
        raise
    if left := Counter(name for process, name in _processes() if (process, name) not in processes):
        words = ", ".join(f"{count} {name}" for name, count in left.items())
        kernel.notes.add(f"leaves processes behind after its calls, which end with its own: {words}")
    return kernel.report()


def _check_taken(kernel: KernelUnderTest) -> None:
    """Raise MissingDtypeError if the kernel does not take its dtype: by what it says or, of unusual ones, by trying."""
    check_taken(kernel.kernel, kernel.dtype)
    if kernel.dtype in USUAL:
        return
    kernel.announce(f"a product of 2x3x4 {kernel.dtype}")
    a, b = Case(2, 3, 4, dtype=kernel.dtype, values="small-integers").operands()
    if error := attempt(lambda: kernel.kernel(a, b)):
        said = printable(f"{type(error).__name__}: {error}", 200)
        raise MissingDtypeError(f"dtype {kernel.dtype}: this kernel does not take it: {said}")


def _check_settings(kernel: KernelUnderTest, when: str) -> None:
    if changed := changed_settings():
        raise kernel.wrong(when, changed, prop="state")


def _processes() -> list[tuple[int, str]]:
    """Return number and name of all living processes that this one has started."""
    with suppress(psutil.Error):  # one may end meanwhile
        children = psutil.Process().children(recursive=True)
        return [(child.pid, child.name()) for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return []


def _advise(kernel: KernelUnderTest, error: Exception) -> None:
    """Add to ``error`` what to do about it, where that is plain to see."""
    cases = (Case(2, 3, 4, dtype=kernel.dtype, values="small-integers"), kernel.last)
    tried = [case for case in cases if case and case.volume and kernel.dtype in USUAL]
    if getattr(error, "prop", "") != "result" and any(_takes_arrays(kernel, case) for case in tried):
        error.add_note(f"it takes numpy arrays: say so with {ARRAYS}: {kernel.spec}@numpy")
    elif isinstance(error, TypeError) and (advice := arity_advice(kernel.kernel, error)):
        error.add_note(advice)


def _takes_arrays(kernel: KernelUnderTest, case: Case) -> bool:
    """Tell whether the values are right for ``case`` where the operands are arrays, and only there."""
    a, b = case.arrays()

    def is_right(convert: Callable[[Any], Any]) -> bool:
        with suppress(Exception):
            return np.allclose(kernel.kernel(convert(a), convert(b)), a @ b, 1e-3, 1e-3)
        return False

    return not is_right(as_tensor) and is_right(np.array)


def _advise_on_accumulation(kernel: KernelUnderTest, error: WrongError) -> None:
    """Add to ``error`` in which dtype the kernel adds, where it would be right if it said so."""
    if error.case and DTYPES[kernel.dtype].rounding and not kernel.accumulation:
        declared = KernelUnderTest(kernel.spec, kernel.kernel, kernel.dtype)
        with suppress(Exception):  # it is wrong in other ways
            found = find_accumulation(kernel)
            if not found or ACCUMULATIONS[found] <= DTYPES[kernel.dtype].unit_roundoff():  # as it is judged already
                return
            declared.accumulation = found
            declared.check(error.case)
            check_all(declared, shapes.rounding(kernel.dtype), _ADVICE_S, _ROUNDING)
            if not declared.normwise:
                error.add_note(
                    f"accumulates in {found}; a kernel that is to do so says it with an attribute "
                    f'`accumulation = "{found}"`'
                )


def confirm(spec: str, case: dict[str, Any]) -> str | None:
    """Check a case that failed once more, alone, in a process without a past.

    Returns None if it always fails in one way, else what its answers say of the kernel.
    """
    again = Case(**case)
    kernel = KernelUnderTest(spec, load_kernel(spec), again.dtype)

    def failure() -> str | None:
        try:
            return "normwise" if kernel.check(again).verdict != "pass" else None
        except Exception as error:
            return error.detail if isinstance(error, WrongError) else type(error).__name__

    answers = [failure() for _ in range(20 if again.volume < _QUICK else 3)]
    wrong = [answer for answer in answers if answer]
    if len(wrong) == len(answers) and len(set(wrong)) == 1:
        return None
    times = f"times of {len(answers)}"
    if wrong:
        return (
            "race: an error that moves, by a race, by chance, by memory that was never set or by what it remembers: "
            f"{again} fails {len(wrong)} {times}" + f", in {len(set(wrong))} ways" * (len(set(wrong)) > 1)
        )
    return (
        f"earlier calls: {again} is right {len(answers)} {times} in a process that has done nothing else; "
        "what it remembers of earlier calls makes it fail, or a race or a chance that is seldom seen"
    )


def repeat(spec: str, case: dict[str, Any]) -> dict[str, Any]:
    """Check one case; return the report and ``got``, the result as a text."""
    again = Case(**case)
    kernel = KernelUnderTest(spec, load_kernel(spec), again.dtype)
    wrong = None
    try:
        kernel.check(again)
    except WrongError as error:
        wrong = error
    except Exception as error:
        _advise(kernel, error)
        raise
    report, result = kernel.report(wrong), kernel.kernel(*again.operands())
    got = shown(as_array(result)) if isinstance(result, torch.Tensor) else printable(repr(result))
    return report | {"got": got}


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
