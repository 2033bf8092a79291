"""A toy study's neurons, switched off one at a time: what is kept, and what is said of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from book.faithfulness import scores
from kn_core.study.experiments import single_neurons
from kn_core.study.experiments.heatmaps import localisation
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit
from tests.toy_world import COLOURS


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ablations")
    profile = changed(toy_profile, faithfulness={"per_method": 2, "random": 6, "pictures": 2})
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(profile, folder / "results", taught_model)


def test_every_score_beside_the_effect_on_pictures_that_chose_none(study):
    found = single_neurons.effects(study, "bear")
    methods = {"two-stage", "schwettmann", "dai", *single_neurons.REFERENCE}
    assert set(found["method"]) == methods
    one = found[found["method"] == "schwettmann"]
    assert (one["stratum"] == "random").sum() == 6
    pictures = study.pictures("bear", "held_out")
    assert len(pictures) == 2
    exact = [
        ablate(study.model, p.prompt, p.caption, p.target, one["layer"].to_numpy(), one["unit"].to_numpy())
        for p in pictures
    ]
    assert one["effect"].to_numpy() == pytest.approx(np.mean(exact, axis=0), abs=1e-5)
    score = study.pooled("bear")["schwettmann"][one["layer"], one["unit"]]
    assert np.allclose(one["score"], score)
    kept = found[(found["method"] == "two-stage") & found["score"].notna()]
    limit = study.thresholds("bear")
    pooled = study.pooled("bear")
    assert (pooled["delta"][kept["layer"], kept["unit"]] > limit["delta"]).all()


def test_correlations_are_summed_up_and_worded(study):
    neurons = pd.concat([single_neurons.effects(study, concept) for concept in COLOURS])
    rho = scores.correlations(study, list(COLOURS))
    mean = scores.by_method(rho)
    sums = mean.set_index(["method", "over"])
    by_hand = rho[(rho["method"] == "gradcam-sum") & (rho["over"] == "all")]["rho"]
    assert sums.loc[("gradcam-sum", "all"), "rho"] == pytest.approx(by_hand.mean())
    assert sums.loc[("gradcam-sum", "all"), "rho"] > sums.loc[("activation", "all"), "rho"]
    words = scores.in_words(neurons, mean)
    assert words["rho-gradcam-sum"].startswith(f"{by_hand.mean():.2f} [")
    assert words["best"] in words.METHODS.values()
    assert scores.measured(study) == []  # the toy profile does not run stage 2 alone


def test_maps_and_sets_for_a_reader(study):
    found = localisation(study, list(COLOURS))
    table = scores.localised(found, {"kept": "after both stages", "random": "random"})
    assert table["map of"].tolist() == ["after both stages", "random"]
    assert table["on the object"].str.match(r"0\.\d\d \[").all()
    alike = scores.across_images(study, list(COLOURS), 8)
    assert len(alike) == 3 * 3  # three pictures a concept, pair by pair
    assert float(scores.overlap_in_words(alike)["expected-images"]) == pytest.approx(8 * 8 / 144, abs=0.01)
