"""The parent's side: one child process per kernel and dtype, and a row of what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from matmulbench.isolation import Host
from matmulbench.results.schema import Status, VerificationRow
from matmulbench.verification.effort import EFFORTS

if TYPE_CHECKING:
    import pandas as pd

_EXAMINE = "matmulbench.verification.examination:examine"
MEMORY_LIMIT = 4 * 2**30


def verify_kernel(host: Host, spec: str, dtype: str, effort: str = "default") -> VerificationRow:
    """Examine the kernel ``spec`` for ``dtype`` in a child of ``host``.

    Parameters
    ----------
    effort
        ``quick``, ``default`` or ``thorough``.
    """
    last = ["import", spec]
    outcome = host.call(
        _EXAMINE,
        spec,
        dtype,
        effort,
        silence_limit=EFFORTS[effort].silence_limit,
        memory_limit=MEMORY_LIMIT,
        listen=lambda said: last.__setitem__(slice(None), said),
    )
    if outcome.status != Status.OK:
        return VerificationRow(spec, dtype, outcome.status, finding=f"{last[0]}: {last[1]}: {outcome.reason}")
    report = outcome.value
    status = Status.FAILED_VERIFICATION if report.verdict == "fail" else Status.OK
    return VerificationRow(spec, dtype, status, report.verdict, report.residual, report.cases, report.finding)


def verify(
    kernel: str | Iterable[str], dtypes: Iterable[str] = ("float32", "float64"), effort: str = "default"
) -> pd.DataFrame:
    """Judge whether kernels are right; a row per kernel and dtype, with the columns of ``verification.csv``.

    Parameters
    ----------
    kernel
        a name from :func:`matmulbench.kernels`, ``package.module:function``, ``path/to/file.py:function``, or several.
    effort
        ``quick`` (a second per row), ``default`` or ``thorough`` (minutes).
    """
    import pandas as pd

    specs = [kernel] if isinstance(kernel, str) else list(kernel)
    with Host() as host:
        rows = [verify_kernel(host, spec, dtype, effort) for spec in specs for dtype in dtypes]
    return pd.DataFrame([asdict(row) for row in rows])
