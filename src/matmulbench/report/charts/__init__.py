"""The charts: each takes a run's results and gives figures. The only place that imports matplotlib."""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context

from matmulbench.report.charts import ladder, rates, training
from matmulbench.report.charts.style import RC, Chart
from matmulbench.results.folder import Results

__all__ = ["Chart", "save_charts"]


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
