"""In which layers neurons lie: shares of each concept, intervals over concepts, tests between methods."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.stages import layer_figures, layers
from tests.book.stages.test_figures import heading, stage_frame

NEURONS = pd.DataFrame({"concept": ["bus", "bus", "bear", "bear"], "layer": [0, 2, 2, 2]})


def test_layer_shares_are_of_each_concept():
    shares = layers.layer_shares(NEURONS, 4)
    assert shares.index.tolist() == ["bus", "bear"]
    assert shares.to_numpy().tolist() == [[0.5, 0, 0.5, 0], [0, 0, 1, 0]]
    over = layers.over_layers({"two-stage": NEURONS, "dai": NEURONS[:2]}, 4)
    ours, one = (rows for _, rows in over.groupby("method", sort=False))
    assert ours["value"].tolist() == [0.25, 0, 0.75, 0]
    assert ours["low"].tolist()[1:] == [0, 0, 0] and ours["high"].tolist()[1:] == [0, 1, 0]  # t of two concepts
    assert one["low"].isna().all()  # one concept is no sample of concepts
    words = layers.in_words(over, Measurement("late_share", 0.75, 0.5, 1, 2, 0.5), 4)
    assert (words["two-stage"], words["dai"], words["late"], words["uniform"]) == ("75%", "50%", "75%", "50%")
    assert (words["interval"], words["layers"]) == ("0.75 [0.50,\u00a01.00]", "4")


def test_figure_2_shows_shares_intervals_and_the_uniform_level():
    over = layers.over_layers({"two-stage": NEURONS.assign(layer=[0, 2, 2, 3]), "stage-1": NEURONS}, 4)
    ax = layer_figures.layer_histogram(over)
    assert [bar.get_height() for bar in ax.containers[0]] == [25, 0, 50, 25]
    assert 25 in [line.get_ydata()[0] for line in ax.lines]
    assert heading(ax).startswith("75% of the neurons lie in the upper two thirds of the layers, where 50% of all")


def test_layers_of_the_kept_and_of_the_dropped():
    frame = stage_frame().query("candidate")
    over = layers.over_layers({"dropped": frame[~frame["kept"]], "kept": frame[frame["kept"]]}, 3)
    ax = layer_figures.kept_and_dropped(over)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["dropped", "kept"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0, 25, 75])  # kept: bear in layers 1 and 2, bus in layer 2
    assert heading(ax).startswith("What stage 2 keeps lies at layer 2 on average")


def test_strips_and_scatter_take_one_concept():
    neurons = pd.DataFrame({"concept": "okapi", "layer": [0, 2, 2], "score": [0.3, 0.2, 0.1]})
    assert "okapi" in heading(layer_figures.layer_strips(layers.layer_shares(neurons, 4)))
    ax = layer_figures.layer_scatter(neurons, 4, plt.figure().gca())
    assert "3 best neurons of “okapi” lie in 2 of 4 layers" in heading(ax)


def test_the_layers_of_every_method():
    rows = [("two-stage", concept, layer) for concept in ("bear", "bus") for layer in (0, 3)]
    rows += [("dai", concept, layer) for concept in ("bear", "bus") for layer in (2, 3)]
    neurons = pd.DataFrame(rows, columns=["method", "concept", "layer"])
    late = layers.late_by_method(neurons, 4)
    assert late["late"].tolist() == [0.5, 1.0]
    assert late.loc[1, ["difference", "p_holm"]].tolist() == [-0.5, 0.5]  # two concepts: 2 of 4 sign patterns
    over = layers.over_layers(dict(iter(neurons.groupby("method"))), 4)
    figure = layer_figures.methods_over_layers(over, late)
    assert (
        "Of the best two-stage neurons 50% lie in the upper two thirds of the layers; by other methods, 100%"
        in " ".join(figure.get_suptitle().split())
    )
