"""Rates: GFLOP/s and % of roof against size, and the best kernels under the roofs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from matmulbench.dtypes import DTYPES
from matmulbench.report.charts.style import (
    FAINT,
    INK,
    LINES,
    Chart,
    Style,
    curve_chart,
    dot,
    log_axis,
    styles,
)
from matmulbench.report.formatting import count, known, rate, rate_unit
from matmulbench.report.queries import Ladder, Row, by_setting, chart_name, in_order, ladders, users
from matmulbench.results.folder import Results

Styles = dict[str, Style]
Points = list[tuple[float, Row]]  # a kernel's rows, each where it stands on the horizontal axis


def draw(results: Results) -> Iterator[Chart]:
    """Draw sizes and roofline for each dtype and thread count."""
    style = styles(results)
    found = {cell: entry["row"] for cell, entry in results.cells("roof").items()}
    roof = {cell: row for cell, row in found.items() if not row.get("disturbed")}  # else it is no roof
    for (dtype, threads), group in by_setting(ladders(results.measurements)).items():
        setting = f"{dtype} · {count(threads, 'thread')}"
        names = [chart_name(stem, dtype, threads, results) for stem in ("gflops-by-size", "roofline")]
        yield from _sizes(group, roof.get((dtype, threads)), style, setting, names[0])
        yield from _roofline(group, roof.get((dtype, threads)), style, setting, names[1])


def _by_kernel(points: Iterable[tuple[float, Row]]) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for x, row in points:
        found.setdefault(row["kernel"], []).append((x, row))
    return {kernel: found[kernel] for kernel in in_order(found)}


def _legend(curves: dict[str, Points], style: Styles, line: str | None = None) -> list[Line2D]:
    handles = [style[kernel].handle(line) for kernel in curves]
    if any(row["extrapolated"] for points in curves.values() for _, row in points):
        handles.append(
            Line2D([], [], color=FAINT, label="extrapolated", marker="o", markerfacecolor="white", linestyle="none")
        )
    return handles


def _sizes(group: list[Ladder], roof: Row | None, style: Styles, setting: str, name: str) -> Iterator[Chart]:
    loads = [(ladder.product, ladder) for ladder in group]
    squares = {load.m: ladder for load, ladder in loads if str(load) == f"{load.m}x{load.m}x{load.m}"}
    if len(squares) < 2:
        return
    sizes = sorted(squares)
    curves = _by_kernel((size, row) for size in sizes for row in squares[size].timed)
    # A busy machine has no roof.
    under_roof = any(known(row["roof_percent"]) for points in curves.values() for _, row in points)
    panels = [3.6, 3.2] if under_roof else [5.4]
    title = f"Rate against size, square products, {setting}"
    chart, axes = curve_chart(name, title, _legend(curves, style), panels)
    for each, column in zip(axes, ("gflops", "roof_percent"), strict=False):
        for kernel, points in curves.items():
            look, shown = style[kernel], [(x, row) for x, row in points if known(row[column])]
            line = {"color": look.colour, "linestyle": look.line, "linewidth": 1.5, "zorder": look.order}
            each.plot([x for x, _ in shown], [row[column] for _, row in shown], **line)
            for x, row in shown:
                dot(each, x, row[column], row, look)
        each.set_xscale("log", base=2)
        each.minorticks_off()
        each.set_xticks(sizes, list(map(str, sizes)))
        each.set_xlabel("m = k = n")
    peak = [roof["fma_gflops"]] if roof else []
    rates = [row["gflops"] for points in curves.values() for _, row in points]
    log_axis(axes[0].yaxis, [*rates, *peak], rate, labels=8)
    unit = rate_unit(group[0].dtype)
    axes[0].set_ylabel(f"{unit}, log")
    for value in peak:
        axes[0].axhline(value, color=INK, linewidth=1.2)
        _on_line(axes[0], sizes[0], value, f"FMA peak {rate(value)} {unit}")
    for each in axes[1:]:
        each.set_ylim(bottom=0)
        each.set_ylabel("% of roof, linear")
    best = max(squares[sizes[-1]].timed, key=lambda row: row["gflops"])
    chart.alt = (
        f"{unit}{' and % of roof' if under_roof else ''} against size for square products, "
        f"{sizes[0]} to {sizes[-1]}, a line per kernel. "
        f"At {sizes[-1]} the fastest is {best['label']} with {rate(best['gflops'])} {unit}."
    )
    yield chart


def _roofline(group: list[Ladder], roof: Row | None, style: Styles, setting: str, name: str) -> Iterator[Chart]:
    """Draw the user's kernels, and of the others that with the highest rate, under the roof."""
    points = [(ladder.product.intensity, row) for ladder in group for row in ladder.timed if known(row["gflops"])]
    if not roof or not points:
        return
    curves = _by_kernel(points)
    others = [(x, row) for x, row in points if row["kernel"] not in users(curves)]
    best = max(others or points, key=lambda point: point[1]["gflops"])[1]["kernel"]
    curves = {kernel: found for kernel, found in curves.items() if kernel in [*users(curves), best]}
    shown = [point for found in curves.values() for point in found]
    peak, levels = roof["fma_gflops"], roof["levels"]
    ridges = [peak / level["gbs"] for level in levels]
    bandwidths = [
        f"{level['name']} {rate(level['gbs'])} GB/s"
        + (f", reading {rate(level['read_gbs'])}" if level["read_gbs"] < level["gbs"] else "")
        for level in levels
    ]
    lines = [
        Line2D(
            [ridge / 1e9, ridge], [peak / 1e9, peak], color=INK, linewidth=1.2, linestyle=dashes, label=said, zorder=1
        )
        for ridge, dashes, said in zip(ridges, reversed(LINES[: len(levels)]), bandwidths, strict=True)
    ]
    chart, [axes] = curve_chart(name, f"Roofline, {setting}", [*_legend(curves, style, "none"), *lines], [5.4])
    for x, row in shown:
        dot(axes, x, row["gflops"], row, style[row["kernel"]])
    log_axis(axes.xaxis, [min(ridges) / 4, max(ridges) * 8, *(x for x, _ in shown)], "{:,g}".format)
    log_axis(axes.yaxis, [peak, *(row["gflops"] for _, row in shown)], rate, labels=8)
    for line in lines:
        axes.add_line(line)
    high = axes.get_xlim()[1]
    axes.plot([min(ridges), high], [peak, peak], color=INK, linewidth=1.6, zorder=1)
    unit = rate_unit(group[0].dtype)
    _on_line(axes, high, peak, f"FMA peak {rate(peak)} {unit}", "right")
    axes.set_xlabel(f"intensity, {DTYPES[group[0].dtype].operations} per byte")
    axes.set_ylabel(f"{unit}, log")
    highest = max((row for _, row in shown), key=lambda row: row["gflops"])
    chart.alt = (
        f"Rate against intensity, a point per product, of {', '.join(style[kernel].label for kernel in curves)}; "
        f"{', '.join(bandwidths)}, FMA peak of {rate(peak)} {unit}. The highest is {highest['label']} on "
        f"{highest['workload']} with {rate(highest['gflops'])} {unit}."
    )
    yield chart


def _on_line(axes: Axes, x: float, y: float, text: str, align: str = "left") -> None:
    axes.annotate(text, (x, y), (0, 3), textcoords="offset points", ha=align, va="bottom", size=8)
