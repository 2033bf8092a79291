"""What of a figure the first page sets into itself."""

from __future__ import annotations

from matplotlib.figure import Figure

from book.first_figures import svg
from book.style import method_colour


def test_a_figure_is_text_and_takes_the_page_s_ink() -> None:
    figure = Figure(figsize=(2, 1))
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1], color=method_colour("two-stage"))
    ax.set_xlabel("noise", color="#222222")
    drawn = svg(figure, "Lost & kept, in <words>.")
    assert drawn.startswith('<svg role="img" aria-label="Lost &amp; kept, in &lt;words&gt;."')
    assert ">noise</text>" in drawn
    assert "var(--kn-accent)" in drawn
    assert "#222222" not in drawn
    assert "width=" not in drawn[: drawn.index(">")]
