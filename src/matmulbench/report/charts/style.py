"""How every chart looks: fonts, the palette, and one colour, marker and line style per kernel throughout."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from matmulbench.ladder import LADDER
from matmulbench.report.formatting import factor, rate, seconds
from matmulbench.report.queries import in_order, kernels_of, labels
from matmulbench.results.folder import Results

INK, FAINT, GRID = "#222222", "#6b6b6b", "#dddddd"
DOTS_PER_INCH = 150

RC: dict[Any, Any] = {  # matplotlib's own type lists every parameter there is
    "font.size": 9.0,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the whole default list would stand at every label of an SVG
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
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

# Okabe and Ito's palette, which colour-blind readers tell apart; its yellow is darkened to show on white. Grey and
# brown are added: with line and marker they are a style of their own.
_HUES = "000000 E69F00 56B4E9 009E73 B8A800 0072B2 7B4A2D D55E00 CC79A7 7F7F7F"
_COLOURS = [f"#{hue}" for hue in _HUES.split()]
_MARKERS = ["o", "s", "^", "D", "v", "P", "h", "X", "*", "p"]
_LINES: list[Any] = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1))]


@dataclass(frozen=True)
class Style:
    """What marks a kernel in every chart; marker and line tell it apart in grey."""

    label: str
    colour: str
    marker: str
    line: Any  # matplotlib takes a name, or offset and lengths of its dashes


def styles(results: Results) -> dict[str, Style]:
    """Return the style of each kernel of a run: the ladder's are fixed, others take what follows."""
    kernels = in_order([*(rung.name for rung in LADDER), *kernels_of(results)])
    label = labels(kernels)
    found = {}
    for i, kernel in enumerate(kernels):
        # Colours and markers are as many: where they begin anew, they pair anew.
        marker = _MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)]
        found[kernel] = Style(label[kernel], _COLOURS[i % len(_COLOURS)], marker, _LINES[i % len(_LINES)])
    return found


@dataclass
class Chart:
    """A figure, its file name without suffix, its title, and a text for those who cannot see it."""

    name: str
    title: str
    alt: str
    figure: Figure

    def svg(self) -> str:
        """Return the chart as SVG."""
        drawn = io.StringIO()
        self.figure.savefig(drawn, format="svg", metadata={"Date": None, "Title": self.title})
        return compact(drawn.getvalue())

    def save(self, folder: Path) -> None:
        """Write SVG and PNG."""
        (folder / f"{self.name}.svg").write_text(self.svg(), encoding="utf-8")
        self.figure.savefig(folder / f"{self.name}.png", dpi=DOTS_PER_INCH, metadata={"Title": self.title})


def compact(svg: str) -> str:
    """Leave out of an SVG file of matplotlib's what nobody sees: half of it."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", svg))

    def tag(match: re.Match[str]) -> str:
        text = re.sub(r' id="([^"]*)"', lambda id: id[0] if id[1] in used else "", match[0])
        text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
        text = re.sub(r"(\.\d\d)\d+", r"\1", text)  # hundredths of a point
        return re.sub(r"\s*\n\s*", " ", text)

    return re.sub(r">\s+<", ">\n<", re.sub(r"<[^!?][^>]*>", tag, svg))


def new_figure(
    width: float, height: float, title: str, left: float, right: float, top: float = 0.5, bottom: float = 0.55
) -> tuple[Figure, Axes]:
    """Return a figure of one axes; sizes and margins in inches, so that labels have room."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    figure.text(0.12 / width, 1 - 0.12 / height, title, va="top", ha="left", weight="bold", size=10.5)
    return figure, axes


def text_width(texts: Iterable[str], size: float = 9.0) -> float:
    """Return about how many inches the longest text takes."""
    return max((len(text) for text in texts), default=0) * size * 0.62 / 72


def time_axis(axis: Axis) -> None:
    """Make a logarithmic axis say ``1 µs``, ``10 µs``, ``1 ms``."""

    def text(value: float, _: int | None) -> str:
        # A power of ten is no round number of minutes or hours.
        return f"{value:,.0f} s" if value >= 1 else _plain(seconds(value))

    _log_axis(axis, FuncFormatter(text), ticks=5)


def factor_axis(axis: Axis) -> None:
    """Make a logarithmic axis say ``1/100``, ``1×``, ``10×``."""

    def text(value: float, _: int | None) -> str:
        return _plain(factor(value)) if value >= 1 else f"1/{1 / value:,.0f}"

    _log_axis(axis, FuncFormatter(text), ticks=4)


def rate_axis(axis: Axis) -> None:
    """Make a logarithmic axis say ``0.01``, ``1``, ``100``."""
    _log_axis(axis, FuncFormatter(lambda value, _: _plain(rate(value))))


def _log_axis(axis: Axis, formatter: FuncFormatter, ticks: int = 8) -> None:
    axis.set_major_locator(LogLocator(10, numticks=ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)


def _plain(text: str) -> str:
    """Drop the zeros after the point: ``1.00 ms`` becomes ``1 ms``."""
    number, space, unit = text.partition(" ")
    sign = "×" if number.endswith("×") else ""
    number = number.removesuffix("×")
    return (number.rstrip("0").rstrip(".") if "." in number else number) + sign + space + unit


def annotate(
    axes: Axes,
    place: float,
    inches: float,
    text: str,
    align: Literal["left", "right"] = "left",
    colour: str = INK,
) -> None:
    """Write ``text`` right of the axes, level with ``place``: a column that no mark can overlap."""
    axes.annotate(
        text, (1, place), (72 * inches, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center_baseline", ha=align, color=colour, annotation_clip=False,
    )  # fmt: skip


def kernel_rows(axes: Axes, names: list[str]) -> None:
    """Give each kernel a row, the first on top."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def legend_right(axes: Axes, handles: list[Line2D] | None = None) -> None:
    """Put the legend right of the axes, where it covers nothing."""
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, handlelength=2.6)


def legend_room(names: Iterable[str]) -> float:
    """Return how many inches right of the axes such a legend takes."""
    return text_width(names) + 0.75


def legend_above(axes: Axes, left: float, columns: int) -> None:
    """Put the legend above the axes, from ``left`` inches of their edge."""
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
    corner = (-left / width, 1.0)
    axes.legend(
        loc="lower left", bbox_to_anchor=corner, ncols=columns, fontsize=8, columnspacing=1.4, borderaxespad=0.2
    )
