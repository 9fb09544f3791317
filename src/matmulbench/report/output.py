"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.errors import printable
from matmulbench.report.table import Table
from matmulbench.report.tables import plain_table
from matmulbench.streams import write

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10_000


def show(
    rows: pd.DataFrame | list[dict[str, Any]],
    format: str = "table",
    as_table: Callable[[pd.DataFrame], Table] = plain_table,
) -> None:
    """Print rows for the eye, as the table that ``as_table`` makes of them, as CSV, or as JSON (a list of objects)."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for name in (name for name in frame if frame[name].dtype.kind == "O"):
        # The limit is that of the longest path: a kernel's name is not to be cut.
        frame[name] = frame[name].map(lambda value: _printable(value) if isinstance(value, str) else value)
    if format == "csv":
        write(frame.to_csv(index=False))
    elif format == "json":
        write(frame.to_json(orient="records", indent=2, double_precision=15) + "\n")
    else:
        print_tables(as_table(frame))


def _printable(text: str) -> str:
    return "\n".join(printable(line, 4096) for line in text.split("\n"))


def print_tables(*tables: Table) -> None:
    """Print tables as wide as the terminal, or as they are where the output is piped; below them, uncut, commands."""
    terminal = sys.stdout.isatty()
    # Drawn apart from standard output, in its encoding: rich writes to its file even while it captures.
    buffer = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding)
    width = None if terminal else _UNLIMITED
    # As it stands: a model may be called m.py:key.
    console = Console(
        file=buffer, force_terminal=terminal or None, width=width, highlight=False, markup=False, emoji=False
    )
    with console.capture() as drawn:
        console.print(*tables)
    commands = dict.fromkeys(command for table in tables for command in table.commands)
    # Rich fills every line to the table's width, which is of no use in a file.
    repeat = [f"Repeat: {command}" for command in commands]
    write("".join(f"{line.rstrip()}\n" for line in [*drawn.get().splitlines(), *repeat]))
