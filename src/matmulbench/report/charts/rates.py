"""Rates: GFLOP/s against size, every kernel under the roofs, and what more threads bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from matmulbench.report.charts.style import (
    FAINT,
    INK,
    Chart,
    Look,
    blank,
    legend_right,
    legend_room,
    looks,
    rate_axis,
)
from matmulbench.report.view import Ladder, Row, has_figure, in_order, ladders, roofs, short
from matmulbench.report.wording import count, rate
from matmulbench.results.folder import Results
from matmulbench.workload import Workload

_WIDTH, _HEIGHT = 7.6, 4.6


def draw(results: Results) -> Iterator[Chart]:
    """Draw sizes and roofline for each dtype and thread count, and threads if there are several counts."""
    groups: dict[tuple[str, int], list[Ladder]] = {}
    for ladder in ladders(results.measurements):
        groups.setdefault((ladder.dtype, ladder.threads), []).append(ladder)
    roof = roofs(results)
    for (dtype, threads), group in groups.items():
        suffix = ("" if dtype == "float32" else f"-{dtype}") + (
            f"-t{threads}" if len({t for _, t in groups}) > 1 else ""
        )
        setting = f"{dtype} · {count(threads, 'thread')}"
        yield from _sizes(group, roof.get((dtype, threads)), setting, suffix)
        yield from _roofline(group, roof.get((dtype, threads)), setting, suffix)
    yield from _threads(groups)


def _sizes(group: list[Ladder], roof: Row | None, setting: str, suffix: str) -> Iterator[Chart]:
    squares = [
        (load.m, ladder)
        for ladder in group
        if (load := Workload.parse(ladder.workload)).m == load.k == load.n and load.layout == "NN" and ladder.timed
    ]
    squares.sort(key=lambda each: each[0])
    if len(squares) < 2:
        return
    kernels = in_order(row["kernel"] for _, ladder in squares for row in ladder.timed)
    title = f"Rate against size, square products, {setting}"
    figure, axes = blank(_WIDTH, _HEIGHT, title, 0.75, _legend_room(kernels))
    look = looks(kernels)
    handles = []
    for kernel in kernels:
        points = [(size, row) for size, ladder in squares if (row := ladder.row(kernel))]
        sizes = [size for size, _ in points]
        style = look[kernel]
        axes.plot(
            sizes,
            [row["gflops"] for _, row in points],
            color=style.colour,
            linestyle=style.line,
            linewidth=1.5,
        )
        for size, row in points:
            _point(axes, size, row, style)
        handles.append(_handle(kernel, style, style.line))
    if roof:
        axes.axhline(roof["fma_gflops"], color=INK, linewidth=1.2)
        _on_line(axes, squares[0][0], roof["fma_gflops"], f"FMA peak {rate(roof['fma_gflops'])} GFLOP/s")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([size for size, _ in squares], [str(size) for size, _ in squares])
    axes.minorticks_off()
    rate_axis(axes.yaxis)
    axes.set_xlabel("m = k = n")
    axes.set_ylabel("GFLOP/s, log scale")
    _finish(axes, handles, any(row["extrapolated"] for _, ladder in squares for row in ladder.timed))
    best = max((row for row in squares[-1][1].timed), key=lambda row: row["gflops"])
    alt = (
        f"GFLOP/s against size for square products, {squares[0][0]} to {squares[-1][0]}, a line per kernel. "
        f"At {squares[-1][0]} the fastest is {short(best['kernel'])} with {rate(best['gflops'])} GFLOP/s."
    )
    yield Chart(f"gflops-by-size{suffix}", title, alt, figure)


def _roofline(group: list[Ladder], roof: Row | None, setting: str, suffix: str) -> Iterator[Chart]:
    points = [(ladder.intensity, row) for ladder in group for row in ladder.timed if has_figure(row, "gflops")]
    if not roof or not points:
        return
    kernels = in_order(row["kernel"] for _, row in points)
    title = f"Roofline, {setting}"
    figure, axes = blank(_WIDTH, _HEIGHT, title, 0.75, _legend_room([*kernels, "best matmul: 112"]))
    peak, bandwidth = roof["fma_gflops"], roof["bandwidth_gbs"]
    ridge = peak / bandwidth
    low = min([ridge / 4, *(intensity for intensity, _ in points)]) / 1.6
    high = max([ridge * 8, *(intensity for intensity, _ in points)]) * 1.6
    axes.plot([low, ridge, high], [bandwidth * low, peak, peak], color=INK, linewidth=1.6, zorder=1)
    _on_line(axes, high, peak, f"FMA peak {rate(peak)} GFLOP/s", "right")
    look = looks(kernels)
    for intensity, row in points:
        _point(axes, intensity, row, look[row["kernel"]])
    handles = [_handle(kernel, look[kernel], "none") for kernel in kernels]
    if best := roof.get("best_matmul_gflops"):
        axes.axhline(best, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        handles.append(
            Line2D([], [], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label=f"best matmul: {rate(best)}")
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(row["gflops"] for _, row in points) / 2, peak * 3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    rate_axis(axes.yaxis)
    axes.minorticks_off()
    axes.set_xlabel(f"intensity, FLOP per byte (roof left of {ridge:.2g}: bandwidth {rate(bandwidth)} GB/s)")
    axes.set_ylabel("GFLOP/s, log scale")
    _finish(axes, handles, any(row["extrapolated"] for _, row in points))
    best_row = max((row for _, row in points), key=lambda row: row["gflops"])
    alt = (
        f"Rate against intensity, a point per kernel and workload; bandwidth {rate(bandwidth)} GB/s, "
        f"FMA peak of {rate(peak)} GFLOP/s. The highest is {short(best_row['kernel'])} on "
        f"{best_row['workload']} with {rate(best_row['gflops'])} GFLOP/s."
    )
    yield Chart(f"roofline{suffix}", title, alt, figure)


def _threads(groups: dict[tuple[str, int], list[Ladder]]) -> Iterator[Chart]:
    """Draw what more threads bring on the largest product."""
    by_workload: dict[tuple[str, str], list[Ladder]] = {}
    for group in groups.values():
        for ladder in group:
            if ladder.timed:
                by_workload.setdefault((ladder.workload, ladder.dtype), []).append(ladder)
    several = [found for found in by_workload.values() if len(found) > 1]
    if not several:
        return
    largest = max(several, key=lambda found: Workload.parse(found[0].workload).flop)
    largest.sort(key=lambda ladder: ladder.threads)
    kernels = in_order(row["kernel"] for ladder in largest for row in ladder.timed)
    fewest = largest[0]
    title = f"Speedup by more threads, {fewest.workload} · {fewest.dtype}"
    figure, axes = blank(_WIDTH, 4.2, title, 0.75, _legend_room([*kernels, "ideal"]))
    counts = [ladder.threads for ladder in largest]
    ideal = [threads / counts[0] for threads in counts]
    line = axes.plot(counts, ideal, color=INK, linewidth=1, label="ideal")[0]
    look = looks(kernels)
    handles = []
    for kernel in kernels:
        if not (base := fewest.row(kernel)):
            continue
        rows = [(ladder.threads, row) for ladder in largest if (row := ladder.row(kernel))]
        style = look[kernel]
        axes.plot(
            [threads for threads, _ in rows],
            [base["median_s"] / row["median_s"] for _, row in rows],
            color=style.colour, linestyle=style.line, marker=style.marker, markersize=5.5,
        )  # fmt: skip
        handles.append(_handle(kernel, style, style.line))
    axes.set_xticks(counts)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.set_xlabel("threads")
    axes.set_ylabel(f"speedup over {count(counts[0], 'thread')}")
    _finish(axes, [line, *handles], False)
    alt = f"Speedup of each kernel over {count(counts[0], 'thread')} on {fewest.workload}, {counts} threads."
    yield Chart("threads", title, alt, figure)


def _legend_room(names: Iterable[str]) -> float:
    return legend_room([*map(short, names), "extrapolated"])


def _point(axes: Axes, x: float, row: Row, look: Look) -> None:
    fill = "white" if row["extrapolated"] else look.colour
    axes.plot(x, row["gflops"], look.marker, color=look.colour, markerfacecolor=fill, markersize=5.5, alpha=0.9)


def _handle(kernel: str, look: Look, line: object) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=line, label=short(kernel))  # type: ignore[arg-type]


def _on_line(axes: Axes, x: float, y: float, text: str, align: str = "left") -> None:
    axes.annotate(text, (x, y), (0, 3), textcoords="offset points", ha=align, va="bottom", size=8)


def _finish(axes: Axes, handles: list[Line2D], extrapolated: bool) -> None:
    if extrapolated:
        handles = [
            *handles,
            Line2D(
                [],
                [],
                color=FAINT,
                marker="o",
                markerfacecolor="white",
                linestyle="none",
                label="extrapolated",
            ),
        ]
    axes.grid()
    legend_right(axes, handles)
