"""What other front ends timed: pytest-benchmark's JSON files or an asv results folder, as rows of measurements.

Both must name a ``workload`` (such as ``5x784x10``) and a ``kernel`` among their parameters, as the suites in
``benchmarks/`` do; whatever else is in them is passed over. Those suites run on one thread.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from matmulbench.errors import InputWarning, UsageError, printable
from matmulbench.results.files import read_json
from matmulbench.results.schema import MeasurementRow, WorkloadText, conforms
from matmulbench.workload import Workload

_ASV_FORMAT = 2
_EXPECTED = "expected pytest-benchmark's JSON file, its folder .benchmarks or asv's .asv/results"


class FrontEndError(UsageError):
    """A file or folder that no front end wrote; the message names it and what would be right."""


@dataclass(frozen=True)
class FrontEnd:
    """One front end's times. ``name`` is ``asv`` or ``pytest-benchmark``; ``commit`` and ``cpu`` as it names them."""

    name: str
    commit: str
    cpu: str
    rows: list[MeasurementRow]


def read_front_end(path: Path) -> FrontEnd:
    """Read what pytest-benchmark or asv wrote; what cannot be read beside it is passed over, with an InputWarning.

    Parameters
    ----------
    path
        a JSON file, or a folder of them such as pytest-benchmark's ``.benchmarks`` or asv's results, of which the
        newest (pytest-benchmark) or that of the newest commit (asv) is taken.

    Returns
    -------
    FrontEnd
        rows with ``median_s``, ``min_s`` (pytest-benchmark alone), ``samples`` and ``gflops``, and no speedup.

    Raises
    ------
    FrontEndError
        if it cannot be read, is of another form or has no time of a workload and kernel.
    """
    if not path.exists():
        raise FrontEndError(f"{path} does not exist; {_EXPECTED}")
    folder = path / "results" if (path / "results").is_dir() else path
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]) if path.is_dir() else [path]
    dated, passed = [], []
    for file in (file for file in files if file.name not in ("machine.json", "benchmarks.json")):
        try:
            dated.append(_read(file))
        except UsageError as error:
            passed.append(str(error))
    reason = passed[-1] if passed else "no time in it names its workload and kernel"
    if not any(one.rows for _, one in dated):
        raise FrontEndError(f"{path} cannot be shown: {reason}; {_EXPECTED}")
    if passed:
        said = f"{path}: passed over {len(passed)} of {len(dated) + len(passed)} files, one because {reason}"
        warnings.warn(said, InputWarning, stacklevel=1)
    return max((one for one in dated if one[1].rows), key=lambda one: one[0])[1]


def _read(path: Path) -> tuple[str, FrontEnd]:
    """Return what a file has, and when it (of asv: its commit) was made."""
    content = read_json(path)
    try:
        if "benchmarks" in content:
            return _from_pytest_benchmark(content)
        if content["version"] != _ASV_FORMAT:
            wrong = f"of asv's version {content['version']!r}, {_ASV_FORMAT} is read: `asv update` rewrites it"
            raise FrontEndError(f"file {path} is {wrong}")
        return _from_asv(content, _asv_parameters(path.parent.parent / "benchmarks.json"))
    except UsageError:
        raise
    except Exception as error:  # a file that others wrote may bring about almost any
        raise FrontEndError(f"file {path} is neither pytest-benchmark's nor asv's: {error!r:.200}") from None


def _front_end(name: str, commit: Any, cpu: Any, times: Iterable[tuple[Any, ...]]) -> FrontEnd:
    rows = [_row(*time) for time in times]
    return FrontEnd(name, printable(str(commit or "unknown"))[:8], printable(str(cpu or "")), [*filter(None, rows)])


def _row(text: Any, kernel: Any, median_s: Any, samples: Any, min_s: Any = None) -> MeasurementRow | None:
    """Make a row; None where there is no such workload, no kernel or no time."""
    if not conforms(text, WorkloadText) or not isinstance(kernel, str) or not kernel or median_s is None:
        return None
    w = Workload.parse(text)
    row = MeasurementRow(str(w), w.m, w.k, w.n, w.layout, w.dtype, 1, printable(kernel, 4096), w.batch)
    row.median_s, row.min_s, row.samples = median_s, min_s, samples
    if not conforms(asdict(row), MeasurementRow):
        return None
    row.gflops = w.flop / median_s / 1e9
    return row


def _from_pytest_benchmark(content: dict[str, Any]) -> tuple[str, FrontEnd]:
    def times() -> Iterable[tuple[Any, ...]]:
        for one in content["benchmarks"]:
            named, stats = (one.get("extra_info") or {}) | (one.get("params") or {}), one.get("stats") or {}
            # A parameter that is no plain value stands there as "UNSERIALIZABLE[…]": then the group is the workload.
            text = next(
                (text for text in (named.get("workload"), one.get("group")) if conforms(text, WorkloadText)), ""
            )
            yield text, named.get("kernel"), stats.get("median"), stats.get("rounds"), stats.get("min")

    cpu = (content["machine_info"].get("cpu") or {}).get("brand_raw")
    commit = (content.get("commit_info") or {}).get("id")
    return str(content.get("datetime") or ""), _front_end("pytest-benchmark", commit, cpu, times())


def _asv_parameters(path: Path) -> dict[str, list[str]]:
    """Return the parameters' names of the benchmarks in seconds that have a workload and a kernel."""
    timed = {"unit": str, "param_names": list[str]}
    return {
        name: each["param_names"]
        for name, each in read_json(path).items()
        if conforms(each, timed) and each["unit"] == "seconds" and sorted(each["param_names"]) == ["kernel", "workload"]
    }


def _from_asv(content: dict[str, Any], parameters: dict[str, list[str]]) -> tuple[str, FrontEnd]:
    def times() -> Iterable[tuple[Any, ...]]:
        for name in (name for name in content["results"] if name in parameters):
            # Columns at the end may be left out.
            result = dict(zip(content["result_columns"], content["results"][name], strict=False))
            # One flat list over all combinations; None where the benchmark failed, NaN where it was skipped.
            combinations = product(*([_literal(value) for value in values] for values in result["params"]))
            found = result["result"] or []
            repeats = result.get("stats_repeat") or [None] * len(found)
            for values, time, samples in zip(combinations, found, repeats, strict=False):
                named = dict(zip(parameters[name], values, strict=True))
                yield named["workload"], named["kernel"], time, samples

    date = datetime.fromtimestamp(content["date"] / 1000, UTC).isoformat()
    return date, _front_end("asv", content["commit_hash"], content["params"].get("cpu"), times())


def _literal(text: str) -> Any:
    """Return the parameter whose ``repr`` asv wrote; None where that is no literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
