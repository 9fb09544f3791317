"""The README's ratios, measured again here: which of them hold on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from matmulbench.errors import UsageError
from matmulbench.measurement.statistics import Interval
from matmulbench.report.view import Row, baseline_of, has_figure, ladders, records
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

# From one day to the next ratios drift by more than the noise within a run, which is all that an interval knows.
MARGIN = 0.1
VAGUE = 2.0  # an interval whose ends are further apart than this factor confirms nothing
COLUMNS = (
    "workload", "dtype", "threads", "kernel", "verdict", "claimed", "claimed_ci_low", "claimed_ci_high",
    "here", "here_ci_low", "here_ci_high", "reason",
)  # fmt: skip
_ENDS = ("", "_ci_low", "_ci_high")


def verify_claims(
    results: Results, budget_s: float = 60.0, progress: Callable[[str], None] = lambda text: None
) -> pd.DataFrame:
    """Measure again every speedup against the baseline that the README shows of the run ``results``.

    Parameters
    ----------
    budget_s
        seconds of measuring; verifying the kernels comes on top of it, about one second each.
    progress
        hears what is about to be done.

    Returns
    -------
    pandas.DataFrame
        a row per claim: workload, dtype, threads, kernel, verdict, the speedup claimed and the one found here, each
        with its 95 % interval, reason. The verdict is that of :func:`judge`, or ``failed`` where there is no figure.

    Raises
    ------
    UsageError
        if the run has no such speedup.
    """
    import pandas as pd

    from matmulbench.measurement.api import measure

    baseline = baseline_of(results)
    found = ladders(results.measurements)
    claimed = [
        (ladder, [row for row in ladder.rows if row["kernel"] != baseline and has_figure(row, "speedup_ci_low")])
        for ladder in found
        if ladder.workload == found[0].workload  # the one that the README shows
    ]
    if not any(rows for _, rows in claimed):
        raise UsageError(f"folder {results.path}: the run has no speedup against {baseline}, so nothing is claimed")
    claims = []
    for ladder, rows in claimed:
        kernels, workload = [row["kernel"] for row in rows], Workload.parse(ladder.workload, ladder.dtype)
        frame = measure(
            kernels,
            [workload],
            threads=ladder.threads,
            baseline=baseline,
            budget_s=budget_s / len(claimed),
            progress=progress,
        )
        here = {row["kernel"]: row for row in records(frame)}
        claims += [_claim(row, here[row["kernel"]]) for row in rows]
    return pd.DataFrame(claims, columns=list(COLUMNS))


def _claim(claimed: Row, here: Row) -> Row:
    claim = {name: claimed[name] for name in ("workload", "dtype", "threads", "kernel")}
    claim |= {"verdict": "failed", "reason": here["reason"]}
    claim |= {f"claimed{end}": claimed[f"speedup{end}"] for end in _ENDS}
    claim |= {f"here{end}": here[f"speedup{end}"] for end in _ENDS}
    if has_figure(here, "speedup_ci_low"):
        claim["verdict"] = judge(*(Interval(*(row[f"speedup{end}"] for end in _ENDS)) for row in (claimed, here)))
    elif here["status"] == Status.OK:
        claim["verdict"] = "unclear"  # a single round has no interval
    if claim["verdict"] == "unclear":
        said = isinstance(here["reason"], str)
        claim["reason"] = here["reason"] if said else "a larger --budget narrows the interval"
    return claim


def judge(claimed: Interval, here: Interval) -> str:
    """Say whether a claimed speedup ``holds``, or the kernel is ``faster here``, ``slower here``, or it is ``unclear``.

    The claim is its interval, widened by :data:`MARGIN`. It holds where the interval found here overlaps it. One that
    overlaps only because it is vague, its ends more than a factor of :data:`VAGUE` apart, is unclear.
    """
    claim = claimed.widened(MARGIN)
    if here.low > claim.high:
        return "faster here"
    if here.high < claim.low:
        return "slower here"
    return "holds" if here.high <= VAGUE * here.low else "unclear"
