"""What tables, charts and page ask of a run: kernels in order, one ladder at a time, the roofs, the verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from matmulbench.ladder import LADDER
from matmulbench.report.formatting import compared, count, known, text
from matmulbench.results.folder import Results
from matmulbench.results.schema import KEYS, Status
from matmulbench.training.tasks import TORCH_COMPILE, TORCH_NN
from matmulbench.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

_IN_FILE_NAMES = str.maketrans(":/\\*", "---x")
Row = dict[Any, Any]  # a line of a table by column, and what is derived from it

NO_KERNELS = (TORCH_NN, TORCH_COMPILE)  # what stands beside the kernels in a training
_RANK = {name: rank for rank, name in enumerate([*(rung.name for rung in LADDER), *NO_KERNELS])}


def in_order(kernels: Iterable[str]) -> list[str]:
    """Return the kernels once each: the user's as they come, then the ladder's in its order."""
    return sorted(dict.fromkeys(kernels), key=lambda kernel: _RANK.get(kernel, -1))


def users(kernels: Iterable[str]) -> list[str]:
    """Return the kernels that the user brought, once each."""
    return [kernel for kernel in dict.fromkeys(kernels) if kernel not in _RANK]


def kernels_of(results: Results) -> list[str]:
    """Return every kernel of a run, in order."""
    return in_order(kernel for table in results.tables.values() for kernel in table["kernel"])


def labels(kernels: Iterable[str]) -> dict[str, str]:
    """Return for each kernel the shortest label that no other of them has.

    ``path/to/mine.py:matmul`` becomes ``mine.py:matmul``, next to ``other/mine.py:matmul`` it is ``to/mine.py:matmul``.
    """
    parts, found = {}, {}
    for kernel in kernels:
        place, colon, function = kernel.rpartition(":")  # behind it is no path: a revision may have slashes, too
        path = PurePath(place)
        parts[kernel] = (*path.parent.parts, f"{path.name}{colon}{function}")
    for kernel, mine in parts.items():
        ends = ["/".join(mine[-n:]) for n in range(1, len(mine))]
        alike = [sum(mine[-n:] == other[-n:] for other in parts.values()) for n in range(1, len(mine))]
        found[kernel] = next((end for end, number in zip(ends, alike, strict=True) if number == 1), kernel)
    return found


def labels_of(results: Results) -> dict[str, str]:
    """Return the label of every kernel of a run."""
    return labels([*kernels_of(results), results.baseline])


def without_findings(results: Results, name: str) -> pd.DataFrame:
    """Return a table of a run whose reasons are none of the findings that its table of verifications shows."""
    table = results.tables[name]
    found = table["reason"].isin(results.verification["finding"].dropna())
    return table.assign(reason=table["reason"].mask(found, "see above"))


def records(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table, kernels in order, each with its kernel's ``label``; no figure where it failed."""
    label = labels(frame["kernel"])
    place = {kernel: i for i, kernel in enumerate(in_order(label))}
    rows = []
    for row in sorted(frame.to_dict("records"), key=lambda row: place[row["kernel"]]):
        figures = [name for name, value in row.items() if isinstance(value, float)]
        failed = row["status"] != Status.OK
        rows.append({**row, **(dict.fromkeys(figures) if failed else {}), "label": label[row["kernel"]]})
    return rows


@dataclass(frozen=True)
class Ladder:
    """The rows of one workload, dtype and thread count, kernels in order."""

    workload: str
    dtype: str
    threads: int
    rows: list[Row]

    @property
    def title(self) -> str:
        """The workload with what else names it."""
        return f"{self.workload} · {self.dtype} · {count(self.threads, 'thread')}"

    @property
    def product(self) -> Workload:
        """The workload itself."""
        return Workload.parse(self.workload, self.dtype)

    def row(self, kernel: str) -> Row | None:
        """Return the row of ``kernel`` if it has a time."""
        return next((row for row in self.timed if row["kernel"] == kernel), None)

    @property
    def timed(self) -> list[Row]:
        """The rows with a time."""
        return [row for row in self.rows if known(row["median_s"])]


def ladders(measurements: pd.DataFrame) -> list[Ladder]:
    """Split a table of measurements into its ladders, in the order in which they were measured."""
    keys = zip(measurements["workload"], measurements["dtype"], map(int, measurements["threads"]), strict=True)
    found: dict[tuple[str, str, int], list[Row]] = {key: [] for key in keys}
    for row in records(measurements):
        found[row["workload"], row["dtype"], int(row["threads"])].append(row)
    return [Ladder(*key, rows) for key, rows in found.items()]


def by_setting(found: Iterable[Ladder]) -> dict[tuple[str, int], list[Ladder]]:
    """Gather the ladders that have times by dtype and thread count."""
    groups: dict[tuple[str, int], list[Ladder]] = {}
    for ladder in found:
        if ladder.timed:
            groups.setdefault((ladder.dtype, ladder.threads), []).append(ladder)
    return groups


def chart_name(stem: str, dtype: str, threads: int, results: Results) -> str:
    """Name a chart's file: short where nothing else could be meant."""
    several = (
        len({int(each) for table in ("measurements", "training") for each in results.tables[table]["threads"]}) > 1
    )
    parts = [stem.translate(_IN_FILE_NAMES)]
    parts += [dtype] if dtype != "float32" else []
    parts += [f"t{threads}"] if several else []
    return "-".join(parts)


def ladder_chart(ladder: Ladder, results: Results) -> str:
    """Name the file of a ladder's chart."""
    return chart_name(f"ladder-{ladder.workload}", ladder.dtype, ladder.threads, results)


def said_of(row: Row, baseline: str, speedup: str = "speedup") -> str:
    """Say how a row compares with the baseline, claiming no more than its verdict, or why it has no figure."""
    if row["status"] != Status.OK:
        return str(row["status"])
    return "baseline" if row["kernel"] == baseline else compared(row[speedup], verdict_of(row))


def tasks(training: pd.DataFrame) -> dict[tuple[str, int], list[Row]]:
    """Split a table of trainings by task and thread count."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in records(training):
        found.setdefault((row["task"], int(row["threads"])), []).append(row)
    return found


def task_title(task: str, threads: int) -> str:
    """Return a task with its thread count."""
    return f"{task} · {count(threads, 'thread')}"


def verdict_of(row: Row) -> str | None:
    """Return a row's verdict; of a step of a training, ``unclear`` where its interval holds 1 or is not known."""
    if "verdict" in row:
        return text(row["verdict"])
    low, high = known(row["measured_ci_low"]), known(row["measured_ci_high"])
    return None if low is not None and high is not None and not low <= 1 <= high else "unclear"


def matmul_speedup(row: Row, reference: Row | None) -> float | None:
    """Return by how much the products of a training step are faster than those of the ``reference`` row.

    By Amdahl's law, which the predicted speedup follows: in units of the reference's step, its products take its share,
    and those of the row what the prediction leaves beside the rest.
    """
    share = known(reference["matmul_share"]) if reference else None
    predicted = known(row["predicted_speedup"])
    if not share or not predicted or share < 0:  # noise may bring it below 0
        return None
    products = 1 / predicted - (1 - share)
    return share / products if products > 0 else None


def shapes_of(results: Results, reference: Row) -> set[tuple[str, str]]:
    """Return what the steps of a training multiplied, workload and dtype, by the journal of its ``reference`` row."""
    entry = results.cells("training")[tuple(reference[name] for name in KEYS["training"])]
    return {(product["workload"], product["dtype"]) for product in entry.get("products") or []}


def reference_of(rows: list[Row], baseline: str) -> Row | None:
    """Return the row of a training with the ``baseline``, if it has a time."""
    return next((row for row in rows if row["kernel"] == baseline and known(row["step_s"])), None)


def amdahl_limit(reference: Row | None) -> float | None:
    """Return the speedup of a step whose products cost nothing (Amdahl), against the ``reference`` row."""
    share = known(reference["matmul_share"]) if reference else None
    return 1 / (1 - share) if share is not None and share < 1 else None


def limited_by(row: Row) -> str:
    """Say what limits the product of a row of measurements."""
    limit = text(row["roof_limit"])
    return {"compute": "arithmetic", "call": "the call itself"}.get(limit, f"the bandwidth of {limit}")
