"""A built book: its pages in a real browser, its links, its weight, and numbers that stand in it more than once.

`make book` first. What needs a chromium is skipped without one.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from book.press.proofreading import flaws
from book.press.publishing import BROWSERS

SITE = Path(__file__).parents[3] / "_build" / "embedded" / "html"
PAGES = sorted(
    str(page.relative_to(SITE)) for page in SITE.rglob("*.html") if "_static" not in page.relative_to(SITE).parts
)
LOOKS = [("light", 1280), ("dark", 390), ("dark", 1280), ("light", 390)]
LINES = """() => [...document.querySelectorAll(".brief p")]
  .reduce((sum, said) => sum + Math.round(said.offsetHeight / parseFloat(getComputedStyle(said).lineHeight)), 0)"""
SCROLLING = """() => [...document.querySelectorAll("article table")]
  .filter((table) => !table.closest(".knb, .knb-plain") && table.scrollWidth > table.parentElement.clientWidth + 1)
  .map((table) => table.id)"""
ESTIMATE = re.compile(r"([-+]?\d+\.\d+%?) (?:\[|\(95 % interval )([-+]?\d+\.\d+%?)(?:, | to )([-+]?\d+\.\d+%?)[\])]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="no book in _build/embedded/html: make book"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no chromium on this machine: `apt install chromium`, and these tests run")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_is_quiet_and_whoever_sees_badly_can_use_it(chromium, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for theme, width in LOOKS:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        page, wrong, asked = context.new_page(), [], []
        page.on("console", lambda told, wrong=wrong: wrong.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto((SITE / name).as_uri())
        page.wait_for_load_state("load")
        wide = page.evaluate("document.documentElement.scrollWidth")
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        wrong += [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in serious]
        elsewhere = [url for url in asked if not url.startswith((SITE.parent.as_uri(), "data:", "blob:"))]
        assert (wrong, elsewhere, wide <= width) == ([], [], True), (theme, width, wide)
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_told_in_two_lines_and_no_table_scrolls_sideways_on_a_telephone(chromium, name):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto((SITE / name).as_uri())
    lines = page.evaluate(LINES)
    page.set_viewport_size({"width": 390, "height": 844})
    assert (lines <= 2, page.evaluate(SCROLLING)) == (True, []), lines
    page.close()


def test_the_first_page_says_what_held_in_half_a_minute_and_why_in_three():
    """By count, at the 238 words a minute of silent reading (Brysbaert 2019, doi:10.1016/j.jml.2019.104047)."""
    soup = BeautifulSoup((SITE / "index.html").read_text(encoding="utf-8"), "html.parser")

    def words(selector: str) -> int:
        return sum(len(tag.get_text(" ").split()) for tag in soup.select(selector))

    held = words(".thesis") + words(".answers .question") + words(".answers strong")
    assert 60 < held <= 238 / 2
    assert held < words(".thesis") + words(".answers") + words(".trust") <= 3 * 238


def test_the_book_has_no_dead_link_and_no_page_that_weighs_too_much():
    assert list(flaws(SITE)) == []


def _estimates(part):
    """Which numbers stand before each interval."""
    estimates = defaultdict(set)
    for value, low, high in ESTIMATE.findall(re.sub(r"\s+", " ", part.get_text(" "))):
        bounded = {low.lstrip("+-").rstrip("%"), high.rstrip("%")} & {"0.00", "0.000", "1.00", "1.000"}
        if low != high and not bounded:  # else the interval was cut at an end, and does not tell its estimate
            estimates[low.lstrip("+"), high.lstrip("+")].add(value.lstrip("+"))
    return estimates


def test_a_number_that_stands_twice_is_the_same():
    """A claim's on the first page and on its own; and of one interval, on a page, the estimate that it is of."""
    claimed, unlike = defaultdict(set), {}
    for name in PAGES:
        soup = BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")
        article = soup.select_one("article") or soup
        rows = [_estimates(table) for table in article.select("table")]
        for ends, values in _estimates(article).items():
            tabled = set().union(*(of.get(ends, ()) for of in rows))
            if len(values) > 1 and not values <= tabled:  # else rows are of two things, alike by chance
                unlike[name, *ends] = values
        for row in article.select("table tbody tr:has(.verdict)"):
            cells = {str(cell.get("data-label")).split(" [")[0]: cell for cell in row.find_all(["td", "th"])}
            says = next((cell for label, cell in cells.items() if label.endswith("says")), None)
            if says is not None and "here" in cells:
                here = " ".join(cells["here"].get_text(" ").split())
                claimed[next(says.stripped_strings)].add(here.partition(" long version")[0])
    assert len(claimed) > 20
    assert {says: values for says, values in claimed.items() if len(values) > 1} == {}
    assert unlike == {}
