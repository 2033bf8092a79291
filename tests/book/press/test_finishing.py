"""What finishing does to a rendered page: figures drawn in, formulas set, tables told by column, weight shed."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.ticker import LogFormatter

from book.narrow import WIDTH, narrow
from book.press import drawn, finishing
from book.press.drawn import DARK, contrast, in_the_dark
from book.press.proofreading import flaws
from book.press.pruning import needed
from kn_core import drawing

EDITION = finishing.Edition("A book", "1.2", "abc1234", "2026-01-02", "MIT", "@software{x}")
TABLE = """<style type="text/css">#T_x_row0_col0, #T_x_row1_col0 { text-align: left; }</style>
<table id="T_x" class="dataframe"><caption>What</caption><thead><tr><th id="T_x_level0_col0" class="col0">a long
heading</th><th>here [95 %]</th><th>and why</th></tr></thead><tbody>
<tr><td id="T_x_row0_col0" class="data row0 col0">name of a row that is long</td>
<td>0.1 [0.0, 0.2]</td><td>for a reason that is told</td></tr>
</tbody></table>"""


REDIRECT = '<meta http-equiv="Refresh" content="0; url=index.html" />'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A page as Sphinx leaves it, with a chart and a picture of matplotlib's."""
    for folder in ("_static", "_images", "_sources", "figures"):
        (tmp_path / folder).mkdir()
    with drawing.theme():
        figure, (left, right) = plt.subplots(1, 2, figsize=(4, 2))
        left.plot([0, 1], [0, 1], color="#332288")
        left.set(title="Suppression grows", xlabel="dose $x_i$ in units")
        drawing.picture(right, np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
        figure.set_gid("figure:chart")
        figure.savefig(tmp_path / "figures" / "chart-narrow.svg", metadata={"Date": None})
        figure.savefig(tmp_path / "_images" / "abc.svg", metadata={"Date": None})
        plt.close(figure)
    (tmp_path / "_static" / "kn.css").write_text(".drawn { color: red }")
    (tmp_path / "_static" / "theme.css").write_text(
        "/* . */ .used > .gone, p { a: b } .gone { c: d } @media print { .used:hover { e: f } }"
    )
    (tmp_path / "_static" / "unused.js").write_text("1")
    (tmp_path / "index.html").write_text(
        f"""<html><head><title>Page — A book</title><link rel="stylesheet" href="_static/kn.css"><link rel="stylesheet"
        href="_static/theme.css"><script>const THEBE_JS_URL = 1</script><script>const THEBE_JS_URL = 1</script></head>
        <body><article class="bd-article"><h1><span class="section-number">6. </span>Page</h1>
        <p class="used">First words.</p>
        <p>Where <span class="math">\\(x_i &gt; 0\\)</span>.</p>
        <figure><img src="_images/abc.svg" alt="A chart."><figcaption><p>Told.</p></figcaption></figure>
        <div class="cell_output">{TABLE}</div></article>
        <div class="bd-footer-content__inner">x</div></body></html>"""
    )
    (tmp_path / "first.html").write_text(REDIRECT)
    finishing.finish(tmp_path, tmp_path / "figures", EDITION)
    (tmp_path / "figures" / "chart-narrow.svg").unlink()
    return tmp_path


def test_a_figure_is_text_on_the_page_and_its_pictures_wait(site):
    page = (site / "index.html").read_text()
    soup = BeautifulSoup(page, "html.parser")
    wide, slim = soup.select(".drawn[aria-label='A chart.'] > .drawing")
    assert "wide" in wide["class"] and "narrow" in slim["class"]
    words = [text.get_text() for text in wide.find_all("text")]
    assert "Suppression grows" in words and "dose xi in units" in words
    (picture,) = wide.find_all("img")
    assert picture["loading"] == "lazy" and picture["src"].endswith(".webp") and (site / picture["src"]).exists()
    assert "currentColor" in page and "#222222" not in page and "var(--k-332288,#332288)" in page
    assert f"--k-332288:{in_the_dark('#332288')}" in (site / "_static" / "kn.css").read_text()
    assert not list(site.glob("_images/*.svg")) and list(flaws(site)) == []


def test_a_page_that_only_leads_elsewhere_stays_as_it_is(site):
    assert (site / "first.html").read_text() == REDIRECT


def test_formulas_are_mathml_and_scripts_that_throw_are_gone(site):
    page = (site / "index.html").read_text()
    assert "<msub><mi>x</mi><mi>i</mi></msub><mo>&gt;</mo>" in page
    assert "THEBE" not in page and page.count("og:image") == 2
    assert "kn_core 1.2 · commit abc1234 of 2026-01-02 · licence: MIT" in page


def test_tables_and_figures_have_a_number_an_anchor_and_columns_by_name(site):
    soup = BeautifulSoup((site / "index.html").read_text(), "html.parser")
    table, figure = soup.select_one("table"), soup.select_one("figure")
    assert [tag.get_text() for tag in soup.select(".caption-number")] == ["Fig. 6.1 ", "Table 6.1 "]
    assert table.caption.a["href"] == "#T_x" and figure.a["href"] == "#figure-1" == f"#{figure['id']}"
    assert "cards" in table["class"]
    name, answer, _ = table.select("tbody td")
    assert name["class"] == ["words", "name", "long"]
    assert answer["class"] == ["long", "answer"] and answer["data-label"] == "here [95 %]"
    assert "id=" not in str(table.tbody)


def test_what_a_page_found_in_brief_has_its_intervals_in_brackets():
    said = '<p><span class="pasted-text">0.57 (95 % interval -0.43 to 0.70)</span> of it.</p>'
    soup = BeautifulSoup(f'<div class="brief">{said}</div>{said}', "html.parser")
    finishing._brief(soup)
    assert [p.get_text() for p in soup.find_all("p")] == [
        "0.57 [-0.43,\u00a00.70] of it.",
        "0.57 (95 % interval -0.43 to 0.70) of it.",
    ]


def test_figures_of_a_page_that_is_no_chapter_are_counted_on_it():
    page = """<article class="bd-article"><p><a href="#a"><span class="std std-numref">Fig. 31</span></a></p>
    <figure id="a"><figcaption><p><span class="caption-number">Fig. 31 </span>It.</p></figcaption></figure></article>"""
    soup = BeautifulSoup(page, "html.parser")
    finishing._number(soup)
    assert [tag.get_text() for tag in soup.select(".caption-number, .std-numref")] == ["Fig. 1", "Fig. 1 "]


def test_only_files_and_rules_that_a_page_leads_to_are_left(site):
    left = sorted(path.name for path in (site / "_static").iterdir())
    assert left == ["kn.css", "theme.css"] and not (site / "_sources").exists()
    assert "".join(needed(".used > .gone, p { a: b } .gone { c: d } @import 'x';", {"used"})) == (
        ".used > .gone, p{ a: b }@import 'x';"
    )
    assert (site / "_static" / "theme.css").read_text() == ".used > .gone, p{ a: b }@media print{.used:hover{ e: f }}"


@pytest.mark.parametrize("colour", ["#111111", "#332288", "#8c8c8c", "#d55e00"])
def test_a_colour_keeps_its_place_and_stands_out_in_the_dark(colour):
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast(in_the_dark(colour), DARK) >= drawn.CONTRAST
    assert contrast(in_the_dark("#ececec"), DARK) < 1.6  # a grid stays faint


def test_powers_of_ten_stay_numbers_on_a_telephone_and_names_of_columns_all_stand():
    with drawing.theme():
        figure, ax = plt.subplots(figsize=(7, 3))
        ax.plot(range(9), np.logspace(0, 5, 9))
        ax.set_yscale("log")
        ax.set_xticks(range(9), [f"concept {i}" for i in range(9)])
        (slim,) = narrow(figure).axes
        slim.figure.canvas.draw()
    assert isinstance(slim.yaxis.get_major_formatter(), LogFormatter)
    assert [(label.get_text(), label.get_rotation()) for label in slim.get_xticklabels()][-1] == ("concept 8", 90)
    plt.close(figure)


def test_a_drawing_for_a_telephone_has_its_panels_below_one_another():
    with drawing.theme():
        figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
        axes[0].set_yticks([0, 1], ["short", "a name that is much too long for a telephone"])
        drawing.title(figure, "a finding in a good many words that has to be broken where the telephone ends")
        slim = narrow(figure)
        slim.canvas.draw()
    assert slim.get_size_inches()[0] == WIDTH and figure.get_size_inches()[0] == 7
    first, second = (ax.get_position() for ax in slim.axes)
    assert first.y0 > second.y1 and first.x0 == pytest.approx(second.x0, abs=0.02)
    assert all("\n" in ax.get_yticklabels()[1].get_text() for ax in slim.axes)
    assert slim._suptitle.get_window_extent().x1 <= slim.bbox.x1
    plt.close("all")


@pytest.mark.parametrize(("columns", "stacked"), [(4, False), (9, True)])
def test_maps_of_many_columns_are_below_one_another_on_a_telephone(columns: int, stacked: bool):
    with drawing.theme():
        figure, axes = plt.subplots(1, 2, figsize=(7, 4), sharey=True)
        for ax in axes:
            ax.pcolormesh(np.zeros((3, columns)))
            ax.set_xticks(np.arange(columns) + 0.5, [f"{i}" for i in range(columns)])
        slim = narrow(figure)
        slim.canvas.draw()
    first, second = (ax.get_position() for ax in slim.axes)
    assert (first.y0 > second.y1) == stacked
    plt.close("all")


def test_a_page_that_weighs_too_much_is_a_flaw(tmp_path):
    (tmp_path / "page.html").write_text("<p>" + "x" * 500_000)
    (tmp_path / "big.js").write_text("x" * 900_000)
    (tmp_path / "other.html").write_text('<script src="big.js"></script>' + "y" * 200_000)
    assert list(flaws(tmp_path)) == [
        "other.html: a first visit loads 1100 kB; it may load 1000",
        "page.html: page of 500 kB; it may have 400",
    ]


@pytest.mark.parametrize("of_figure", [True, False])
def test_a_legend_takes_no_more_than_a_telephone_is_wide(of_figure):
    with drawing.theme():
        figure, ax = plt.subplots(figsize=(7, 3))
        for name in ("suppression, caption", "retention, truth", "retention, probability", "fluent captions"):
            ax.plot([0, 1], [0, 1], label=name)
        (figure if of_figure else ax).legend(**({"loc": "outside lower center"} if of_figure else {}), ncols=4)
        slim = narrow(figure)
        (legend,) = slim.legends or [slim.axes[0].get_legend()]
        slim.canvas.draw()
    assert len(legend.get_texts()) == len(legend.legend_handles) == 4
    there, room = legend.get_window_extent(), slim.bbox
    assert room.x0 - 1 <= there.x0 and there.x1 <= room.x1 + 1 and room.y0 - 1 <= there.y0
    assert abs((there.x0 + there.x1) - (room.x0 + room.x1)) < 2 or not of_figure  # in the middle
