"""Training: what a faster product buys a whole step, where a step's time goes, and that the losses agree."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from matmulbench.report.charts.style import (
    DASHED,
    FAINT,
    GRID,
    INK,
    Chart,
    Style,
    curve_chart,
    interval,
    kernel_chart,
    legend_above,
    log_axis,
    styles,
)
from matmulbench.report.formatting import factor, known, percent, seconds
from matmulbench.report.queries import (
    Row,
    amdahl_limit,
    chart_name,
    matmul_speedup,
    reference_of,
    said_of,
    task_title,
    tasks,
)
from matmulbench.results.folder import Results
from matmulbench.results.schema import KEYS

# Fill and hatch of a step's parts: light enough for the hatch to show, told apart without colour too.
_PARTS = [
    ("#56B4E9", ""), ("#E69F00", "///"), ("#009E73", "|||"), ("#CC79A7", "\\\\\\"), ("#0072B2", "xxx"),
    ("#D55E00", "---"), ("#B8A800", "++"),
]  # fmt: skip
_OTHERS = "other products"
_REST, _REST_FILL = "all else", ("#e6e6e6", "")


def draw(results: Results) -> Iterator[Chart]:
    """Draw what the trainings bought, task by task."""
    baseline, style = results.baseline, styles(results)
    entries = results.cells("training")  # with losses and products
    found = tasks(results.training)
    for (task, threads), every in found.items():
        rows = [entries[tuple(row[name] for name in KEYS["training"])] | row for row in every if known(row["step_s"])]
        if not rows:
            continue
        name, title = chart_name(task, "float32", threads, results), task_title(task, threads)
        yield from _end_to_end(rows, baseline, style, title, name)
        yield from _parts(rows, title, name)
        yield from _losses(rows, style, title, name)


def _end_to_end(rows: list[Row], baseline: str, style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    """Join the speedup of the products to that of the step."""
    reference = reference_of(rows, baseline)
    shown = [
        (row, product, float(row["measured_speedup"]))
        for row in rows
        if known(row["measured_speedup"]) and (product := matmul_speedup(row, reference))
    ]
    if all(row["kernel"] == baseline for row, *_ in shown):
        return
    names = [row["label"] for row, *_ in shown]
    products = [factor(product) for _, product, _ in shown]
    steps = [said_of(row, baseline, "measured_speedup") for row, *_ in shown]
    limit = amdahl_limit(reference)
    chart, [axes] = kernel_chart(
        f"end-to-end-{name}", f"What a faster product buys a step, {title}", names, [4.4],
        [products, ["→"] * len(steps), steps], top=0.95,
    )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1)
    for place, (row, product, step) in enumerate(shown):
        colour = style[row["kernel"]].colour
        axes.plot([product, step], [place, place], color=colour, linewidth=1.5)
        interval(axes, place, row["measured_ci_low"], row["measured_ci_high"], INK)
        axes.plot(product, place, "s", color=colour, markerfacecolor="white", markersize=6.5)
        axes.plot(step, place, "o", color=colour, markersize=6)
    log_axis(axes.xaxis, [each for _, *both in shown for each in both] + ([limit] if limit else []), factor, labels=3)
    axes.set_xlabel(f"against {style[baseline].label}, log")
    handles = [
        Line2D([], [], color=INK, marker="s", markerfacecolor="white", linestyle="none", label="the products alone"),
        Line2D([], [], color=INK, marker="o", linestyle="none", label="the whole step, with 95 % interval"),
    ]
    if limit:
        axes.axvline(limit, color=FAINT, linewidth=1.2, linestyle=DASHED)
        label = f"were products free: {factor(limit)}"
        handles.append(Line2D([], [], color=FAINT, linestyle=DASHED, label=label))
    legend_above(chart.figure, handles, 2)
    yield chart


def _parts(rows: list[Row], title: str, name: str) -> Iterator[Chart]:
    """Draw the share of a step's time that goes to each product and to all else."""
    shown = []
    for row in (row for row in rows if row.get("products") and known(row["matmul_share"])):
        seconds_of: dict[str, float] = {}
        for each in row["products"]:
            # A model has more products than there are fills: they go by their shape.
            many = len(row["products"]) > len(_PARTS)
            part = each["workload"] if many and each.get("workload") else f"{each['which']} {each['layer']}"
            seconds_of[part] = seconds_of.get(part, 0.0) + float(each["seconds"])
        scale = 100 * row["matmul_share"] / sum(seconds_of.values())
        shown.append((row, {part: scale * time for part, time in seconds_of.items()}))
    if not shown:
        return
    names = [row["label"] for row, _ in shown]
    parts = list(dict.fromkeys(part for _, shares in shown for part in shares))
    if len(parts) > len(_PARTS):
        parts.sort(key=lambda part: -max(shares.get(part, 0.0) for _, shares in shown))
        few = parts[: len(_PARTS) - 1]
        for _, shares in shown:
            shares[_OTHERS] = sum(shares.pop(part) for part in [*shares] if part not in few)
        parts = [*few, _OTHERS]
    fills = dict(zip(parts, _PARTS, strict=False)) | {_REST: _REST_FILL}
    times = [seconds(row["step_s"], row["extrapolated"]) for row, _ in shown]
    inside = [f"{percent(row['matmul_share'])} in products" for row, _ in shown]
    chart, [axes] = kernel_chart(
        f"step-{name}", f"Where the time of a step goes, {title}", names, [3.8], [inside, times],
        top=0.55 + 0.2 * math.ceil(len(fills) / 3),
    )  # fmt: skip
    for place, (_, shares) in enumerate(shown):
        start = 0.0
        for part, (colour, hatch) in fills.items():
            share = max(0.0, 100 - start) if part == _REST else shares.get(part, 0.0)
            axes.barh(
                place, share, left=start, height=0.7, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5
            )  # fmt: skip
            start += share
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the step's time, %")
    axes.grid(False)
    handles = [
        Patch(facecolor=fill, hatch=hatch, edgecolor="white", label=part) for part, (fill, hatch) in fills.items()
    ]
    legend_above(chart.figure, handles, 3)
    yield chart


def _losses(rows: list[Row], style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    """Draw how far each kernel's losses lie from the float64 reference, and how far rounding alone may take them."""
    drawn = [row for row in rows if row.get("losses") and row.get("reference") and row.get("envelope")]
    if not drawn:
        return
    handles = [*(style[row["kernel"]].handle() for row in drawn), Patch(color=GRID, label="explained by rounding")]
    full = f"Distance of the loss from the float64 reference, {title}"
    chart, [axes] = curve_chart(f"loss-{name}", full, handles, [5.4])
    heights, far = [], {}
    for place, row in enumerate(drawn):
        look, steps = style[row["kernel"]], row["loss_steps"]
        pairs = zip(row["losses"], row["reference"], strict=False)
        distances = [abs(loss - reference) if known(loss) is not None else math.inf for loss, reference in pairs]
        # The furthest so far: single losses come near the reference by chance.
        far[look.label] = furthest = np.maximum.accumulate(distances)
        axes.plot(
            steps[: len(furthest)], np.where(furthest > 0, furthest, np.nan), color=look.colour, linestyle=look.line,
            marker=look.marker, markersize=5, markevery=(place, max(1, len(furthest) // 4)), zorder=look.order,
        )  # fmt: skip
        heights += [float(value) for value in furthest if 0 < value < math.inf]
    longest = max(drawn, key=lambda row: len(row["envelope"]))
    axes.fill_between(longest["loss_steps"][: len(longest["envelope"])], longest["envelope"], color=GRID, zorder=0)
    log_axis(axes.yaxis, [*heights, *filter(None, longest["envelope"])], "{:.0e}".format)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("furthest so far, log")
    ends = ", ".join(f"{label} {furthest[-1]:.1e}" for label, furthest in far.items())
    chart.alt = f"{full}, a curve per kernel. Furthest: {ends}."
    yield chart
