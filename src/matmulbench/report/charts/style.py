"""How every chart looks: one frame, the palette, and one colour, marker and line style per kernel throughout."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from matmulbench.ladder import LADDER
from matmulbench.report.formatting import known
from matmulbench.report.queries import NO_KERNELS, Row, in_order, kernels_of, labels, users
from matmulbench.results.folder import Results

INK, FAINT, MUTED, GRID = "#222222", "#6b6b6b", "#a0a0a0", "#dddddd"
DASHED: Any = (0, (4, 3))
DOTS_PER_INCH = 150
_TEXT_SIZE = 9.0  # points
_SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", _SVG[1:-1])
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

RC: dict[Any, Any] = {  # matplotlib's own type lists every parameter there is
    "font.size": _TEXT_SIZE,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the whole default list would stand at every label of an SVG
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "svg.hashsalt": "matmulbench",
    # Text stays text: small files that can be searched. Room is measured with DejaVu Sans, which is as wide
    # as any font that a viewer may put in its place.
    "svg.fonttype": "none",
}

# Okabe and Ito's palette, which colour-blind readers tell apart; its yellow is darkened to show on white. Brown,
# grey and violet are added: with line and marker they are a style of their own.
_HUES = "000000 E69F00 56B4E9 009E73 B8A800 0072B2 7B4A2D D55E00 CC79A7 7F7F7F 5B3A8C"
_COLOURS = [f"#{hue}" for hue in _HUES.split()]
_USERS = [_COLOURS[i] for i in (7, 5, 3, 8, 1, 2, 6, 4)]
_MARKERS = ["o", "s", "^", "D", "v", "P", "h", "X", "*", "p", "<"]
LINES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1))]


@dataclass(frozen=True)
class Style:
    """What marks a kernel in every chart; marker and line tell it apart in grey."""

    label: str
    colour: str
    marker: str
    line: Any  # matplotlib takes a name, or offset and lengths of its dashes
    order: int = 2  # what is drawn over what

    def handle(self, line: Any = None) -> Line2D:
        """Return the kernel's entry in a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle=line or self.line, label=self.label)


def styles(results: Results) -> dict[str, Style]:
    """Return the style of each kernel of a run: the ladder's are fixed, and muted where the user brought kernels."""
    kernels = [*(rung.name for rung in LADDER), *NO_KERNELS, *users(kernels_of(results))]
    label, fixed = labels([*kernels, results.baseline]), len(LADDER) + len(NO_KERNELS)
    found = {}
    for i, kernel in enumerate(kernels):
        marker, line = _MARKERS[i % len(_MARKERS)], LINES[i % len(LINES)]
        if i >= fixed:
            found[kernel] = Style(label[kernel], _USERS[(i - fixed) % len(_USERS)], marker, line, 3)
        else:
            colour = MUTED if len(kernels) > fixed else _COLOURS[i % len(_COLOURS)]
            found[kernel] = Style(label[kernel], colour, marker, line)
    return {kernel: found[kernel] for kernel in in_order(found)}


@dataclass
class Chart:
    """A figure, its file name without suffix, its title, and a text for those who cannot see it."""

    name: str
    title: str
    alt: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """The chart as SVG."""
        drawn = io.StringIO()
        self.figure.savefig(drawn, format="svg", metadata={"Date": None, "Title": self.title})
        return compact(drawn.getvalue())

    @property
    def pixels(self) -> int:
        """How wide the page shows it where there is room."""
        return round(96 * self.figure.get_figwidth())

    @property
    def address(self) -> str:
        """The chart as a ``data:`` address, for a page that needs no other file."""
        return "data:image/svg+xml," + quote(self.svg, safe=" =:/(),;.'+-")

    def save(self, folder: Path) -> None:
        """Write SVG and PNG."""
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        self.figure.savefig(folder / f"{self.name}.png", dpi=DOTS_PER_INCH, metadata={"Title": self.title})


def compact(svg: str) -> str:
    """Leave out of an SVG file of matplotlib's what nobody sees, and say each style once: less than half is left."""
    root = ElementTree.fromstring(svg)  # without comments
    used = set(re.findall(r"#([\w.-]+)", svg))
    styles = Counter(each.get("style", "") for each in root.iter())
    classes = {style: f"s{i}" for i, style in enumerate(styles) if style and styles[style] > 1}
    for each in reversed([*root.iter()]):
        each.tail = None
        each.text = each.text if each.text and each.text.strip() else None
        if each.get("id") not in used:
            each.attrib.pop("id", None)
        if each.get("transform", "").startswith("rotate(-0 "):
            del each.attrib["transform"]
        if (style := each.get("style")) in classes:
            del each.attrib["style"]
            each.set("class", classes[style])
        for key, value in each.attrib.items():
            each.set(key, " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split()))  # hundredths of a point
        if each.tag == f"{_SVG}style":
            each.text = (each.text or "") + "".join(f".{name}{{{style}}}" for style, name in classes.items())
        each[:] = [kept for one in each for kept in ([*one] if one.tag == f"{_SVG}g" and not one.attrib else [one])]
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    return ElementTree.tostring(root, encoding="unicode")


def _figure(
    title: str, panels: Sequence[float], height: float, left: float, right: float, gap: float, top: float
) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes side by side; all sizes in inches, so that labels have room."""
    bottom = 0.55
    width = left + sum(panels) + gap * (len(panels) - 1) + right
    figure, axes, start = Figure(figsize=(width, height)), [], left
    for panel in panels:
        place = (start / width, bottom / height, panel / width, (height - top - bottom) / height)
        axes.append(figure.add_axes(place))
        start += panel + gap
    figure.text(0.12 / width, 1 - 0.12 / height, title, va="top", ha="left", weight="bold", size=10.5)
    return figure, axes


def kernel_chart(
    name: str,
    title: str,
    rows: list[str],
    panels: Sequence[float],
    columns: Sequence[list[str]] = (),
    top: float = 0.5,
    row_height: float = 0.27,
) -> tuple[Chart, list[Axes]]:
    """Return a chart with a row per kernel, the first on top: names, axes, and columns of text right of them.

    What names and columns say is also the text that stands for the chart.
    """
    widths = [text_width(column) + 0.15 for column in columns]
    figure, axes = _figure(
        title, panels, 0.65 + top + row_height * len(rows), text_width(rows) + 0.2, sum(widths) + 0.15, 0.3, top
    )
    for each in axes:
        each.set_ylim(len(rows) - 0.4, -0.6)
        each.set_yticks(range(len(rows)), rows if each is axes[0] else [])
        each.tick_params(axis="y", length=0)
        each.grid(axis="x")
    for i, column in enumerate(columns):
        for place, text in enumerate(column):
            axes[-1].annotate(
                text, (1, place), (72 * sum(widths[: i + 1]), 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center_baseline", ha="right", annotation_clip=False,
            )  # fmt: skip
    said = "; ".join(" ".join(row) for row in zip(rows, *columns, strict=True))
    return Chart(name, title, f"{title}: {said}.", figure), axes


def curve_chart(name: str, title: str, handles: Sequence[Artist], panels: Sequence[float]) -> tuple[Chart, list[Axes]]:
    """Return a chart for curves, with a legend right of the axes, where it covers nothing; its ``alt`` is to be set."""
    room = text_width(str(handle.get_label()) for handle in handles) + 0.8
    figure, axes = _figure(title, panels, 4.2, 0.95, room, 0.8, 0.5)
    axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, handlelength=2.6)
    for each in axes:
        each.grid()
    return Chart(name, title, "", figure), axes


def legend_above(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """Put the legend between title and axes."""
    y = 1 - 0.36 / figure.get_figheight()
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, y), ncols=columns, fontsize=8, columnspacing=1.4,
        borderaxespad=0.2,
    )  # fmt: skip


def interval(axes: Axes, place: float, low: float | None, high: float | None, colour: str) -> None:
    """Draw an interval, if both ends are known."""
    if (first := known(low)) is not None and (last := known(high)) is not None:
        axes.plot([first, last], [place, place], color=colour, linewidth=1.4, marker="|", markersize=7)


def dot(axes: Axes, x: float, y: float, row: Row, style: Style) -> None:
    """Mark a kernel's figure; hollow where it is extrapolated."""
    colour, fill = style.colour, "white" if row["extrapolated"] else style.colour
    axes.plot(x, y, style.marker, color=colour, markerfacecolor=fill, markersize=5.5, zorder=style.order + 0.5)


def text_width(texts: Iterable[str]) -> float:
    """Return about how many inches the longest text takes, in the usual size."""
    return max(map(len, texts), default=0) * _TEXT_SIZE * 0.62 / 72


def log_axis(axis: Axis, values: Iterable[float], text: Callable[[float], str], labels: int = 5) -> None:
    """Make an axis logarithmic, from decade to decade around ``values``, with a tick at each and few ``labels``.

    They say what ``text`` does, without the zeros after the point: ``1 ms`` for ``1.00 ms``.
    """
    logs = [math.log10(value) for value in values]
    first, last = math.floor(min(logs) - 0.05), math.ceil(max(logs) + 0.05)
    every = math.ceil((last - first) / labels)

    def label(value: float, _: int | None) -> str:
        if round(math.log10(value)) % every:
            return ""
        return re.sub(r"\.(\d*?)0+(?!\d)", lambda match: f".{match[1]}" if match[1] else "", text(value))

    axes, limits = axis.axes, (10.0**first, 10.0**last)
    if axis is axes.xaxis:
        axes.set(xscale="log", xlim=limits)
    else:
        axes.set(yscale="log", ylim=limits)
    axis.set_major_locator(LogLocator(10, numticks=99))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(label))
