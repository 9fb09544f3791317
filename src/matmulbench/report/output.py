"""Data on standard output: a table to read, or CSV or JSON to pipe, and nothing else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from matmulbench.errors import printable
from matmulbench.report.table import Table
from matmulbench.streams import write

if TYPE_CHECKING:
    import pandas as pd

_UNLIMITED = 10_000


def show(
    rows: pd.DataFrame | list[dict[str, Any]],
    format: str,
    as_table: Callable[[pd.DataFrame], Table | list[Table]],
) -> None:
    """Print rows for the eye, as what ``as_table`` makes of them, as CSV, or as JSON (a list of objects)."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for name in (name for name in frame if frame[name].dtype.kind == "O"):
        # The limit is that of the longest path: a kernel's name is not to be cut.
        frame[name] = frame[name].map(lambda value: _printable(value) if isinstance(value, str) else value)
    if format == "csv":
        write(frame.to_csv(index=False, lineterminator="\n"))
    elif format == "json":
        write(frame.to_json(orient="records", indent=2, double_precision=15) + "\n")
    else:
        made = as_table(frame)
        print_tables(*([made] if isinstance(made, Table) else made))


def _printable(text: str) -> str:
    return "\n".join(printable(line, 4096, spaces=True) for line in text.split("\n"))  # a matrix keeps its columns


def print_tables(*tables: Table) -> None:
    """Print tables as wide as the terminal, or as they are where the output is piped; below them, uncut, commands."""
    _print(*tables)
    commands = dict.fromkeys(command for table in tables for command in table.commands)
    write("".join(f"Repeat: {command}\n" for command in commands))


def print_prose(*lines: str) -> None:
    """Print sentences, each on a line of its own, broken between words where the terminal is narrower."""
    _print("", *lines)


def _print(*parts: Table | str) -> None:
    terminal = sys.stdout.isatty()
    # Drawn apart from standard output, in its encoding: rich writes to its file even while it captures.
    buffer = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding)
    width = None if terminal else _UNLIMITED
    # As it stands: a model may be called m.py:key.
    console = Console(
        file=buffer, force_terminal=terminal or None, width=width, highlight=False, markup=False, emoji=False
    )
    with console.capture() as drawn:
        for part in parts:
            console.print(part, markup=False, emoji=False)
            if isinstance(part, Table) and part.notes and part is not parts[-1]:
                console.print()
    # Rich fills every line to the table's width, which is of no use in a file.
    write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))
