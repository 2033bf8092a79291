"""The figures: the numbers drawn are the frame's, a concept has its colour, a cell of a heatmap its place."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from book import pictures, style
from book.stages import figures, layer_figures
from book.stages.layer_figures import methods_over_layers
from book.stages.layers import late_by_method, layer_shares, with_intervals
from book.stages.neurons import counts, in_words, own_words, shared, tokens
from book.style import CONCEPTS
from kn_core import drawing
from kn_core.pictures.sample import Sample


@pytest.fixture
def ax():
    with drawing.theme():
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


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


def texts(ax: Axes) -> list[str]:
    return [text.get_text().strip() for text in ax.texts]


# Style


def test_a_concept_has_its_colour_whatever_it_is_drawn_with():
    alone, together = style.concept_colours(["bear"]), style.concept_colours(["okapi", "train", "bear"])
    assert alone["bear"] == together["bear"] == CONCEPTS["bear"]
    assert list(together) == ["okapi", "train", "bear"]
    assert len(set(style.concept_colours([*CONCEPTS, "okapi", "yak"]).values())) == len(CONCEPTS) + 2


def test_a_method_without_a_colour_is_an_error():
    assert style.method_colour("two-stage") != style.method_colour("random")
    with pytest.raises(KeyError):
        style.method_colour("guesswork")


def test_theme_ends_with_its_block():
    before = mpl.rcParams["figure.dpi"]
    with drawing.theme():
        assert mpl.rcParams["figure.dpi"] == 150 and mpl.rcParams["svg.hashsalt"] == "kn_core"
    assert mpl.rcParams["figure.dpi"] == before


def test_a_title_is_broken_where_the_axes_end(ax: Axes):
    drawing.title(ax, "word " * 40)
    figure = ax.get_figure()
    figure.canvas.draw()
    assert ax._left_title.get_window_extent().x1 <= figure.bbox.x1
    assert ax.get_title(loc="left").count("\n") >= 2


# Stages


def test_funnel_draws_the_counts(ax: Axes):
    attrition = pd.DataFrame(
        [("bear", "looked at", 7), ("bear", "area", 5), ("bus", "looked at", 4), ("bus", "area", 3)],
        columns=["concept", "constraint", "left"],
    )
    figures.funnel(attrition, ax, {"area": "neither a speck nor the whole frame"})
    assert [bar.get_width() for bar in ax.patches] == [7, 5, 4, 3]
    assert [bar.get_x() for bar in ax.patches] == [0, 0, 7, 5]
    assert texts(ax) == ["looked at", "11", "neither a speck nor the whole frame", "8"]
    assert heading(ax).startswith("8 of 11 pictures pass every constraint")
    assert ax.patches[0].get_facecolor() == mpl.colors.to_rgba(CONCEPTS["bear"])


def test_candidates_are_counted_at_our_threshold_and_in_the_title(ax: Axes):
    figures.candidates(stage_frame(), {"bear": 1.0, "bus": 1.0}, (0.15, 1.5), ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_ydata()[0] for dot in dots] == [4, 4]
    assert "4 to 8 candidates" in heading(ax)  # 2.0 four times; 0.16 to 0.21 four times more


def test_stability_counts_candidates_that_pass_in_every_picture(ax: Axes):
    figures.stability(stage_frame(), ax)
    passing = dict(zip(*ax.lines[0].get_data(), strict=True))
    assert passing[0] == passing[50] == 100 and passing[51] == passing[100] == 50  # 2 of 4 candidates are in layer 2
    assert "75% of its concept’s pictures" in heading(ax)


def test_quadrants_say_how_many_are_kept_and_dropped(ax: Axes):
    frame = stage_frame().query("concept == 'bear'")
    figures.quadrants(frame, {"delta": 1.0, "gradcam": 0.1}, ax)
    assert texts(ax) == ["2 kept", "2 dropped by stage 2", "0 never candidates", "8"]
    assert heading(ax).startswith("bear: stage 2 keeps 50% of the candidates")


def test_distribution_and_layers_of_the_dropped_are_drawn(ax: Axes):
    figures.distribution(stage_frame(), {"bear": 1.0, "bus": 1.0}, ax)
    assert {line.get_color() for line in ax.lines} == {CONCEPTS["bear"], CONCEPTS["bus"]}
    other = plt.figure().gca()
    layer_figures.kept_and_dropped(stage_frame(), 3, other)
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["dropped", "kept"]
    np.testing.assert_allclose(other.lines[1].get_ydata(), [0, 25, 75])  # kept: bear in layers 1 and 2, bus in layer 2


def test_counts_and_words_agree():
    left = counts(stage_frame())
    assert left.to_dict("list")["candidates"] == [4, 4] and left.to_dict("list")["kept"] == [2, 1]
    words = in_words(stage_frame())
    assert words["candidates"] == "4" and words["neurons"] == "12" and words["layers"] == "3"
    assert words["dropped"] == "62%" and words["last"] == "50%"
    assert words["kept-chance"] == "0" and words["lift"] == "3.0"  # 1.5 kept where 4 * 1.5 / 12 = 0.5 would be


# Layers


def test_layer_shares_are_of_each_concept():
    neurons = pd.DataFrame({"concept": ["bus", "bus", "bear", "bear"], "layer": [0, 2, 2, 2]})
    shares = layer_shares(neurons, 4)
    assert shares.index.tolist() == ["bus", "bear"]
    assert shares.to_numpy().tolist() == [[0.5, 0, 0.5, 0], [0, 0, 1, 0]]
    mean, low, high = with_intervals(shares)
    assert mean.tolist() == [0.25, 0, 0.75, 0]
    assert low[2] == 0.5 and high[2] == 1 and low[1] == high[1] == 0
    assert np.isnan(with_intervals(shares[:1])[1]).all()  # one concept is no sample of concepts


def test_figure_2_shows_shares_intervals_and_the_uniform_level(ax: Axes):
    neurons = pd.DataFrame({"concept": ["bus", "bus", "bear", "bear"], "layer": [0, 2, 2, 3]})
    layer_figures.layer_histogram(neurons, 4, ax, {"stage-1": neurons})
    assert [bar.get_height() for bar in ax.containers[0]] == [25, 0, 50, 25]
    assert 25 in [line.get_ydata()[0] for line in ax.lines]
    assert heading(ax).startswith("75% of the neurons lie in the upper two thirds")


def test_strips_and_scatter_take_one_concept(ax: Axes):
    neurons = pd.DataFrame({"concept": "okapi", "layer": [0, 2, 2], "score": [0.3, 0.2, 0.1]})
    layer_figures.layer_strips(neurons, 4, ax)
    assert "okapi" in heading(ax)
    layer_figures.layer_scatter(neurons, 4, plt.figure().gca())
    assert "3 best neurons of “okapi” lie in 2 of 4 layers" in heading(plt.gca())


# Pictures


@pytest.mark.parametrize(("grid", "cell"), [((8, 8), (1, 6)), ((16, 4), (11, 2))])
def test_a_cell_of_a_heatmap_lies_where_its_image_token_does(grid: tuple[int, int], cell: tuple[int, int]):
    """Drawn pixel by pixel on a gray picture of 160 x 240: the one lit cell is red, its neighbours are not."""
    values = np.zeros(grid)
    values[cell] = 2.0
    figure = plt.figure(figsize=(2.4, 1.6), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    drawing.heatmap(ax, np.full((160, 240, 3), 128, np.uint8), values)
    ax.set_aspect("auto")
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba()).astype(int)  # (160, 240, 4)
    red = drawn[..., 0] - drawn[..., 2] > 40
    height, width = 160 / grid[0], 240 / grid[1]
    expected = np.zeros((160, 240), bool)
    top, left = round(cell[0] * height), round(cell[1] * width)
    expected[top : top + round(height), left : left + round(width)] = True
    assert (red != expected).sum() <= 2 * (height + width)  # half-covered pixels at the border
    assert red[int((cell[0] + 0.5) * height), int((cell[1] + 0.5) * width)]
    plt.close(figure)


def test_a_heatmap_of_nothing_is_only_the_picture():
    ax = drawing.heatmap(plt.figure().gca(), np.full((8, 8, 3), 128, np.uint8), np.zeros((2, 2)))
    assert ax.images[-1].norm.vmax == 1.0
    assert ax.images[-1].to_rgba(np.zeros((1, 1)))[0, 0, 3] < 0.05


def scene() -> Sample:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 20:40] = True
    return Sample("scene-0", "bear", np.full((40, 40, 3), 90, np.uint8), mask, without=np.zeros((40, 40, 3), np.uint8))


def test_examples_show_both_captions_and_the_objects_size():
    rows = [(scene(), scene().without, "A bear.", "", "scene-0, rejected: not “whole”")]
    with drawing.theme():
        figure = pictures.examples(rows)
    assert [ax.get_xlabel().replace("\n", " ") for ax in figure.axes] == [
        "“A bear.”",
        "bear: 25% of the frame",
        "not captioned",
    ]
    assert texts(figure.axes[0]) == ["scene-0, rejected: not “whole”"]


def test_a_row_of_a_gallery_has_one_scale_unless_maps_are_of_different_things():
    maps = [np.array([[0.0, 1.0]]), np.array([[0.0, -4.0]])]
    together = pictures.gallery([(scene(), maps)], ["a", "b"], "what")
    apart = pictures.gallery([(scene(), maps)], ["a", "b"], "what", shared=False)
    limits = [[ax.images[-1].norm.vmax for ax in figure.axes[1:3]] for figure in (together, apart)]
    assert limits == [[4, 4], [1, 4]]


def test_localisation_averages_pictures_within_concepts(ax: Axes):
    rows = [("bear", "0", 0.2), ("bear", "1", 0.4), ("bus", "2", 0.9)]
    frame = pd.DataFrame(
        [(*row, name) for row in rows for name in ("kept", "dropped")], columns=["concept", "image_id", "inside", "map"]
    )
    frame["area"] = 0.25
    pictures.localisation(frame, {"kept": "after both stages", "dropped": "dropped"}, ax)
    dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([60, 60])
    assert 25 in [line.get_xdata()[0] for line in ax.lines]


# Tokens and sets


def test_tokens_are_read_back_as_they_were_written():
    written = [" bear", "it's", 'say "so"', "\n", "', '"]
    assert tokens(" ".join(map(repr, written))) == written


@pytest.mark.parametrize(
    ("token", "counts_as_own"),
    [(" bear", True), ("Bears", True), (" beard", False), (" gira", False), ("ear", False)],
)
def test_own_words_are_the_concepts(token: str, counts_as_own: bool):
    assert bool(own_words(repr(token), "bear")) is counts_as_own
    assert own_words(repr(" gira"), "giraffe") == [" gira"]


def test_shared_neurons_are_counted_by_concept():
    rows = [("bear", 0, 1), ("bear", 0, 2), ("bus", 0, 1), ("bus", 1, 2), ("cat", 0, 1), ("cat", 1, 2)]
    neurons = pd.DataFrame(rows, columns=["concept", "layer", "unit"]).assign(method="two-stage", rank=[0, 1] * 3)
    common = shared(neurons, 2, 100).set_index("concept")
    assert common["of another concept"].to_dict() == {"bear": 1, "bus": 2, "cat": 2}
    assert common["of every concept"].tolist() == [1, 1, 1]
    assert common["by chance"].tolist() == pytest.approx([2 * (1 - 0.98**2)] * 3)


def test_the_layers_of_every_method():
    rows = [("two-stage", concept, layer) for concept in ("bear", "bus") for layer in (0, 3)]
    rows += [("dai", concept, layer) for concept in ("bear", "bus") for layer in (2, 3)]
    neurons = pd.DataFrame(rows, columns=["method", "concept", "layer"])
    late = late_by_method(neurons, 4).set_index("method")
    assert late["late"].to_dict() == {"two-stage": 0.5, "dai": 1.0}
    assert late.loc["dai", ["difference", "p_holm"]].tolist() == [-0.5, 0.5]  # two concepts: 2 of 4 sign patterns
    with drawing.theme():
        figure = methods_over_layers(neurons, 4)
    assert "50% (two-stage neurons) to 100% (Dai et al.)" in " ".join(figure.get_suptitle().split())
    plt.close("all")
