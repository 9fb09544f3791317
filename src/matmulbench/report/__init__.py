"""The report: tables, charts and a page, made from a run's folder alone. Nothing here runs a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matmulbench.errors import UsageError
from matmulbench.results.folder import FleetResults, Results, load_results
from matmulbench.results.front_ends import FrontEnd

if TYPE_CHECKING:
    import pandas as pd

    from matmulbench.report.table import Table


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


def write_comparison(
    page: Path, runs: Sequence[Results], frame: pd.DataFrame, table: Table, warnings: Sequence[str] = ()
) -> None:
    """Write a page of what :mod:`matmulbench.comparison` found in ``runs``: its charts and ``table``.

    Raises
    ------
    UsageError
        if the page cannot be written.
    """
    from matmulbench.report.charts import comparison_charts
    from matmulbench.report.page import render_comparison

    try:
        page.write_text(render_comparison(runs, comparison_charts(frame), table, warnings), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--html {page}: {error.strerror}") from None
