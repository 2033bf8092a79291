"""Every page of a built book in a real browser: it fits, is quiet, asks nobody else, and weak eyes can use it.

`make book` and `make pdf` first; needs a chromium, as the neuron browser's tests do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from book.press.proofreading import flaws
from book.press.publishing import BROWSERS

SITE = Path(__file__).parents[3] / "_build" / "embedded" / "html"
PAGES = sorted(
    str(page.relative_to(SITE)) for page in SITE.rglob("*.html") if "_static" not in page.relative_to(SITE).parts
)
LOOKS = [("light", 1280), ("dark", 390), ("dark", 1280), ("light", 390)]
SERIOUS = ("serious", "critical")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="no book in _build/embedded/html: make book"),
    pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, BROWSERS)))
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
        wrong += [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS]
        elsewhere = [url for url in asked if not url.startswith((SITE.parent.as_uri(), "data:", "blob:"))]
        assert (wrong, elsewhere, wide <= width) == ([], [], True), (theme, width, wide)
        context.close()


def test_the_book_has_no_dead_link_and_no_page_that_weighs_too_much():
    assert list(flaws(SITE)) == []
