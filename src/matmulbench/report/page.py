"""The page: one self-contained ``report.html`` with everything that the run found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from matmulbench.report.charts.style import Chart
from matmulbench.report.headline import headline, warnings
from matmulbench.report.published import published_table
from matmulbench.report.queries import baseline_of, kernels_of, labels
from matmulbench.report.side_by_side import side_by_side_table
from matmulbench.report.tables import (
    audit_table,
    ladder_table,
    measurement_table,
    speedup_table,
    training_table,
    verification_table,
)
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd


def render(results: Results, charts: list[Chart], front_ends: Sequence[FrontEnd] = ()) -> str:
    """Return the page as HTML, the saved ``charts`` in it as inline SVG."""
    environment = Environment(
        loader=PackageLoader("matmulbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = results.path / "charts"
    drawn = {chart.name: (chart, inline(chart, (folder / f"{chart.name}.svg").read_text("utf-8"))) for chart in charts}

    def group(*prefixes: str) -> list[tuple[Chart, Markup]]:
        return [pair for name, pair in drawn.items() if name.startswith(prefixes)]

    measured, trained = len(results.measurements) > 0, len(results.training) > 0
    baseline = baseline_of(results)
    ladder_charts = group("ladder-")
    return environment.get_template("report.html").render(
        run=results.run,
        facts=_facts(results.run),
        headline=headline(results),
        warnings=warnings(results),
        ladder=ladder_table(results) if measured else None,
        first_chart=ladder_charts[:1],
        other_charts=ladder_charts[1:],
        speedups=speedup_table(results) if measured else None,
        measurements=measurement_table(results.measurements, baseline) if measured else None,
        verification=verification_table(results.verification) if len(results.verification) else None,
        rate_charts=group("gflops-", "roofline"),
        thread_charts=group("threads"),
        training=training_table(results.training, baseline) if trained else None,
        training_charts=group("end-to-end-", "step-"),
        loss_charts=group("loss-"),
        published=published_table(results) if measured else None,
        side_by_side=side_by_side_table(results, front_ends) if front_ends else None,
        audit=audit_table(results.audit) if results.audit is not None else None,
        baseline=labels([*kernels_of(results), baseline])[baseline],
    )


def inline(chart: Chart, svg: str) -> Markup:
    """Make an SVG file part of a page: no prolog, ids of its own, a role and a text alternative."""
    body = svg[svg.index("<svg") :]
    for pattern in (r'(\bid=")', r"(url\(#)", r'(href="#)'):
        body = re.sub(pattern, rf"\g<1>{chart.name}-", body)
    width = re.search(r'\bwidth="([\d.]+)pt"', body)
    # The page scales it: not above its own size, and below that it scrolls rather than become illegible.
    style = f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    tag, rest = body.split(">", 1)
    tag = re.sub(r'\s(?:width|height)="[^"]*"', "", tag)
    return Markup('{} role="img" aria-label="{}"{}>{}').format(Markup(tag), chart.alt, Markup(style), Markup(rest))


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of machine, libraries and options, in words."""
    machine = dict(run["machine"])
    sizes = {name: machine.pop(name, None) for name in ("l2_cache", "l3_cache", "memory")}
    facts = [(name.replace("_", " "), _text(value)) for name, value in machine.items()]
    facts += [(name.replace("_", " "), _bytes(value)) for name, value in sizes.items()]
    facts += list(run["versions"].items())
    facts += [(f"option: {name}", _text(value)) for name, value in run["options"].items()]
    return [*facts, ("started", run["start"]), ("ended", run["end"] or "interrupted")]


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, int):
        return "unknown" if value is None else str(value)
    unit, name = next(((2**p, n) for p, n in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if value >= 2**p), (1, "bytes"))
    return f"{value / unit:.3g} {name}"
