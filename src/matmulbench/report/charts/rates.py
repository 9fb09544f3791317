"""Rates: GFLOP/s against size, every kernel under the roofs, and what more threads bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from matmulbench.report.charts.style import (
    FAINT,
    INK,
    Chart,
    Style,
    legend_right,
    legend_room,
    new_figure,
    rate_axis,
    styles,
)
from matmulbench.report.formatting import count, rate
from matmulbench.report.queries import Ladder, Row, has_figure, in_order, ladders, roofs
from matmulbench.results.folder import Results
from matmulbench.workload import Workload

_WIDTH, _HEIGHT = 7.6, 4.6
_DASHED = (0, (4, 3))

Styles = dict[str, Style]


def draw(results: Results) -> Iterator[Chart]:
    """Draw sizes and roofline for each dtype and thread count, and threads if there are several counts."""
    groups: dict[tuple[str, int], list[Ladder]] = {}
    for ladder in ladders(results.measurements):
        if ladder.timed:
            groups.setdefault((ladder.dtype, ladder.threads), []).append(ladder)
    roof, style = roofs(results), styles(results)
    several = len({threads for _, threads in groups}) > 1
    for (dtype, threads), group in groups.items():
        suffix = ("" if dtype == "float32" else f"-{dtype}") + (f"-t{threads}" if several else "")
        setting = f"{dtype} · {count(threads, 'thread')}"
        yield from _sizes(group, roof.get((dtype, threads)), style, setting, suffix)
        yield from _roofline(group, roof.get((dtype, threads)), style, setting, suffix)
    yield from _threads(groups, style)


def _sizes(group: list[Ladder], roof: Row | None, style: Styles, setting: str, suffix: str) -> Iterator[Chart]:
    squares = {}
    for ladder in sorted(group, key=lambda ladder: ladder.intensity):
        load = Workload.parse(ladder.workload)
        if load.m == load.k == load.n and load.layout == "NN":
            squares[load.m] = ladder
    if len(squares) < 2:
        return
    kernels = in_order(row["kernel"] for ladder in squares.values() for row in ladder.timed)
    title = f"Rate against size, square products, {setting}"
    figure, axes = _new_figure(title, kernels, style)
    for kernel in kernels:
        points = [(size, row) for size, ladder in squares.items() if (row := ladder.row(kernel))]
        look = style[kernel]
        rates = [row["gflops"] for _, row in points]
        axes.plot([size for size, _ in points], rates, color=look.colour, linestyle=look.line, linewidth=1.5)
        _points(axes, points, look)
    if roof:
        axes.axhline(roof["fma_gflops"], color=INK, linewidth=1.2)
        _on_line(axes, min(squares), roof["fma_gflops"], f"FMA peak {rate(roof['fma_gflops'])} GFLOP/s")
    _log_axes(axes, "m = k = n")
    axes.set_xticks(list(squares), list(map(str, squares)))
    handles = [_handle(style[kernel], style[kernel].line) for kernel in kernels]
    _finish(axes, handles, any(row["extrapolated"] for ladder in squares.values() for row in ladder.timed))
    best = max(squares[max(squares)].timed, key=lambda row: row["gflops"])
    alt = (
        f"GFLOP/s against size for square products, {min(squares)} to {max(squares)}, a line per kernel. "
        f"At {max(squares)} the fastest is {best['label']} with {rate(best['gflops'])} GFLOP/s."
    )
    yield Chart(f"gflops-by-size{suffix}", title, alt, figure)


def _roofline(group: list[Ladder], roof: Row | None, style: Styles, setting: str, suffix: str) -> Iterator[Chart]:
    points = [(ladder.intensity, row) for ladder in group for row in ladder.timed if has_figure(row, "gflops")]
    if not roof or not points:
        return
    kernels = in_order(row["kernel"] for _, row in points)
    title = f"Roofline, {setting}"
    figure, axes = _new_figure(title, kernels, style, "best matmul: 112")
    peak, bandwidth = roof["fma_gflops"], roof["bandwidth_gbs"]
    ridge = peak / bandwidth
    intensities = [intensity for intensity, _ in points]
    low, high = min(ridge / 4, *intensities) / 1.6, max(ridge * 8, *intensities) * 1.6
    axes.plot([low, ridge, high], [bandwidth * low, peak, peak], color=INK, linewidth=1.6, zorder=1)
    _on_line(axes, high, peak, f"FMA peak {rate(peak)} GFLOP/s", "right")
    for kernel in kernels:
        _points(axes, [(x, row) for x, row in points if row["kernel"] == kernel], style[kernel])
    handles = [_handle(style[kernel], "none") for kernel in kernels]
    if best := roof.get("best_matmul_gflops"):
        axes.axhline(best, color=FAINT, linewidth=1, linestyle=_DASHED, zorder=1)
        handles.append(Line2D([], [], color=FAINT, linewidth=1, linestyle=_DASHED, label=f"best matmul: {rate(best)}"))
    _log_axes(axes, f"intensity, FLOP per byte (roof left of {ridge:.2g}: bandwidth {rate(bandwidth)} GB/s)")
    axes.set_xlim(low, high)
    axes.set_ylim(min(row["gflops"] for _, row in points) / 2, peak * 3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(axes, handles, any(row["extrapolated"] for _, row in points))
    highest = max((row for _, row in points), key=lambda row: row["gflops"])
    alt = (
        f"Rate against intensity, a point per kernel and workload; bandwidth {rate(bandwidth)} GB/s, "
        f"FMA peak of {rate(peak)} GFLOP/s. The highest is {highest['label']} on "
        f"{highest['workload']} with {rate(highest['gflops'])} GFLOP/s."
    )
    yield Chart(f"roofline{suffix}", title, alt, figure)


def _threads(groups: dict[tuple[str, int], list[Ladder]], style: Styles) -> Iterator[Chart]:
    """Draw what more threads bring on the largest product."""
    by_workload: dict[tuple[str, str], list[Ladder]] = {}
    for ladder in (ladder for group in groups.values() for ladder in group):
        by_workload.setdefault((ladder.workload, ladder.dtype), []).append(ladder)
    several = [found for found in by_workload.values() if len(found) > 1]
    if not several:
        return
    largest = max(several, key=lambda found: Workload.parse(found[0].workload).flop)
    largest.sort(key=lambda ladder: ladder.threads)
    fewest, counts = largest[0], [ladder.threads for ladder in largest]
    kernels = in_order(row["kernel"] for row in fewest.timed)
    title = f"Speedup by more threads, {fewest.workload} · {fewest.dtype}"
    figure, axes = _new_figure(title, kernels, style, height=4.2)
    handles = axes.plot(counts, [threads / counts[0] for threads in counts], color=INK, linewidth=1, label="ideal")
    for base in fewest.timed:
        rows = [(ladder.threads, row) for ladder in largest if (row := ladder.row(base["kernel"]))]
        look = style[base["kernel"]]
        axes.plot(
            [threads for threads, _ in rows],
            [base["median_s"] / row["median_s"] for _, row in rows],
            color=look.colour, linestyle=look.line, marker=look.marker, markersize=5.5,
        )  # fmt: skip
        handles.append(_handle(look, look.line))
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("threads")
    axes.set_ylabel(f"speedup over {count(counts[0], 'thread')}")
    _finish(axes, handles, False)
    alt = f"Speedup of each kernel over {count(counts[0], 'thread')} on {fewest.workload}, {counts} threads."
    yield Chart("threads", title, alt, figure)


def _new_figure(
    title: str, kernels: Iterable[str], style: Styles, more: str = "", height: float = _HEIGHT
) -> tuple[Figure, Axes]:
    room = legend_room([*(style[kernel].label for kernel in kernels), "extrapolated", more])
    return new_figure(_WIDTH, height, title, 0.75, room)


def _points(axes: Axes, points: Iterable[tuple[float, Row]], style: Style) -> None:
    for x, row in points:
        fill = "white" if row["extrapolated"] else style.colour
        axes.plot(x, row["gflops"], style.marker, color=style.colour, markerfacecolor=fill, markersize=5.5, alpha=0.9)


def _handle(style: Style, line: Any) -> Line2D:
    return Line2D([], [], color=style.colour, marker=style.marker, linestyle=line, label=style.label)


def _on_line(axes: Axes, x: float, y: float, text: str, align: str = "left") -> None:
    axes.annotate(text, (x, y), (0, 3), textcoords="offset points", ha=align, va="bottom", size=8)


def _log_axes(axes: Axes, x_label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.minorticks_off()
    rate_axis(axes.yaxis)
    axes.set_xlabel(x_label)
    axes.set_ylabel("GFLOP/s, log scale")


def _finish(axes: Axes, handles: list[Line2D], extrapolated: bool) -> None:
    if extrapolated:
        hollow = {"marker": "o", "markerfacecolor": "white", "linestyle": "none"}
        handles = [*handles, Line2D([], [], color=FAINT, label="extrapolated", **hollow)]  # type: ignore[arg-type]
    axes.grid()
    legend_right(axes, handles)
