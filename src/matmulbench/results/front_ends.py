"""What other front ends timed: pytest-benchmark's JSON files or an asv results folder, as rows of measurements.

Both must name a ``workload`` (such as ``5x784x10``) and a ``kernel`` among their parameters, as the suites in
``benchmarks/`` do; whatever else is in them is passed over. Those suites run on one thread.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from matmulbench.errors import InputWarning, UsageError, printable
from matmulbench.results.files import read_json
from matmulbench.results.schema import MeasurementRow, is_row
from matmulbench.workload import Workload

_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
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
    """Read what pytest-benchmark or asv wrote; what cannot be read beside it is passed over, with an InputWarning.

    Parameters
    ----------
    path
        a JSON file of pytest-benchmark or its folder (``.benchmarks``), of which the newest file is taken; or the
        results folder of asv, of which the newest commit that has times is taken.

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
    expected = "expected pytest-benchmark's JSON file, its folder .benchmarks or asv's .asv/results"
    if not path.exists():
        raise FrontEndError(f"{path} does not exist; {expected}")
    if not path.is_dir():
        found = _read_pytest_benchmark(path)[1]
        if not found.rows:
            raise FrontEndError(f"{path}: no benchmark in it has a time and names its workload and kernel")
        return found
    asv = next((one for one in (path, path / "results") if (one / "benchmarks.json").is_file()), None)
    files = sorted(asv.glob("*/*.json")) if asv else sorted([*path.glob("*.json"), *path.glob("*/*.json")])
    benchmarks = _benchmarks(asv / "benchmarks.json") if asv else {}
    dated, passed = [], []
    for file in (file for file in files if file.name != "machine.json"):
        try:
            dated.append(_read_asv(file, benchmarks) if asv else _read_pytest_benchmark(file))
        except FrontEndError as error:
            passed.append(str(error))
    whole = [one for one in dated if one[1].rows]
    if not whole:
        hint = f" ({passed[-1]})" if passed else ""
        raise FrontEndError(f"folder {path} holds no times of a workload and kernel{hint}; {expected}")
    if passed:
        said = f"{path}: passed over {len(passed)} of {len(dated) + len(passed)} files, the last because {passed[-1]}"
        warnings.warn(said, InputWarning, stacklevel=1)
    return max(whole, key=lambda one: one[0])[1]


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except UsageError as error:
        raise FrontEndError(str(error)) from None


def _row(text: Any, kernel: Any, median_s: Any, samples: Any, min_s: Any = None) -> MeasurementRow | None:
    """Make a row; None where there is no such workload, no kernel or no time."""
    try:
        w = Workload.parse(text)
        row = MeasurementRow(str(w), w.m, w.k, w.n, w.layout, w.dtype, 1, printable(kernel, 4096))
        row.median_s, row.min_s, row.samples, row.gflops = median_s, min_s, samples, w.flop / median_s / 1e9
    except _MALFORMED:
        return None
    return row if kernel and median_s < float("inf") and is_row("measurements", asdict(row)) else None


def _read_pytest_benchmark(path: Path) -> tuple[str, FrontEnd]:
    """Return when the file was written, and what it has."""
    content = _read(path)
    try:
        rows = [row for benchmark in content["benchmarks"] if (row := _pytest_benchmark_row(benchmark))]
        machine, commit = content.get("machine_info") or {}, content.get("commit_info") or {}
        cpu = machine.get("cpu") or {}  # since version 3.1
        name = str(cpu.get("brand_raw") or cpu.get("brand") or "")
        found = FrontEnd("pytest-benchmark", printable(str(commit.get("id")))[:8], printable(name), rows)
        return str(content.get("datetime")), found
    except _MALFORMED as error:
        raise FrontEndError(f"file {path} is not what pytest-benchmark --benchmark-json writes: {error!r}") from None


def _pytest_benchmark_row(benchmark: Any) -> MeasurementRow | None:
    try:
        stats = dict(benchmark["stats"])
        named = {**(benchmark.get("extra_info") or {}), **(benchmark.get("params") or {})}
    except _MALFORMED:
        return None
    # A parameter that is no plain value is written as "UNSERIALIZABLE[…]", and old versions wrote none: then the
    # workload is that of the group, or both are in the test's name, as in test_matmul[5x784x10-numpy].
    parts = str(benchmark.get("name")).partition("[")[2].removesuffix("]").split("-")
    for text in (named.get("workload"), benchmark.get("group"), *parts):
        kernel = named.get("kernel") or "-".join(part for part in parts if part != text)
        if row := _row(text, kernel, *map(stats.get, ("median", "rounds", "min"))):
            return row
    return None


def _benchmarks(path: Path) -> dict[str, list[str]]:
    """Return the parameters' names of asv's timed benchmarks that have a workload and a kernel."""
    try:
        return {
            name: each["param_names"]
            for name, each in _read(path).items()
            if isinstance(each, dict)
            and each.get("type") == "time"
            and sorted(each.get("param_names", [])) == ["kernel", "workload"]
        }
    except _MALFORMED as error:
        raise FrontEndError(f"file {path} is not what asv writes: {error!r}") from None


def _read_asv(path: Path, benchmarks: dict[str, list[str]]) -> tuple[int, FrontEnd]:
    """Return the date of the commit that the file is about, and what it has."""
    content = _read(path)
    try:
        if content["version"] != _ASV_FORMAT:
            raise FrontEndError(
                f"file {path} is of asv's version {content['version']}, {_ASV_FORMAT} is read: `asv update` rewrites it"
            )
        cpu = printable(str(content["params"].get("cpu", "")))
        rows = list(_asv_rows(content, benchmarks))
        return int(content["date"]), FrontEnd("asv", printable(content["commit_hash"])[:8], cpu, rows)
    except FrontEndError:
        raise
    except _MALFORMED as error:
        raise FrontEndError(f"file {path} is not what asv writes: {error!r}") from None


def _asv_rows(content: dict[str, Any], benchmarks: dict[str, list[str]]) -> Iterator[MeasurementRow]:
    for name in (name for name in content["results"] if name in benchmarks):
        # Columns at the end may be left out.
        result = dict(zip(content["result_columns"], content["results"][name], strict=False))
        # One flat list over all combinations; None where the benchmark failed, NaN where it was skipped.
        combinations = product(*([ast.literal_eval(value) for value in values] for values in result["params"]))
        times = result["result"] or []
        repeats = result.get("stats_repeat") or [None] * len(times)
        for values, time, samples in zip(combinations, times, repeats, strict=False):
            named = dict(zip(benchmarks[name], values, strict=True))
            if row := _row(named["workload"], named["kernel"], time, samples):
                yield row
