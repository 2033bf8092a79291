"""Tidy frame in, Axes out: every figure of the book.

    plots.set_theme()
    ax = plots.funnel(filtering.attrition(pairs, constraints))

A function that takes an `ax` draws there and returns it; one that needs several panels returns a Figure. Titles state
the finding, computed from the data that is drawn. A concept and a method have one colour each, everywhere.
"""

from kn_core.plots.layers import kept_and_dropped, layer_histogram, layer_scatter, layer_strips
from kn_core.plots.neurons import candidates, distribution, funnel, quadrants, stability
from kn_core.plots.pictures import examples, gallery, heatmap, localisation, outline, picture
from kn_core.plots.style import WIDTH, concept_colours, label, method_colour, set_theme, theme, title

__all__ = [
    "WIDTH",
    "candidates",
    "concept_colours",
    "distribution",
    "examples",
    "funnel",
    "gallery",
    "heatmap",
    "kept_and_dropped",
    "label",
    "layer_histogram",
    "layer_scatter",
    "layer_strips",
    "localisation",
    "method_colour",
    "outline",
    "picture",
    "quadrants",
    "set_theme",
    "stability",
    "theme",
    "title",
]
