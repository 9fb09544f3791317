"""Training: what a faster product buys a whole step, where a step's time goes, and that the losses agree."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes

from matmulbench.report.charts.style import (
    FAINT,
    INK,
    Chart,
    Style,
    annotate,
    factor_axis,
    kernel_rows,
    legend_above,
    legend_right,
    legend_room,
    new_figure,
    styles,
    text_width,
)
from matmulbench.report.formatting import factor, known, percent, seconds
from matmulbench.report.queries import (
    Row,
    amdahl_limit,
    baseline_of,
    has_figure,
    matmul_speedup,
    reference_of,
    task_title,
    tasks,
)
from matmulbench.results.folder import Results

# Fill and hatch of a step's parts: light enough for the hatch to show, told apart without colour too.
_PARTS = [
    ("#56B4E9", ""), ("#E69F00", "///"), ("#009E73", "|||"), ("#CC79A7", "\\\\\\"), ("#0072B2", "xxx"),
    ("#D55E00", "---"), ("#B8A800", "++"),
]  # fmt: skip
_REST, _REST_FILL = "all else", ("#e6e6e6", "")
_NEAR = 0.5  # from here on a speedup is near 1


def draw(results: Results) -> Iterator[Chart]:
    """Draw what the trainings bought, task by task."""
    baseline, style = baseline_of(results), styles(results)
    # What was journalled last of each cell: its losses and products.
    entries = {_cell(entry["row"]): entry for entry in results.journal if entry["table"] == "training"}
    found = tasks(results.training)
    several = len({threads for _, threads in found}) > 1
    for (task, threads), every in found.items():
        rows = [entries[_cell(row)] | row for row in every if has_figure(row, "step_s")]
        if not rows:
            continue
        name, title = task + (f"-t{threads}" if several else ""), task_title(task, threads)
        yield from _end_to_end(rows, baseline, style, title, name)
        yield from _parts(rows, style, title, name)
        yield from _losses(rows, style, title, name)


def _cell(row: Row) -> tuple[str, str, int]:
    return row["task"], row["kernel"], int(row["threads"])


def _end_to_end(rows: list[Row], baseline: str, style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    reference = reference_of(rows, baseline)
    shown = [
        (row, product, float(row["measured_speedup"]))
        for row in rows
        if known(row["measured_speedup"]) and (product := matmul_speedup(row, reference))
    ]
    if not shown:
        return
    names = [row["label"] for row, *_ in shown]
    texts = [f"{factor(product)} → {factor(step)}" for _, product, step in shown]
    limit = amdahl_limit(reference)
    every = [value for _, *both in shown for value in both] + ([limit] if limit else [])
    left, right, gap = text_width(names) + 0.2, text_width(texts) + 0.3, 0.4
    # Slow rungs would press all that matters to a user, the neighbourhood of 1, into a line: it gets a panel.
    zoomed = min(every) < _NEAR
    widths = [3.4, 2.5] if zoomed else [4.2]
    full = f"What a faster product buys a step, {title}"
    width = left + sum(widths) + gap * zoomed + right
    figure, axes = new_figure(width, 1.45 + 0.28 * len(names), full, left, width - left - widths[0], top=0.75)
    panels = [axes]
    if zoomed:
        place = axes.get_position()
        panels.append(figure.add_axes(((left + widths[0] + gap) / width, place.y0, widths[1] / width, place.height)))
    for panel in panels:
        panel.axvline(1, color=INK, linewidth=1)
        if limit:
            panel.axvline(limit, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        for row_place, (row, product, _) in enumerate(shown):
            _dumbbell(panel, row_place, row, product, style[row["kernel"]].colour)
        kernel_rows(panel, names)
    axes.set_xscale("log")
    axes.set_xlim(min(every) / 1.6, max(every) * 1.6)
    factor_axis(axes.xaxis)
    axes.set_xlabel(f"speedup against {style[baseline].label}, log scale")
    if zoomed:
        panels[1].set_yticks([])
        panels[1].set_xlim(_NEAR, max(every) * 1.15)
        panels[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        panels[1].set_xlabel("the same near 1, linear")
    for row_place, text in enumerate(texts):
        annotate(panels[-1], row_place, 0.15, text)
    axes.plot([], [], "s", color=INK, markerfacecolor="white", label="the products alone")
    axes.plot([], [], "o", color=INK, label="the whole step, with 95 % interval")
    if limit:
        label = f"limit {factor(limit)}: products cost nothing"
        axes.plot([], [], color=FAINT, linestyle=(0, (4, 3)), label=label)
    legend_above(axes, left, 3)
    pairs = "; ".join(f"{kernel} {text}" for kernel, text in zip(names, texts, strict=True))
    alt = f"Speedup of the products → of the whole step, {title}, against {style[baseline].label}: {pairs}."
    yield Chart(f"end-to-end-{name}", full, alt, figure)


def _dumbbell(axes: Axes, place: int, row: Row, product: float, colour: str) -> None:
    """Join the speedup of the products to that of the step."""
    step, low, high = row["measured_speedup"], known(row["measured_ci_low"]), known(row["measured_ci_high"])
    axes.plot([product, step], [place, place], color=colour, linewidth=1.5)
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=9)
    axes.plot(product, place, "s", color=colour, markerfacecolor="white", markersize=6.5)
    axes.plot(step, place, "o", color=colour, markersize=6)


def _parts(rows: list[Row], style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    shown = []
    for row in (row for row in rows if row.get("products") and known(row["matmul_share"])):
        seconds_of = {f"{each['which']} {each['layer']}": float(each["seconds"]) for each in row["products"]}
        scale = 100 * row["matmul_share"] / sum(seconds_of.values())
        parts = {part: scale * time for part, time in seconds_of.items()}
        shown.append((row, {**parts, _REST: max(0.0, 100 - 100 * row["matmul_share"])}))
    if not shown:
        return
    names = [row["label"] for row, _ in shown]
    # All else stands last, whatever the kernels' products.
    products = [part for part in dict.fromkeys(part for _, parts in shown for part in parts) if part != _REST]
    fills = [*(_PARTS[i % len(_PARTS)] for i in range(len(products))), _REST_FILL]
    left, right, columns = text_width(names) + 0.2, 1.1, 3
    legend = 0.2 * -(-len(fills) // columns)
    full = f"Where the time of a step goes, {title}"
    figure, axes = new_figure(
        left + 4.6 + right, 1.25 + legend + 0.29 * len(names), full, left, right, top=0.55 + legend
    )
    for place, (row, parts) in enumerate(shown):
        start = 0.0
        for part, (colour, hatch) in zip([*products, _REST], fills, strict=True):
            share = parts.get(part, 0.0)
            axes.barh(
                place, share, left=start, height=0.7, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5,
                label=None if place else part,
            )  # fmt: skip
            start += share
        annotate(axes, place, 0.95, seconds(row["step_s"], row["extrapolated"]), "right")
    kernel_rows(axes, names)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the step's time, %")
    axes.grid(False)
    legend_above(axes, 0, columns)
    inside = "; ".join(f"{row['label']} {percent(row['matmul_share'])}" for row, _ in shown)
    alt = f"Share of a step's time that goes to each product and to all else, {title}. In products: {inside}."
    yield Chart(f"step-{name}", full, alt, figure)


def _losses(rows: list[Row], style: dict[str, Style], title: str, name: str) -> Iterator[Chart]:
    curves = [(style[row["kernel"]], points) for row in rows if (points := _points(row))]
    if not curves:
        return
    full = f"Training loss, {title}"
    figure, axes = new_figure(7.0, 4.0, full, 0.75, legend_room(look.label for look, _ in curves))
    for place, (look, points) in enumerate(curves):
        steps, losses = zip(*points, strict=True)
        # The curves should coincide: wide ones below and markers in turn let each be seen.
        gap = max(1, len(points) // 5)
        axes.plot(
            steps, losses, color=look.colour, linestyle=look.line, marker=look.marker, markersize=5,
            markevery=(place * gap // len(curves), gap), linewidth=1 + 2.5 * (1 - place / len(curves)),
            label=look.label,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.grid()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    legend_right(axes)
    ends = ", ".join(f"{look.label} {points[-1][1]:.4f}" for look, points in curves)
    yield Chart(f"loss-{name}", full, f"Loss against step, {title}, a curve per kernel. Last losses: {ends}.", figure)


def _points(row: Row) -> list[tuple[float, float]]:
    """Return (step, loss); a loss that is not finite is left out."""
    losses = row.get("losses") or []
    steps = row.get("loss_steps") or range(len(losses))
    return [(step, loss) for step, value in zip(steps, losses, strict=True) if (loss := known(value)) is not None]
