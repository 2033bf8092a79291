"""What every figure shares: a concept has its colour, a title its width, a cell of a heatmap its place."""

from __future__ import annotations

from unittest.mock import Mock

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from book import pictures, style, tables
from book.page import Page
from book.press.drawn import CONTRAST, DARK, contrast, in_the_dark
from book.style import CONCEPTS
from kn_core import drawing
from kn_core.pictures.sample import Sample


@pytest.fixture
def ax():
    with drawing.theme():
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


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


def test_captioned_pictures_fill_rows_and_only_the_first_is_outlined():
    with drawing.theme():
        figure = pictures.captioned([(f"way {i}", scene().image, f"Caption {i}.") for i in range(5)], scene().mask)
    drawn = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in drawn] == [f"way {i}" for i in range(5)] and len(figure.axes) == 8
    assert [ax.get_xlabel() for ax in drawn] == [f"“Caption {i}.”" for i in range(5)]
    assert [bool(ax.collections) for ax in drawn] == [True, False, False, False, False]
    plt.close(figure)


def test_every_colour_of_concepts_and_methods_stands_out_from_both_grounds():
    shown = [*CONCEPTS.values(), *style.SPARE, *(method.colour for method in style.METHODS.values())]
    assert [colour for colour in shown if contrast(colour, drawing.CARD) < CONTRAST] == []
    assert [colour for colour in shown if contrast(in_the_dark(colour), DARK) < CONTRAST] == []
    looks = set(zip(CONCEPTS.values(), map(str, style.concept_dashes(CONCEPTS).values()), strict=True))
    assert len(looks) == len(CONCEPTS)


def test_a_kept_figure_has_its_name_in_the_drawing_and_a_narrow_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    shown = Mock()
    monkeypatch.setattr("book.page.display", shown)
    page = Page("stage-1", "embedded", "hot dog")
    before = plt.get_fignums()
    _, ax = plt.subplots()
    ax.set_title("Found")
    page.figure(ax, "found", preview=True)
    kept = sorted(path.name for path in (page.study.folder / "figures").iterdir())
    assert kept == [f"found-hot-dog{end}" for end in ("-narrow.svg", ".pdf", ".png", ".svg")]
    drawing = (page.study.folder / "figures" / "found-hot-dog.svg").read_text()
    assert 'id="figure:found-hot-dog"' in drawing
    shown.assert_called_once_with({"image/svg+xml": drawing}, raw=True)
    assert plt.get_fignums() == before  # nothing is left for the notebook to draw


def test_a_table_s_caption_says_of_how_many_pictures_it_is():
    frame = pd.DataFrame({"n_images": [108, 18, 0]})
    assert tables.counted("Readings", frame) == "Readings; n\u00a0=\u00a018 to 108 pictures"
    assert tables.counted("Readings", frame[:1]) == "Readings; n\u00a0=\u00a0108 pictures"
    assert tables.counted("Readings", frame[2:]) == tables.counted("Readings", pd.DataFrame()) == "Readings"
