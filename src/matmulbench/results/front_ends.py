"""What other front ends timed: a pytest-benchmark JSON file or an asv results folder, as rows of measurements.

Both must name a ``workload`` (such as ``5x784x10``) and a ``kernel`` among their parameters, as the suites in
``benchmarks/`` do; whatever else is in them is passed over. Those suites run on one thread.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError
from matmulbench.results.schema import MeasurementRow
from matmulbench.workload import Workload

_MALFORMED = (AttributeError, LookupError, SyntaxError, TypeError, ValueError)
_ASV_FORMAT = 2


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
    """Read a pytest-benchmark JSON file, or of an asv results folder the newest commit that has times.

    Returns
    -------
    FrontEnd
        rows with ``median_s``, ``min_s`` (pytest-benchmark alone), ``samples`` and ``gflops``, and no speedup: the
        kernels were not timed side by side.

    Raises
    ------
    FrontEndError
        if it cannot be read, is of another form or has no time of a workload and kernel.
    """
    if not path.exists():
        raise FrontEndError(f"{path} does not exist; expected a pytest-benchmark JSON file or an asv results folder")
    found = _read_asv(path) if path.is_dir() else _read_pytest_benchmark(path)
    if not found.rows:
        raise FrontEndError(f"{path}: no benchmark in it has a time and names its workload and kernel as parameters")
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FrontEndError(f"file {path} cannot be read as JSON: {error}") from None


def _row(text: Any, kernel: Any, median_s: float, samples: int, min_s: float | None = None) -> MeasurementRow | None:
    """Make a row; None where there is no such workload, no kernel or no time."""
    try:
        w = Workload.parse(text)
    except (UsageError, TypeError):
        return None
    if not isinstance(kernel, str) or not math.isfinite(median_s):
        return None
    row = MeasurementRow(str(w), w.m, w.k, w.n, w.layout, w.dtype, 1, kernel)
    row.median_s, row.min_s, row.samples, row.gflops = median_s, min_s, samples, w.flop / median_s / 1e9
    return row


def _read_pytest_benchmark(path: Path) -> FrontEnd:
    content = _read_json(path)
    try:
        rows = []
        for benchmark in content["benchmarks"]:
            parameters, stats = benchmark["params"] or {}, benchmark["stats"]
            # A parameter that is no plain value is written as "UNSERIALIZABLE[…]"; the suite groups by workload.
            for text in (parameters.get("workload"), benchmark["group"]):
                row = _row(text, parameters.get("kernel"), stats["median"], stats["rounds"], stats["min"])
                if row:
                    rows.append(row)
                    break
        machine, commit = content["machine_info"], content["commit_info"]
        return FrontEnd("pytest-benchmark", str(commit.get("id"))[:8], machine["cpu"].get("brand_raw", ""), rows)
    except _MALFORMED as error:
        raise FrontEndError(f"file {path} is not what pytest-benchmark --benchmark-json writes: {error!r}") from None


def _read_asv(folder: Path) -> FrontEnd:
    runs = [path for path in folder.glob("*/*.json") if path.name != "machine.json"]
    if not runs or not (folder / "benchmarks.json").is_file():
        raise FrontEndError(f"folder {folder} holds no results of asv; expected one such as .asv/results")
    benchmarks = _read_json(folder / "benchmarks.json")
    dated = []
    for path in runs:
        content = _read_json(path)
        try:
            if content["version"] != _ASV_FORMAT:
                raise ValueError(f"version {content['version']}, {_ASV_FORMAT} is read")
            commit, cpu, rows = (
                content["commit_hash"][:8],
                content["params"].get("cpu", ""),
                _asv_rows(content, benchmarks),
            )
            dated.append((int(content["date"]), FrontEnd("asv", commit, cpu, list(rows))))
        except _MALFORMED as error:
            raise FrontEndError(f"file {path} is not what asv writes: {error!r}") from None
    return max(dated, key=lambda one: (len(one[1].rows) > 0, one[0]))[1]


def _asv_rows(content: dict[str, Any], benchmarks: dict[str, Any]) -> Iterator[MeasurementRow]:
    for name, entry in content["results"].items():
        result = dict(zip(content["result_columns"], entry, strict=False))  # columns at the end may be left out
        names = benchmarks.get(name, {}).get("param_names", [])
        if benchmarks.get(name, {}).get("type") != "time" or set(names) != {"workload", "kernel"}:
            continue
        # One flat list over all combinations; None where the benchmark failed, NaN where it was skipped.
        combinations = product(*([ast.literal_eval(value) for value in values] for values in result["params"]))
        times = result["result"] or []
        repeats = result.get("stats_repeat") or [0] * len(times)
        for values, time, samples in zip(combinations, times, repeats, strict=False):
            named = dict(zip(names, values, strict=True))
            row = None if time is None else _row(named["workload"], named["kernel"], time, samples)
            if row:
                yield row
