"""A picture without its object, by every way of taking it out. What is drawn is `inpainters.example`."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from kn_core.agreement import named
from kn_core.inpainters import Way
from kn_core.plots.pictures import picture
from kn_core.plots.style import WIDTH
from kn_core.sample import Sample

COLUMNS = 4


def side_by_side(sample: Sample, caption: str, without: Mapping[Way, tuple[np.ndarray, str]]) -> Figure:
    """The picture with its object outlined, and every picture without it, with what the model says of each."""
    panels = [("the picture", sample.image, caption), *((named(way), *found) for way, found in without.items())]
    rows = -(-len(panels) // COLUMNS)
    tall = WIDTH / COLUMNS * min(1.4, sample.mask.shape[0] / sample.mask.shape[1]) + 0.85
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(WIDTH, rows * tall), squeeze=False)
    for place, ax in enumerate(axes.flat):
        if place >= len(panels):
            ax.set_visible(False)
            continue
        heading, image, said = panels[place]
        picture(ax, image, f"“{said}”", sample.mask if place == 0 else None)
        ax.set_title(heading, fontsize=9)
    return figure
