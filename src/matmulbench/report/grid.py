"""A table ready to be shown, by terminal, page or README: texts with the values that they sort by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from markupsafe import Markup
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

# What a cell's tone looks like in a terminal; the page has a class of the same name for each.
_TONES = {"": "", "good": "green", "bad": "red", "faint": "dim", "strong": "bold"}
_FOLDED = 14  # characters; prose in a narrower column is no pleasure


@dataclass(frozen=True)
class Cell:
    """One entry: its text, the value that it sorts by (the text, if None) and its tone."""

    text: str
    value: float | None = None
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """One column of figures, names or prose.

    Where a terminal is too narrow, those with the highest ``optional`` are left out first; 0 always stays.
    """

    name: str
    kind: Literal["figure", "name", "prose"] = "figure"
    optional: int = 0


@dataclass
class Grid:
    """A titled table; ``sections`` are the rows before which a line is drawn."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""
    sections: set[int] = field(default_factory=set)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw for a terminal, without those optional columns for which it is too narrow."""
        drawn, table = self, self._rich()
        while drawn._natural_width(table, console, options) > options.max_width and any(
            column.optional for column in drawn.columns
        ):
            drawn = drawn._without_least()
            table = drawn._rich()
        yield table

    def _rich(self) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            caption=self.note or None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for column in self.columns:
            # Only prose may be folded; a folded figure is misread.
            side: Literal["left", "right"] = "right" if column.kind == "figure" else "left"
            table.add_column(column.name, justify=side, no_wrap=column.kind != "prose")
        for i, row in enumerate(self.rows):
            if i in self.sections:
                table.add_section()
            table.add_row(*(Text(cell.text, style=_TONES[cell.tone]) for cell in row))
        return table

    def _natural_width(self, table: Table, console: Console, options: ConsoleOptions) -> int:
        """Return the width at which nothing is cut and prose is folded as far as it can bear."""
        unlimited = options.update(max_width=10_000)
        prose = [i for i, column in enumerate(self.columns) if column.kind == "prose"]
        spare = sum(max(0, self._width(i) - _FOLDED) for i in prose)
        return Measurement.get(console, unlimited, table).maximum - spare

    def _width(self, i: int) -> int:
        return max(len(self.columns[i].name), *(len(row[i].text) for row in self.rows), 0)

    def _without_least(self) -> Grid:
        last = max(range(len(self.columns)), key=lambda i: self.columns[i].optional)
        columns = self.columns[:last] + self.columns[last + 1 :]
        return replace(self, columns=columns, rows=[row[:last] + row[last + 1 :] for row in self.rows])

    def html(self) -> Markup:
        """Return the table as HTML that brings no style of its own, for a notebook."""

        def line(tag: str, texts: list[str]) -> Markup:
            # As in a terminal: only prose may be folded.
            styles = {"figure": "text-align:right;white-space:nowrap", "name": "text-align:left;white-space:nowrap"}
            cell = Markup('<{0} style="{1}">{2}</{0}>')
            cells = (
                cell.format(tag, styles.get(column.kind, "text-align:left"), text)
                for column, text in zip(self.columns, texts, strict=True)
            )
            return Markup("<tr>{}</tr>").format(Markup().join(cells))

        head = line("th", [column.name for column in self.columns])
        body = Markup().join(line("td", [cell.text for cell in row]) for row in self.rows)
        table = Markup("<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>")
        note = Markup("<p><small>{}</small></p>").format(self.note) if self.note else ""
        return table.format(self.title, head, body) + note

    def markdown(self) -> str:
        """Return the rows as a Markdown table."""

        def line(texts: list[str]) -> str:
            return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

        rule = ["--:" if column.kind == "figure" else ":--" for column in self.columns]
        lines = [[column.name for column in self.columns], rule]
        return "\n".join(map(line, [*lines, *([cell.text for cell in row] for row in self.rows)]))
