"""A table ready to be shown, in a terminal, on the page or in a README: columns that make cells of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from matmulbench.report.formatting import NOTHING, known, text
from matmulbench.report.queries import Row

# What a cell's tone looks like in a terminal; the page has a class of the same name for each.
_TONES = {"": "", "good": "green", "bad": "red", "faint": "dim", "strong": "bold"}
_FOLDED, _LEAST = 20, 12  # characters; prose in a narrower column is hard to read, and impossible


@dataclass(frozen=True)
class Cell:
    """One entry: its text, the value that it sorts by (the text, if None) and its tone."""

    text: str
    value: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """One column: its title, what of a row it shows, and in which form.

    ``format`` takes what a row holds under ``key`` (and ``also``); the first is what a column of figures sorts by, and
    its tone stands under that key with ``_tone``. Where a terminal is too narrow, the columns with the highest
    ``optional`` are left out first; 0 always stays. Where a column says nothing in any row it is left out, unless the
    rows have figures under the key ``expected_with``.
    """

    title: str
    key: str
    format: Callable[..., str] = text
    also: str = ""
    optional: int = 0
    tone: str = ""
    prose: bool = False
    expected_with: str = ""

    @property
    def kind(self) -> Literal["figure", "name", "prose"]:
        """What the cells are; the page has a class of the same name for each."""
        return "prose" if self.prose else "name" if self.format is text else "figure"

    def cell(self, row: Row) -> Cell:
        """Return the column's cell in ``row``."""
        value = known(row.get(self.key)) if self.kind == "figure" else None
        tone = "faint" if self.kind == "figure" and value is None else self.tone
        said = self.format(*(row.get(key) for key in (self.key, self.also) if key))
        return Cell(said, value, row.get(f"{self.key}_tone", tone))

    def says_something(self, rows: Sequence[Row]) -> bool:
        """Tell whether the column is worth its place."""
        if self.expected_with and any(known(row.get(self.expected_with)) for row in rows):
            return True
        return any(self.cell(row).text not in ("", NOTHING) for row in rows)


@dataclass
class Table:
    """A titled table, and notes to stand below it; a line is drawn where one of the keys ``by`` changes."""

    title: str
    columns: Sequence[Column]
    records: Sequence[Row]
    notes: tuple[str, ...] = ()
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Leave out the columns that say nothing in any row."""
        telling = [column for column in self.columns if column.says_something(self.records)]
        self.columns = telling if self.records else self.columns

    @property
    def commands(self) -> list[str]:
        """What repeats the rows that failed: it stands below them, one a line, to be copied, never cut or wrapped."""
        return list(dict.fromkeys(row["repeat"] for row in self.records if row.get("repeat")))

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """The cells, line by line."""
        return [[column.cell(row) for column in self.columns] for row in self.records]

    @cached_property
    def sections(self) -> set[int]:
        """The lines above which a line is drawn."""
        keys = [[row[key] for key in self.by] for row in self.records]
        return {i for i in range(1, len(keys)) if keys[i] != keys[i - 1]}

    def brief(self, optional: int = 0) -> Table:
        """Return the table with optional columns up to ``optional`` alone, and without commands."""
        columns = [column for column in self.columns if column.optional <= optional]
        return replace(self, columns=columns, records=[row | {"repeat": ""} for row in self.records])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw for a terminal, without those optional columns for which it is too narrow; at last, names are folded."""
        if not self.records:  # such as a comparison of which nothing is `slower`
            yield Text(self.title, style="bold")
            return
        columns, table = self.columns, self._rich()
        while Measurement.get(console, options.update(max_width=10_000), table).minimum > options.max_width:
            least = max(columns, key=lambda column: column.optional)
            if not least.optional:
                table = replace(self, columns=columns)._rich(narrow=True)
                break
            columns = [column for column in columns if column is not least]
            table = replace(self, columns=columns)._rich()
        yield table
        yield from map(Text, self.notes)

    def _rich(self, narrow: bool = False) -> RichTable:
        left: Literal["left"] = "left"
        table = RichTable(title=self.title, title_justify=left, title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        table.collapse_padding = True
        for i, column in enumerate(self.columns):
            side: Literal["left", "right"] = "right" if column.kind == "figure" else "left"
            width = max(map(len, [column.title, *(row[i].text for row in self.rows)]))
            # A folded figure is misread. A word that is longer than its column goes on in the next line, uncut.
            folds = column.kind == "prose" or (narrow and column.kind == "name")
            least = min(width, _LEAST if narrow else _FOLDED) if folds else width
            table.add_column(column.title, justify=side, no_wrap=not folds, overflow="fold", min_width=least)
        for i, row in enumerate(self.rows):
            if i in self.sections:
                table.add_section()
            table.add_row(*(Text(cell.text, style=_TONES[cell.tone]) for cell in row))
        return table

    def markdown(self) -> str:
        """Return the rows as a Markdown table."""

        def line(texts: list[str]) -> str:
            return "| " + " | ".join(each.replace("|", "\\|") for each in texts) + " |"

        rule = ["--:" if column.kind == "figure" else ":--" for column in self.columns]
        lines = [[column.title for column in self.columns], rule]
        return "\n".join(map(line, [*lines, *([cell.text for cell in row] for row in self.rows)]))
