"""A linear layer beside a Q-Former: two whole studies of the toy world, and what is said of numbers made up here."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from book.faithfulness.maps import mean_readings
from book.other_models import beyond_projectors, figures, third_stage
from book.other_models.beyond_projectors import LINEAR, QUERIES
from book.other_models.two_studies import DIFFERENCE, both, compare, shared_neurons
from kn_core import drawing
from kn_core.method.heatmap import mass_on_object
from kn_core.models import QFormerMiniGPT4
from kn_core.models.qformer import QFormerProjection
from kn_core.pictures.token_grid import cells
from kn_core.study.experiments import heatmaps, query_maps
from kn_core.study.study import Study
from kn_core.training.data import Example, make_bank
from kn_core.training.distillation import distil
from tests.kn_core.study.test_study import inhabit
from tests.toy_world import COLOURS, ToyTower, toy_samples

PAGE = Path(__file__).parents[3] / "book" / "beyond-projectors.md"


@pytest.fixture(scope="module")
def studies(taught_model, toy_profile, tmp_path_factory):
    """The taught model, and its decoder behind a Q-Former that learnt from its linear layer."""
    folder = tmp_path_factory.mktemp("both")
    torch.manual_seed(0)
    projection = QFormerProjection(3, 32, (4, 4), n_queries=16, inner=64, layers=2, heads=2)
    queries = QFormerMiniGPT4(
        ToyTower(4), projection, taught_model.decoder, taught_model.tokenizer, "See ", " say: ", batch_size=16
    )

    def examples():
        for concept in COLOURS:
            for sample in toy_samples(concept, 40, seed=0):
                yield Example("scene", sample.image, sample.references, ())
                yield Example("scene", sample.without, ("A forest.",), ())

    left = distil(projection, taught_model.projection, make_bank(queries, [examples()], folder / "bank"), steps=150)
    assert left < 0.2
    queries.requires_grad_(False)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        for model, network in ((LINEAR, taught_model), (QUERIES, queries)):
            profile = toy_profile.model_copy(update={"name": model})
            found[model] = Study(profile, folder / model, network)
            found[model].perturbations()
        yield found


def test_both_models_have_neurons_for_the_concepts_of_the_toy_world(studies):
    concepts = both(studies)
    assert set(concepts) <= set(COLOURS)
    assert len(concepts) >= 2
    found = beyond_projectors.identified(studies, concepts)
    assert len(found) == 2 * len(concepts)
    for row in found.to_dict("records"):
        pairs, neurons = (of(row["concept"]) for of in (studies[row["model"]].pairs, studies[row["model"]].neuron_set))
        assert row["captioned"] == len(pairs[pairs["caption"] != ""])
        assert row["kept"] <= row["named"] <= row["captioned"]
        assert row["neurons"] == len(neurons)


def test_maps_of_a_qformer_have_their_bounds_beside_them(studies):
    concepts = both(studies)[:1]
    found = beyond_projectors.places(studies, concepts)
    by = found.groupby("model")["map"].agg(set)
    assert by[LINEAR] == {"own", "random"}
    assert by[QUERIES] == set(beyond_projectors.MAPS)
    study, row = studies[QUERIES], found[found["map"] == "single"].iloc[0]
    sample, maps = study.sample(concepts[0], row["image_id"]), study.token_maps(concepts[0], row["image_id"]).numpy()
    share = cells(sample.mask, (4, 4))
    shares = [mass_on_object(one.reshape(4, 4), share) for one in maps]
    assert row["inside"] == pytest.approx(max(shares), rel=1e-5)
    alike = found[(found["map"] == "any") & (found["image_id"] == row["image_id"])].iloc[0]
    assert alike["inside"] == pytest.approx(np.mean(shares), rel=1e-5)  # each map weighs 1
    pd.testing.assert_frame_equal(beyond_projectors.places(studies, concepts), found)


def test_what_each_block_adds_is_a_share_and_regions_hold_a_part_of_the_maps(studies):
    concepts = both(studies)
    found = query_maps.blocks(studies[QUERIES], concepts)
    assert found["block"].tolist() == ["self 1", "cross 1", "self 2"]
    assert found["share"].between(0, 1).all()
    maps = [
        np.diag(studies[QUERIES].token_maps(concept, image_id)).mean()  # sixteen queries on sixteen cells
        for concept in concepts
        for image_id in heatmaps.shown(studies[QUERIES], concept)
    ]
    assert found["region"].unique() == pytest.approx(np.mean(maps), rel=1e-4)


def test_the_page_says_everything_that_its_text_asks_for(studies):
    concepts = both(studies)
    compared, where = compare(studies, concepts), beyond_projectors.places(studies, concepts)
    means = mean_readings(where, ["model", "map"])
    found, shared = beyond_projectors.identified(studies, concepts), shared_neurons(studies, concepts)
    said = beyond_projectors.identified_in_words(found, shared) | beyond_projectors.effects_in_words(compared)
    said |= beyond_projectors.places_in_words(where, means)
    said |= beyond_projectors.blocks_in_words(query_maps.blocks(studies[QUERIES], concepts))
    third = third_stage.in_words(third_stage.compare(studies, concepts), queries=QUERIES, linear=LINEAR)
    asked = set(re.findall(r"\{glue:text\}`([^`]+)`", PAGE.read_text()))
    assert asked - set(third) == {*said, "answer"} and {"third-works", "third-apart", "ceiling-queries"} <= asked
    assert beyond_projectors.identified_for_readers(found)["model"].tolist() == [LINEAR, QUERIES]
    shown = beyond_projectors.effects_for_readers(compared)
    assert shown.iloc[0, 2:].str.contains("[", regex=False).all()
    wide = beyond_projectors.effects(compared).set_index(["model", "metric"])
    ours = compared.set_index(["quantity", "model"]).loc[("suppression-over-random", QUERIES)]
    assert wide.loc[(QUERIES, "suppression"), "difference_low"] == ours["low"]
    assert beyond_projectors.places_for_readers(means).shape == (2 + 6, 2 + 4)
    with drawing.theme():
        figure = figures.places(means)
        assert [len(ax.get_yticks()) for ax in figure.axes] == [2, 6]
    plt.close(figure)


def made_up(advantage: float, width: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`compare` and `places` of one picture of each of two concepts, with this advantage with the Q-Former."""
    rows = []
    for model, gap, wide in ((LINEAR, 0.3, 0.1), (QUERIES, advantage, width), (DIFFERENCE, 0.3 - advantage, width)):
        for metric in ("suppression", "retention_truth", "retention", "fluent"):
            for suffix, value in (("", 0.6), ("-random", 0.6 - gap), ("-over-random", gap)):
                rows.append((f"{metric}{suffix}", model, value, value - wide, value + wide, 12, 2))
    columns = ["quantity", "model", "value", "low", "high", "n_images", "n_concepts"]
    inside = {(LINEAR, "own"): 0.6, (LINEAR, "random"): 0.2, (QUERIES, "own"): 0.4, (QUERIES, "random"): 0.3}
    others = {"plain": 0.5, "exchanged": 0.2, "single": 0.5, "any": 0.4}
    inside |= {(QUERIES, name): value for name, value in others.items()}
    where = pd.DataFrame(
        [(m, c, f"{c}-0", name, 1.0, 1.0, value, 0.2) for (m, name), value in inside.items() for c in ("bear", "bus")],
        columns=["model", "concept", "image_id", "map", "iou", "pointing", "inside", "area"],
    )
    return pd.DataFrame(rows, columns=columns), where


@pytest.mark.parametrize(
    ("advantage", "width", "matters", "clear", "carried"),
    [
        (0.4, 0.05, True, "clear of zero", "is larger"),
        (0.2, 0.05, True, "clear of zero", "is smaller"),
        (0.3, 0.1, True, "clear of zero", "cannot be told from the linear layer's"),
        (0.0, 0.1, False, "not clear of zero", "is smaller"),
        (-0.3, 0.1, False, "on the wrong side of zero", "is smaller"),
    ],
)
def test_sentences_and_titles_follow_the_numbers(advantage, width, matters, clear, carried):
    compared, where = made_up(advantage, width)
    words = beyond_projectors.effects_in_words(compared)
    assert (words["clear-queries"], words["suppression-carried"]) == (clear, carried)
    answer = beyond_projectors.answer(compared, where)
    assert answer.startswith("it finds neurons that matter" if matters else "what it finds is not shown to matter")
    assert f"{'and' if matters else 'but'} their map, carried back, shows where" in answer
    one = pd.DataFrame({"method": "removal", "metric": ["suppression", "retention_truth"], "value": [1.0, 0.75]})
    bounds = {model: one.assign(low=0.5, high=1.0) for model in (LINEAR, QUERIES)}
    shown = beyond_projectors.effects_for_readers(compared, bounds)["the object taken out of the picture"]
    assert shown[:4].tolist() == shown[4:].tolist() == ["1.00 [0.50,\u00a01.00]", "0.75 [0.50,\u00a01.00]", "–", "–"]
    with drawing.theme():
        figure = figures.effects(compared, bounds)
        places = {dots.get_label(): dots.get_offsets() for dots in figure.axes[1].collections}
        assert places["the object taken out of the picture"].data[:, 0].tolist() == [0.75, 0.75]
        said = " ".join(figures.effects(compared).get_suptitle().split())
    assert said.endswith(f"30 with the linear layer and {100 * advantage:.0f} with the Q-Former")
    plt.close("all")


def test_maps_and_blocks_are_told_apart():
    _, where = made_up(0.3, 0.1)
    means = mean_readings(where, ["model", "map"])
    with drawing.theme():
        said = " ".join(figures.places(means).get_suptitle().split())
    assert said.endswith("60% with the linear layer, 40% with the Q-Former")
    plt.close("all")
    words = beyond_projectors.places_in_words(where, means)
    assert words["map-cost"] == "0.20 less"
    assert words["own-over-exchanged"] == "0.20 [0.20,\u00a00.20]"
    assert (words["clear-of-any"], words["clear-of-plain"]) == ("not clear of zero", "on the wrong side of zero")
    added = pd.DataFrame({"block": ["self 1", "cross 1"], "share": [0.02, 0.5], "region": 0.8})
    words = beyond_projectors.blocks_in_words(added)
    assert (words["first-block"], words["first-share"], words["other-share"]) == ("cross 1", "50%", "2%")
    assert words["exchange"] == "so it is little more than one soft look"
