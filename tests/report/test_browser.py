"""The report in a real browser: Debian's Chromium, on a phone and on a desk, by day and by night, and on paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from matmulbench.report import write_report
from matmulbench.results.folder import Results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not CHROMIUM:
    pytest.skip("no Chromium here (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives Chromium (extra dev)")

PHONE, DESK = {"width": 360, "height": 800}, {"width": 1440, "height": 900}

# WCAG 2.2, 1.4.3: every piece of text against the nearest background that is painted behind it.
CONTRASTS = """() => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return {r, g, b, a}; };
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = c => 0.2126 * channel(c.r) + 0.7152 * channel(c.g) + 0.0722 * channel(c.b);
  const background = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.a === 1) return colour;
    }
    return parse("rgb(255, 255, 255)");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("script, style, title")) continue;
    const style = getComputedStyle(element);
    const ink = parse(style.color);
    const [light, dark] = [luminance(ink), luminance(background(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    found.push({text, ratio: (light + 0.05) / (dark + 0.05), enough: large ? 3 : 4.5});
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, as root has none in a container; the page is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(standard: Results) -> str:
    return write_report(standard.path).as_uri()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_page(browser: sync_api.Browser, address: str) -> Iterator[object]:
    """Open the page with everything unfolded; it may complain of nothing and ask for nothing."""
    complaints: list[str] = []
    pages = []

    def open_at(size: dict[str, int], scheme: str = "light") -> sync_api.Page:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url in (address, "data:,") or complaints.append(request.url))
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        return page

    yield open_at
    for page in pages:
        page.close()
    assert complaints == []


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_but_tables_and_charts_scrolls_sideways(open_page, size: dict[str, int]) -> None:
    page = open_page(size)
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    outside = page.evaluate(
        """[...document.querySelectorAll('body *')]
        .filter(each => !each.closest('.scroll, .drawn') && each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_on_a_phone_a_ladders_figures_and_what_repeats_a_finding_are_in_sight(open_page) -> None:
    page = open_page({"width": 390, "height": 800})
    heading = page.locator("#t-ladder-1 + .scroll thead th", has_text="% of roof")
    assert heading.evaluate("each => each.getBoundingClientRect().right") <= 390
    commands = page.locator("pre").first
    assert commands.inner_text().startswith("matmulbench verify ")
    assert commands.evaluate("each => each.scrollWidth <= each.clientWidth")


def test_a_chart_keeps_its_size_on_a_phone_and_scrolls(open_page) -> None:
    charts = open_page(PHONE).locator("main > .charts .chart")
    assert charts.count() > 2
    for sizes in charts.evaluate_all("all => all.map(each => [each.getBoundingClientRect().width, each.width])"):
        assert sizes[0] == sizes[1]
    assert charts.first.evaluate("each => each.parentElement.scrollWidth > each.parentElement.clientWidth")


def test_all_text_stands_out_from_what_is_behind_it(open_page, scheme: str) -> None:
    found = open_page(DESK, scheme).evaluate(CONTRASTS)
    assert len(found) > 500
    assert [text for text in found if not text["ratio"] >= text["enough"]] == []


def test_the_dark_page_is_dark_and_so_are_its_charts(open_page) -> None:
    page = open_page(DESK, "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 23, 26)"
    assert "invert" in page.evaluate("getComputedStyle(document.querySelector('.chart')).filter")


def test_a_pressed_heading_sorts_by_value_and_then_the_other_way(open_page) -> None:
    page = open_page(DESK)
    table = page.locator("#t-ladder-1 + .scroll table")
    heading = table.locator("thead th", has_text=re.compile("^time$"))
    values = "table => [...table.tBodies[0].rows].map(row => parseFloat(row.cells[1].dataset.value)).filter(x => x)"
    for state, backwards in (("ascending", False), ("descending", True)):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == state
        times = table.evaluate(values)
        assert len(times) > 5
        assert times == sorted(times, reverse=backwards)


def test_headings_stay_in_sight_while_a_table_scrolls(open_page) -> None:
    page = open_page(PHONE)
    places = page.evaluate(
        """() => {
        const box = document.querySelector('#t-ladder-more-1-1').nextElementSibling;
        box.scrollTo(200, 600);
        const at = selector => box.querySelector(selector).getBoundingClientRect();
        const frame = box.getBoundingClientRect();
        return [at('thead th').top - frame.top, at('tbody th').left - frame.left, box.scrollTop, box.scrollLeft];
        }"""
    )
    assert places[0] == pytest.approx(0, abs=2)
    assert places[1] == pytest.approx(0, abs=2)
    assert places[2] == 600
    assert places[3] == 200


def test_on_paper_nothing_is_cut_off_and_ink_is_black(open_page, tmp_path: Path) -> None:
    page = open_page({"width": 1046, "height": 718}, "dark")  # A4 across, less its margins
    page.emulate_media(media="print")
    cut = page.evaluate(
        """[...document.querySelectorAll('.scroll')]
        .filter(each => each.scrollHeight > each.clientHeight + 1 || each.scrollWidth > each.clientWidth + 1)
        .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert cut == []
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('.chart')).filter") == "none"
    assert page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True).startswith(b"%PDF")
