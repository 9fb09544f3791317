"""The parent's side: a kernel's process is examined, and a row says what became of it."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import psutil

from matmulbench.dtypes import DTYPES, numpy_dtype
from matmulbench.isolation import Child, Host, Outcome
from matmulbench.isolation.requests import Confirm, Examine, Judge, Multiply, Repeat
from matmulbench.isolation.system import quoted, shared_file
from matmulbench.results.schema import VerificationRow
from matmulbench.status import Status
from matmulbench.verification import SILENCE_S

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

    def use(child: Child) -> Outcome:
        row = _verify(host, child, Examine(spec, dtype, effort), silence_limit)
        return Outcome(Status(row.status), row)

    outcome = host.try_child(use, Examine, memory_limit=_memory_limit())
    return outcome.value or VerificationRow(spec, dtype, outcome.status, finding=outcome.reason)


def _memory_limit() -> int:
    """Return how many bytes a kernel's process may take: no more than are free."""
    return int(min(_MEMORY_LIMIT, psutil.virtual_memory().available))


def _verify(host: Host, child: Child, request: Examine, limit: float) -> VerificationRow:
    spec, dtype = request.spec, request.dtype
    progress: list[Any] = ["import", "", None]

    def note(sent: list[Any]) -> None:
        progress[:] = sent

    outcome = child.call(request, silence_limit=limit, on_progress=note)
    if outcome.status == Status.OK:
        report = outcome.value
        row, case = VerificationRow(**report["row"]), report["case"]
    else:
        where, repeat, case = progress
        finding = str(outcome.reason)
        if not finding.startswith("dtype "):  # that says enough
            finding = f"{where}: {finding}" + (f". Repeat: {repeat}" if repeat else "")
        row = VerificationRow(spec, dtype, outcome.status, finding=finding)

    def failed(finding: str) -> VerificationRow:
        return replace(row, status=Status.FAILED_VERIFICATION, verdict="fail", finding=finding)

    # A finding must stand on its own: the line that repeats it is tried, in a process without a past. To hang, or
    # to fill the memory, would take as long again.
    if case and row.status not in (Status.LOST, Status.TIMEOUT, Status.OUT_OF_MEMORY) and not child.killed:
        again = host.call(Confirm(spec, case), silence_limit=limit, memory_limit=_memory_limit())
        if again.status == Status.OK and again.value:
            line = f"matmulbench verify {quoted(spec)} --dtype {dtype}"
            finding = f"{again.value}; first seen: {_without_command(row.finding)}. Repeat: `{line}`"
            return failed(finding) if row.verdict else replace(row, finding=finding)
    if row.status == Status.OK:
        normwise = row.verdict == "normwise"
        sealed = _judge_elsewhere(host, child, spec, dtype, normwise, report["accumulation"], limit)
        if sealed.status != Status.OK:
            return VerificationRow(spec, dtype, sealed.status, finding=f"judged in another process: {sealed.reason}")
        if sealed.value:
            return failed(f"judged in another process, where the kernel cannot reach: {sealed.value}")
    return row


def _without_command(finding: str | None) -> str:
    return (finding or "").partition(". Repeat: ")[0]


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
    row = VerificationRow(**outcome.value["row"])
    row.finding = _without_command(row.finding) or None
    return row, case.described() | {"got": outcome.value["got"]}


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
    fields = [asdict(case) for case in cases]
    results = np.full((len(specs), units.size), np.nan)
    for result, spec in zip(results, specs, strict=True):
        with _shared_results(fields) as shared:
            outcome = host.call(Multiply(spec, fields), silence_limit=SILENCE_S, descriptors=[shared])
            if outcome.status == Status.OK:
                with mmap.mmap(shared, 0, access=mmap.ACCESS_READ) as memory:
                    result[:] = np.frombuffer(memory[:], numpy_dtype(DTYPES[dtype].result))
    apart = [[np.max(np.abs(left - right) / units) for right in results] for left in results]
    return pd.DataFrame(apart, index=list(specs), columns=list(specs))
