"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

from matmulbench.report.grid import Grid

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "json")
_UNLIMITED = 10_000


def show(frame: pd.DataFrame, grid: Grid, format: str = "table") -> None:
    """Print ``frame`` as CSV or JSON (a list of rows), or its ``grid`` for the eye.

    Raises
    ------
    ValueError
        if ``format`` is none of :data:`FORMATS`.
    """
    if format == "csv":
        sys.stdout.write(frame.to_csv(index=False))
    elif format == "json":
        sys.stdout.write(frame.to_json(orient="records", indent=2, double_precision=15) + "\n")
    elif format == "table":
        print_grids(grid)
    else:
        raise ValueError(f"format {format!r} is unknown; expected {', '.join(FORMATS)}")


def print_grids(*grids: Grid) -> None:
    """Print tables as wide as the terminal, or as wide as they are where the output is piped."""
    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED, highlight=False)
    for grid in grids:
        console.print(grid)
