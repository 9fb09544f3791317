"""The charts: each takes a run's results and gives figures. The only place that imports matplotlib."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

# Nobody need know that matplotlib found no folder for its font cache: it makes one for the time being.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

from matplotlib import rc_context  # noqa: E402  # which may complain at once

from matmulbench.report.charts import changes, ladder, rates, training  # noqa: E402
from matmulbench.report.charts.style import RC, Chart  # noqa: E402
from matmulbench.results.folder import Results  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Chart", "comparison_charts", "save_charts"]


def comparison_charts(frame: pd.DataFrame) -> list[Chart]:
    """Draw what :mod:`matmulbench.comparison` found in two runs, or in many."""
    draw = changes.history_charts if "segment" in frame else changes.changes_chart
    with rc_context(RC):
        charts = list(draw(frame)) if "verdict" in frame else []
        for chart in charts:
            chart.svg  # noqa: B018 - drawn in this context, and kept
    return charts


def save_charts(results: Results, folder: Path) -> list[Chart]:
    """Draw and save every chart that the run has figures for; the same results give the same bytes of SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = []
    with rc_context(RC):
        for room in (ladder, rates, training):
            for chart in room.draw(results):
                chart.save(folder)
                charts.append(chart)
    return charts
