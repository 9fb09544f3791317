import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from matmulbench.report import write_report
from matmulbench.report.headline import headline
from matmulbench.report.page import render
from matmulbench.results.folder import FolderError, Results
from matmulbench.workload import Workload

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Checks that every element is closed in turn, and collects ids and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [str(found["id"])] if "id" in found else []
        self.links += [str(found[name]) for name in ("href", "src", "xlink:href") if name in found]
        self.labels += tag == "img" and bool(found.get("alt"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(quick: Results) -> str:
    return write_report(quick.path).read_text()


def test_the_page_is_whole_and_needs_no_network(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(link.startswith(("#", "data:")) for link in outline.links)
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)


def test_every_chart_is_in_the_page_with_its_text(page: str, quick: Results) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.labels == page.count("<img") == len(list((quick.path / "charts").glob("*.svg")))


def test_the_page_says_what_is_measured_on_what(page: str, quick: Results) -> None:
    plain = html.unescape(page)
    for text in ("where it is biased", quick.run["machine"]["cpu"], quick.run["versions"]["torch"], "421 ms"):
        assert text in plain


def test_a_file_name_or_finding_cannot_become_markup(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=(), kernels=("torch", "<b>x.py:matmul"))
    page = write_report(run.path).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;x.py:matmul" in page


def test_a_run_that_was_interrupted_at_once_has_a_page(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], tasks=(), kernels=())
    assert "where it is biased" in write_report(run.path).read_text()


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=re.escape(str(tmp_path))):
        write_report(tmp_path)


def test_the_headline_tells_climb_gain_and_what_was_refused(standard: Results) -> None:
    sentences = headline(standard)
    assert sentences[0].startswith("mine.py:matmul: ✗ wrong")
    assert sentences[1].startswith("On 5x784x10")
    assert "faster than triple-loop" in sentences[1]
    assert any("digits" in sentence and "1.72×" in sentence for sentence in sentences)


def test_the_page_leads_with_the_users_kernels_and_shows_the_wrong_in_red(small: Results) -> None:
    page = write_report(small).read_text()
    assert '<section class="answer bad">\n<h2>mine.py:matmul</h2>' in page
    order = [page.index(part) for part in ("<h2>mine.py:matmul</h2>", 'id="buys"', 'id="verification"', 'id="ladder"')]
    assert order == sorted(order)


def test_an_audit_beside_the_run_is_shown_failures_first(make_run: Callable[..., Results], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [Workload(5, 784, 10)], tasks=())
    audit = run.path / "audit.csv"
    audit.write_text("check,setting,required,got,passed\nA/A,5x784x10,≥ 93 %,99.3%,True\ndelay,3%,± 1 point,9%,False\n")
    page = render(run, [])
    section = page[page.index('id="audit"') :]
    assert "1 of 2 checks passed" in section
    assert section.index("delay") < section.index("A/A")
    audit.write_text("something else\n")
    with pytest.raises(FolderError, match=r"audit.csv is not what `matmulbench audit --format csv` writes"):
        render(run, [])
