"""The ladder, one chart per workload: how long each kernel takes, and how that compares with the baseline."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes

from matmulbench.report.charts.style import (
    FAINT,
    INK,
    Chart,
    Style,
    annotate,
    kernel_rows,
    new_figure,
    styles,
    text_width,
    time_axis,
)
from matmulbench.report.formatting import compared, known, seconds
from matmulbench.report.queries import Ladder, Row, baseline_of, chart_name, has_figure, ladders
from matmulbench.results.folder import Results


def draw(results: Results) -> Iterator[Chart]:
    """Draw a chart for every workload on which some kernel has a time."""
    found = [ladder for ladder in ladders(results.measurements) if ladder.timed]
    style = styles(results)
    for ladder in found:
        yield _chart(ladder, baseline_of(results), style, chart_name(ladder, found))


def _chart(ladder: Ladder, baseline: str, style: dict[str, Style], name: str) -> Chart:
    names = [style[row["kernel"]].label for row in ladder.rows]
    remarks = [_remark(row, baseline) for row in ladder.rows]
    left, times_end = text_width(names) + 0.2, 0.95
    right = times_end + 0.2 + text_width(remarks)
    figure, axes = new_figure(
        left + 3.3 + right, 1.15 + 0.27 * len(names), f"Time of one product, {ladder.title}", left, right
    )
    shown = [row["median_s"] for row in ladder.timed]
    axes.set_xscale("log")
    axes.set_xlim(min(shown) / 3, max(shown) * 1.5)
    for place, (row, remark) in enumerate(zip(ladder.rows, remarks, strict=True)):
        timed = has_figure(row, "median_s")
        if timed:
            _bar(axes, place, row, style[row["kernel"]].colour)
            annotate(axes, place, times_end, seconds(row["median_s"], row["extrapolated"]), "right")
        annotate(axes, place, times_end + 0.15, remark, colour=INK if timed else FAINT)
    kernel_rows(axes, names)
    time_axis(axes.xaxis)
    hint = "; hatched and ≈: extrapolated" if any(row["extrapolated"] for row in ladder.timed) else ""
    axes.set_xlabel(f"time per call, log scale, with 95 % interval{hint}")
    return Chart(name, f"Ladder {ladder.title}", _alt(ladder, style[baseline].label), figure)


def _bar(axes: Axes, place: int, row: Row, colour: str) -> None:
    extrapolated = bool(row["extrapolated"])
    axes.barh(
        place, row["median_s"], height=0.66, color="white" if extrapolated else colour,
        hatch="/////" if extrapolated else None, edgecolor=colour if extrapolated else INK, linewidth=0.7,
    )  # fmt: skip
    low, high = known(row["ci_low_s"]), known(row["ci_high_s"])
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=6)


def _remark(row: Row, baseline: str) -> str:
    if not has_figure(row, "median_s"):
        return f"no figure: {row['status']}"
    if row["kernel"] == baseline:
        return "baseline"
    return compared(row["speedup"], row["verdict"])


def _alt(ladder: Ladder, baseline: str) -> str:
    """Say in words what the chart shows."""
    parts = [
        f"{row['label']} {seconds(row['median_s'])}" if has_figure(row, "median_s")
        else f"{row['label']} has no figure ({row['status']})"
        for row in ladder.rows
    ]  # fmt: skip
    return f"Bars of the time of one product {ladder.title}; baseline {baseline}. {', '.join(parts)}."
