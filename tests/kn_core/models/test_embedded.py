"""The embedded model, for real: two concepts from drawn scenes to captions under noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from kn_core import concepts
from kn_core.measures import metrics, summaries
from kn_core.models import MiniGPT4, load_model
from kn_core.pictures import scenes
from kn_core.profile import Profile, load_profile
from kn_core.study.study import Study

CONCEPTS = ["bear", "pizza"]


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The embedded profile, cut down to two concepts and a few pictures."""
    settings = load_profile("embedded").model_dump()
    settings["concepts"], settings["ours"] = CONCEPTS, []
    settings["data"] |= {"pool": 12, "select": 2, "held_out": 2}
    settings["perturbation"] |= {
        "seeds": 1,
        "rivals": ["dai"],
        "controls": ["random"],
        "draws": 1,
        "choosing": 0,
        "others_per_concept": 0,
        "sweep_n": [],
        "sweep_sigma": [],
        "sweep_interventions": ["zero"],
        "sweep_positions": [],
        "sweep_pictures": 1,
    }
    return Profile.model_validate(settings | {"full": {}})


@pytest.fixture(scope="module")
def model(profile: Profile) -> MiniGPT4:
    return load_model(profile)


@pytest.fixture(scope="module")
def study(profile: Profile, model: MiniGPT4, tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(profile, tmp_path_factory.mktemp("results"), model)
    made.neurons()  # all concepts: also written as one file, as the next line does for perturbations
    made.perturbations()
    return made


def test_the_model_is_the_one_that_the_design_describes(model):
    assert model.grid == (8, 8)
    assert (model.n_layers, model.ffn_width) == (30, 1536)
    assert model.image_positions.stop - model.image_positions.start == 64
    assert model.unembed.shape == (49152, 576)


def test_the_model_names_what_scenes_that_it_never_saw_show(model):
    shown = {concept: list(scenes.samples(concept, 2, seed=1000)) for concept in CONCEPTS}
    named = [
        concepts.names(caption, concept)
        for concept, samples in shown.items()
        for caption in model.caption([sample.image for sample in samples])
    ]
    gone = [
        concepts.names(caption, concept)
        for concept, samples in shown.items()
        for caption in model.caption([sample.without for sample in samples])
    ]
    assert sum(named) >= 3
    assert sum(gone) <= 1


def test_batches_change_no_caption(model):
    images = [sample.image for sample in scenes.samples("bear", 2, seed=1000)]
    assert model.caption(images, 8) == [model.caption([image], 8)[0] for image in images]


def test_pairs_are_kept_and_neurons_found(study):
    pairs, neurons = (pd.read_parquet(study.folder / f"{name}.parquet") for name in ("pairs", "neurons"))
    design = (
        "concept image_id area_fraction caption caption_inpainted target_word target_token target_position kept reason"
    )
    assert set(design.split()) <= set(pairs.columns)
    assert pairs.query("kept").groupby("concept").size().min() >= 3
    assert study.studied() == CONCEPTS
    for row in pairs.query("kept").itertuples():
        assert concepts.names(row.caption, row.concept)
        assert not concepts.names(row.caption_inpainted, row.concept)
        assert model_token(study, row) == row.target_token

    design = "concept method layer unit rank score delta gradcam n_images top_tokens"
    assert set(design.split()) <= set(neurons.columns)
    found = neurons.query("method == 'two-stage'")
    assert found.groupby("concept").size().min() >= 80
    assert found["layer"].between(0, 28).all()  # the last layer's image tokens reach no logit
    assert found["unit"].between(0, 1535).all()
    assert (found["score"] > 0).all()
    assert found.groupby("concept")["score"].apply(lambda score: score.is_monotonic_decreasing).all()
    assert found["top_tokens"].str.len().gt(0).all()


def model_token(study: Study, row) -> int:
    return study.model.encode(row.caption)[0][row.target_position]


def test_scores_are_whole(study):
    scores = study.scores("bear")
    n = (study.pairs("bear")["role"] == "select").sum()
    shapes = dict.fromkeys(scores, (n, 30, 1536)) | {"dai": (1, 30, 1536)}
    assert {name: values.shape for name, values in scores.items()} == shapes
    assert all(np.isfinite(values).all() for values in scores.values())


def test_rival_scores_say_something_of_the_word(study):
    """Schwettmann et al.'s and Dai et al.'s best neurons carry the word's logit and probability more than most do."""
    scores = study.pooled("bear")
    for name in ("schwettmann", "pan-gated", "dai"):
        assert scores[name].max() > 20 * np.abs(scores[name]).mean()
        assert not np.allclose(scores[name], scores["gradcam"])


def test_perturbations_are_measured_on_found_and_random_neurons(study):
    rows = pd.read_parquet(study.folder / "perturbations.parquet")
    design = "concept method intervention positions n sigma seed image_id image_concept heldout caption target_present"
    design += " target_probability retained"
    assert {*design.split(), *metrics.SETTINGS, *metrics.EFFECTS} <= set(rows.columns)
    assert set(rows["method"]) == {"two-stage", "dai", "dai-text", "random", "direction", "removal"}
    assert {"noise", "zero"} <= set(rows["intervention"])
    assert rows["target_probability"].between(0, 1).all()
    assert rows["clean_probability"].between(0, 1, inclusive="right").all()
    summary = summaries.summarise(rows, ["method", "intervention", "positions", "n", "sigma"])
    by = summary.groupby(["intervention", "metric", "method"])["value"].first()
    for method in ("two-stage", "random"):
        assert 0 <= by["noise", "suppression", method] <= 1
        assert not math.isnan(by["noise", "suppression_probability", method])
    # A few pictures cannot show what noise does; without these neurons at all the direction is not in doubt.
    assert by["zero", "suppression_probability", "two-stage"] > by["zero", "suppression_probability", "random"]


def test_a_second_study_loads_what_the_first_has_made(study):
    again = Study(study.profile, study.folder)
    pd.testing.assert_frame_equal(again.perturbations(), study.perturbations())
    assert "model" not in again.__dict__
