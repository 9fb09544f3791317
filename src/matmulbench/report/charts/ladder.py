"""The products: how long each kernel takes on one, how far its samples scatter, and all products at a glance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Rectangle

from matmulbench.report.charts.style import INK, Chart, Style, dot, interval, kernel_chart, log_axis, styles, text_width
from matmulbench.report.formatting import count, known, seconds
from matmulbench.report.queries import Ladder, by_setting, chart_name, in_order, ladder_chart, ladders, said_of
from matmulbench.results.folder import Results

_FEWEST, _SHOWN = 5, 150  # samples of a kernel that are worth a strip, and that a strip has room for


def draw(results: Results) -> Iterator[Chart]:
    """Draw a chart for every product on which some kernel has a time, the samples of the first, and all products."""
    baseline, style = results.baseline, styles(results)
    found = [ladder for ladder in ladders(results.measurements) if ladder.timed]
    for ladder in found:
        yield _times(ladder, baseline, style, ladder_chart(ladder, results))
    if found:
        yield from _samples(results, found[0], style)
    for (dtype, threads), group in by_setting(found).items():
        title = f"Every product against {style[baseline].label}, {dtype} · {count(threads, 'thread')}"
        yield from _heat_map(group, baseline, style, title, chart_name("speedups", dtype, threads, results))


def _times(ladder: Ladder, baseline: str, style: dict[str, Style], name: str) -> Chart:
    names = [row["label"] for row in ladder.rows]
    times = [seconds(row["median_s"], row["extrapolated"]) for row in ladder.rows]
    said = [said_of(row, baseline) for row in ladder.rows]
    percents = [known(row["roof_percent"]) or 0.0 for row in ladder.rows]
    panels = [2.8, 1.1] if any(percents) else [4.2]  # a busy machine has no roof
    chart, axes = kernel_chart(name, f"Time of one product, {ladder.title}", names, panels, [times, said])
    for place, row in enumerate(ladder.rows):
        look = style[row["kernel"]]
        if known(row["median_s"]):
            interval(axes[0], place, row["ci_low_s"], row["ci_high_s"], look.colour)
            dot(axes[0], row["median_s"], place, row, look)
    ends = [row[name] for row in ladder.timed for name in ("median_s", "ci_low_s", "ci_high_s")]
    # A power of ten is no round number of minutes or hours.
    log_axis(axes[0].xaxis, filter(known, ends), lambda value: f"{value:,.0f} s" if value >= 1 else seconds(value))
    hint = "; hollow and ≈: extrapolated" if any(row["extrapolated"] for row in ladder.timed) else ""
    axes[0].set_xlabel(f"time per call, log{hint}")
    for each in axes[1:]:
        colours = [style[row["kernel"]].colour for row in ladder.rows]
        each.barh(range(len(percents)), percents, height=0.6, color=colours)
        each.set_xlim(0, max(100, *percents))
        each.set_xlabel("% of roof")
    return chart


def _samples(results: Results, ladder: Ladder, style: dict[str, Style]) -> Iterator[Chart]:
    """Draw how far each kernel's samples lie from their median, round by round."""
    product = (ladder.workload, ladder.dtype, ladder.threads)
    cells = results.cells("measurements")
    every = {key[-1]: np.asarray(entry["samples"]) for key, entry in cells.items() if key[:-1] == product}
    in_full = [row["kernel"] for row in ladder.timed if not row["extrapolated"]]
    kernels = [kernel for kernel in in_full if len(every[kernel]) >= _FEWEST]
    if not kernels:
        return
    apart = {kernel: 100 * (every[kernel] / np.median(every[kernel]) - 1) for kernel in kernels}
    half = {kernel: float(np.median(np.abs(apart[kernel]))) for kernel in kernels}
    reach = min(50.0, max(2.0, 6 * max(half.values())))
    columns = [
        [count(len(every[kernel]), "round") for kernel in kernels],
        [f"half within ± {half[kernel]:.1f} %" for kernel in kernels],
    ]
    names = [style[kernel].label for kernel in kernels]
    chart, [axes] = kernel_chart("samples", f"Every sample of {ladder.title}", names, [4.8], columns)
    for place, kernel in enumerate(kernels):
        thinned = apart[kernel][:: math.ceil(len(apart[kernel]) / _SHOWN)]
        heights = place + np.linspace(-0.36, 0.36, len(thinned))
        axes.plot(np.clip(thinned, -reach, reach), heights, ".", color=style[kernel].colour, markersize=3)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_xlim(-1.05 * reach, 1.05 * reach)
    axes.set_xlabel("distance from the kernel's median, %; first round on top, what lies beyond stands at the edge")
    yield chart


def _heat_map(group: list[Ladder], baseline: str, style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    """Draw every product's speedups: a line per product, a column per kernel."""
    rows = {ladder.workload: {row["kernel"]: row for row in ladder.timed if known(row["speedup"])} for ladder in group}
    rows = {workload: row for workload, row in rows.items() if row}
    kernels = [kernel for kernel in in_order(kernel for row in rows.values() for kernel in row) if kernel != baseline]
    if len(rows) < 2 or not kernels:
        return
    names = [style[kernel].label for kernel in kernels]
    width = max(1.05, text_width(names) + 0.1, 3.6 / len(kernels))  # room for the title, and what colours mean
    chart, [axes] = kernel_chart(name, title, list(rows), [width * len(kernels)], top=0.75)
    # A colour claims no more than the verdict, and means nothing beyond ten times.
    colours = LinearSegmentedColormap.from_list("", ["#F0A860", "#FFFFFF", "#6FB7E8"])
    norm = LogNorm(0.1, 10, clip=True)
    for y, row in enumerate(rows.values()):
        for x, kernel in enumerate(kernels):
            if kernel not in row:
                continue
            speedup, verdict = row[kernel]["speedup"], row[kernel]["verdict"]
            colour = colours(norm(speedup if verdict in ("faster", "slower") else 1.0))
            axes.add_patch(Rectangle((x + 0.02, y - 0.46), 0.96, 0.92, color=colour, linewidth=0))
            mark = "≈ " if row[kernel]["extrapolated"] else ""
            axes.text(x + 0.5, y, mark + said_of(row[kernel], baseline), ha="center", va="center_baseline", size=7.5)
    axes.set_xlim(0, len(kernels))
    axes.set_xticks(np.arange(len(kernels)) + 0.5, names)
    axes.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("blue: faster; orange: slower; plain: as fast, or unclear")
    wins = Counter(kernel for row in rows.values() for kernel in row if row[kernel]["verdict"] == "faster")
    faster = ", ".join(f"{style[kernel].label} on {count(wins[kernel], 'product')}" for kernel in kernels)
    chart.alt = f"Speedup of every product: {title}. Faster: {faster}."
    yield chart
