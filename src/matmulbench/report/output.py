"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.ladder import BASELINE
from matmulbench.report import tables
from matmulbench.report.formatting import number
from matmulbench.report.table import Table, figure, words

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
        print_grids(as_table(frame, baseline))


def as_table(frame: pd.DataFrame, baseline: str = BASELINE) -> Table:
    """Return the table that is made for such rows, or all their columns as they are."""
    made_for: dict[str, Callable[[pd.DataFrame], Table]] = {
        "residual": tables.verification_table,
        "gflops": partial(tables.measurement_table, baseline=baseline),
        "step_s": partial(tables.training_table, baseline=baseline),
        "passed": tables.audit_table,
        "median_a_s": tables.comparison_table,
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


def print_grids(*grids: Table) -> None:
    """Print tables as wide as the terminal, or as wide as they are where the output is piped."""
    if sys.stdout.isatty():
        Console(highlight=False).print(*grids)
        return
    console = Console(width=_UNLIMITED, highlight=False)
    with console.capture() as drawn:
        console.print(*grids)
    # Rich fills every line to the table's width, which is of no use in a file.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))
