"""One kernel's examination, in the child process: property after property, the cheap cases first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import psutil

from matmulbench.dtypes import ACCUMULATIONS, DTYPES, USUAL, MissingDtypeError, as_tensor, check_taken
from matmulbench.errors import printable
from matmulbench.ladder.plugins import arity_advice, load_kernel
from matmulbench.verification import awareness, guards, ieee, search, shapes, statefulness
from matmulbench.verification.accumulation import find_accumulation, note_accumulation
from matmulbench.verification.batches import check_batches
from matmulbench.verification.case import Case
from matmulbench.verification.effort import EFFORTS, Effort
from matmulbench.verification.form import ARRAYS
from matmulbench.verification.kernel import KernelUnderTest, Report, WrongError, attempt
from matmulbench.verification.state import difference, process_state

_GRID_AT_LEAST = 400  # cases of the grid
_ROUNDING_AT_LEAST = 72  # cases, up to 17x17x17, that no kernel is spared


def _exactness(kernel: KernelUnderTest, effort: Effort, seconds: float) -> None:
    search.check_all(kernel, shapes.grid(kernel.dtype, effort.every_combination), seconds, _GRID_AT_LEAST)


def _rounding(kernel: KernelUnderTest, effort: Effort, seconds: float) -> None:
    search.check_all(kernel, shapes.rounding(kernel.dtype), seconds, _ROUNDING_AT_LEAST)


def _search(kernel: KernelUnderTest, effort: Effort, seconds: float) -> None:
    search.check_all(kernel, search.randomised(kernel, effort.examples, seconds), seconds)


def _full_precision(kernel: KernelUnderTest, effort: Effort, seconds: float) -> None:
    search.check_large(kernel, shapes.full_precision(kernel.dtype), seconds)


# Each property with its share of the time.
PROPERTIES: dict[str, tuple[float, Callable[[KernelUnderTest, Effort, float], None]]] = {
    "exactness": (0.2, _exactness),
    "earlier calls": (0.05, lambda kernel, _, seconds: statefulness.check_earlier_calls(kernel, seconds)),
    "addresses": (0.0, lambda kernel, *_: statefulness.check_addresses(kernel)),
    "rounding": (0.12, _rounding),
    "batches": (0.05, lambda kernel, _, seconds: check_batches(kernel, seconds)),
    "IEEE": (0.1, lambda kernel, _, seconds: ieee.check_ieee(kernel, seconds)),
    "benchmark-awareness": (0.12, lambda kernel, _, seconds: awareness.check_awareness(kernel, seconds)),
    "race": (0.08, lambda kernel, _, seconds: statefulness.check_repetition(kernel, seconds)),
    "search": (0.06, _search),
    "memory safety": (0.1, lambda kernel, _, seconds: guards.check_memory_safety(kernel, seconds)),
    "large sizes": (0.2, lambda kernel, _, seconds: search.check_large(kernel, shapes.large(kernel.dtype), seconds)),
    "full precision": (0.2, _full_precision),
    "shape mismatch": (0.0, lambda kernel, *_: search.check_mismatches(kernel)),
    "accumulation": (0.0, lambda kernel, *_: note_accumulation(kernel)),
}


def examine(spec: str, dtype: str, effort: str = "default", only: str | None = None) -> Report:
    """Examine the kernel ``spec`` for ``dtype``, on all properties or on one. What the kernel raises is raised here."""
    before, processes = process_state(), set(_processes())
    kernel = KernelUnderTest(spec, load_kernel(spec), dtype)
    cost = EFFORTS[effort]
    _check_taken(kernel)
    try:
        _check_state(kernel, before, "when it is imported")
        for name, (share, check) in PROPERTIES.items():
            if only in (None, name):
                kernel.prop = name
                check(kernel, cost, share * cost.seconds)
                kernel.check_kept_results("after the last call")
                _check_state(kernel, before, "after its calls")
    except WrongError as error:
        advise(kernel, error)
        _advise_on_accumulation(kernel, error)
        return kernel.report(error)
    except Exception as error:
        advise(kernel, error)
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


def _advise_on_accumulation(kernel: KernelUnderTest, error: WrongError) -> None:
    """Add to ``error`` in which dtype the kernel adds, if those are fewer bits than it says."""
    with suppress(Exception):  # it may be wrong in other ways
        a, b = Case(2, 3, 4, dtype=kernel.dtype, values="small-integers").arrays()  # which any dtype adds exactly
        if not np.array_equal(kernel.call(as_tensor(a), as_tensor(b), "small integers"), a @ b):
            return
        found = find_accumulation(kernel)
        if found and not kernel.accumulation and DTYPES[kernel.dtype].unit_roundoff() < ACCUMULATIONS[found]:
            error.add_note(
                f"accumulates in {found}; a kernel that is to do so says it with an attribute "
                f'`accumulation = "{found}"`'
            )


def _check_state(kernel: KernelUnderTest, before: dict[str, object], when: str) -> None:
    if changed := difference(before, process_state()):
        raise kernel.wrong(when, changed, prop="state")


def _processes() -> list[tuple[int, str]]:
    """Return number and name of all living processes that this one has started."""
    with suppress(psutil.Error):  # one may end meanwhile
        children = psutil.Process().children(recursive=True)
        return [(child.pid, child.name()) for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return []


def advise(kernel: KernelUnderTest, error: Exception) -> None:
    """Add to ``error`` what to do about it, where that is plain to see."""
    cases = (Case(2, 3, 4, dtype=kernel.dtype, values="small-integers"), kernel.last)
    tried = [case for case in cases if case and case.volume and kernel.dtype in USUAL]
    if ARRAYS not in str(error) and any(_takes_arrays(kernel, case) for case in tried):
        error.add_note(f"it takes numpy arrays: say so with {ARRAYS}: {kernel.spec}@numpy")
    elif isinstance(error, TypeError) and (advice := arity_advice(kernel.kernel, error)):
        error.add_note(advice)


def _takes_arrays(kernel: KernelUnderTest, case: Case) -> bool:
    """Tell whether the values are right for ``case`` where the operands are arrays, and only there."""
    a, b = case.arrays()

    def is_right(convert: Callable[[Any], Any]) -> bool:
        try:
            return np.allclose(kernel.kernel(convert(a), convert(b)), a @ b, 1e-3, 1e-3)
        except Exception:
            return False

    return not is_right(as_tensor) and is_right(np.array)
