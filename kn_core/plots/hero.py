"""The picture at the head of the README and of the book: what a concept's neurons are, in three panels."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from kn_core.plots.pictures import heatmap, picture
from kn_core.plots.style import WIDTH
from kn_core.sample import Sample


def hero(sample: Sample, without: np.ndarray, heat: np.ndarray, said: tuple[str, str, str], n: int) -> Figure:
    """A picture, the same without its object, and where the concept's `n` best neurons answer in it (rows, columns).

    `said` are the model's captions: of the picture, of the one without the object, of the picture under noise on them.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.1))
    headings = ("what the model sees", f"the {sample.concept} taken out", "where neurons answer")
    notes = ("it says", "it says", f"with noise on {n} of them")
    picture(axes[0], sample.image)
    picture(axes[1], without)
    heatmap(axes[2], sample.image, heat, mask=sample.mask)
    for ax, heading, note, caption in zip(axes, headings, notes, said, strict=True):
        ax.set_title(heading, fontsize=10, fontweight="bold", parse_math=False)
        words = textwrap.fill(f"“{caption}”" if caption else "(nothing)", 24)
        ax.set_xlabel(f"{note}\n{words}", loc="left", parse_math=False)
    return figure
