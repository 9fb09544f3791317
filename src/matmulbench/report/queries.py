"""What tables, charts and page ask of a run: kernels in ladder order, one ladder at a time, the roofs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from matmulbench.ladder import BASELINE, LADDER
from matmulbench.report.formatting import count, known
from matmulbench.results.folder import Results
from matmulbench.results.schema import Status
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

Row = dict[Any, Any]  # a line of a table by column, and what is derived from it

_RANK = {rung.name: rank for rank, rung in enumerate(LADDER)}


def baseline_of(results: Results) -> str:
    """Return the kernel that the run's speedups are quoted against."""
    return str(results.run["options"].get("baseline") or BASELINE)


def in_order(kernels: Iterable[str]) -> list[str]:
    """Return the kernels once each: the ladder's in its order, then others as they come."""
    return sorted(dict.fromkeys(kernels), key=lambda kernel: _RANK.get(kernel, len(_RANK)))


def kernels_of(results: Results) -> list[str]:
    """Return every kernel of a run, in ladder order."""
    return in_order(kernel for table in results.tables.values() for kernel in table["kernel"])


def labels(kernels: Iterable[str]) -> dict[str, str]:
    """Return for each kernel the shortest label that no other of them has.

    ``path/to/mine.py:matmul`` becomes ``mine.py:matmul``, next to ``other/mine.py:matmul`` it is ``to/mine.py:matmul``.
    """
    parts = {kernel: PurePath(kernel).parts for kernel in kernels}
    found = {}
    for kernel, mine in parts.items():
        ends = ["/".join(mine[-n:]) for n in range(1, len(mine))]
        alike = [sum(mine[-n:] == other[-n:] for other in parts.values()) for n in range(1, len(mine))]
        found[kernel] = next((end for end, number in zip(ends, alike, strict=True) if number == 1), kernel)
    return found


def has_figure(row: Row, column: str) -> bool:
    """Say whether a row is ``ok`` and has a figure in ``column``."""
    return row["status"] == Status.OK and known(row.get(column)) is not None


@dataclass(frozen=True)
class Ladder:
    """The rows of one workload, dtype and thread count, in ladder order."""

    workload: str
    dtype: str
    threads: int
    rows: list[Row]

    @property
    def title(self) -> str:
        """The workload with what else names it."""
        return f"{self.workload} · {self.dtype} · {count(self.threads, 'thread')}"

    @property
    def intensity(self) -> float:
        """FLOP per byte of the product."""
        return Workload.parse(self.workload, self.dtype).intensity

    def row(self, kernel: str) -> Row | None:
        """Return the row of ``kernel`` if it has a time."""
        return next((row for row in self.timed if row["kernel"] == kernel), None)

    @property
    def timed(self) -> list[Row]:
        """The rows with a time."""
        return [row for row in self.rows if has_figure(row, "median_s")]


def ladders(measurements: pd.DataFrame) -> list[Ladder]:
    """Split a table of measurements into its ladders, in the order in which they were measured."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in records(measurements):
        found.setdefault((row["workload"], row["dtype"], int(row["threads"])), []).append(row)
    return [Ladder(*key, rows) for key, rows in found.items()]


def chart_name(ladder: Ladder, among: list[Ladder]) -> str:
    """Name the file of a ladder's chart: short where nothing else could be meant."""
    parts = ["ladder", ladder.workload.replace(":", "-")]
    if ladder.dtype != "float32":
        parts.append(ladder.dtype)
    if len({other.threads for other in among}) > 1:
        parts.append(f"t{ladder.threads}")
    return "-".join(parts)


def tasks(training: pd.DataFrame) -> dict[tuple[str, int], list[Row]]:
    """Split a table of trainings by task and thread count."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in records(training):
        found.setdefault((row["task"], int(row["threads"])), []).append(row)
    return found


def task_title(task: str, threads: int) -> str:
    """Return a task with its thread count."""
    return f"{task} · {count(threads, 'thread')}"


def records(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table with each kernel's ``label``, kernels in ladder order and otherwise as they stand."""
    label = labels(frame["kernel"])
    place = {kernel: i for i, kernel in enumerate(in_order(label))}
    rows = [{**row, "label": label[row["kernel"]]} for row in frame.to_dict("records")]
    return sorted(rows, key=lambda row: place[row["kernel"]])


def matmul_speedup(row: Row, reference: Row | None) -> float | None:
    """Return by how much the products of a training step are faster than those of the ``reference`` row."""
    if reference is None:
        return None
    times = [(known(each["step_s"]), known(each["matmul_share"])) for each in (reference, row)]
    products = [step * share for step, share in times if step and share]
    return products[0] / products[1] if len(products) == 2 else None


def reference_of(rows: list[Row], baseline: str) -> Row | None:
    """Return the row of a training with the ``baseline``, if it has a time."""
    return next((row for row in rows if row["kernel"] == baseline and has_figure(row, "step_s")), None)


def amdahl_limit(reference: Row | None) -> float | None:
    """Return the speedup of a step whose products cost nothing (Amdahl), against the ``reference`` row."""
    share = known(reference["matmul_share"]) if reference else None
    return 1 / (1 - share) if share is not None and share < 1 else None


def roofs(results: Results) -> dict[tuple[str, int], Row]:
    """Return the measured roofs by dtype and thread count."""
    found: dict[tuple[str, int], Row] = {}
    for row in (entry["row"] for entry in results.journal if entry["table"] == "roof"):
        key = (row["dtype"], int(row["threads"]))
        alike = results.measurements.query("dtype == @key[0] and threads == @key[1] and status == 'ok'")
        # Next to what arithmetic alone reaches, the most that any product reached in this run.
        found[key] = row | {"best_matmul_gflops": alike["gflops"].max()}
    return found
