"""Results show themselves in a notebook: the report's page, in a frame of its own."""

import html
from collections.abc import Callable
from pathlib import Path

from matmulbench.report.page import render
from matmulbench.results.folder import Results
from matmulbench.workload import Workload


def test_the_page_is_shown_where_there_is_one(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=())
    assert run._repr_html_() == html.escape(repr(run))
    page = render(run, [])
    (run.path / "report.html").write_text(page, "utf-8")
    frame = run._repr_html_()
    assert frame.startswith("<iframe srcdoc=")
    assert frame.count("<") == 2, "nothing of the page leaves its frame"
    assert page in html.unescape(frame)
