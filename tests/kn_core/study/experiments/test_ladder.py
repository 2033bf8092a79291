"""The ladder, the third stage and exact patches of a toy study of three concepts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from kn_core.method.attribution import run
from kn_core.method.capture import Target
from kn_core.method.recipes import LADDER, Recipe
from kn_core.models.hooks import intervene
from kn_core.profile import Profile
from kn_core.study.experiments import attribution, ladder
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit
from tests.toy_world import COLOURS

CHOICES = {"pictures": 1, "choosing": 1, "within": [0.0, 0.5], "budgets": [4], "patched": 24}


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ladder")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        profile = Profile.model_validate(toy_profile.model_dump() | {"choices": CHOICES})
        yield Study(profile, folder / "results", taught_model)


def test_what_is_worth_something_is_kept_by_picture_and_pooled(study):
    scores, pooled = attribution.by_picture(study, "bear"), attribution.pooled(study, "bear")
    assert scores["atp"].shape == (3, 3, 48) and scores["atp"].dtype == np.float32
    assert pooled["atp"] == pytest.approx(scores["atp"].mean(0))
    assert pooled["gxa-other"] == pytest.approx(abs(scores["gxa-other"]).mean(0))
    summed = study.scores("bear")["gradcam-sum"]
    assert pooled["gradcam-sum"] == pytest.approx(summed.mean(0), abs=1e-6)


def test_selection_pictures_choose_the_contrasts_by_the_harmonic_mean(study):
    rows = pd.concat([ladder.contrasts(study, concept) for concept in COLOURS])
    chosen = study.pairs().query("role == 'select'")["image_id"]
    assert rows["image_id"].isin(chosen).all()
    best = ladder.compared(study).iloc[0]
    recipe, how = ladder.choice(study)
    assert (recipe.within, recipe.between, recipe.places, how) == tuple(best[ladder.CHOICE])
    same = rows[(rows[ladder.CHOICE] == best[ladder.CHOICE]).all(axis=1)]
    lost, kept = (same.groupby("concept")[f"{name}_probability"].mean().mean() for name in ("suppression", "retention"))
    assert best["harmonic"] == pytest.approx(2 * lost * kept / (lost + kept))
    assert len(ladder.compared(study)) == 2 * 3 * 2


def test_between_places_a_neuron_loses_what_an_equal_area_elsewhere_takes(study, monkeypatch):
    monkeypatch.setattr(attribution, "DILATION", 0)  # or these small pictures had no room
    there = attribution.elsewhere(study, "bear")["elsewhere"]
    assert there.shape == (3, 48) and there.any()
    plain, place = (ladder.neurons(study, "bear", Recipe(places=mu), "patch") for mu in (0.0, 1.0))
    assert place.scores[0] <= plain.scores[0]
    own = attribution.pooled(study, "bear")["atp"] - np.maximum(there, 0)
    assert place.scores == pytest.approx(np.sort(own.ravel())[::-1][: len(place)])


def interventions(rows):
    found = rows[rows["method"] == rows["step"]].groupby("step", sort=False)["intervention"].agg(set).to_dict()
    return found, set(rows[(rows["method"] == ladder.CONTROL) & (rows["intervention"] != "noise")]["step"])


def test_each_step_is_tried_as_the_third_stage_does_it_and_in_the_long_version_as_the_paper_does(study, monkeypatch):
    rows, perturbed = ladder.ladder(study, "bear"), study.perturbations("bear")
    how, (first, *between, last) = ladder.choice(study)[1], list(LADDER)
    assert list(dict.fromkeys(rows["step"])) == list(LADDER)
    held_out = study.pairs("bear").query("role == 'held_out'")["image_id"].head(1).tolist()
    assert rows["image_id"].unique().tolist() == held_out
    ends = {first: {"noise", how}, last: {"noise", "zero", "patch"}}
    assert interventions(rows) == (ends | {step: {how} for step in between}, {first, last})
    every = study.effort.choices.model_copy(update={"every_step": True})
    monkeypatch.setitem(study.__dict__, "effort", study.effort.model_copy(update={"choices": every}))
    monkeypatch.setattr(study, "perturbations", lambda _: perturbed)
    whole = ladder.ladder(study, "bear")
    assert interventions(whole) == (ends | {step: {"noise", how} for step in between}, set(LADDER))
    keys = ["step", "method", "intervention"]
    same = whole.merge(rows, on=keys)
    assert len(same) == len(rows) and (same["target_probability_x"] == same["target_probability_y"]).all()
    rows = whole
    paper = rows[(rows["step"] == "paper") & (rows["intervention"] == "noise") & (rows["method"] == "paper")]
    main = study.perturbations("bear").query("method == 'two-stage' and n == 8 and sigma == 3 and positions == 'image'")
    assert paper["caption"].item() == main.query("seed == 0 and image_id == @held_out[0]")["caption"].iloc[0]


def test_the_best_by_every_score_are_tried_as_the_third_stage_is(study):
    rows, climbed = ladder.by_score(study, "bear"), ladder.ladder(study, "bear")
    scores = set(attribution.HELD) - set(attribution.STAGE_2)
    assert set(rows["method"]) == scores | set(study.effort.perturbation.rivals)
    assert set(rows["intervention"]) == {ladder.choice(study)[1]} and set(rows["n"]) == {8}
    assert rows["image_id"].unique().tolist() == climbed["image_id"].unique().tolist()
    assert len(rows) == rows["method"].nunique()  # one picture a score


def test_the_best_by_a_score_are_those_where_its_mean_is_largest(study, monkeypatch):
    planned, means = [], attribution.means(study, "bear")
    monkeypatch.setattr(ladder, "_run", lambda _, pictures, trials: planned.extend(trials))
    monkeypatch.setattr(study.store, "table", lambda name, inputs, compute: compute())
    ladder.by_score(study, "bear")
    sets = {trial.neurons.method: trial.neurons for trial in planned}
    for name in ("atp", "relp", "ensemble"):
        assert sets[name].scores.tolist() == np.sort(means[name].ravel())[::-1][:8].tolist()
        assert means[name][sets[name].layers, sets[name].units].tolist() == sets[name].scores.tolist()
    for rival in study.effort.perturbation.rivals:
        assert sets[rival].units.tolist() == study.neuron_set("bear", rival).top(8).units.tolist()


def test_the_third_stage_is_tried_on_all_held_out_pictures_and_on_others(study):
    rows = ladder.third_stage(study, "bear")
    main = rows[(rows["method"] == ladder.THIRD) & (rows["n"] == 8)]
    assert main["image_concept"].value_counts().to_dict() == {"bear": 2, "pizza": 1, "bus": 1}
    assert main["heldout"].all()
    own = main.query("image_concept == 'bear'")["image_id"].tolist()
    for others in (rows[(rows["method"] == ladder.THIRD) & (rows["n"] == 4)], rows[rows["method"] == ladder.CONTROL]):
        assert others["image_id"].tolist() == own
    plain = rows[rows["method"] == "no contrasts"]
    assert (plain["image_concept"] != "bear").all() and len(plain) == 2
    assert set(rows["method"]) == {ladder.THIRD, "no contrasts", ladder.CONTROL}


def test_an_exact_patch_is_what_the_model_says_with_the_neuron_as_without_the_object(study):
    picture = study.pictures("bear", "select", 1)[0]
    model, target = study.model, picture.target
    without = run(model, picture.prompt_inpainted[None], picture.caption)
    layer, unit = np.unravel_index(np.abs(attribution.by_picture(study, "bear")["atp"][0]).argmax(), (3, 48))

    def y(edits: dict) -> float:
        with intervene(model, edits, "product"), torch.no_grad():
            logits = model.logits(picture.prompt[None], [picture.caption])[0, target.position]
        return float(logits[target.token] - logits[5])

    def edit(values, _):
        changed = values.clone()
        changed[:, model.image_positions, unit] = without.product[layer][:, :, unit]
        return changed

    single = ([layer], [unit])
    instead = [each[0] for each in without.product]
    found = ablate(model, picture.prompt, picture.caption, target, *single, instead=instead, against=5)
    assert abs(found[0]) > 1e-3
    assert found[0] == pytest.approx(y({}) - y({int(layer): edit}), rel=1e-3)
    with pytest.raises(ValueError, match="patched at image tokens"):
        ablate(model, picture.prompt, picture.caption, Target("", 0, 0), *single, "all", instead)


def test_patches_stand_beside_every_score_and_better_scores_agree_better(study):
    rows = attribution.patches(study, "bear")
    assert set(rows["method"]) == set(attribution.HELD)
    assert set(rows["method"].value_counts()) == {len(rows) // len(attribution.HELD)}
    found = attribution.agreement(rows).query("over == 'all'").set_index("method")
    assert found.loc["conductance", "pearson"] > found.loc["gradcam", "pearson"]


def test_agreement_is_of_ranks_sizes_signs_and_of_the_best():
    rows = pd.DataFrame({"concept": "bear", "method": "atp", "stratum": "top", "score": [4.0, 3, 2, 1, -1]})
    rows["effect"] = [8.0, 6, -4, 2, -2]
    found = attribution.agreement(rows, share=0.4).set_index("over")
    assert found.loc["all", "spearman"] == pytest.approx(0.7)
    assert found.loc["all", "sign"] == 0.8
    assert found.loc["all", "precision"] == 1
    assert found.loc["own", "n"] == 3
    assert "random" not in found.index
