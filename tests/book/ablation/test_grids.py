"""Thresholds over grids that are small enough to read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.ablation import figures, grids
from kn_core.drawing import theme

SAME = [[0.80, 0.73, 0.10], [0.71, 0.75, 0.10], [0.10, 0.10, 0.79]]  # suppression = retention = score


@pytest.fixture(autouse=True)
def canvas() -> Iterator[None]:
    with theme():
        yield
    plt.close("all")


def cells(suppression: list[list[float]], retention: list[list[float]], scale: str = "quantile") -> pd.DataFrame:
    """A grid as written: rows are steps of g from 0.8 up, columns steps of a."""
    steps, rows = (0.8, 0.9, 0.99), []
    for y, x in np.ndindex(len(suppression), len(suppression[0])):
        cell = {"scale": scale, "a": steps[x], "g": steps[y], "quantile_a": steps[x], "quantile_g": steps[y]}
        cell |= {"threshold_a": 1.0 + 2 * x, "threshold_g": 10.0 ** (y - 4)}
        cell |= {"suppression": suppression[y][x], "retention": retention[y][x], "fluent": 1.0}
        rows.append(cell | {"n_neurons": 100 // (1 + x + y), "n_images": 2})
    return pd.DataFrame(rows)


def own_at(x: float, y: float, in_region: bool) -> pd.DataFrame:
    return pd.DataFrame([{"concept": "bear", "a": 0.9, "g": 0.9, "x": x, "y": y, "in_region": in_region}])


def test_pooled_cells_are_means_over_the_concepts_that_have_neurons_there() -> None:
    filled = cells([[1.0]], [[0.5]])
    empty = filled.assign(suppression=math.nan, retention=math.nan, n_images=math.nan, quantile_a=1.0, n_neurons=0)
    (pooled,) = grids.over_concepts(pd.concat([filled, filled.assign(suppression=0.5), empty])).to_dict("records")
    assert (pooled["suppression"], pooled["retention"]) == (0.75, 0.5)
    assert pooled["quantile_a"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert (pooled["n_neurons"], pooled["n_images"], pooled["n_concepts"]) == (200 / 3, 4, 2)


def test_the_score_is_the_harmonic_mean() -> None:
    region = grids.best_region(cells([[0.5, 0.0, 1.0], [1.0, 0.0, math.nan]], [[0.5, 1.0, 0.5], [0.0, 0.0, math.nan]]))
    assert region["score"].fillna(-1).tolist() == pytest.approx([0.5, 0, 2 / 3, 0, 0, -1])
    assert region["best"].tolist() == region["in_region"].tolist() == [False, False, True, False, False, False]


def test_the_region_hangs_together_with_the_best_and_is_within_a_tenth_of_it() -> None:
    region = grids.best_region(cells(SAME, SAME))
    expected = [[True, True, False], [False, True, False], [False, False, False]]  # 0.79 only touches at a corner
    assert region["in_region"].to_numpy().reshape(3, 3).tolist() == expected
    shuffled = grids.best_region(cells(SAME, SAME).sample(frac=1, random_state=0)).sort_index()
    pd.testing.assert_frame_equal(shuffled, region)
    apart = [[0.8, 0.1, 0.8], [0.1, 0.1, 0.1]]  # equal bests have a region each
    assert grids.best_region(cells(apart, apart))["in_region"].tolist() == [True, False, True, False, False, False]


def test_where_nothing_suppresses_and_retains_there_is_no_region() -> None:
    region = grids.best_region(cells([[0.0, 1.0]], [[1.0, 0.0]]))
    assert not region["in_region"].any() and not region["best"].any()
    words = grids.in_words(region, own_at(0, 0, False))
    assert words["region"] == "no cell, for none suppresses and retains at once"
    assert figures.grid(region, own_at(0, 0, False)).get_suptitle() == "No cell suppresses and retains at once"


def test_two_grids_at_once_are_refused() -> None:
    both = pd.concat([cells([[0.5]], [[0.5]]), cells([[0.5]], [[0.5]], "raw")])
    with pytest.raises(ValueError, match="grid must be of one scale"):
        grids.best_region(both)


@pytest.mark.parametrize(
    ("steps", "value", "scale", "expected"),
    [
        ((0.9, 0.99), 0.99, "quantile", 1),
        ((0.9, 0.99), 0.9683772, "quantile", 0.5),  # 1 - q = 10 ** -1.5
        ((0.9, 0.99), 0.0, "quantile", -1),
        ((0.9, 0.99), 1.0, "quantile", 2),  # lets nothing pass
        ((1e-4, 1e-3, 1e-1), 1e-2, "raw", 1.5),
        ((1e-4, 1e-3, 1e-1), 10**-4.5, "raw", -0.5),
        ((1e-4, 1e-3, 1e-1), -0.3, "raw", -1),
        ((1e-4, 1e-3, 1e-1), 1.0, "raw", 2.5),
    ],
)
def test_positions_count_steps_on_a_logarithmic_axis(
    steps: tuple[float, ...], value: float, scale: str, expected: float
) -> None:
    assert grids.position(steps, value, scale) == pytest.approx(expected, abs=1e-6)


def test_our_thresholds_are_placed_by_share_and_by_value() -> None:
    scores = np.arange(1, 101) / 100
    study: Any = SimpleNamespace(
        pooled=lambda concept: {"delta": scores, "gradcam": scores},
        thresholds=lambda concept: {"delta": 0.9, "gradcam": 0.8},
    )
    for scale in ("quantile", "raw"):  # here a threshold is its own quantile
        region = grids.best_region(cells(SAME, SAME, scale))
        (own,) = grids.placed(study, ["bear"], region).to_dict("records")
        assert (own["a"], own["g"], own["in_region"]) == (0.9, 0.8, True)
        assert (own["x"], own["y"]) == pytest.approx((1, 0))
    study.thresholds = lambda concept: {"delta": 0.9, "gradcam": 1e-5}
    assert not grids.placed(study, ["bear"], region)["in_region"].any()  # far below the steps


def test_words_of_a_grid_are_its_numbers() -> None:
    same = [[0.8, 0.75], [0.1, 0.2]]
    words = grids.in_words(grids.best_region(cells(same, same, "raw")), own_at(0, 0, True))
    assert (words["suppression"], words["neurons"], words["paper-neurons"]) == ("10% to 80%", "33 to 100", "50 to 100")
    assert (words["region"], words["own"]) == ("2 of 4 cells, with 50 to 100 neurons", "1 of 1")
    assert (words["rank-suppression"], words["rank-retention"]) == ("0.63", "0.63")
    assert words["exception"] == "The number is not all: 33 neurons of one cell suppress 20%, 50 of another 10%"
    assert (words["along-a"], words["along-g"]) == ("2", "62")  # 0.45 to 0.475, and 0.15 to 0.775
    rising = grids.best_region(cells([[1.0, 0.9], [0.9, 0.8]], [[0.3, 0.3], [0.3, 0.3]]))
    words = grids.in_words(rising, own_at(0, 0, True))
    assert words["exception"] == "No cell with more neurons suppresses less than one with fewer"
    assert words["rank-retention"] == "0.00"


def test_a_grid_has_counts_the_regions_outline_and_our_thresholds() -> None:
    same = [[0.8, 0.73, math.nan], [0.1, 0.2, 0.3]]
    figure = figures.grid(grids.best_region(cells(same, same)), own_at(1, 0, True))
    upper = figure.axes[0]
    written = [text.get_text() for text in upper.texts]
    assert written[0] == "80%\n\nn = 100" and written[2] == "–\n\nn = 33"
    _, outline, circles = upper.collections
    assert len(outline.get_segments()) == 6  # around two cells side by side
    assert circles.get_offsets().data.tolist() == [[1.5, 0.5]]
    assert " ".join(figure.get_suptitle().split()) == (
        "The best cell suppresses 80% and retains 80%; the region around it holds 2 of 6 cells "
        "and our thresholds of 1 of 1 concepts"
    )


def test_a_raw_grid_has_brackets_at_the_papers_thresholds() -> None:
    region = grids.best_region(cells([[0.5] * 2] * 2, [[0.5] * 2] * 2, "raw"))
    figure = figures.grid(region.assign(a=[0.8, 2.5] * 2, g=[1e-4] * 2 + [2e-3] * 2), own_at(5, 5, False))
    across, up = figure.axes[0].lines
    assert (across.get_xdata().tolist(), up.get_ydata().tolist()) == ([0.5, 1.5], [0.5, 1.5])
    assert figure.axes[0].collections[-1].get_offsets().data.tolist() == [[2, 2]]  # at the edge, not outside


def test_small_multiples_have_two_panels_a_concept() -> None:
    same = [[0.8, 0.7], [0.1, 0.2]]
    regions = {name: grids.best_region(cells(same, same)) for name in ("bear", "bus", "cat", "dog")}
    own = pd.concat([own_at(0, 0, name != "bus").assign(concept=name) for name in regions])
    figure = figures.by_concept(regions, own)
    assert len([ax for ax in figure.axes if len(ax.collections) == 3]) == 8
    said = "Our thresholds lie in the region around their own concept’s best cell in 3 of 4 concepts"
    assert " ".join(figure.get_suptitle().split()) == said
