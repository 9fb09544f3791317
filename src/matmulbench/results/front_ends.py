"""What other front ends timed: pytest-benchmark's JSON files or an asv results folder, as rows of measurements.

Both must name a ``workload`` (such as ``5x784x10``) and a ``kernel`` among their parameters, as the suites in
``benchmarks/`` do; whatever else is in them is passed over. Those suites run on one thread.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from matmulbench.errors import UsageError, printable, warn
from matmulbench.results.files import read_json
from matmulbench.results.schema import MeasurementRow, WorkloadText, conforms, misfit
from matmulbench.workload import Workload

_ASV_FORMAT = 2
_EXPECTED = "expected pytest-benchmark's JSON file, its folder .benchmarks or asv's .asv/results"
_Parameters = dict[str, list[str]]  # the parameters' names of each benchmark of asv's that times a kernel


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
    folder = path / "results" if (path / "results" / "benchmarks.json").is_file() else path
    found = [one / "benchmarks.json" for one in (folder, path.parent, path.parent.parent)]
    parameters = next((_asv_parameters(file) for file in found if file.is_file()), None)
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]) if path.is_dir() else [path]
    dated, passed = [], []
    for file in (file for file in files if file.name not in ("machine.json", "benchmarks.json")):
        try:
            dated.append(_read(file, parameters))
        except UsageError as error:
            passed.append(str(error))
    with_rows = [one for one in dated if one[1].rows]
    reason = max(
        passed, key=lambda text: "asv update" in text, default="it has no valid time with a workload and a kernel"
    )
    if not with_rows:
        raise FrontEndError(f"{path} cannot be shown: {reason}" + f"; {_EXPECTED}" * ("asv update" not in reason))
    if passed:
        said = f"{path}: passed over {len(passed)} of {len(dated) + len(passed)} files, one because {reason}"
        warn(said)
    return max(with_rows, key=lambda one: one[0])[1]


def _read(path: Path, parameters: _Parameters | None) -> tuple[str, FrontEnd]:
    """Return what a file has, and when it (of asv: its commit) was made."""
    content = read_json(path)
    if not conforms(content, {"benchmarks": list[Any]}) and not conforms(content, {"results": dict}):
        raise FrontEndError(f"file {path} is neither pytest-benchmark's nor asv's")
    try:
        if "benchmarks" in content:
            return _from_pytest_benchmark(content)
        if content.get("version") != _ASV_FORMAT:
            wrong = f"of asv's version {content.get('version')!r}, {_ASV_FORMAT} is read: `asv update` rewrites it"
            raise FrontEndError(f"file {path} is {wrong}")
        if parameters is None:
            raise FrontEndError(f"file {path} is asv's, whose benchmarks.json belongs into the folder above it")
        return _from_asv(content, parameters)
    except FrontEndError:
        raise
    except Exception as error:  # a file that others wrote may bring about almost any
        raise FrontEndError(f"file {path} is neither pytest-benchmark's nor asv's: {error!r:.200}") from None


def _front_end(name: str, commit: Any, cpu: Any, rows: Iterator[MeasurementRow | None]) -> FrontEnd:
    return FrontEnd(name, printable(str(commit or "unknown"))[:8], printable(str(cpu or "")), [*filter(None, rows)])


def _row(text: Any, kernel: Any, median_s: Any, samples: Any, min_s: Any = None) -> MeasurementRow | None:
    """Make a row; None where there is no such workload, no kernel or no time (NaN: it was skipped)."""
    timed = median_s is not None and median_s == median_s
    if not conforms(text, WorkloadText) or not isinstance(kernel, str) or not kernel or not timed:
        return None
    w = Workload.parse(text)
    row = MeasurementRow(str(w), w.m, w.k, w.n, w.layout, w.dtype, 1, printable(kernel, 4096), w.batch)
    row.median_s, row.min_s, row.samples = median_s, min_s, samples
    if wrong := misfit(asdict(row), MeasurementRow):
        warn(f"passed over {row.kernel} on {w}: {wrong}")
        return None
    row.gflops = w.flop / median_s / 1e9
    return row


def _from_pytest_benchmark(content: dict[str, Any]) -> tuple[str, FrontEnd]:
    cpu = (content.get("machine_info") or {}).get("cpu") or {}  # since version 3.1
    brand = cpu.get("brand_raw") or cpu.get("brand") if isinstance(cpu, dict) else cpu
    commit = (content.get("commit_info") or {}).get("id")
    rows = (_pytest_benchmark_row(benchmark) for benchmark in content["benchmarks"] if isinstance(benchmark, dict))
    return str(content.get("datetime") or ""), _front_end("pytest-benchmark", commit, brand, rows)


def _pytest_benchmark_row(benchmark: dict[str, Any]) -> MeasurementRow | None:
    def fields(name: str) -> dict[str, Any]:
        value = benchmark.get(name)
        return value if isinstance(value, dict) else {}

    named = fields("extra_info") | fields("params")
    # A parameter that is no plain value is written as "UNSERIALIZABLE[…]", and old versions wrote none: then the
    # workload is that of the group, or both are in the test's name, as in test_matmul[5x784x10-numpy].
    parts = str(benchmark.get("name")).partition("[")[2].removesuffix("]").split("-")
    for text in (named.get("workload"), benchmark.get("group"), *parts):
        kernel = named.get("kernel") or "-".join(part for part in parts if part != text)
        if row := _row(text, kernel, *map(fields("stats").get, ("median", "rounds", "min"))):
            return row
    return None


def _asv_parameters(path: Path) -> _Parameters:
    """Return the parameters' names of the benchmarks in seconds that have a workload and a kernel."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise FrontEndError(f"file {path} is not what asv writes: expected an object, found {type(content).__name__}")
    timed = {"unit": str, "param_names": list[str]}
    return {
        name: each["param_names"]
        for name, each in content.items()
        if conforms(each, timed) and each["unit"] == "seconds" and sorted(each["param_names"]) == ["kernel", "workload"]
    }


def _from_asv(content: dict[str, Any], parameters: _Parameters) -> tuple[str, FrontEnd]:
    date = datetime.fromtimestamp(content["date"] / 1000, UTC).isoformat()
    cpu = content["params"].get("cpu")
    return date, _front_end("asv", content["commit_hash"], cpu, _asv_rows(content, parameters))


def _asv_rows(content: dict[str, Any], parameters: _Parameters) -> Iterator[MeasurementRow | None]:
    for name in (name for name in content["results"] if name in parameters):
        # Columns at the end may be left out.
        result = dict(zip(content["result_columns"], content["results"][name], strict=False))
        # One flat list over all combinations; None where the benchmark failed, NaN where it was skipped.
        combinations = product(*([_literal(value) for value in values] for values in result["params"]))
        times = result["result"] or []
        repeats = result.get("stats_repeat") or [None] * len(times)
        for values, time, samples in zip(combinations, times, repeats, strict=False):
            named = dict(zip(parameters[name], values, strict=True))
            yield _row(named["workload"], named["kernel"], time, samples)


def _literal(text: str) -> Any:
    """Return the parameter whose ``repr`` asv wrote; None where that is no literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
