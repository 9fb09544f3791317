"""Ladders that others published, to be read next to ours, not against it: other machines, other settings."""

from __future__ import annotations

from matmulbench.report.formatting import NOTHING, number, seconds
from matmulbench.report.queries import ladders
from matmulbench.report.table import Table, figure, words
from matmulbench.results.folder import Results

# Source, product and seconds by kernel.
LADDERS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("fast.ai course 2022 part 2, notebook 01", "5x784x10",
     {"triple-loop": 421e-3, "row-slice": 598e-6, "broadcasting": 70.1e-6}),
    ("fast.ai course 2022 part 2, notebook 01", "50000x784x10",
     {"broadcasting": 663e-3, "einsum": 15.1e-3, "torch": 15.2e-3}),
    ("fast.ai course 2019 part 2, notebook 01", "5x784x10",
     {"triple-loop": 835e-3, "row-slice": 1.39e-3, "broadcasting": 254e-6, "einsum": 57.2e-6, "torch": 18.2e-6}),
    ("fastbook, chapter 17", "5x784x10",
     {"row-slice": 1.7e-3, "broadcasting": 357e-6, "einsum": 68.7e-6}),
)  # fmt: skip
CAVEAT = (
    "The sources name neither machine nor thread count; torch takes all cores unless it is told otherwise, "
    "ours takes the threads that are named. Theirs are notebook timings, ours medians of interleaved rounds. "
    "Compare the steps of a ladder, not its times"
)


def published_table(results: Results) -> Table:
    """Return the published ladders, with our time of the same product where it was measured."""
    ours = ladders(results.measurements)
    rows = []
    for source, workload, times in LADDERS:
        same = [each for each in ours if (each.workload, each.dtype) == (workload, "float32")]
        ladder = min(same, key=lambda each: each.threads, default=None)
        before = 0.0
        for kernel, time in times.items():
            row = {"source": source, "workload": workload, "kernel": kernel, "theirs": time}
            row["step"] = f"{before / time:,.0f}× faster" if before / time > 1.5 else NOTHING
            if ladder and (mine := ladder.row(kernel)):
                row |= {"ours": mine["median_s"], "threads": ladder.threads}
            rows.append(row)
            before = time
    columns = [
        words("source", "source"),
        words("product", "workload"),
        words("kernel", "kernel"),
        figure("theirs", seconds, "theirs"),
        words("step", "step", optional=1),
        figure("ours", seconds, "ours", tone="strong"),
        figure("threads here", number(".0f"), "threads"),
    ]
    return Table("Published ladders next to ours", columns, rows, CAVEAT, by=("source", "workload"))
