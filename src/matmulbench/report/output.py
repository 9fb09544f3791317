"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.ladder import BASELINE
from matmulbench.report.grid import Cell, Column, Grid
from matmulbench.report.tables import (
    audit_table,
    comparison_table,
    measurement_table,
    training_table,
    verification_table,
)
from matmulbench.report.wording import known
from matmulbench.results.schema import columns

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10_000


def show(rows: pd.DataFrame | list[dict[str, Any]], format: str = "table", baseline: str = BASELINE) -> None:
    """Print rows as a table for the eye, as CSV, or as JSON (a list of objects)."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    if format == "csv":
        sys.stdout.write(frame.to_csv(index=False))
    elif format == "json":
        sys.stdout.write(frame.to_json(orient="records", indent=2, double_precision=15, force_ascii=False) + "\n")
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
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for grid in grids:
            console.print(grid)
        return
    console = Console(width=_UNLIMITED, highlight=False)
    with console.capture() as drawn:
        for grid in grids:
            console.print(grid)
    # Rich fills every line to the table's width, which is of no use in a file.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))
