"""What the first page sets into its cards."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from book.answers import Answer, cards
from book.first_figures import svg
from book.press import drawn
from book.style import method_colour
from kn_core.drawing import INK


@pytest.fixture
def figure() -> Figure:
    figure = Figure(figsize=(2, 1))
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color=method_colour("two-stage"))
    ax.set_xlabel("noise", color=INK)
    return figure


def test_a_card_has_the_figure_and_its_words(figure) -> None:
    made = cards([Answer("Does it?", "No", "4 < 5", "page.html", figure, "Lost & kept, in <words>.")])
    assert '<div class="drawn" role="img" aria-label="Lost &amp; kept, in &lt;words&gt;."><svg' in made
    assert "<span>4 &lt; 5</span>" in made


def test_a_page_makes_it_its_own(figure, tmp_path) -> None:
    used: set[str] = set()
    made = svg(figure)
    assert drawn.is_ours(made)
    made = drawn.Drawing(made, "c0", tmp_path, used).html("only", "")
    assert ">noise</text>" in made and "currentColor" in made and INK not in made and "metadata" not in made
