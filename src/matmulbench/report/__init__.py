"""The report: tables, charts and a page, made from a run's folder alone. Nothing here runs a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matmulbench.results.folder import FleetResults, load_results
from matmulbench.results.front_ends import FrontEnd


def write_report(path: Path | str, front_ends: Sequence[FrontEnd] = ()) -> Path:
    """Write ``charts/`` and ``report.html`` into the folder of a run; ``front_ends`` are shown beside it.

    Returns
    -------
    Path
        the page.

    Raises
    ------
    FolderError
        if the folder holds no run.
    """
    results = load_results(path)
    if isinstance(results, FleetResults):
        return write_fleet_report(results)
    from matmulbench.report.charts import save_charts  # matplotlib takes long to import
    from matmulbench.report.page import render

    charts = save_charts(results, results.path / "charts")
    page = results.path / "report.html"
    page.write_text(render(results, charts, front_ends), encoding="utf-8")
    return page


def write_fleet_report(results: FleetResults) -> Path:
    """Write ``report.html`` above the runs of several machines, in their common folder; return its path."""
    from matmulbench.report.fleet import render

    page = results.path / "report.html"
    page.write_text(render(results), encoding="utf-8")
    return page
