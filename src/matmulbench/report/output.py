"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.errors import printable
from matmulbench.ladder import BASELINE
from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.tables import (
    audit_table,
    claims_table,
    comparison_table,
    measurement_table,
    training_table,
    verification_table,
)
from matmulbench.report.wording import known
from matmulbench.results.schema import columns
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
        print_grids(as_grid(frame, baseline))


def as_grid(frame: pd.DataFrame, baseline: str = BASELINE) -> Grid:
    """Return the table that fits the columns: one of the result tables, or all columns as they are."""
    names = list(frame.columns)
    if names == columns("verification"):
        return verification_table(frame)
    if names == columns("measurements"):
        return measurement_table(frame, baseline)
    if names == columns("training"):
        return training_table(frame, baseline)
    if "passed" in names:
        return audit_table(frame)
    if "claimed" in names:
        return claims_table(frame)
    if "median_a_s" in names:
        return comparison_table(frame)
    rows = [[_plain(value) for value in row] for row in frame.itertuples(index=False)]
    heads = [Column(name, "figure" if frame[name].dtype.kind in "if" else "prose") for name in names]
    return Grid("", heads, rows)


def _plain(value: Any) -> Cell:
    if isinstance(value, str | bool):
        return Cell(str(value))
    number = known(value)
    return Cell("") if number is None else Cell(f"{number:g}", number)


def print_grids(*grids: Grid) -> None:
    """Print tables as wide as the terminal, or as wide as they are where the output is piped."""
    terminal = sys.stdout.isatty()
    # Drawn beside standard output, in its encoding: rich writes to its file even while it captures.
    beside = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding)
    console = Console(
        file=beside, force_terminal=terminal or None, width=None if terminal else _UNLIMITED, highlight=False
    )
    with console.capture() as drawn:
        for grid in grids:
            console.print(grid)
    # Rich fills every line to the table's width, which is of no use in a file.
    write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))
