"""Runs compared over time or machines: what became faster or slower, beyond the noise and the machine's own drift.

All is done on logarithms, where a change of 0.01 is one percent. The *level* of a kernel on a product is the mean of
the faster half of its samples (whatever disturbs a round makes it longer). From its change, that of the *controls* is
taken: of two runs, the median of the ladder's other kernels on the product; where there are too few, or in more runs,
fixed arithmetic in the same rounds. The error has three parts: how the rounds scatter (bootstrap); what every start of
the processes brings with it (how they lie in memory, mostly), which no round can show; and how the controls differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, stats

from matmulbench.errors import UsageError
from matmulbench.ladder import LADDER
from matmulbench.measurement.statistics import FALSE_ALARM, SAME
from matmulbench.results.folder import FleetResults, Results
from matmulbench.results.schema import EVERY, FIXED_WORK, KEYS, Status

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("faster", "slower", "broken", "same", "unclear")
CELL_BAND, KERNEL_BAND = 0.10, 0.05  # `same` excludes a change beyond this
_ONE_SIDED = float(stats.norm.ppf(0.95))  # two one-sided tests at 5 % are the 90 % interval
# Standard deviation of a change that the rounds do not explain, as seen between standard runs of one undisturbed
# machine: of one product, and of the products of a kernel together.
_RESTART, _KERNEL_RESTART = 0.0125, 0.008
_CALL_DRIFT = 0.05  # by as much, short calls may drift otherwise than arithmetic without telling anything of kernels
_RUNGS = frozenset(rung.name for rung in LADDER)
_CONTROLS = 3  # kernels whose median tells how the machine drifted: one of them may have changed
_LIBRARIES = ("matmulbench", "python", "torch")  # what every rung rests on
_ENOUGH = 20  # products that tell how far the errors are too small
_RESAMPLES = 1000
_SHORTEST = 2  # runs between two change points: one alone is an outlier
_OUTLIER = 3.0  # standard deviations
_KEY = KEYS["measurements"]
_PROCESSOR = ("cpu", "architecture", "cores", "vector_extensions", "l2_cache", "l3_cache")

Key = tuple[Any, ...]
Cells = dict[Key, dict[str, Any]]
Floats = npt.NDArray[np.float64]


def differences(a: Results, b: Results) -> list[str]:
    """List what differs between two runs besides time: machine, library versions, and cells that one of them lacks."""
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
    found += [f"kernels: {old} is taken for {new}" for old, new in _renamed(a, b).items()]
    cells = _cells([a, b])
    kernels = [dict.fromkeys(key[3] for key in each) for each in cells]
    for run, own, others in zip((a, b), kernels, reversed(kernels), strict=True):
        if alone := [kernel for kernel in own if kernel not in others]:
            found.append(f"kernels: {', '.join(alone)} only in {run.path}")
    left = sum(all(key[3] in each for each in kernels) for key in set(cells[0]) ^ set(cells[1]))
    return found + ([f"cells: {left} of kernels in both stand in one of them only, and are left out"] if left else [])


def one_processor(runs: Sequence[Results]) -> bool:
    """Tell whether all runs were made on the same kind of processor; otherwise only ranks can be compared, not times.

    Runs of several machines are compared machine by machine.
    """
    if any(isinstance(run, FleetResults) for run in runs):
        return True
    return len({str([run.run["machine"].get(field) for field in _PROCESSOR]) for run in runs}) == 1


def compare(a: Results, b: Results) -> pd.DataFrame:
    """Say of each kernel, and of each of its products, whether it became ``faster`` or ``slower`` or is the ``same``.

    Every change is taken from that of the ladder's other kernels on the same product, so that a machine that is merely
    slower today is no regression. With fewer than three of them, or other versions of what they rest on, it is taken
    from that of fixed arithmetic in the same rounds. Where then short calls, the other kind of fixed work, drifted
    otherwise by more than 5 %, a kernel may have drifted like either: what is beyond counts as an error.

    Where the changes of the products scatter more about their kernel's than rounds and restarts explain, all errors are
    larger by what is left. A product that was predicted from other rows than before is ``unclear``.

    Returns
    -------
    pandas.DataFrame
        workload (first ``all products`` of each kernel), dtype, threads, kernel, status and median_s of both, ``ratio``
        (time in ``b`` / time in ``a``, as measured), ``speedup`` (time in ``a`` / time in ``b``, drift removed) with
        its 90 % interval, ``drift_arithmetic`` and ``drift_calls`` (time of fixed work in ``b`` / in ``a``),
        ``drift_kernels`` (of the other kernels; none where fixed arithmetic was used), verdict; whether the times are
        predictions (``extrapolated_a``, ``extrapolated_b``).
        Before them ``machine``, where both hold runs of several: each is compared with its namesake.

    Raises
    ------
    UsageError
        if the runs have no cell in common, or one alone holds runs of several machines.
    """
    import pandas as pd

    if pairs := _machines(a, b):
        compared = [compare(*pair).assign(machine=name) for name, pair in pairs.items()]
        return pd.concat(compared, ignore_index=True)

    (before, after), common = _in_common([a, b])
    levels = _levels(before), _levels(after)
    alike = all(a.run["versions"].get(name) == b.run["versions"].get(name) for name in _LIBRARIES)
    timed = {key: (levels[0][key], levels[1][key]) for key in common if all(key in each for each in levels)}
    # Of a slow product a part is timed: only the same part can be compared.
    changes = _changes({key: pair for key, pair in timed.items() if pair[0].timed_on == pair[1].timed_on}, alike)
    kernels = {kernel: _together([changes[key] for key in keys]) for kernel, keys in _by_kernel(changes).items()}
    verdicts = {kernel: change.verdict(KERNEL_BAND, len(kernels)) for kernel, change in kernels.items()}
    rows = [
        _named((EVERY, *kernel))
        | {"status_a": Status.OK, "status_b": Status.OK, "verdict": verdicts[kernel]}
        | change.figures
        for kernel, change in kernels.items()
    ]
    for key in common:
        cells = before[key]["row"], after[key]["row"]
        row = _named(key) | {"status_a": cells[0]["status"], "status_b": cells[1]["status"]}
        if change := changes.get(key):
            verdict, whole = change.verdict(CELL_BAND, len(changes)), kernels[key[1:]]
            # A change of the kernel is a change of each product that is nearer to it than to none.
            follows = verdicts[key[1:]] in ("faster", "slower") and abs(change.size - whole.size) < abs(change.size)
            row |= change.figures
            row["verdict"] = verdicts[key[1:]] if follows and verdict in ("same", "unclear") else verdict
        elif row["status_a"] == Status.OK:
            row["verdict"] = "unclear" if row["status_b"] == Status.OK else "broken"
        if row["status_a"] == row["status_b"] == Status.OK:
            row |= {"median_a_s": cells[0]["median_s"], "median_b_s": cells[1]["median_s"]}
            row["ratio"] = row["median_b_s"] / row["median_a_s"]
            row |= {f"extrapolated_{which}": cell["extrapolated"] for which, cell in zip("ab", cells, strict=True)}
        rows.append(row)
    names = ["status_a", "status_b", "median_a_s", "median_b_s", "ratio"]
    last = ["verdict", "extrapolated_a", "extrapolated_b"]
    return pd.DataFrame(rows, columns=[*_KEY, *names, *_Change.FIGURES, *last])


def history(runs: Sequence[Results]) -> pd.DataFrame:
    """Follow each kernel, and each of its products, over ``runs`` of one machine, oldest first, and find its changes.

    Returns
    -------
    pandas.DataFrame
        a row per cell and run: workload (first ``all products`` of each kernel), dtype, threads, kernel, ``run``
        (from 0), ``start``, status, median_s, ``relative`` (time, drift removed, over the median of the first segment),
        ``segment`` (from 0; a new one begins where a change was found), ``level`` (the median of ``relative`` in the
        segment), ``speedup`` (of the segment over the one before), verdict (on the same), ``extrapolated`` (whether
        median_s is a prediction).

    Raises
    ------
    UsageError
        if the runs have no cell in common, or one is of several machines.
    """
    import pandas as pd

    if several := [run for run in runs if isinstance(run, FleetResults)]:
        raise _several_machines(several[0])
    cells, common = _in_common(runs)
    levels = [_levels(each) for each in cells]
    series = {key: {i: each[key].size for i, each in enumerate(levels) if key in each} for key in common}
    followed = {}
    whole = _by_kernel(key for key in common if len(series[key]) == len(runs))
    for kernel, keys in whole.items():
        sizes = np.array([list(series[key].values()) for key in keys])
        middle = np.median(sizes - sizes.mean(axis=1, keepdims=True), axis=0)
        noise = _KERNEL_RESTART / 2**0.5
        followed[EVERY, *kernel] = _follow(dict(enumerate(middle)), noise, _segments(middle, noise, len(whole)))
    for key in common:
        errors = [each[key].error for each in levels if key in each] or [0.0]
        noise = float(np.hypot(np.median(errors), _RESTART / 2**0.5))
        found = _follow(series[key], noise, _segments(np.array([*series[key].values()]), noise, len(common)))
        # As in `compare`: a change of the kernel is a change of each product that is nearer to it than to none.
        together = followed.get((EVERY, *key[1:]), {})
        if len(found) == len(runs) and _change(together) and not _change(found):
            with_it = _follow(series[key], noise, [each["segment"] for each in together.values()])
            if abs(_change(with_it) - _change(together)) < abs(_change(with_it)):
                found = with_it
        followed[key] = found
    rows = []
    for key, found in followed.items():
        for i, run in enumerate(runs):
            cell = {"status": Status.OK} if key[0] == EVERY else cells[i][key]["row"]
            row = _named(key) | {"run": i, "start": run.run["start"], "status": cell["status"]}
            if i in found:
                row |= {name: cell.get(name) for name in ("median_s", "extrapolated")} | found[i]
            elif cell["status"] == Status.OK:
                row["verdict"] = "unclear"
            elif min(found, default=i) < i:
                row["verdict"] = "broken"
            rows.append(row)
    names = ["run", "start", "status", "median_s", "relative", "segment", "level", "speedup", "verdict", "extrapolated"]
    return pd.DataFrame(rows, columns=[*_KEY, *names]).astype({"segment": "Int64"})


def ranks(runs: Sequence[Results]) -> pd.DataFrame:
    """Rank the kernels on each product in each run, whatever machine it was made on.

    Returns
    -------
    pandas.DataFrame
        workload, dtype, threads, kernel, and for each run, from 1, ``median_s_1`` and ``rank_1`` (1: the fastest;
        kernels within 2 % of the next faster one share its rank), last ``extrapolated_1`` (whether the time is a
        prediction). Only cells that all runs have timed.

    Raises
    ------
    UsageError
        if the runs have no cell in common.
    """
    import pandas as pd

    cells, common = _in_common(runs)
    timed = [key for key in common if all(each[key]["row"]["status"] == Status.OK for each in cells)]
    frame = pd.DataFrame([_named(key) for key in timed], columns=list(_KEY))
    for i, each in enumerate(cells, start=1):
        frame[f"median_s_{i}"] = [each[key]["row"]["median_s"] for key in timed]
        ordered = frame.sort_values(f"median_s_{i}")
        groups = ordered.groupby(list(_KEY[:3]))[f"median_s_{i}"]
        place = groups.cumcount() + 1
        tied = groups.pct_change() <= SAME
        frame[f"rank_{i}"] = place.mask(tied).groupby([ordered[name] for name in _KEY[:3]]).ffill().astype(int)
    predicted = {
        f"extrapolated_{i}": [each[key]["row"]["extrapolated"] for key in timed]
        for i, each in enumerate(cells, start=1)
    }
    return frame.assign(**predicted)


def _several_machines(results: FleetResults) -> UsageError:
    one = results.path / next(iter(results.machines))
    return UsageError(f"folder {results.path} holds runs of several machines: name one, such as {one}")


def _machines(a: Results, b: Results) -> dict[str, tuple[Results, Results]]:
    """Pair the machines of two fleets; empty where both are runs of one."""
    both = [each for each in (a, b) if isinstance(each, FleetResults)]
    if len(both) == 1:
        raise _several_machines(both[0])
    if both and not (shared := [name for name in both[0].machines if name in both[1].machines]):
        raise UsageError(f"no machine is in both: {a.path} has {', '.join(both[0].machines)}")
    return {name: (both[0].machines[name], both[1].machines[name]) for name in shared} if both else {}


def summary(comparison: pd.DataFrame) -> str:
    """Count the verdicts on products of :func:`compare`, or of :func:`history`'s newest run: ``2 faster, 186 same``."""
    found = comparison["verdict"][comparison["workload"] != EVERY].value_counts()
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if verdict in found) or "nothing to compare"


def why_unclear(comparison: pd.DataFrame) -> str | None:
    """Say how wide the intervals of :func:`compare` are, where they decide nothing about most products."""
    unclear = comparison[(comparison["workload"] != EVERY) & (comparison["verdict"] == "unclear")]
    width = 100 * ((unclear["speedup_ci_high"] / unclear["speedup_ci_low"]).median() ** 0.5 - 1)
    if 2 * len(unclear) <= (comparison["workload"] != EVERY).sum() or np.isnan(width):  # none was timed alike
        return None
    return (
        f"most products are unclear: the change of half of them is known to no better than ±{width:.0f} %, and `same` "
        f"excludes {100 * CELL_BAND:.0f} %; longer runs (a larger --preset) or a quieter machine tell more"
    )


@dataclass(frozen=True)
class _Level:
    """How long a kernel takes for a product, on a logarithmic scale, with what is known of its error."""

    time: float
    draws: Floats  # its error, from resampled rounds
    drift: Floats  # of each kind of fixed work
    drift_draws: Floats  # of arithmetic
    rounds: list[Any]  # its fixed work: two cells that have the same are of the same rounds
    timed_on: str | None  # the product, or the part of it that stands in for a slow whole

    @property
    def size(self) -> float:
        """Its time in units of fixed arithmetic."""
        return self.time - float(self.drift[0])

    @property
    def error(self) -> float:
        return float((self.draws - self.drift_draws).std())


@dataclass(frozen=True)
class _Change:
    """From one run to the other, on a logarithmic scale; positive where it became slower."""

    size: float
    noise: float
    drift: Floats  # of fixed work, and of the other kernels: NaN where these are not the control
    restarted: bool

    FIGURES = ("speedup", "speedup_ci_low", "speedup_ci_high", *(f"drift_{kind}" for kind in (*FIXED_WORK, "kernels")))

    @property
    def error(self) -> float:
        arithmetic, calls, kernels = self.drift
        excess = max(0.0, abs(calls - arithmetic) - _CALL_DRIFT) if np.isnan(kernels) else 0.0
        return float(np.hypot(self.noise, excess))

    @property
    def figures(self) -> dict[str, float]:
        reach = _ONE_SIDED * self.error
        logarithms = [-self.size, -self.size - reach, -self.size + reach, *self.drift]
        return {name: float(np.exp(each)) for name, each in zip(self.FIGURES, logarithms, strict=True)}

    def verdict(self, band: float, comparisons: int) -> str:
        """Return the verdict, where noise alone is to make a difference of none of so many in 99 of 100 tables."""
        certain = float(stats.norm.isf(FALSE_ALARM / 2 / comparisons)) * self.error
        if abs(self.size) > max(certain, np.log1p(SAME)):
            return _direction(self.size)
        return "same" if abs(self.size) + _ONE_SIDED * self.error <= np.log1p(band) else "unclear"


def _direction(change: float) -> str:
    return "slower" if change > 0 else "faster"


def _named(key: Key) -> dict[str, Any]:
    return dict(zip(_KEY, key, strict=True))


def _in_common(runs: Sequence[Results]) -> tuple[list[Cells], list[Key]]:
    """Return the cells of each run, and the keys that all of them have, in the newest's order."""
    every = _cells(runs)
    common = [key for key in every[-1] if all(key in each for each in every)]
    if not common:
        raise UsageError(f"the runs have no kernel and product in common: {'; '.join(map(_contents, runs))}")
    return every, common


def _cells(runs: Sequence[Results]) -> list[Cells]:
    """Return the cells of each run, with the kernels named as in the newest."""
    names = [_renamed(run, runs[-1]) for run in runs]
    return [
        {(*key[:3], new.get(key[3], key[3])): cell for key, cell in run.cells("measurements").items()}
        for run, new in zip(runs, names, strict=True)
    ]


def _renamed(older: Results, newer: Results) -> dict[str, str]:
    """Return the kernels of ``older`` that ``newer`` has under another path, if file and function tell them apart."""
    before, after = ({key[3] for key in run.cells("measurements")} for run in (older, newer))
    pairs = [pair for pair in product(before - after, after - before) if len({*map(_file_and_function, pair)}) == 1]
    number = Counter(kernel for pair in pairs for kernel in pair)
    return {old: new for old, new in pairs if number[old] == number[new] == 1}


def _file_and_function(kernel: str) -> str:
    return re.split(r"[/\\]", kernel)[-1]


def _contents(results: Results) -> str:
    """Say on what a run has figures."""
    if not (cells := results.cells("measurements")):
        return f"{results.path} has none"
    columns = [dict.fromkeys(str(key[i]) for key in cells) for i in range(len(_KEY))]
    said = [f"{', '.join(list(each)[:9])}{', …' * (len(each) > 9)}" for each in columns]
    return f"{results.path} has {said[3]} on {said[0]} ({said[1]}, threads {said[2]})"


def _by_kernel(keys: Iterable[Key]) -> dict[Key, list[Key]]:
    """Gather cells by dtype, threads and kernel."""
    found: dict[Key, list[Key]] = {}
    for key in keys:
        found.setdefault(key[1:], []).append(key)
    return found


def _faster_half(logarithms: Floats) -> Floats:
    n = logarithms.shape[-1]
    half: Floats = np.sort(logarithms)[..., : (n + 1) // 2].mean(axis=-1)
    return half


def _resampled(logarithms: Floats) -> Floats:
    """Return how the faster half would differ in other rounds; of as many rounds, always the same are drawn."""
    n = len(logarithms)
    draws = _faster_half(logarithms[np.random.default_rng(0).integers(0, n, (_RESAMPLES, n))])
    centred: Floats = (draws - draws.mean()) * np.sqrt(n / (n - 1))
    return centred


def _levels(cells: Cells) -> dict[Key, _Level]:
    """Return the level of each cell that was timed in two rounds at least: of one alone, no error is known."""
    timed = {
        key: cell for key, cell in cells.items() if cell["row"]["status"] == Status.OK and len(cell["samples"]) > 1
    }
    longest: dict[Key, list[Any]] = {}
    for key, cell in timed.items():
        longest[key[:3]] = max(longest.get(key[:3], []), cell.get("calibration_samples") or [], key=len)
    fixed = {cell: np.log(rounds).T for cell, rounds in longest.items() if rounds}
    drifts = {cell: (_faster_half(work), _resampled(work[0])) for cell, work in fixed.items()}
    found = {}
    for key, cell in timed.items():
        if key[:3] in drifts:
            samples = np.log(cell["samples"])
            time, draws = float(_faster_half(samples)), _resampled(samples)
            found[key] = _Level(time, draws, *drifts[key[:3]], cell["calibration_samples"], cell.get("timed_on"))
    return found


def _changes(pairs: dict[Key, tuple[_Level, _Level]], alike: bool) -> dict[Key, _Change]:
    """Return the change of each cell from the one level to the other; ``alike``: rungs rest on the same libraries."""
    # The same rounds are drawn for both: of a run and a copy of it, only what was changed in the copy is left.
    sizes = {key: after.time - before.time for key, (before, after) in pairs.items()}
    draws = {key: after.draws - before.draws for key, (before, after) in pairs.items()}
    on_product: dict[Key, list[Key]] = {}
    for key in pairs if alike else ():
        if key[3] in _RUNGS:
            on_product.setdefault(key[:3], []).append(key)
    found, errors, spreads = {}, {}, {}
    for key, (before, after) in pairs.items():
        drift, theirs = after.drift - before.drift, float("nan")
        machine, machine_draws, spreads[key] = float(drift[0]), after.drift_draws - before.drift_draws, 0.0
        controls = [each for each in on_product.get(key[:3], ()) if each != key]
        if len(controls) >= _CONTROLS:
            changes = [sizes[each] for each in controls]
            machine = theirs = float(np.median(changes))
            machine_draws = np.median([draws[each] for each in controls], axis=0)
            spreads[key] = float(stats.median_abs_deviation(changes, scale="normal"))
        errors[key] = float((draws[key] - machine_draws).std())
        restarted = before.rounds != after.rounds
        found[key] = _Change(sizes[key] - machine, errors[key], np.append(drift, theirs), restarted)
    restart = _unexplained(found, errors)
    # Unchanged kernels differ on a product by their spread: nothing smaller can be known of one of them.
    return {
        key: replace(each, noise=max(float(np.hypot(errors[key], restart * each.restarted)), spreads[key]))
        for key, each in found.items()
    }


def _unexplained(changes: dict[Key, _Change], errors: dict[Key, float]) -> float:
    """Return the standard deviation beside ``errors`` with which changes scatter about their kernels' medians.

    It is that of a restart at least, and this where there are too few products to tell.
    """
    middle = {kernel: np.median([changes[key].size for key in keys]) for kernel, keys in _by_kernel(changes).items()}
    off = np.array([abs(each.size - middle[key[1:]]) for key, each in changes.items() if each.restarted])
    rounds = np.array([errors[key] for key, each in changes.items() if each.restarted])

    def too_little(share: float) -> float:
        return float(np.median(off / np.hypot(rounds, share)) - stats.norm.ppf(0.75))

    if len(off) < _ENOUGH or too_little(_RESTART) <= 0:
        return _RESTART
    return float(optimize.brentq(too_little, _RESTART, 2 * off.max()))


def _together(changes: list[_Change]) -> _Change:
    """Return the median change of a kernel's products."""
    sizes = [change.size for change in changes]
    spread = max(stats.median_abs_deviation(sizes, scale="normal"), np.median([change.noise for change in changes]))
    noise = np.sqrt(np.pi / 2 / len(changes)) * spread  # the standard error of a median
    restarted = any(change.restarted for change in changes)
    drift = np.median([change.drift for change in changes], axis=0)
    return _Change(float(np.median(sizes)), float(np.hypot(noise, _KERNEL_RESTART * restarted)), drift, restarted)


def _change(found: dict[int, dict[str, Any]]) -> float:
    """Return the logarithm of the newest speedup that :func:`_follow` found; 0 where there is none."""
    newest = found[max(found)] if found else {"verdict": "same"}
    return float(np.log(newest["speedup"])) if newest["verdict"] in ("faster", "slower") else 0.0


def _follow(sizes: dict[int, float], noise: float, segments: list[int]) -> dict[int, dict[str, Any]]:
    """Return for each run what :func:`history` says of a level that had such ``sizes`` on a logarithmic scale."""
    numbers = dict(zip(sizes, segments, strict=True))
    far = max(_OUTLIER * noise, np.log1p(SAME))  # from its segment, of the newest run, which none confirms yet
    middle = [np.median([sizes[i] for i in sizes if numbers[i] == n]) for n in sorted(set(numbers.values()))]
    found = {}
    for i, n in numbers.items():
        change = float(middle[n] - middle[n - 1]) if n else 0.0
        near = i < max(sizes) or abs(sizes[i] - middle[n]) <= far
        found[i] = {
            "relative": np.exp(sizes[i] - middle[0]),
            "segment": n,
            "level": np.exp(middle[n] - middle[0]),
            "speedup": np.exp(-change) if n else None,
            "verdict": "unclear" if not near else _direction(change) if abs(change) > np.log1p(SAME) else "same",
        }
    return found


def _segments(values: Floats, noise: float, series: int) -> list[int]:
    """Return for each of ``values`` (n,), in time order, the number of its segment; these meet in change points.

    The segmentation with the least squared error (Killick, PELT, JASA 107, 2012), where every change point must pay for
    itself: so much that noise alone makes one in 1 of 100 histories of so many ``series``. ``noise`` is the least that
    the standard deviation may be; where values differ more from one to the next, it is taken from that, without the
    largest difference, which may be a change: Student's distribution, with the least that is known beforehand counted
    like as many runs again. What is far from its neighbours' median is drawn in.
    """
    n = len(values)
    if n < 2 * _SHORTEST:
        return [0] * n
    try:
        from ruptures import KernelCPD
    except ImportError:
        raise UsageError(
            "more than two runs are compared with ruptures, which is missing: pip install ruptures"
        ) from None
    steps = np.sort(np.diff(values) ** 2)[:-1]
    sigma = max(noise, float(np.sqrt(steps.mean() / 2)))
    middle = ndimage.median_filter(values, 5, mode="mirror")
    clipped = np.clip(values, middle - _OUTLIER * sigma, middle + _OUTLIER * sigma)
    price = (stats.t.isf(FALSE_ALARM / 2 / n / series, 2 * (n - 1)) * sigma) ** 2
    ends = KernelCPD(kernel="linear", min_size=_SHORTEST).fit(clipped[:, None]).predict(pen=price)
    return [int(segment) for segment in np.searchsorted(ends, np.arange(n), side="right")]
