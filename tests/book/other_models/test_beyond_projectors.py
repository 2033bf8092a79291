"""A linear layer beside a Q-Former: two whole studies of the toy world, and what is said of numbers made up here."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from book.other_models import beyond_projectors, figures
from book.other_models.beyond_projectors import LINEAR, QUERIES, in_words, page
from book.other_models.two_studies import both, shared_neurons
from book.words import NotRun
from kn_core import drawing, models
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
        study = studies[row["model"]]
        pairs = study.pairs(row["concept"])
        assert row["captioned"] == len(pairs[pairs["caption"] != ""])
        assert row["kept"] <= row["named"] <= row["captioned"]
        assert row["neurons"] == len(study.neuron_set(row["concept"]))


def test_shared_neurons_are_counted_concept_by_concept(studies):
    concepts = both(studies)
    found = shared_neurons(studies, concepts)
    budget = studies[LINEAR].profile.identification.budget
    for row in found.to_dict("records"):
        sets = []
        for study in studies.values():
            best = study.neurons(row["concept"]).query("method == 'two-stage'").nsmallest(budget, "rank")
            sets.append(set(zip(best["layer"], best["unit"], strict=True)))
        assert row["shared"] == len(sets[0] & sets[1])
        assert row["of"] == min(map(len, sets))


def test_maps_of_a_qformer_have_their_bounds_beside_them(studies):
    concepts = both(studies)[:1]
    found = query_maps.places(studies, concepts)
    by = found.groupby("model")["map"].agg(set)
    assert by[LINEAR] == {"own", "random"}
    assert by[QUERIES] == set(beyond_projectors.MAPS) == set(figures.MAPS)
    study, row = studies[QUERIES], found[found["map"] == "single"].iloc[0]
    sample, maps = study.sample(concepts[0], row["image_id"]), study.token_maps(concepts[0], row["image_id"]).numpy()
    share = cells(sample.mask, (4, 4))
    shares = [mass_on_object(one.reshape(4, 4), share) for one in maps]
    assert row["inside"] == pytest.approx(max(shares), rel=1e-5)
    alike = found[(found["map"] == "any") & (found["image_id"] == row["image_id"])].iloc[0]
    assert alike["inside"] == pytest.approx(np.mean(shares), rel=1e-5)  # each map weighs 1
    pd.testing.assert_frame_equal(query_maps.places(studies, concepts), found)


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


def test_the_page_says_everything_that_its_text_asks_for(studies, tmp_path):
    shown = page(studies)
    asked = set(re.findall(r"\{glue:text\}`([^`]+)`", PAGE.read_text()))
    assert asked <= set(shown.words)
    assert shown.notice.startswith("Compared on")
    html = shown.table("effects", "The main setting").to_html()
    assert QUERIES in html
    assert (studies[LINEAR].folder / "tables" / "beyond_projectors_effects.csv").exists()
    with drawing.theme():
        figure = figures.effects(shown.frames["effects"])
        assert len(figure.axes) == 2
        shown.save_figure(figure, "toy")
        assert (studies[LINEAR].folder / "figures" / "beyond_projectors_toy.svg").exists()
        plt.close(figure)
        figure = figures.places(shown.frames["places"])
        assert [len(ax.get_yticks()) for ax in figure.axes] == [2, 6]
        plt.close(figure)


def test_a_missing_study_ends_the_page_with_how_to_run_it(studies, monkeypatch, tmp_path):
    with pytest.raises(NotRun, match="no bridge has pairs in both studies"):
        page(studies, "bridge")
    with pytest.raises(NotRun, match="no pair of profiles embedded-coco and embedded-coco-qformer"):
        beyond_projectors.compared("embedded-coco")
    monkeypatch.setattr(models, "PROJECTIONS", tmp_path)
    with pytest.raises(NotRun) as missing:
        beyond_projectors.compared("embedded-qformer")
    assert str(missing.value) == (
        "**Not run:** the projection of the profile embedded is not trained. "
        "Run `python -m kn_core.training --profile embedded --coco DIR`."
    )


def made_up(advantage: float, width: float) -> tuple[pd.DataFrame, ...]:
    """Frames of one picture of each of two concepts, with this advantage over the control with the Q-Former."""
    found = pd.DataFrame(
        [(m, c, 10, 8, 6, n, 0.5) for m, n in ((LINEAR, 100), (QUERIES, 80)) for c in ("bear", "bus")],
        columns=["model", "concept", "captioned", "named", "kept", "neurons", "late"],
    )
    rows = []
    for model, gap, wide in ((LINEAR, 0.3, 0.1), (QUERIES, advantage, width)):
        for metric in ("suppression", "retention", "fluent"):
            row = {"model": model, "metric": metric, "n_images": 12, "n_concepts": 2}
            for side, value in (("", 0.6), ("random_", 0.6 - gap), ("difference_", gap)):
                row |= {f"{side}value": value, f"{side}low": value - wide, f"{side}high": value + wide}
            rows.append(row)
    change = pd.DataFrame(
        [
            (metric, advantage - 0.3, advantage - 0.3 - width, advantage - 0.3 + width, 2)
            for metric in ("suppression", "retention")
        ],
        columns=["metric", "value", "low", "high", "n_concepts"],
    )
    alike = pd.DataFrame(
        [("bear", 40, 80, 0.5, 0.0, 20.0)], columns=["concept", "shared", "of", "expected_layers", "p", "shared_others"]
    )
    inside = {(LINEAR, "own"): 0.6, (LINEAR, "random"): 0.2, (QUERIES, "own"): 0.4, (QUERIES, "random"): 0.3}
    inside |= {
        (QUERIES, name): value for name, value in (("plain", 0.5), ("exchanged", 0.2), ("single", 0.5), ("any", 0.4))
    }
    where = pd.DataFrame(
        [(m, c, f"{c}-0", name, 1.0, 1.0, value, 0.2) for (m, name), value in inside.items() for c in ("bear", "bus")],
        columns=["model", "concept", "image_id", "map", "iou", "pointing", "inside", "area"],
    )
    added = pd.DataFrame({"block": ["self 1", "cross 1"], "share": [0.02, 0.5], "region": 0.8})
    return found, pd.DataFrame(rows), change, alike, where, added


def test_no_map_lies_beyond_the_edge_of_the_figure():
    *_, where, _ = made_up(0.3, 0.1)
    where.loc[where["map"] == "single", "inside"] = 0.9  # of the second model alone
    with drawing.theme():
        figure = figures.places(where)
        assert {ax.get_xlim()[0] for ax in figure.axes} == {0}
        assert all(ax.get_xlim()[1] > 0.9 for ax in figure.axes)
        plt.close(figure)


@pytest.mark.parametrize(
    ("advantage", "width", "works", "clear", "carried"),
    [
        (0.4, 0.05, "Yes", "clear of zero", "is larger"),
        (0.2, 0.05, "Yes", "clear of zero", "is smaller"),
        (0.3, 0.1, "Yes", "clear of zero", "cannot be told from the linear layer's"),
        (0.0, 0.1, "Not as with the linear layer", "not clear of zero", "is smaller"),
        (-0.3, 0.1, "Not as with the linear layer", "clear of zero on the wrong side", "is smaller"),
    ],
)
def test_sentences_follow_the_numbers(advantage, width, works, clear, carried):
    words = in_words(*made_up(advantage, width))
    assert words["works"].startswith(works)
    assert (words["clear-queries"], words["suppression-carried"]) == (clear, carried)
    matters = "it finds neurons that matter" if works == "Yes" else "what it finds is not shown to matter"
    assert words["answer"].startswith(matters)
    assert f"{'and' if works == 'Yes' else 'but'} their map, carried back, shows where" in words["answer"]
    assert words["shared"] == "40 of 80"
    assert words["map-cost"] == "0.20 less"
    assert words["own-over-exchanged"] == "0.20 [0.20,\u00a00.20]"
    assert (words["clear-of-any"], words["clear-of-plain"]) == ("not clear of zero", "clear of zero on the wrong side")
    assert words["neurons-queries"] == "80"
    assert (words["first-block"], words["first-share"], words["other-share"]) == ("cross 1", "50%", "2%")
    assert words["exchange"] == "so it is little more than one soft look"


def test_figures_state_what_is_drawn():
    with drawing.theme():
        _, effect, _, _, where, _ = made_up(0.1, 0.05)
        figure = figures.effects(effect)
        assert "30 with the linear layer and 10 with the Q-Former" in figure._suptitle.get_text().replace("\n", " ")
        plt.close(figure)
        figure = figures.places(where)
        assert "60% with the linear layer, 40% with the Q-Former" in figure._suptitle.get_text().replace("\n", " ")
        plt.close(figure)
