"""Two runs over time or machines: what became faster or slower, beyond the noise and the machine's own drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from matmulbench.errors import UsageError
from matmulbench.measurement.calibration import KINDS
from matmulbench.measurement.statistics import Interval, median_interval
from matmulbench.results.folder import FleetResults, Results
from matmulbench.results.schema import KEYS, Status

if TYPE_CHECKING:
    import pandas as pd

REGRESSION = 0.02  # a difference smaller than this is of no interest
VERDICTS = ("faster", "slower", "broken", "same", "unclear")
_KEY = KEYS["measurements"]
_CONFIDENCE = 0.99


def differences(a: Results, b: Results) -> list[str]:
    """Say in what the two runs differ so that their figures are not of one kind; empty where they are."""
    if pairs := _machines(a, b):
        return [f"{name}: {found}" for name, pair in pairs.items() for found in differences(*pair)]
    found = []
    for field in ("machine", "versions"):
        before, after = a.run[field], b.run[field]
        found += [
            f"{field}: {name} was {before.get(name)}, is {after.get(name)}"
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        ]
    alone = len(set(_cells(a)) ^ set(_cells(b)))
    return found + ([f"cells: {alone} stand in one of them only, and are left out"] if alone else [])


def compare(a: Results, b: Results) -> pd.DataFrame:
    """Pair the cells of two runs and say of each whether it became ``faster``, ``slower``, ``same`` or ``unclear``.

    Every time is taken in units of fixed work of its own round, so that a machine that is merely slower today is no
    regression. There are two kinds of such work, and a kernel may be slowed like the one, like the other or in between:
    the interval spans what both say.

    Returns
    -------
    pandas.DataFrame
        workload, dtype, threads, kernel, status of both, median_s of both, ``ratio`` (time in ``b`` / time in ``a``, as
        measured), ``speedup`` (time in ``a`` / time in ``b``, drift removed) with its 99 % interval,
        ``drift_arithmetic`` and ``drift_calls`` (time of fixed work in ``b`` / in ``a``), verdict. Before them
        ``machine``, where both hold runs of several: each is compared with its namesake.

    Raises
    ------
    UsageError
        if one alone holds runs of several machines, or none is in both.
    """
    import pandas as pd

    if pairs := _machines(a, b):
        compared = [compare(*pair).assign(machine=name) for name, pair in pairs.items()]
        return pd.concat(compared, ignore_index=True)

    before, after = _cells(a), _cells(b)
    rows = []
    for key in (key for key in before if key in after):
        one, other = before[key], after[key]
        row: dict[str, Any] = dict(zip(_KEY, key, strict=True))
        row["status_a"], row["status_b"] = one["row"]["status"], other["row"]["status"]
        timed = all(cell["samples"] and cell.get("calibration_samples") for cell in (one, other))
        if row["status_a"] == row["status_b"] == Status.OK and timed:
            row |= _change(one, other)
        elif row["status_a"] == Status.OK != row["status_b"]:
            row["verdict"] = "broken"
        rows.append(row)
    names = [
        *_KEY,
        "status_a",
        "status_b",
        "median_a_s",
        "median_b_s",
        "ratio",
        "speedup",
        "speedup_ci_low",
        "speedup_ci_high",
    ]
    return pd.DataFrame(rows, columns=[*names, *(f"drift_{kind}" for kind in KINDS), "verdict"])


def _machines(a: Results, b: Results) -> dict[str, tuple[Results, Results]]:
    """Pair the machines of two fleets; empty where both are runs of one."""
    both = [each for each in (a, b) if isinstance(each, FleetResults)]
    if len(both) == 1:
        first = next(iter(both[0].machines))
        raise UsageError(
            f"folder {both[0].path} holds runs of several machines: name one, such as {both[0].path / first}"
        )
    if both and not (shared := [name for name in both[0].machines if name in both[1].machines]):
        raise UsageError(f"no machine is in both: {a.path} has {', '.join(both[0].machines)}")
    return {name: (both[0].machines[name], both[1].machines[name]) for name in shared} if both else {}


def summary(comparison: pd.DataFrame) -> str:
    """Count the verdicts of :func:`compare`: ``2 faster, 1 slower, 186 same``."""
    found = comparison["verdict"].value_counts()
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if verdict in found) or "nothing to compare"


def _cells(results: Results) -> dict[tuple[Any, ...], dict[str, Any]]:
    entries = (entry for entry in results.journal if entry["table"] == "measurements")
    return {tuple(entry["row"][column] for column in _KEY): entry for entry in entries}


def _change(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    work = range(len(KINDS))
    by_kind = [_quotient(_calibrated(before, kind), _calibrated(after, kind)) for kind in work]
    speedup = Interval(
        float(stats.gmean([one.median for one in by_kind])),
        min(one.low for one in by_kind),
        max(one.high for one in by_kind),
    )
    fixed = [np.median(cell["calibration_samples"], axis=0) for cell in (before, after)]
    return {
        "median_a_s": before["row"]["median_s"],
        "median_b_s": after["row"]["median_s"],
        "ratio": after["row"]["median_s"] / before["row"]["median_s"],
        "speedup": speedup.median,
        "speedup_ci_low": speedup.low,
        "speedup_ci_high": speedup.high,
        **{f"drift_{kind}": float(drift) for kind, drift in zip(KINDS, fixed[1] / fixed[0], strict=True)},
        "verdict": _verdict(speedup),
    }


def _calibrated(cell: dict[str, Any], kind: int) -> Interval:
    return median_interval(np.asarray(cell["samples"]) / np.asarray(cell["calibration_samples"])[:, kind], _CONFIDENCE)


def _quotient(numerator: Interval, denominator: Interval) -> Interval:
    """Divide two independent medians; errors add in squares on the log scale (Fieller's, for small errors)."""
    ratio = numerator.median / denominator.median
    with np.errstate(divide="ignore", invalid="ignore"):
        ups = [np.log(numerator.high / numerator.median), np.log(denominator.median / denominator.low)]
        downs = [np.log(numerator.median / numerator.low), np.log(denominator.high / denominator.median)]
    up, down = (float(np.hypot(*np.nan_to_num(ends, nan=np.inf))) for ends in (ups, downs))
    return Interval(ratio, ratio * float(np.exp(-down)), ratio * float(np.exp(up)))


def _verdict(speedup: Interval) -> str:
    if speedup.high < 1 - REGRESSION:
        return "slower"
    if speedup.low > 1 + REGRESSION:
        return "faster"
    return "same" if speedup.within(1 - REGRESSION, 1 + REGRESSION) else "unclear"
