"""Results show themselves in a notebook."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from matmulbench.results.folder import Results, RunFolder, load_results

VOID = {"br", "meta", "use"}


class Balance(HTMLParser):
    """Hears each tag and fails where one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_tables_and_charts_are_shown(small: Results) -> None:
    html = small._repr_html_()
    parser = Balance()
    parser.feed(html)
    assert not parser.open
    assert parser.seen.count("table") == 4
    assert parser.seen.count("svg") == 2
    assert "triple-loop" in html
    assert "mine.py:matmul" in html


def test_nothing_is_fetched_or_run(small: Results) -> None:
    html = small._repr_html_()
    assert "<script" not in html
    addresses = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert all(address.startswith("#") for address in addresses)


def test_what_a_kernel_says_is_text(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], tasks=())
    run.tables["verification"].loc[0, "finding"] = "<b>bold</b>"
    html = run._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;bold" in html


def test_a_run_of_nothing_shows_as_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path, {"baseline": "torch"}):
        pass
    assert "<table" not in load_results(tmp_path)._repr_html_()
