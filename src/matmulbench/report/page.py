"""The page: one self-contained ``report.html`` with everything that the run found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from matmulbench.report.charts.style import Chart
from matmulbench.report.formatting import known
from matmulbench.report.headline import answers, headline, summary, warnings
from matmulbench.report.queries import labels_of, without_findings
from matmulbench.report.table import Table
from matmulbench.report.tables import (
    audit_table,
    front_end_table,
    ladder_table,
    measurement_table,
    published_table,
    training_table,
    verification_table,
)
from matmulbench.results.folder import Results
from matmulbench.results.front_ends import FrontEnd

Folded = tuple[str, Sequence[Chart], Sequence[Table]]


@dataclass(frozen=True)
class Section:
    """A part of the page: an introduction, charts and tables, and more of both that is folded away under a title."""

    id: str
    title: str
    intro: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Folded] = ()


def page(name: str, title: str, sections: Iterable[Section], **more: Any) -> str:
    """Return the page that one of the report's templates makes of ``sections``, without those that are empty."""
    environment = Environment(
        loader=PackageLoader("matmulbench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [each for each in sections if each.charts or any(table.records for table in each.tables)]
    return environment.get_template(name).render(title=title, sections=shown, **more)


def render(results: Results, charts: list[Chart], front_ends: Sequence[FrontEnd] = ()) -> str:
    """Return the page of a run as HTML, with ``charts`` in it."""
    return page(
        "report.html",
        next(iter(headline(results)), "report"),
        _sections(results, charts, front_ends),
        run=results.run,
        facts=_facts(results.run),
        answers=answers(results),
        summary=summary(results),
        warnings=warnings(results),
        baseline=labels_of(results)[results.baseline],
    )


def render_comparison(runs: Sequence[Results], charts: Sequence[Chart], table: Table, warnings: Sequence[str]) -> str:
    """Return the page of several runs as HTML; the table's title is its headline."""
    folded = [("Every product", charts[1:], ())]
    changes = Section("changes", "What changed", charts=charts[:1], tables=[table], folded=folded)
    return page("comparison.html", table.title, [changes], runs=runs, warnings=warnings)


def _sections(results: Results, drawn: list[Chart], front_ends: Sequence[FrontEnd]) -> Iterator[Section]:
    def group(*prefixes: str) -> list[Chart]:
        return [chart for chart in drawn if chart.name.startswith(prefixes)]

    yield Section("buys", "What a faster product buys a training step", charts=group("end-to-end-"))
    intro = "A kernel that fails here is not timed: a wrong answer has no speed."
    yield Section("verification", "Is it right?", intro, tables=[verification_table(results.verification)])
    if len(results.measurements):
        times = group("ladder-")
        every = measurement_table(
            without_findings(results, "measurements"), results.baseline, results.run.get("notes") or ()
        )
        folded: list[Folded] = [("Every measurement", [], [every]), ("Every other product", times[1:], [])]
        charts = [*times[:1], *group("samples"), *group("speedups")]
        yield Section("ladder", "How fast?", "", charts, [ladder_table(results).brief()], folded)
    yield Section("rates", "Rates and roof", charts=group("gflops-", "roofline"))
    intro = (
        "Predicted from the products' times alone, measured in paired steps; the limit (Amdahl) is a step whose "
        "products cost nothing. Every kernel is to learn the same: losses that leave what rounding explains are a "
        "failed verification."
    )
    trained = training_table(without_findings(results, "training"), results.baseline)
    folded = [("Every figure of the trainings", [], [trained])]
    yield Section("training", "Training", intro, group("step-", "loss-"), [trained.brief(optional=3)], folded)
    yield Section("front-ends", "Front ends", tables=[front_end_table(results, front_ends)])
    if results.audit is not None:
        intro = (
            "What `matmulbench audit` found on this machine: the same kernel twice must not differ, planted delays and "
            "bugs must be found, known durations measured."
        )
        yield Section("audit", "The suite, audited", intro, tables=[audit_table(results.audit)])
    published = published_table(results)
    if any(known(row["ours"]) for row in published.records):
        yield Section("published", "Published ladders", tables=[published])


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of machine, libraries and options, in words."""
    facts = [(name.replace("_", " "), _text(name, value)) for name, value in run["machine"].items()]
    facts += list(run["versions"].items())
    facts += [(f"option: {name}", _text(name, value)) for name, value in run["options"].items()]
    return [*facts, ("started", run["start"]), ("ended", run["end"] or "interrupted")]


def _text(name: str, value: Any) -> str:
    if name in ("l1_cache", "l2_cache", "l3_cache", "memory"):
        if not isinstance(value, int):
            return "unknown"
        return f"{value / 2**20:,.0f} MiB" if value >= 2**20 else f"{value / 2**10:,.0f} KiB"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
