"""Training: what a faster product buys a whole step, where a step's time goes, and that the losses agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes

from matmulbench.report.charts.style import (
    FAINT,
    INK,
    Chart,
    beside,
    blank,
    factor_axis,
    kernel_rows,
    legend_above,
    legend_right,
    legend_room,
    looks,
    text_width,
)
from matmulbench.report.view import (
    Row,
    baseline_of,
    ceiling,
    has_figure,
    matmul_speedup,
    short,
    task_title,
    tasks,
    training_entries,
)
from matmulbench.report.wording import factor, known, percent, seconds
from matmulbench.results.folder import Results

# Fill and hatch of a step's parts: light enough for the hatch to show, told apart without colour too.
_PARTS = (
    ("#56B4E9", ""),
    ("#E69F00", "///"),
    ("#009E73", "|||"),
    ("#CC79A7", "\\\\\\"),
    ("#0072B2", "xxx"),
    ("#D55E00", "---"),
    ("#B8A800", "++"),
)
_REST = ("#e6e6e6", "")
_NEAR = 0.5  # from here on a speedup is near 1


def draw(results: Results) -> Iterator[Chart]:
    """Draw what the trainings bought, task by task."""
    baseline = baseline_of(results)
    entries = list(training_entries(results))
    found = tasks(results.training)
    for (task, threads), every in found.items():
        rows = [row for row in every if has_figure(row, "step_s")]
        if not rows:
            continue
        name = task + (f"-t{threads}" if len({t for _, t in found}) > 1 else "")
        mine = [(row, entry) for row, entry in entries if (row["task"], int(row["threads"])) == (task, threads)]
        title = task_title(task, threads)
        yield from _end_to_end(rows, baseline, title, name)
        yield from _predicted(rows, baseline, title, name)
        yield from _parts(mine, title, name)
        yield from _losses(mine, title, name)


def _end_to_end(rows: list[Row], baseline: str, title: str, name: str) -> Iterator[Chart]:
    reference = next((row for row in rows if row["kernel"] == baseline), None)
    shown = [
        (row, product, float(row["measured_speedup"]))
        for row in rows
        if known(row["measured_speedup"]) and (product := matmul_speedup(row, reference))
    ]
    if not shown:
        return
    names = [short(row["kernel"]) for row, _, _ in shown]
    texts = [f"{factor(product)} → {factor(step)}" for _, product, step in shown]
    limit = ceiling(reference)
    every = [value for _, *both in shown for value in both] + ([limit] if limit else [])
    left, right, gap = text_width(names) + 0.2, text_width(texts) + 0.3, 0.4
    # Slow rungs would press all that matters to a user, the neighbourhood of 1, into a line: it gets a panel.
    zoomed = min(every) < _NEAR
    widths = [3.4, 2.5] if zoomed else [4.2]
    full = f"What a faster product buys a step, {title}"
    width = left + sum(widths) + gap * zoomed + right
    figure, axes = blank(width, 1.45 + 0.28 * len(names), full, left, width - left - widths[0], top=0.75)
    panels = [axes]
    if zoomed:
        place = axes.get_position()
        panels.append(figure.add_axes(((left + widths[0] + gap) / width, place.y0, widths[1] / width, place.height)))
    for panel in panels:
        panel.axvline(1, color=INK, linewidth=1)
        if limit:
            panel.axvline(limit, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for row_place, (row, product, step) in enumerate(shown):
            _dumbbell(panel, row_place, row, product, step)
        kernel_rows(panel, names)
    axes.set_xscale("log")
    axes.set_xlim(min(every) / 1.6, max(every) * 1.6)
    factor_axis(axes.xaxis)
    axes.set_xlabel(f"speedup against {short(baseline)}, log scale")
    if zoomed:
        panels[1].set_yticks([])
        panels[1].set_xlim(_NEAR, max(every) * 1.15)
        panels[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        panels[1].set_xlabel("the same near 1, linear")
    for row_place, text in enumerate(texts):
        beside(panels[-1], row_place, 0.15, text)
    axes.plot([], [], "s", color=INK, markerfacecolor="white", label="the products alone")
    axes.plot([], [], "o", color=INK, label="the whole step, with 95 % interval")
    if limit:
        label = f"ceiling {factor(limit)}: products cost nothing"
        axes.plot([], [], color=FAINT, linestyle=(0, (4, 3)), label=label)
    legend_above(axes, left, 3)
    pairs = "; ".join(f"{kernel} {text}" for kernel, text in zip(names, texts, strict=True))
    alt = f"Speedup of the products → of the whole step, {title}, against {short(baseline)}: {pairs}."
    yield Chart(f"end-to-end-{name}", full, alt, figure)


def _dumbbell(axes: Axes, place: int, row: Row, product: float, step: float) -> None:
    """Join the speedup of the products to that of the step."""
    colour = looks([row["kernel"]])[row["kernel"]].colour
    axes.plot([product, step], [place, place], color=colour, linewidth=1.5)
    _interval(axes, place, row["measured_ci_low"], row["measured_ci_high"])
    axes.plot(product, place, "s", color=colour, markerfacecolor="white", markersize=6.5)
    axes.plot(step, place, "o", color=colour, markersize=6)


def _interval(axes: Axes, place: float, low: Any, high: Any) -> None:
    first, last = known(low), known(high)
    if first is not None and last is not None:
        axes.plot([first, last], [place, place], color=INK, linewidth=1.2, marker="|", markersize=9)


def _predicted(rows: list[Row], baseline: str, title: str, name: str) -> Iterator[Chart]:
    """Draw measured / predicted: on axes of the speedups themselves no error would show."""
    rows = [row for row in rows if known(row["predicted_speedup"]) and known(row["measured_speedup"])]
    if not [row for row in rows if row["kernel"] != baseline]:
        return
    names = [short(row["kernel"]) for row in rows]
    predicted = [factor(row["predicted_speedup"]) for row in rows]
    measured = [factor(row["measured_speedup"]) for row in rows]
    left, column = text_width(names) + 0.2, max(0.85, text_width([*predicted, *measured]) + 0.15)
    full = f"Measured against predicted speedup of a step, {title}"
    figure, axes = blank(
        left + 3.6 + 2 * column + 0.15, 1.4 + 0.29 * len(names), full, left, 2 * column + 0.15, top=0.7
    )
    axes.axvline(1, color=INK, linewidth=1)
    look = looks(row["kernel"] for row in rows)
    ratios = [row["measured_speedup"] / row["predicted_speedup"] for row in rows]
    for place, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        style = look[row["kernel"]]
        low, high = known(row["measured_ci_low"]), known(row["measured_ci_high"])
        if low is not None and high is not None:
            _interval(axes, place, low / row["predicted_speedup"], high / row["predicted_speedup"])
        fill = "white" if row["extrapolated"] else style.colour
        axes.plot(ratio, place, style.marker, color=style.colour, markerfacecolor=fill, markersize=6.5)
        beside(axes, place, column, predicted[place], "right")
        beside(axes, place, 2 * column, measured[place], "right")
    for number, text in enumerate(("predicted", "measured"), start=1):
        beside(axes, -0.95, number * column, text, "right", FAINT)
    kernel_rows(axes, names)
    ends = [
        end / row["predicted_speedup"]
        for row in rows
        for column in ("measured_ci_low", "measured_ci_high")
        if (end := known(row[column])) is not None
    ]
    reach = 1.1 * max(0.05, *(abs(ratio - 1) for ratio in [*ratios, *ends]))
    axes.set_xlim(max(0, 1 - reach), 1 + reach)
    hollow = "; hollow: extrapolated" if any(row["extrapolated"] for row in rows) else ""
    axes.set_xlabel(f"measured / predicted speedup, with 95 % interval{hollow}")
    worst = max(range(len(rows)), key=lambda i: abs(math.log(ratios[i])))
    alt = (
        f"Measured over predicted speedup of a training step, {title}, a point per kernel; 1 is agreement. "
        f"Furthest from it is {names[worst]}: predicted {predicted[worst]}, measured {measured[worst]}."
    )
    yield Chart(f"predicted-{name}", full, alt, figure)


def _parts(mine: list[tuple[Row, Row]], title: str, name: str) -> Iterator[Chart]:
    shares = []
    for row, entry in mine:
        parts = {f"{each['which']} {each['layer']}": float(each["seconds"]) for each in entry.get("products") or ()}
        if parts and has_figure(row, "step_s"):
            shares.append((row, parts, max(0.0, float(entry.get("rest_s") or 0))))
    if not shares:
        return
    names = [short(row["kernel"]) for row, _, _ in shares]
    products = list(dict.fromkeys(part for _, parts, _ in shares for part in parts))
    left, right = text_width(names) + 0.2, 1.1
    full = f"Where the time of a step goes, {title}"
    columns = 3
    lines = -(-(len(products) + 1) // columns)
    figure, axes = blank(
        left + 4.6 + right, 1.25 + 0.2 * lines + 0.29 * len(names), full, left, right, top=0.55 + 0.2 * lines
    )
    for place, (row, parts, rest) in enumerate(shares):
        total = sum(parts.values()) + rest
        start = 0.0
        for part, (colour, hatch) in zip([*products, "rest"], [*_fills(len(products)), _REST], strict=True):
            share = 100 * (rest if part == "rest" else parts.get(part, 0.0)) / total
            axes.barh(
                place, share, left=start, height=0.7,
                color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                label=None if place else "all else" if part == "rest" else part,
            )  # fmt: skip
            start += share
        beside(axes, place, 0.95, ("≈ " if row["extrapolated"] else "") + seconds(row["step_s"]), "right")
    kernel_rows(axes, names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the step's time, %")
    axes.grid(False)
    legend_above(axes, 0, columns)
    inside = [percent(sum(parts.values()) / (sum(parts.values()) + rest)) for _, parts, rest in shares]
    alt = f"Share of a step's time that goes to each product and to all else, {title}. In products: " + "; ".join(
        f"{kernel} {share}" for kernel, share in zip(names, inside, strict=True)
    )
    yield Chart(f"step-{name}", full, alt + ".", figure)


def _fills(number: int) -> list[tuple[str, str]]:
    return [_PARTS[i % len(_PARTS)] for i in range(number)]


def _losses(mine: list[tuple[Row, Row]], title: str, name: str) -> Iterator[Chart]:
    curves = [(row, points) for row, entry in mine if (points := _points(entry))]
    if not curves:
        return
    full = f"Training loss, {title}"
    figure, axes = blank(7.0, 4.0, full, 0.75, legend_room(short(row["kernel"]) for row, _ in curves))
    look = looks(row["kernel"] for row, _ in curves)
    for place, (row, points) in enumerate(curves):
        style = look[row["kernel"]]
        steps, losses = zip(*points, strict=True)
        # The curves should coincide: wide ones below and markers in turn let each be seen.
        gap = max(1, len(points) // 5)
        axes.plot(
            steps, losses, color=style.colour, linestyle=style.line, marker=style.marker, markersize=5,
            markevery=(place * gap // len(curves), gap), linewidth=1 + 2.5 * (1 - place / len(curves)),
            label=short(row["kernel"]),
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    legend_right(axes)
    ends = ", ".join(f"{short(row['kernel'])} {points[-1][1]:.4f}" for row, points in curves)
    yield Chart(f"loss-{name}", full, f"Loss against step, {title}, a curve per kernel. Last losses: {ends}.", figure)


def _points(entry: Row) -> list[tuple[float, float]]:
    """Return (step, loss); a loss that is not finite is left out."""
    losses = entry.get("losses") or []
    steps = entry.get("loss_steps") or range(len(losses))
    return [(step, loss) for step, value in zip(steps, losses, strict=True) if (loss := known(value)) is not None]
