"""Two studies held against each other: numbers worked out by hand, and studies of the toy world that are the same."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from book.other_models import beyond_projectors, third_stage, towers, two_studies
from book.other_models.two_studies import DIFFERENCE, QUANTITIES, both, compare, jaccard_by_chance, shared_neurons
from book.words import NotRun
from kn_core import models
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit
from tests.perturbed import headline_rows, profile

CONCEPTS = ["bear", "bus"]
LAYERS, WIDTH = 6, 50


def stand_in(rows: list[dict[str, object]], named: dict[str, bool], neurons: dict[str, list[tuple[int, int]]]):
    """What a comparison asks of a study: `named` is by picture, '' is one that was not captioned."""
    pairs = pd.DataFrame(
        [
            (image_id.split("-")[0], image_id, "" if hit is None else "Said.", "word" if hit else "")
            for image_id, hit in named.items()
        ],
        columns=["concept", "image_id", "caption", "target_word"],
    )
    found = pd.DataFrame(
        [
            (concept, "two-stage", layer, unit, rank)
            for concept, places in neurons.items()
            for rank, (layer, unit) in enumerate(places)
        ],
        columns=["concept", "method", "layer", "unit", "rank"],
    )
    trials = pd.DataFrame(rows)

    def of(frame: pd.DataFrame, concept: str) -> pd.DataFrame:
        return frame[frame["concept"] == concept]

    return SimpleNamespace(
        profile=profile(),
        n_layers=LAYERS,
        studied=lambda: CONCEPTS,
        pairs=lambda concept: of(pairs, concept),
        neurons=lambda concept: of(found, concept),
        perturbations=lambda concept=None: of(trials, concept) if concept else trials,
        scores=lambda concept: {"delta": np.zeros((3, LAYERS, WIDTH))},
    )


@pytest.fixture
def studies():
    """With the first tower the rows of `perturbed`; with the second noise on two-stage neurons takes nothing away."""
    rows = headline_rows()
    harmless = [row | {"target_present": True, "retained": 1.0} for row in rows]
    one = {"bear": [(0, 1), (3, 2), (5, 3), (5, 4)], "bus": [(2, 7), (4, 1)]}
    other = {"bear": [(0, 1), (3, 2), (4, 9), (4, 8)], "bus": [(5, 3), (5, 9)]}
    first = {"bear-1": True, "bear-2": False, "bear-3": True, "bus-1": True, "bus-2": None}
    second = {"bear-1": True, "bear-2": True, "bus-1": False, "bus-2": True, "bus-3": True}
    return {"convolutional": stand_in(rows, first, one), "ViT": stand_in(harmless, second, other)}


def test_every_quantity_is_the_mean_over_concepts_of_their_pictures(studies):
    frame = compare(studies, CONCEPTS)
    assert frame["quantity"].unique().tolist() == list(QUANTITIES)
    value = frame.set_index(["quantity", "model"])["value"]
    # Captioned with both: bear-1, bear-2 and bus-1.
    assert value["naming"].tolist() == [(0.5 + 1) / 2, (1 + 0) / 2, (-0.5 + 1) / 2]
    assert value["suppression"].tolist() == [(0.75 + 0.5) / 2, 0, (0.75 + 0.5) / 2]
    assert value["suppression-random"].tolist() == [0.125, 0, 0.125]
    assert value["suppression-over-random"].tolist() == [(0.75 + 0.25) / 2, 0, 0.5]
    assert value["retention"].tolist() == [0.5, 1, -0.5]
    assert value["retention-over-random"].tolist() == [-0.5, 0, -0.5]
    assert value["retention_truth"].tolist() == [0.25, 0.25, 0]
    assert value["first-third"].tolist() == [0.125, 0.125, 0]
    assert value["middle-third"].tolist() == [(0.25 + 0.5) / 2, 0.125, 0.25]
    assert value["last-third"].tolist() == [0.5, 0.75, -0.25]
    counts = frame.set_index(["quantity", "model"])[["n_images", "n_concepts"]]
    assert counts.loc["naming"].to_numpy().tolist() == [[3, 2]] * 3
    assert counts.loc["suppression"].to_numpy().tolist() == [[4, 2], [4, 2], [0, 2]]
    assert counts.loc["last-third"].to_numpy().tolist() == [[0, 2]] * 3


def test_intervals_of_differences_between_concepts_span_what_concepts_give(studies):
    frame = compare(studies, CONCEPTS).set_index(["quantity", "model"])
    low, high = frame.loc[("suppression", DIFFERENCE), ["low", "high"]]
    assert low < -0.9 and high == 1  # of two concepts, 0.5 and 0.75, next to nothing; shares differ by no more
    alone = compare(studies, ["bear"]).set_index(["quantity", "model"])
    assert math.isnan(alone.loc[("suppression", DIFFERENCE), "low"])
    assert not math.isnan(alone.loc[("naming", DIFFERENCE), "low"])


def test_shared_neurons_stand_beside_chance_and_beside_other_concepts(studies):
    frame = shared_neurons(studies, CONCEPTS).set_index("concept")
    assert frame["shared"].tolist() == [2, 0]
    assert frame["jaccard"].tolist() == [2 / 6, 0]
    # The bear's four against the other tower's bus's two, which hold (5, 3); the other way round none is shared.
    assert frame["jaccard_others"].tolist() == pytest.approx([(1 / 5 + 0) / 2] * 2)
    assert frame["expected_layers"].tolist() == pytest.approx([(1 + 1) / WIDTH, 0])
    total = LAYERS * WIDTH
    assert frame.loc["bear", "p"] == pytest.approx(1 - sum(hypergeometric(k, total, 4, 4) for k in (0, 1)))
    assert frame.loc["bear", "p_holm"] == pytest.approx(2 * frame.loc["bear", "p"])
    assert frame.loc["bus", "jaccard_chance"] == pytest.approx(jaccard_by_chance(2, 2, total))


def hypergeometric(shared: int, total: int, one: int, other: int) -> float:
    return math.comb(one, shared) * math.comb(total - one, other - shared) / math.comb(total, other)


def test_the_jaccard_index_by_chance():
    assert jaccard_by_chance(1, 1, 4) == pytest.approx(1 / 4)  # the same one, or none
    # Of two drawn from four: both with 1/6, one of three with 4/6, none with 1/6.
    assert jaccard_by_chance(2, 2, 4) == pytest.approx(1 / 6 + 4 / 6 / 3)
    assert jaccard_by_chance(0, 3, 9) == 0
    assert math.isnan(jaccard_by_chance(0, 0, 9))


@pytest.fixture(scope="module")
def twins(taught_model, toy_profile, tmp_path_factory):
    """Two whole studies of one model, called two models: nothing may differ."""
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        made = {name: Study(toy_profile, folder / name, taught_model) for name in ("one", "other")}
        for study in made.values():
            study.perturbations()
        yield made


def test_a_model_does_not_differ_from_itself(twins):
    concepts = both(twins)
    assert len(concepts) >= 2
    frame = compare(twins, concepts)
    frame = frame[~frame["quantity"].str.contains("truth")]  # the toy world shows no other thing
    assert (frame[frame["model"] == DIFFERENCE][["value", "low", "high"]] == 0).all(axis=None)
    own, other = (frame[frame["model"] == name].drop(columns="model").reset_index(drop=True) for name in twins)
    pd.testing.assert_frame_equal(own, other)
    assert own.set_index("quantity").loc["naming", "value"] > 0.5
    assert (shared_neurons(twins, concepts)["jaccard"] == 1).all()
    third = third_stage.compare(twins, concepts)
    told = [name for name in third_stage.QUANTITIES if "truth" not in name]
    assert third["quantity"].unique().tolist() == told
    assert (third[third["model"] == DIFFERENCE][["value", "low", "high"]] == 0).all(axis=None)
    assert third.set_index(["quantity", "model"]).loc[("ceiling", "one"), "value"] > 0
    bounds, of_third = two_studies.bounds(twins, concepts), third_stage.bounds(twins, concepts)
    for found in (bounds, of_third):
        pd.testing.assert_frame_equal(found["one"], found["other"])
        assert set(found["one"]["method"]) == {"nothing", "removal", "chance"}
    counts = compare(twins, concepts).set_index(["quantity", "model"])["n_images"]
    assert bounds["one"].query("method == 'removal'")["n_images"].max() == counts["suppression", "one"]
    judged = towers.verdicts(twins, concepts)
    assert not judged["differ"].any()
    assert set(judged["page"]) == {"layers", "perturbation"}
    assert judged["one"].eq(judged["other"]).all()
    assert judged["one, ours"].equals(judged["other, ours"])


def test_a_page_says_what_it_compares(twins):
    assert two_studies.notice(twins, ["bear"]).startswith("Compared on bear: `toy` (one) and `toy` (other)")
    with pytest.raises(NotRun, match="no bridge has pairs in both studies"):
        both(twins, "bridge")


@pytest.mark.parametrize("name", ["embedded", "embedded-vit"])
def test_studies_are_found_from_either_profile(name, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "PROJECTIONS", tmp_path)
    for untrained, tower in (("embedded", "efficientnet-lite0"), ("embedded-vit", "dinov2-small")):
        with pytest.raises(NotRun) as missing:
            towers.studies(name)
        assert str(missing.value) == (
            f"**Not run:** the projection of the profile {untrained} is not trained. "
            f"Run `python -m kn_core.training --profile {untrained} --coco DIR`."
        )
        (tmp_path / f"{tower}_smollm2-135m.safetensors").touch()
    found = towers.studies(name)
    assert list(found) == ["EfficientNet-Lite0", "DINOv2 ViT-S/14"]
    assert [study.profile.name for study in found.values()] == ["embedded", "embedded-vit"]


@pytest.mark.parametrize(("page", "variant"), [(towers, "vit"), (beyond_projectors, "qformer")])
def test_a_profile_without_a_variant_is_not_compared(page, variant):
    with pytest.raises(NotRun, match=f"there is no pair of profiles embedded-coco and embedded-coco-{variant}"):
        page.studies("embedded-coco")


@pytest.mark.parametrize(
    ("low", "begins"),
    [
        ((0.1, 0.1), "With both models noise"),
        ((-0.1, 0.1), "Only with one model, b, is it clear that noise"),
        ((0, np.nan), "With neither model is it clear that noise"),
    ],
)
def test_whether_the_method_works_is_said_of_both_models(low, begins):
    compared = pd.DataFrame({"quantity": "suppression-over-random", "model": ["a", "b", DIFFERENCE], "low": [*low, 9]})
    assert two_studies.works(compared).startswith(begins)
