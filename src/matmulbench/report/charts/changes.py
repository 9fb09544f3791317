"""Several runs: what changed from one to the other, and each cell over time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from matmulbench.report.charts.style import FAINT, INK, MUTED, Chart, interval, kernel_chart
from matmulbench.report.formatting import count, factor, known, text
from matmulbench.report.queries import labels
from matmulbench.results.schema import EVERY

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = {"slower": "#D55E00", "broken": "#D55E00", "faster": "#0072B2", "same": INK}
_LEAST, _MOST = 5.0, 50.0  # percent that an axis reaches at least and at most


def changes_chart(comparison: pd.DataFrame) -> Iterator[Chart]:
    """Draw the change of each kernel with its interval, and behind it that of each of its products."""
    kernels = comparison[comparison["workload"] == EVERY]
    if not len(kernels):
        return
    settings = kernels[["dtype", "threads"]].drop_duplicates()
    several, label = len(settings) > 1, labels(kernels["kernel"])
    names = [
        label[kernel] + (f" · {dtype}, {threads}" if several else "")
        for kernel, dtype, threads in zip(kernels["kernel"], kernels["dtype"], kernels["threads"], strict=True)
    ]
    columns = [[factor(speedup) for speedup in kernels["speedup"]], list(kernels["verdict"])]
    chart, [axes] = kernel_chart("changes", "Change of each kernel, all products together", names, [4.8], columns)
    ends = [100 * abs(1 / end - 1) for side in ("low", "high") for end in kernels[f"speedup_ci_{side}"]]
    reach = min(_MOST, max(2 * _LEAST, 1.1 * max(ends)))
    products_of = dict(iter(comparison[comparison["workload"] != EVERY].groupby(["dtype", "threads", "kernel"])))
    for place, row in enumerate(kernels.to_dict("records")):
        changes = products_of[row["dtype"], row["threads"], row["kernel"]]["speedup"].dropna()
        products = 100 * (1 / changes.to_numpy() - 1)
        axes.plot(np.clip(products, -reach, reach), [place] * len(products), ".", color=MUTED, markersize=4)
        colour = _COLOURS.get(row["verdict"], FAINT)
        low, middle, high = (100 * (1 / row[f"speedup{end}"] - 1) for end in ("_ci_high", "", "_ci_low"))
        interval(axes, place, low, high, colour)
        axes.plot(middle, place, "o", color=colour, markersize=5.5)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    axes.set_xlim(-1.05 * reach, 1.05 * reach)
    axes.set_xlabel("change of time, %, drift removed; grey: each product")
    yield chart


def history_charts(history: pd.DataFrame) -> Iterator[Chart]:
    """Draw each kernel over the runs, all products together, and then a chart for each, with a line per product."""
    label = labels(history["kernel"])
    several = len(history[["dtype", "threads"]].drop_duplicates()) > 1
    kernels = {}
    for _, own in history.groupby(["dtype", "threads", "kernel"], sort=False):
        kernel, dtype, threads = (own[name].iloc[0] for name in ("kernel", "dtype", "threads"))
        setting = f" · {dtype} · {count(threads, 'thread')}" if several else ""
        kernels[label[kernel] + setting] = {
            cell["workload"].iloc[0]: cell for _, cell in own.groupby("workload", sort=False)
        }
    together = {name: cells[EVERY] for name, cells in kernels.items() if EVERY in cells}
    if together:
        yield _lines("history", "Each kernel over the runs, all products together", together)
    for i, (name, cells) in enumerate(kernels.items()):
        yield _lines(f"history-{i}", f"{name} over the runs", cells)


def _lines(name: str, title: str, cells: dict[str, pd.DataFrame]) -> Chart:
    """Draw a line for each cell: a point per run, a bar at the level of each segment, upright where it changed."""
    distances = [_percent(cell["relative"]) for cell in cells.values()]
    reach = [min(_MOST, max([_LEAST, *np.ceil(np.abs(each[np.isfinite(each)]))])) for each in distances]
    columns = [[f"± {each:.0f} %" for each in reach], [_said(cell) for cell in cells.values()]]
    chart, [axes] = kernel_chart(name, title, list(cells), [4.8], columns, row_height=0.42)
    for place, (cell, values, scale) in enumerate(zip(cells.values(), distances, reach, strict=True)):
        heights = place - 0.42 * np.clip(values / scale, -1, 1)
        axes.plot(cell["run"], heights, "o-", color=FAINT, linewidth=0.5, markersize=2.6)
        for _, segment in cell.groupby("segment"):
            ends = segment["run"].iloc[0] - 0.4, segment["run"].iloc[-1] + 0.4
            level = place - 0.42 * np.clip(_percent(segment["level"])[0] / scale, -1, 1)
            changed = segment["segment"].iloc[0] > 0
            colour = _COLOURS[segment["verdict"].iloc[0]] if changed else MUTED
            axes.plot(ends, [level] * 2, color=colour, linewidth=2.2 if changed else 1.2, zorder=1.5)
            if changed:
                axes.plot([ends[0]] * 2, [place - 0.45, place + 0.45], color=colour, linewidth=0.9)
    runs = cell.sort_values("run")
    axes.grid(False)
    axes.set_xlim(-0.6, len(runs) - 0.4)
    axes.set_xticks([0, len(runs) - 1], [start[:10] for start in runs["start"].iloc[[0, -1]]])
    axes.set_xlabel("run; up: slower, drift removed, each line on the scale at its right")
    return chart


def _percent(relative: pd.Series) -> npt.NDArray[np.float64]:
    """Return by how many percent a time is above that of the first segment, on a logarithmic scale."""
    logarithms: npt.NDArray[np.float64] = np.log(relative.to_numpy(dtype=np.float64))
    return 100 * logarithms


def _said(cell: pd.DataFrame) -> str:
    newest = cell.iloc[-1]
    if known(newest["speedup"]) is None:
        return text(newest["verdict"])
    begun = cell["start"][cell["segment"] == newest["segment"]].iloc[0]
    return f"{factor(newest['speedup'])} since {begun[:10]}"
