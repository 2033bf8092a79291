"""The neuron browser in a real one, opened from a folder: every control does what it says, with the run's numbers.

Needs a chromium (Debian's package of that name) and the extra `dev`.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from book.press.neuron_links import BROWSER, CODE
from kn_core.profile import results
from tests.book.browser.conftest import CONCEPTS, value

BUILT = Path(__file__).parents[3] / "_build" / "embedded" / "html" / "neurons.html"


@pytest.fixture(scope="module")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine: `apt install chromium`, and these tests run")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, site) -> Iterator:
    """opened(hash): the page from its folder; at the end it has asked for no other file and has said nothing wrong."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    page, wrong, asked = context.new_page(), [], []
    page.set_default_timeout(60_000)  # on a busy machine
    page.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    def go(address: str = "", folder: Path = site):
        page.goto((folder / "neurons.html").as_uri() + address)
        page.wait_for_function("KN.shards.rest !== undefined && document.querySelector('#knb-e-out dd')")
        return page

    yield go
    assert wrong == []
    assert [url for url in asked if not url.startswith((site.parent.as_uri(), "blob:"))] == []
    context.close()


def text(page, selector: str) -> str:
    return " ".join(page.inner_text(selector).split())


def neurons(page) -> list[str]:
    return page.locator("#knb-rows td:first-child button").all_inner_texts()


def shown(number: float) -> str:
    return f"{float(f'{number:.3g}'):g}".replace("-", "−")


def test_it_opens_on_everybodys_neuron_and_says_so(opened):
    page = opened()
    assert neurons(page) == ["L1/5", "L3/9", "L2/7", "L3/2", "L0/4", "L0/1"]
    assert page.locator(".knb-dots circle").count() == 6
    assert text(page, "#knb-status").startswith(
        "6 neurons of 3 concepts by both stages: 4 in one concept’s set alone, 1 in"
    )
    assert text(page, "#knb-h-card") == "Layer 1 · unit 5"
    assert "Nobody’s own" in text(page, "#knb-whose") and "disagree on whether it helps to say bear" in text(
        page, "#knb-whose"
    )
    assert "promotes , ␣a" in text(page, "#knb-facts") and "Dai et al. (1)" in text(page, "#knb-facts")
    page.click("[data-i='1'] circle, circle[data-i='1']")
    assert text(page, "#knb-h-card") == "Layer 2 · unit 7" and "n=2.7" in page.url
    assert "Shared by 2" in text(page, "#knb-whose")
    page.go_back()
    assert text(page, "#knb-h-card") == "Layer 1 · unit 5"


def test_numbers_on_the_screen_are_those_of_the_run(opened):
    page = opened("#n=2.7&c=bus")
    row = page.locator("#knb-rows tr[aria-selected=true] td").all_inner_texts()
    scores = [shown(value(name, "bus", 2, 7)) for name in ("gradcam", "delta", "third")]
    assert row == ["L2/7", "2/3", "2", *scores, "–"]
    bars = page.locator("#knb-charts table").all_text_contents()
    wanted = "".join(f"{name}{shown(value('gradcam-sum', name, 2, 7))}" for name in CONCEPTS)
    assert f"gradient, summed{wanted}" in bars
    assert page.locator("#knb-charts table").nth(0).locator("b").count() == 3  # a threshold a concept
    assert page.locator(".knb-limit").count() >= 1  # the concept's threshold


def test_filters_leave_what_they_say(opened):
    page = opened()
    page.select_option("#knb-o", "all")
    assert neurons(page) == ["L1/5"]
    page.select_option("#knb-o", "some")
    assert neurons(page) == ["L2/7"]
    page.select_option("#knb-o", "")
    page.select_option("#knb-s", "bad")
    assert neurons(page) == ["L1/5"]
    page.select_option("#knb-s", "")
    page.select_option("#knb-m", "third stage")
    page.check("#knb-concepts input[value=bear]", force=True)
    assert neurons(page) == ["L0/1", "L2/8"]
    assert "m=third+stage" in page.url and "c=bear" in page.url
    page.select_option("#knb-m", "dai")
    assert neurons(page) == ["L2/0"]
    page.select_option("#knb-m", "two-stage")
    page.fill("#knb-q", "paw")
    assert neurons(page) == ["L0/1"]
    page.fill("#knb-q", "l2/7")
    assert neurons(page) == ["L2/7"] and text(page, "#knb-h-card") == "Layer 2 · unit 7"
    page.fill("#knb-q", "nonsense")
    assert "No neuron is left" in text(page, "#knb-rows")


def test_columns_sort_and_a_dragged_box_filters(opened):
    page = opened("#c=bear")
    page.click("#knb-head th:nth-child(5) button")
    by_difference = sorted([(1, 5), (2, 7), (0, 1)], key=lambda at: -value("delta", "bear", *at))
    assert neurons(page) == [f"L{layer}/{unit}" for layer, unit in by_difference]
    box = page.locator("#knb-atlas svg").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.28 * box["width"], box["y"] + box["height"] - 40, steps=4)
    page.mouse.up()
    assert neurons(page) == ["L0/1"]  # the first layer
    page.click("text=show all again")
    assert len(neurons(page)) == 3


def test_keys_move_through_list_and_concepts(opened):
    page = opened()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.wait_for_function("location.hash.includes('n=2.7')")
    page.keyboard.press("k")
    page.wait_for_function("location.hash.includes('n=3.9')")
    page.keyboard.press("2")
    page.wait_for_function("location.hash.includes('c=bus')")
    assert neurons(page) == ["L1/5", "L2/7", "L3/2"]
    page.focus("#knb-concepts input[value=bus]")
    page.keyboard.press("ArrowRight")  # the next of the choices, and the focus stays
    page.wait_for_function("location.hash.includes('c=dog')")
    page.wait_for_function("document.activeElement.value === 'dog'")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("location.hash.includes('c=bus')")
    page.keyboard.press("/")
    page.keyboard.type("L3")
    assert page.input_value("#knb-q") == "L3" and neurons(page) == ["L3/2"]


def test_maps_lie_on_the_grid_and_say_their_cells(opened, found):
    page = opened("#n=2.7&c=bear&w=delta")
    cells, frame = page.locator("#knb-with rect"), page.locator("#knb-with").bounding_box()
    assert cells.count() == 8  # 4 rows of 2
    assert cells.nth(3).bounding_box() == pytest.approx(
        {"x": frame["x"] + frame["width"] / 2, "y": frame["y"] + frame["height"] / 4}
        | {"width": frame["width"] / 2, "height": frame["height"] / 4},
        abs=0.5,
    )
    cells.nth(3).hover()
    read = text(page, "#knb-read")
    assert read.startswith("Row 2, column 2: ")
    one = found.maps["delta"][:, found.mapped.tolist().index([2, 7])].astype(float)
    shown_value = float(read.split(": ")[1].replace("−", "-"))
    assert shown_value == pytest.approx(one[0, 1, 1], abs=0.07 * abs(one[:5]).max())
    page.locator("#knb-thumbs input").nth(5).check(
        force=True
    )  # the second picture of 'dog', whose set does not hold it
    assert "No map of it on this picture" in text(page, "#knb-read") and "p=dog/1" in page.url
    page.check("#knb-w input[value=none]", force=True)
    assert page.locator("#knb-with rect").count() == 0
    page.fill("#knb-fade", "100")
    assert page.evaluate("document.querySelector('.knb-fade').style.opacity") == "1"


def test_captions_change_with_method_and_dose(opened):
    page = opened("#c=bear")
    assert "“The The The”" in text(page, "#knb-e-out") and "90 % → 2 %" in text(page, "#knb-e-out")
    assert "random neurons, the same dose “A bear in a field.”" in text(page, "#knb-e-out")
    page.fill("#knb-e-d", "0")
    assert "“A thing, in a forest.”" in text(page, "#knb-e-out") and text(page, "#knb-e-said") == "3 neurons, σ = 2"
    page.check("#knb-e-m input[value='third stage']", force=True)
    page.wait_for_function("document.querySelector('#knb-e-out').textContent.includes('zero')")
    page.fill("#knb-e-d", "0")
    assert "“A “tree” in a forest.”" in text(page, "#knb-e-out")
    assert "em=third+stage" in page.url and "en=1&" in page.url
    page.select_option("#knb-e-c", "dog")  # of whose set one row was tried on this picture
    assert "“A bear.”" in text(page, "#knb-e-out") and "it says 50 %" in text(page, "#knb-e-out")
    assert page.is_disabled("#knb-e-m input[value='third stage']") and page.is_disabled("#knb-e-d")
    page.select_option("#knb-e-c", "bus")
    assert "Nothing was done" in text(page, "#knb-e-out")


def test_concepts_are_set_against_each_other(opened):
    page = opened("#c=bear&d=bus")
    squares = page.locator("#knb-matrix td button").all_inner_texts()
    assert squares == ["3", "2", "1", "2", "3", "1", "1", "1", "3"]
    assert text(page, "#knb-venn") == "only bear (1) L0/1 both (2) L1/5 L2/7 only bus (1) L3/2"
    page.check("#knb-x input[value=silent]", force=True)
    squares = page.locator("#knb-matrix td button").all_inner_texts()
    assert squares == ["90", "50", "40", "30", "80", "–", "10", "20", "70"]
    page.click("#knb-matrix tr:nth-child(3) td:nth-of-type(2) button")
    assert "c=dog" in page.url and "d=bus" in page.url


def test_a_link_says_everything_and_a_neuron_that_is_not_kept_is_told(opened):
    page = opened("#n=2.0&c=dog&m=two-stage&k=2&v=delta&x=silent")  # a neuron of another method's alone
    assert text(page, "#knb-h-card") == "Layer 2 · unit 0" and "In no concept’s set" in text(page, "#knb-whose")
    assert page.input_value("#knb-k") == "2" and len(neurons(page)) == 2
    page = opened("#k=-3&m=none")  # what the run has not is the standard
    assert page.input_value("#knb-k") == "3" and len(neurons(page)) == 6
    page = opened("#n=3.3&c=whale")
    page.reload()
    page.wait_for_selector("text=among no method’s best")
    assert "3 concepts" in text(page, "#knb-status")


def test_the_list_is_copied_and_the_atlas_saved(opened):
    page = opened("#c=bear")
    page.click("#knb-csv")
    page.wait_for_selector("text=copied")
    head, first, *_ = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert head == "layer,unit,sets,rank,gradcam,delta,gradcam-sum,third,removed,promotes"
    assert first.startswith("1,5,3,1,1.63,3.25,") and first.endswith('-0.5,",  a"')
    page.click("#knb-link")
    with page.expect_download() as saved:
        page.click("#knb-svg")
    drawn = ET.parse(saved.value.path()).getroot()
    assert drawn.tag.endswith("svg") and "color-mix" not in ET.tostring(drawn, "unicode").replace("background", "")


def test_without_scripts_there_are_tables(chromium, site):
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto((site / "neurons.html").as_uri())
    assert not page.is_visible("#kn-browser") and page.locator("details[open] table").count() == 4
    assert "L1/5" in page.inner_text("details:first-of-type")


DARK = """
body { background: #121212; color: #eee }
:root { --pst-color-background: #121212; --pst-color-text-base: #eee; --pst-color-text-muted: #9ca4af;
        --pst-color-surface: #222832; --pst-color-border: #48566b }
"""  # as the book's theme


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_it_fits_and_whoever_sees_badly_can_use_it(opened, theme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened("#c=bear&m=third+stage")
    page.set_viewport_size({"width": width, "height": 844})
    if theme == "dark":
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        page.add_style_tag(content=DARK)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page, context="#kn-browser", options={"preload": False}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_words_of_an_address_and_of_a_table_survive(opened):
    page = opened()
    assert page.evaluate("KN.parse(KN.address({n: '9.200', c: 'traffic light', em: 'third stage', q: ''}))") == {
        "n": "9.200",
        "c": "traffic light",
        "em": "third stage",
    }
    known = "['L1/5', 'layer 1, unit 5', '1.5', 'L9/9'].map((name) => KN.find(name)?.i ?? null)"
    assert page.evaluate(known) == [0, 0, 0, None]
    assert (
        page.evaluate(
            "(KN.W.neurons[3].tokens = ['x, \"y\"'], KN.csv([{neuron: KN.W.neurons[3], own: 1, rank: 2}], 0))"
        )[-11:]
        == '"x, ""y"""\n'
    )
    assert page.evaluate("KN.decode('Oo.a', 2).map((x) => +x.toFixed(4))") == [-2, 2, 0, 0.0089]
    marked = page.evaluate("KN.pieces('Two dogs in a forest', 'A dog in a forest', 'dog')")
    assert marked[2] == ["dogs", "mark"] and marked[-1] == ["forest", "u"] and ["in", ""] in marked


@pytest.mark.slow
@pytest.mark.skipif(not BUILT.exists(), reason="no neuron browser in _build/embedded/html: make book")
def test_the_built_page_is_light_and_shows_the_numbers_on_disk(chromium):
    import gzip

    def packed(*files: Path) -> int:
        return sum(len(gzip.compress(file.read_bytes())) for file in files)

    folder = BUILT.parent / BROWSER
    first = [BUILT, *(folder / name for name in (*CODE, "core.js"))]
    assert packed(*first) <= 120_000 and packed(BUILT, *folder.iterdir()) <= 2_000_000
    best = pd.read_parquet(results("embedded") / "neurons.parquet").query("method == 'two-stage' and rank < 80")
    page = chromium.new_page()
    for concept in best["concept"].unique():
        page.goto(f"{BUILT.as_uri()}#c={concept}")
        page.reload()
        page.wait_for_selector("#knb-rows tr[aria-selected]")
        rows = best[best["concept"] == concept].sort_values("rank")
        cells = page.locator("#knb-rows tr").evaluate_all(
            "rows => rows.map((row) => [...row.cells].map((c) => c.innerText))"
        )
        assert [cell[0].rstrip("!") for cell in cells] == [f"L{row.layer}/{row.unit}" for row in rows.itertuples()]
        for index, column in ((3, "gradcam"), (4, "delta")):
            assert [float(cell[index].replace("−", "-")) for cell in cells] == pytest.approx(
                rows[column].tolist(), rel=6e-3
            )
