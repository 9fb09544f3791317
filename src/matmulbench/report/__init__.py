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


def write_report(run: Results | Path | str, front_ends: Sequence[FrontEnd] = ()) -> Path:
    """Write ``charts/`` and ``report.html`` into the folder of a run, or ``report.html`` above those of several.

    ``front_ends`` are shown beside a run's own figures.

    Returns
    -------
    Path
        the page.

    Raises
    ------
    FolderError
        if the folder holds no run.
    """
    results = run if isinstance(run, Results) else load_results(run)
    if isinstance(results, FleetResults):
        from matmulbench.report.fleet import render as render_fleet

        html = render_fleet(results)
    else:
        from matmulbench.report.charts import save_charts  # matplotlib takes long to import
        from matmulbench.report.page import render

        html = render(results, save_charts(results, results.path / "charts"), front_ends)
    page = results.path / "report.html"
    page.write_text(html, encoding="utf-8")
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
