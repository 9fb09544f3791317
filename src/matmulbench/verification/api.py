"""The parent's side: one child process per kernel and dtype, and a row of what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from matmulbench.isolation import Host, Outcome
from matmulbench.results.schema import Status, VerificationRow, frame
from matmulbench.verification.effort import EFFORTS

if TYPE_CHECKING:
    import pandas as pd

_HERE = "matmulbench.verification"
MEMORY_LIMIT = 4 * 2**30  # bytes; the largest operands take some hundred million


def verify_kernel(
    host: Host, spec: str, dtype: str, effort: str = "default", silence_limit: float | None = None
) -> VerificationRow:
    """Examine the kernel ``spec`` for ``dtype`` in a child of ``host``.

    Give the host more than one thread, as races need company.

    Parameters
    ----------
    effort
        ``quick``, ``default`` or ``thorough``.
    silence_limit
        seconds that one product may take; by default the effort's.

    Returns
    -------
    VerificationRow
        the status is ``ok`` where the verdict is pass or normwise; ``finding`` says what is wrong, where, and how to
        see it again, or holds a note on a right kernel.
    """
    limit = silence_limit or EFFORTS[effort].silence_limit
    last: list[str] = ["import"]

    def call(function: str, *args: Any) -> Outcome:
        return host.call(
            f"{_HERE}.examination:{function}",
            *args,
            silence_limit=limit,
            memory_limit=MEMORY_LIMIT,
            listen=lambda said: last.__setitem__(slice(None), said),
        )

    outcome = call("examine", spec, dtype, effort)
    if outcome.status != Status.OK:
        return VerificationRow(spec, dtype, outcome.status, finding=f"{': '.join(last)}: {outcome.reason}")
    report = outcome.value
    if report.case:
        # A finding must stand on its own: the line that repeats it is tried, in a process without a past.
        again = call("confirm", spec, report.case)
        if again.status == Status.OK and again.value:
            seen = str(report.finding).partition(". Repeat: ")[0]
            line = f"from matmulbench import verify; print(verify({spec!r}, [{dtype!r}]).finding[0])"
            report.verdict, report.finding = "fail", f"{again.value}; first seen: {seen}. Repeat: `{line}`"
    status = Status.FAILED_VERIFICATION if report.verdict == "fail" else Status.OK
    return VerificationRow(spec, dtype, status, report.verdict, report.residual, report.cases, report.finding)


def verify(
    kernel: str | Iterable[str],
    dtypes: Iterable[str] = ("float32", "float64"),
    effort: str = "default",
    progress: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """Judge whether kernels are right.

    Parameters
    ----------
    kernel
        a name from :func:`matmulbench.kernels`, ``package.module:function``, ``path/to/file.py:function``, or several.
    effort
        ``quick`` (a second per row), ``default`` (some seconds) or ``thorough`` (minutes).
    progress
        hears what is about to be done.

    Returns
    -------
    pandas.DataFrame
        a row per kernel and dtype: ``kernel``, ``dtype``, ``status``, ``verdict``, ``residual`` (units of
        ``k·u·(|A||B|)``), ``cases``, ``finding``; see :class:`~matmulbench.results.schema.VerificationRow`.
    """
    specs = [kernel] if isinstance(kernel, str) else list(kernel)
    with Host(threads=os.cpu_count() or 1) as host:
        rows = []
        for spec, dtype in product(specs, dtypes):
            progress(f"verify {spec} {dtype}")
            rows.append(verify_kernel(host, spec, dtype, effort))
    return frame("verification", rows)


def agreement(host: Host, specs: Sequence[str], dtype: str) -> pd.DataFrame:
    r"""Return how far apart kernels are: a square of maximum differences, in units of k·u·(\|A\|\|B\|).

    Two right kernels differ by at most 2, or by more where one is normwise. Kernels that do not come back have NaN.
    """
    import pandas as pd

    from matmulbench.verification.agreement import distances

    results = {}
    for spec in specs:
        outcome = host.call(f"{_HERE}.agreement:results", spec, dtype, silence_limit=EFFORTS["default"].silence_limit)
        results[spec] = outcome.value if outcome.status == Status.OK else None
    return pd.DataFrame(distances(list(results.values()), dtype), index=list(specs), columns=list(specs))
