"""Ladders that others published, to be read next to ours, not against it: other machines, other settings."""

from __future__ import annotations

from matmulbench.report.table import Table
from matmulbench.report.tables import others_table
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
    theirs = [(source, workload, kernel, time) for source, workload, times in LADDERS for kernel, time in times.items()]
    return others_table("Published ladders next to ours", results, theirs, (CAVEAT,))
