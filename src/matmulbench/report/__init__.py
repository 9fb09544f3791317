"""The report: tables, charts and a page, made from a run's folder alone. Nothing here runs a kernel."""

from __future__ import annotations

from pathlib import Path

from matmulbench.results.folder import load_results


def write_report(path: Path | str) -> Path:
    """Write ``charts/`` and ``report.html`` into the folder of a run.

    Returns
    -------
    Path
        the page.

    Raises
    ------
    FolderError
        if the folder holds no run.
    """
    from matmulbench.report.charts import save_charts  # matplotlib takes long to import
    from matmulbench.report.page import render

    results = load_results(path)
    charts = save_charts(results, results.path / "charts")
    page = results.path / "report.html"
    page.write_text(render(results, charts), encoding="utf-8")
    return page
