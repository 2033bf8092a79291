"""A toy study's neurons, switched off one at a time: what is kept, drawn and said of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.faithfulness import exact_effects, figures, maps, overlap
from book.style import METHODS, methods_of
from kn_core.drawing import theme
from kn_core.study.experiments import single_neurons
from kn_core.study.experiments.heatmaps import localisation
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.study import Study
from tests.kn_core.study.experiments.test_single_neurons import ranked_neurons
from tests.kn_core.study.test_study import changed, inhabit
from tests.toy_world import COLOURS

CONCEPTS = list(COLOURS)


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ablations")
    profile = changed(toy_profile, faithfulness={"per_method": 2, "random": 6, "pictures": 2, "prompts": [" say: "]})
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(profile, folder / "results", taught_model)


def test_every_score_beside_the_effect_on_pictures_that_chose_none(study):
    found = single_neurons.effects(study, "bear")
    methods = {"two-stage", "stage-1", "stage-2", "schwettmann", "dai", *single_neurons.REFERENCE}
    assert set(methods_of("reference")) == set(single_neurons.REFERENCE)
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
    neurons = exact_effects.of_all(study, CONCEPTS)
    rho = exact_effects.correlations(neurons)
    sums = rho.set_index(["method", "over"])["rho"]
    by_hand = single_neurons.rank_correlation(neurons).query("method == 'gradcam-sum' and over == 'all'")["rho"]
    assert sums["gradcam-sum", "all"] == pytest.approx(by_hand.mean())
    assert sums["gradcam-sum", "all"] > sums["activation", "all"]
    said = exact_effects.in_words(neurons, rho)
    assert said["rho-gradcam-sum"].startswith(f"{by_hand.mean():.2f} [")
    assert said["best"] in {METHODS[name].label for name in ("two-stage", "stage-1", "stage-2", "schwettmann", "dai")}
    rank, sign = exact_effects.measured(study)
    own = neurons[(neurons["method"] == "two-stage") & neurons["score"].notna() & (neurons["effect"] != 0)]
    assert sign.value == pytest.approx((own["effect"] > 0).groupby(own["concept"]).mean().mean())
    alike = [rows["score"].rank().corr(rows["effect"].rank()) for _, rows in own.groupby("concept")]
    assert rank.value == pytest.approx(np.mean(alike)) and rank.n == sign.n == len(own)


def test_maps_and_sets_for_a_reader(study):
    found = localisation(study, CONCEPTS)
    table = maps.for_readers(found).set_index("map of")
    assert table.index.tolist()[2:4] == ["after both stages", "random, same layers"]
    assert table.index[-1].endswith("et al., by gradient score")
    inside = found[found["map"] == "kept"].groupby("concept")["inside"].mean().mean()
    assert table.loc["after both stages", "on the object"].startswith(f"{inside:.2f} [")
    alike = overlap.across_images(study, CONCEPTS)
    assert len(alike) == 3 * 3  # three pictures a concept, pair by pair
    assert float(overlap.across_images_in_words(alike)["expected-images"]) == pytest.approx(8 * 8 / 144, abs=0.01)


def test_pictures_of_a_concept_had_each_chosen_alone():
    scores = np.full((3, 1, 4), -np.inf)
    scores[0, 0, :2], scores[1, 0, 1:3], scores[2, 0, 0] = 1, 1, 1
    found = overlap.single_pictures(scores, 2).set_index(["image", "other"])["shared"]
    assert found.to_dict() == {(0, 1): 1, (0, 2): 1, (1, 2): 0}


def test_the_usual_wording_finds_the_same_neurons(study):
    (row,) = overlap.across_prompts(study, ["bear"]).to_dict("records")
    assert (row["shared"], row["jaccard"], row["n_images"]) == (8, 1.0, 2)
    said = overlap.across_prompts_in_words(pd.DataFrame([row]))
    assert (said["shared-prompts"], said["wordings"]) == ("8", "1 other wording")
    nothing = overlap.across_prompts_in_words(pd.DataFrame(columns=["shared"]))
    assert set(nothing.values()) == {"–", "no other wording"}


def test_figures_state_what_they_show():
    neurons = ranked_neurons().reset_index(drop=True)
    rho = exact_effects.correlations(neurons)
    assert rho["method"].tolist() == ["two-stage"] * 2 + ["stage-1"] * 2  # the third ranks nothing
    assert rho["rho"].tolist() == pytest.approx([1, 1, -1, -1])
    assert set(rho["n_concepts"]) == {2}
    with theme():
        figure = figures.correlations(rho)
        assert "the best score, two-stage neurons, with 1.00" in " ".join(figure.get_suptitle().split())
        figure = figures.effects(neurons, rho)
        assert figure.axes[0].get_title(loc="left").endswith("ρ = 1.00")
        assert "83% of the neurons" in " ".join(figure.get_suptitle().split())
        many = pd.concat([neurons] * 100, ignore_index=True)
        for ax in figures.effects(many, rho).axes:
            assert sum(len(dots.get_offsets()) for dots in ax.collections) <= figures.DRAWN
    plt.close("all")
