"""Ladders that others published, to be read beside ours, not against it: other machines, other settings."""

from __future__ import annotations

from dataclasses import dataclass

from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.view import ladders
from matmulbench.report.wording import NOTHING, seconds
from matmulbench.results.folder import Results


@dataclass(frozen=True)
class Published:
    """One published ladder: where, on which product, and seconds by kernel."""

    source: str
    workload: str
    times: dict[str, float]


LADDERS = (
    Published(
        "fast.ai course 2022 part 2, notebook 01",
        "5x784x10",
        {"triple-loop": 421e-3, "row-slice": 598e-6, "broadcasting": 70.1e-6},
    ),
    Published(
        "fast.ai course 2022 part 2, notebook 01",
        "50000x784x10",
        {"broadcasting": 663e-3, "einsum": 15.1e-3, "torch": 15.2e-3},
    ),
    Published(
        "fast.ai course 2019 part 2, notebook 01",
        "5x784x10",
        {
            "triple-loop": 835e-3,
            "row-slice": 1.39e-3,
            "broadcasting": 254e-6,
            "einsum": 57.2e-6,
            "torch": 18.2e-6,
        },
    ),
    Published("fastbook, chapter 17", "5x784x10", {"row-slice": 1.7e-3, "broadcasting": 357e-6, "einsum": 68.7e-6}),
)
CAVEAT = (
    "The sources name neither machine nor thread count; torch takes all cores unless it is told otherwise, "
    "ours takes the threads that are named. Theirs are notebook timings, ours medians of interleaved rounds. "
    "Compare the steps of a ladder, not its times"
)


def published_table(results: Results) -> Grid:
    """Return the published ladders, with our time of the same product where it was measured."""
    grid = Grid(
        "Published ladders beside ours",
        [
            Column("source", "name"),
            Column("product", "name"),
            Column("kernel", "name"),
            Column("theirs"),
            Column("step", optional=1),
            Column("ours"),
            Column("threads here"),
        ],
        note=CAVEAT,
    )
    ours = ladders(results.measurements)
    for published in LADDERS:
        grid.sections.add(len(grid.rows))
        same = [each for each in ours if (each.workload, each.dtype) == (published.workload, "float32")]
        ladder = min(same, key=lambda each: each.threads, default=None)
        before: float | None = None
        for kernel, time in published.times.items():
            row = ladder.row(kernel) if ladder else None
            mine = Cell(seconds(row["median_s"]), row["median_s"], "strong") if row else Cell(NOTHING, tone="faint")
            step = f"{before / time:,.0f}× faster" if before and before / time > 1.5 else NOTHING
            grid.rows.append(
                [
                    Cell(published.source),
                    Cell(published.workload),
                    Cell(kernel),
                    Cell(seconds(time), time),
                    Cell(step),
                    mine,
                    Cell(str(ladder.threads), ladder.threads) if row and ladder else Cell(NOTHING),
                ]
            )
            before = time
    return grid
