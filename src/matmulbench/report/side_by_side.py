"""The same products as three front ends time them: matmulbench, asv and pytest-benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from matmulbench.report.formatting import factor, seconds
from matmulbench.report.queries import Row, in_order, labels, ladders
from matmulbench.report.table import Table, figure, words
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd

CAVEAT = (
    "Medians. asv and pytest-benchmark time one kernel after the other, so that whatever the machine did meanwhile is "
    "in their figures; matmulbench takes all kernels in turns. Read no ratio between kernels from theirs"
)


def side_by_side_table(results: Results, front_ends: Sequence[FrontEnd]) -> Table:
    """Return a line per workload and kernel that a front end timed: our time, theirs, and theirs over ours."""
    ours = {
        (ladder.workload, row["kernel"]): row["median_s"]
        for ladder in ladders(results.measurements)
        if (ladder.dtype, ladder.threads) == ("float32", 1)  # as the suites have it
        for row in ladder.timed
    }
    rows: dict[tuple[str, str], Row] = {}
    for i, front_end in enumerate(front_ends):
        for timed in front_end.rows:
            cell = (timed.workload, timed.kernel)
            row = rows.setdefault(cell, dict(zip(("workload", "kernel"), cell, strict=True)))
            row[f"theirs {i}"] = timed.median_s
            if own := ours.get(cell):
                row |= {"ours": own, f"ratio {i}": timed.median_s / own}
    workloads = list(dict.fromkeys(workload for workload, _ in [*ours, *rows]))
    kernels = in_order(kernel for _, kernel in [*ours, *rows])
    label = labels(kernels)
    ordered = sorted(rows.values(), key=lambda row: (workloads.index(row["workload"]), kernels.index(row["kernel"])))
    columns = [
        words("workload", "workload"),
        words("kernel", "label"),
        figure("matmulbench", seconds, "ours", tone="strong"),
    ]
    for i, name in enumerate(front_end.name for front_end in front_ends):
        columns += [
            figure(name, seconds, f"theirs {i}", tone="strong"),
            figure(f"{name} / ours", factor, f"ratio {i}", optional=1),
        ]
    return Table(
        "Front ends side by side",
        columns,
        [row | {"label": label[row["kernel"]]} for row in ordered],
        "; ".join([CAVEAT, *_origins(results, front_ends)]),
        by=("workload",),
    )


def _origins(results: Results, front_ends: Sequence[FrontEnd]) -> list[str]:
    """Say which commit each front end timed, and where it ran if that was elsewhere."""
    here = results.run["machine"]["cpu"]
    elsewhere = {one.name: f" on another processor, {one.cpu}" for one in front_ends if one.cpu and one.cpu != here}
    return [f"{one.name}: commit {one.commit}{elsewhere.get(one.name, '')}" for one in front_ends]
