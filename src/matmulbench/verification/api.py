"""The parent's side: a kernel's process is examined, and a row says what became of it."""

from __future__ import annotations

import mmap
import os
import random
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psutil

from matmulbench.dtypes import DTYPES, numpy_dtype
from matmulbench.isolation import Host, Outcome
from matmulbench.isolation.host import Child, LostError
from matmulbench.isolation.requests import Confirm, Examine, Judge, Multiply, Repeat
from matmulbench.isolation.system import shared_file
from matmulbench.results.schema import VerificationRow
from matmulbench.status import Status
from matmulbench.verification.effort import SILENCE_S

if TYPE_CHECKING:
    import pandas as pd

    from matmulbench.verification.case import Case

_MEMORY_LIMIT = 4 * 2**30  # bytes; the largest operands take some hundred million
_AGREEMENT_SIZES = ((5, 7, 3), (17, 33, 9), (8, 300, 4), (33, 32, 31))
_SEALED_CASES = 24
_SEALED_SIZE = 16  # rows, columns and inner size of those, at most

_draw = random.SystemRandom()


def verify_kernel(
    host: Host, spec: str, dtype: str, effort: str = "default", silence_limit: float = SILENCE_S
) -> VerificationRow:
    """Examine the kernel ``spec`` for ``dtype`` in a child of ``host``; what is lost is tried once more.

    Give the host more than one thread, as races need company.

    Parameters
    ----------
    effort
        ``quick``, ``default`` or ``thorough``.
    silence_limit
        seconds that the kernel may be silent for, as in one product.

    Returns
    -------
    VerificationRow
        the status is ``ok`` where the verdict is pass or normwise; ``finding`` says what is wrong, where, and how to
        see it again, or holds a note on a right kernel.
    """
    for _ in range(2):
        try:
            child = host.fork(Examine, memory_limit=_memory_limit())
        except LostError as error:
            row = VerificationRow(spec, dtype, Status.LOST, finding=str(error))
            continue
        try:
            row = _verify(host, child, spec, dtype, effort, silence_limit)
        finally:
            child.close()
        if row.status != Status.LOST and not child.killed:
            break
    return row


def _memory_limit() -> int:
    """Return how many bytes a kernel's process may take: no more than are free."""
    return int(min(_MEMORY_LIMIT, psutil.virtual_memory().available))


def _verify(host: Host, child: Child, spec: str, dtype: str, effort: str, limit: float) -> VerificationRow:
    last = ["import", ""]

    def note(progress: list[str]) -> None:
        last[:] = progress

    outcome = child.call(Examine(spec, dtype, effort), silence_limit=limit, on_progress=note)
    if outcome.status != Status.OK:
        where, repeat = last
        finding = str(outcome.reason)
        if not finding.startswith("dtype "):  # that says enough
            finding = f"{where}: {finding}" + (f". Repeat: {repeat}" if repeat else "")
        return VerificationRow(spec, dtype, outcome.status, finding=finding)
    report = outcome.value
    verdict, finding = report["verdict"], report["finding"]
    if report["case"]:
        # A finding must stand on its own: the line that repeats it is tried, in a process without a past.
        confirm = Confirm(spec, report["case"])
        again = host.call(confirm, silence_limit=limit, memory_limit=_memory_limit())
        if again.status == Status.OK and again.value:
            seen = str(finding).partition(". Repeat: ")[0]
            line = f"matmulbench verify {shlex.quote(spec)} --dtype {dtype}"
            verdict, finding = "fail", f"{again.value}; first seen: {seen}. Repeat: `{line}`"
    if verdict != "fail":
        sealed = _judge_elsewhere(host, child, spec, dtype, verdict == "normwise", report["accumulation"], limit)
        if sealed.status != Status.OK:
            return VerificationRow(spec, dtype, sealed.status, finding=f"judged in another process: {sealed.reason}")
        if sealed.value:
            verdict, finding = "fail", f"judged in another process, where the kernel cannot reach: {sealed.value}"
    status = Status.FAILED_VERIFICATION if verdict == "fail" else Status.OK
    return VerificationRow(spec, dtype, status, verdict, report["residual"], report["cases"], finding)


def repeat_case(host: Host, spec: str, case: Case) -> tuple[VerificationRow, dict[str, str]]:
    """Judge the kernel ``spec`` by one case alone, that of a finding; return also what it looks like.

    Returns
    -------
    tuple
        the row; and as texts ``a``, ``b``, what is ``expected`` and what was ``got``, empty where nothing came.
    """
    outcome = host.call(Repeat(spec, asdict(case)), silence_limit=SILENCE_S, memory_limit=_memory_limit())
    if outcome.status != Status.OK:
        row = VerificationRow(spec, case.dtype, outcome.status, finding=f"{case}: {outcome.reason}")
        return row, case.described() | {"got": ""}
    report = outcome.value
    status = Status.FAILED_VERIFICATION if report["verdict"] == "fail" else Status.OK
    finding = report["finding"] and report["finding"].partition(". Repeat: ")[0]
    row = VerificationRow(spec, case.dtype, status, report["verdict"], report["residual"], report["cases"], finding)
    return row, case.described() | {"got": report["got"]}


def _judge_elsewhere(
    host: Host, child: Child, spec: str, dtype: str, normwise: bool, accumulation: str | None, limit: float
) -> Outcome:
    """Let the child multiply cases drawn here, and another one, which the kernel never entered, judge them."""

    def draw(number: int) -> dict[str, Any]:
        sizes = {size: _draw.randint(1, _SEALED_SIZE) for size in "mkn"}
        values = ("small-integers", "normal", "scaled")[number % 3]
        return {**sizes, "dtype": dtype, "values": values, "seed": _draw.getrandbits(30)}

    cases = [draw(number) for number in range(_SEALED_CASES)]
    with _shared_results(cases) as results:
        multiplied = child.call(Multiply(spec, cases), silence_limit=limit, descriptors=[results])
        if multiplied.status != Status.OK:
            return multiplied
        return host.call(Judge(cases, normwise, accumulation), silence_limit=SILENCE_S, descriptors=[results])


@contextmanager
def _shared_results(cases: list[dict[str, Any]]) -> Iterator[int]:
    """Yield the descriptor of a file in memory that holds the results of ``cases``, one after the other."""
    results = shared_file(sum(case["m"] * case["n"] * DTYPES[case["dtype"]].result_itemsize for case in cases))
    try:
        yield results
    finally:
        os.close(results)


def agreement(host: Host, specs: Sequence[str], dtype: str) -> pd.DataFrame:
    r"""Return how far apart kernels are: a square of maximum differences, in units of k·u·(\|A\|\|B\|).

    Two right kernels differ by at most 2, or by more where one is normwise. Kernels that do not come back have NaN.
    """
    import numpy as np
    import pandas as pd

    from matmulbench.verification.bounds import unit
    from matmulbench.verification.case import Case

    cases = [
        Case(*sizes, "NN", dtype, values, seed=12) for sizes in _AGREEMENT_SIZES for values in ("normal", "scaled")
    ]
    units = np.concatenate([unit(*case.arrays()).ravel() for case in cases])
    results = []
    for spec in specs:
        fields = [asdict(case) for case in cases]
        with _shared_results(fields) as shared:
            outcome = host.call(Multiply(spec, fields), silence_limit=SILENCE_S, descriptors=[shared])
            with mmap.mmap(shared, 0, access=mmap.ACCESS_READ) as memory:
                content = memory[:]
        right = outcome.status == Status.OK
        results.append(
            np.frombuffer(content, numpy_dtype(DTYPES[dtype].result)).astype(np.float64)
            if right
            else np.full(units.size, np.nan)
        )
    apart = [[np.max(np.abs(left - right) / units) for right in results] for left in results]
    return pd.DataFrame(apart, index=list(specs), columns=list(specs))
