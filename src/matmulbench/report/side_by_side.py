"""The same products as three front ends time them: matmulbench, asv and pytest-benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.tables import factor_cell
from matmulbench.report.view import in_order, ladders, short
from matmulbench.report.wording import NOTHING, seconds
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd

CAVEAT = (
    "Medians. asv and pytest-benchmark time one kernel after the other, so that whatever the machine did meanwhile is "
    "in their figures; matmulbench takes all kernels in turns. Read no ratio between kernels from theirs"
)


def side_by_side_table(results: Results, front_ends: Sequence[FrontEnd]) -> Grid:
    """Return a line per workload and kernel that a front end timed: our time, theirs, and theirs over ours."""
    columns = [Column("workload", "name"), Column("kernel", "name"), Column("matmulbench")]
    for front_end in front_ends:
        columns += [Column(front_end.name), Column(f"{front_end.name} / ours", optional=1)]
    grid = Grid("Front ends side by side", columns, note="; ".join([CAVEAT, *_origins(results, front_ends)]))
    ours = {
        (ladder.workload, row["kernel"]): row["median_s"]
        for ladder in ladders(results.measurements)
        if (ladder.dtype, ladder.threads) == ("float32", 1)  # as the suites have it
        for row in ladder.timed
    }
    theirs = [{(row.workload, row.kernel): row.median_s for row in front_end.rows} for front_end in front_ends]
    kernels: dict[str, list[str]] = {}
    for workload, kernel in [*ours, *(key for times in theirs for key in times)]:
        kernels.setdefault(workload, []).append(kernel)
    for workload, names in kernels.items():
        timed = [kernel for kernel in in_order(names) if any((workload, kernel) in times for times in theirs)]
        if timed:
            grid.sections.add(len(grid.rows))
        for kernel in timed:
            own = ours.get((workload, kernel))
            cells = [Cell(workload), Cell(short(kernel)), _time(own)]
            for times in theirs:
                time = times.get((workload, kernel))
                cells += [_time(time), factor_cell(time / own if time and own else None)]
            grid.rows.append(cells)
    return grid


def _time(value: float | None) -> Cell:
    return Cell(seconds(value), value, "strong") if value else Cell(NOTHING, tone="faint")


def _origins(results: Results, front_ends: Sequence[FrontEnd]) -> list[str]:
    """Say which commit each front end timed, and where it ran if that was elsewhere."""
    here = results.run["machine"]["cpu"]
    elsewhere = {one.name: f" on another processor, {one.cpu}" for one in front_ends if one.cpu and one.cpu != here}
    return [f"{one.name}: commit {one.commit}{elsewhere.get(one.name, '')}" for one in front_ends]
