"""A toy study's neurons, switched off one at a time: what is kept, and what is said of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_study import changed, inhabit
from toy_world import COLOURS

from kn_core import ablations, tables
from kn_core.faithfulness import ablate
from kn_core.heatmaps import localisation
from kn_core.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ablations")
    profile = changed(toy_profile, faithfulness={"per_method": 2, "random": 6, "pictures": 2})
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(profile, folder / "results", taught_model)


def test_every_score_beside_the_effect_on_pictures_that_chose_none(study):
    found = ablations.effects(study, "bear")
    methods = {"two-stage", "schwettmann", "dai", *ablations.REFERENCE}
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
    neurons = pd.concat([ablations.effects(study, concept) for concept in COLOURS])
    rho = ablations.correlations(study, list(COLOURS))
    mean = ablations.by_method(rho)
    sums = mean.set_index(["method", "over"])
    by_hand = rho[(rho["method"] == "gradcam-sum") & (rho["over"] == "all")]["rho"]
    assert sums.loc[("gradcam-sum", "all"), "rho"] == pytest.approx(by_hand.mean())
    assert sums.loc[("gradcam-sum", "all"), "rho"] > sums.loc[("activation", "all"), "rho"]
    words = ablations.in_words(neurons, mean)
    assert words["rho-gradcam-sum"].startswith(f"{by_hand.mean():.2f} [")
    assert words["best"] in tables.METHODS.values()
    assert ablations.measured(study) == []  # the toy profile does not run stage 2 alone


def test_maps_and_sets_for_a_reader(study):
    found = localisation(study, list(COLOURS))
    table = ablations.localised(found, {"kept": "after both stages", "random": "random"})
    assert table["map of"].tolist() == ["after both stages", "random"]
    assert table["on the object"].str.match(r"0\.\d\d \[").all()
    alike = ablations.across_images(study, list(COLOURS), 8)
    assert len(alike) == 3 * 3  # three pictures a concept, pair by pair
    assert float(ablations.overlap_in_words(alike)["expected-images"]) == pytest.approx(8 * 8 / 144, abs=0.01)
