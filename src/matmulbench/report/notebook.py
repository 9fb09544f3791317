"""A run as a notebook shows it: the report's headline, tables and charts, without its page around them."""

from __future__ import annotations

from itertools import islice

from markupsafe import Markup

from matmulbench.report.headline import headline
from matmulbench.report.page import inline
from matmulbench.report.tables import ladder_table, speedup_table, training_table, verification_matrix
from matmulbench.report.view import baseline_of
from matmulbench.results.folder import Results


def fragment(results: Results) -> str:
    """Return HTML that stands by itself in a notebook's cell: no script, no network, no file beside it."""
    from matplotlib import rc_context  # takes long to import

    from matmulbench.report.charts import ladder, training
    from matmulbench.report.charts.style import RC, Chart

    def picture(chart: Chart) -> Markup:
        # Charts are drawn for white paper; a notebook may be dark.
        return Markup('<div style="background:white">{}</div>').format(inline(chart, chart.svg()))

    parts = [Markup("<p>{}</p>").format(sentence) for sentence in headline(results)]
    with rc_context(RC):
        if len(results.measurements):
            parts += [ladder_table(results).html(), *map(picture, islice(ladder.draw(results), 1))]
            parts.append(speedup_table(results).html())
        if len(results.verification):
            parts.append(verification_matrix(results.verification).html())
        if len(results.training):
            bought = [chart for chart in training.draw(results) if chart.name.startswith("end-to-end-")]
            parts += [training_table(results.training, baseline_of(results)).html(), *map(picture, bought)]
    return Markup("\n").join(parts)
