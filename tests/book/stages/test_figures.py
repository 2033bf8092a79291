"""The figures of the stages: what is drawn, and what titles say of it, are the numbers of the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from book.stages import figures, stage_1


def stage_frame() -> pd.DataFrame:
    """Two concepts, 3 layers of 4 neurons: 4 candidates each, of which bear keeps 2 and bus 1."""
    layers, units = (index.ravel() for index in np.indices((3, 4)))
    frames = []
    for concept, kept in (("bear", (5, 8)), ("bus", (8,))):
        frame = pd.DataFrame({"concept": concept, "layer": layers, "unit": units})
        frame["delta"] = np.where(np.arange(12) % 3 == 2, 2.0, 0.1 + np.arange(12) / 100)
        frame["gradcam"] = np.where(np.isin(np.arange(12), kept), 0.5, 0.01 + np.arange(12) / 1000)
        frame["share"] = np.where(np.arange(12) % 3 == 2, np.where(layers == 2, 1.0, 0.5), 0.0)
        frame["candidate"], frame["carries"] = frame["delta"] > 1, frame["gradcam"] > 0.1
        frame["kept"] = frame["candidate"] & frame["carries"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def heading(ax: Axes) -> str:
    return ax.get_title(loc="left").replace("\n", " ")


def test_distribution_counts_every_neuron_and_marks_each_threshold():
    ax = figures.distribution(stage_frame(), {"bear": 1.0, "bus": 1.1})
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [1.0, 1.1]
    assert ax.lines[0].get_ydata().sum() == 12 + ax.lines[0].get_ydata()[-1]  # the median of two equal concepts
    assert heading(ax) == "Half of the neurons move by less than 0.18; the strongest by 2"


def test_candidates_are_counted_at_our_threshold_and_at_the_papers(monkeypatch):
    monkeypatch.setattr(stage_1, "PAPER_A", (0.15, 1.5))
    leaves = stage_1.paper_leaves(stage_frame())
    assert leaves == {0.15: 8, 1.5: 4}  # 2.0 four times; 0.16 to 0.21 four times more
    ax = figures.candidates(stage_frame(), {"bear": 1.0, "bus": 1.0}, leaves)
    (dots,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert list(dots.get_ydata()) == [4, 4]
    assert "4 to 8 candidates" in heading(ax)
    falling = next(line for line in ax.lines if line.get_marker() != "o").get_xydata()
    assert dict(falling)[0.15] == 8 and dict(falling)[1.5] == 4


def test_stability_counts_candidates_that_pass_in_every_picture():
    ax = figures.stability(stage_frame())
    passing = dict(zip(*ax.lines[0].get_data(), strict=True))
    assert passing[0] == passing[50] == 100 and passing[51] == passing[100] == 50  # 2 of 4 candidates are in layer 2
    assert "75% of its concept’s pictures" in heading(ax)


def test_quadrants_say_how_many_are_kept_and_dropped():
    ax = figures.quadrants(stage_frame().query("concept == 'bear'"), {"delta": 1.0, "gradcam": 0.1})
    said = ["2\nkept", "2\ndropped by stage 2", "0\nnever candidates", "8"]
    assert [text.get_text() for text in ax.texts] == said
    assert ax.collections[0].get_array().sum() == 12  # every neuron lies in a cell
    assert heading(ax).startswith("bear: stage 2 keeps 50% of the candidates")
