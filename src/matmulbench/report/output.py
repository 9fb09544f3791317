"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.errors import printable
from matmulbench.ladder import BASELINE
from matmulbench.report import tables
from matmulbench.report.formatting import number
from matmulbench.report.table import Table, figure, words
from matmulbench.streams import write

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10_000


def show(rows: pd.DataFrame | list[dict[str, Any]], format: str = "table", baseline: str = BASELINE) -> None:
    """Print rows as a table for the eye, as CSV, or as JSON (a list of objects)."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for name in (name for name in frame if frame[name].dtype.kind == "O"):
        # The limit is that of the longest path: a kernel's name is not to be cut.
        frame[name] = frame[name].map(lambda value: printable(value, 4096) if isinstance(value, str) else value)
    if format == "csv":
        write(frame.to_csv(index=False))
    elif format == "json":
        write(frame.to_json(orient="records", indent=2, double_precision=15) + "\n")
    else:
        print_tables(as_table(frame, baseline))


def as_table(frame: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return the table that is made for such rows, or all their columns as they are."""
    made_for: dict[str, Callable[[pd.DataFrame], Table]] = {
        "residual": tables.verification_table,
        "gflops": partial(tables.measurement_table, baseline=baseline),
        "step_s": partial(tables.training_table, baseline=baseline),
        "passed": tables.audit_table,
        "median_a_s": tables.comparison_table,
        "operator": tables.trace_table,
    }
    return next((made_for[name] for name in made_for if name in frame), plain_table)(frame)


def plain_table(frame: pd.DataFrame) -> Table:
    """Return all columns of ``frame`` as they are."""
    texts = frame.select_dtypes(exclude="number").astype(object).fillna("").astype(str)
    columns = [
        words(name, name, "prose") if name in texts else figure(name, number("g"), name, failed_too=True)
        for name in frame.columns
    ]
    return Table("", columns, frame.assign(**texts).to_dict("records"))


def print_tables(*grids: Table) -> None:
    """Print tables as wide as the terminal, or as wide as they are where the output is piped."""
    terminal = sys.stdout.isatty()
    # Drawn beside standard output, in its encoding: rich writes to its file even while it captures.
    beside = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding)
    console = Console(
        file=beside, force_terminal=terminal or None, width=None if terminal else _UNLIMITED, highlight=False
    )
    with console.capture() as drawn:
        console.print(*grids)
    # Rich fills every line to the table's width, which is of no use in a file.
    write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))
