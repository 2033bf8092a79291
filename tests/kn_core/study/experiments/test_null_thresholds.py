"""Rules for stage 1's threshold in the toy world, where every picture has decoys of two other colours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kn_core import models
from kn_core.method import perturbation, thresholds
from kn_core.method.interventions import inpainted_activations
from kn_core.pictures import scenes
from kn_core.profile import Profile
from kn_core.study.experiments import attribution, null_thresholds
from kn_core.study.experiments.null_thresholds import OWN, RANDOM
from kn_core.study.study import Study, StudyError
from tests.toy_world import toy_samples

CONCEPT = "bear"
RULES = {"false_share": 0.3, "flips": 20, "best": 20, "raw": [1e-9, 0.1], "pictures": 2}
RULES |= {"tried": ["decoy", "bh", "largest"]}


@pytest.fixture(scope="module")
def start(tmp_path_factory, taught_model, toy_profile):
    """start(rules={...}, identification={...}): a study in one folder, which goes on from what lies there."""
    folder = tmp_path_factory.mktemp("null")
    (folder / "toy.safetensors").write_bytes(b"the taught model's")

    def study(**changes: dict[str, object]) -> Study:
        settings = toy_profile.model_dump() | {"rules": RULES | changes.pop("rules", {})}
        for group, change in changes.items():
            settings[group] = settings[group] | change
        return Study(Profile.model_validate(settings), folder / "results", taught_model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "samples", toy_samples)
        patch.setattr(models, "PROJECTIONS", folder)
        yield study


@pytest.fixture(scope="module")
def rules(start) -> pd.DataFrame:
    return null_thresholds.rules(start(), CONCEPT).set_index("rule")


def test_a_decoy_is_scored_as_its_picture_is(start):
    study = start()
    found, ids = study.decoys(CONCEPT), study.pairs(CONCEPT).query("role == 'select'")["image_id"]
    assert found["there"].all() and found["score"].shape == study.measured(CONCEPT)["delta"].shape
    sample = study.sample(CONCEPT, ids.iloc[1])
    changes = [np.abs(each.astype(float) - sample.without).mean() for each in sample.stand_ins(2)]
    assert found["changed"][1, 1] in changes
    assert found["changed"][1, 0] == np.abs(sample.image.astype(float) - sample.without).mean()
    best = sample.stand_ins(2)[changes.index(found["changed"][1, 1])]
    prompts = study.model.prompts([best, sample.without])

    there, gone = inpainted_activations(study.model, prompts)
    np.testing.assert_allclose(found["score"][1], (there - gone).amax(dim=1).numpy(), atol=1e-5)


def test_a_row_says_what_its_rule_leaves(start, rules):
    study = start()
    d, e = study.against_decoys(CONCEPT)
    assert rules.loc[OWN, "threshold"] == pytest.approx(study.thresholds(CONCEPT)["delta"])
    assert rules.loc[OWN, "candidates"] == (d.mean(axis=0) > rules.loc[OWN, "threshold"]).sum()
    assert rules.loc[OWN, "exchanged"] == (e.mean(axis=0) > rules.loc[OWN, "threshold"]).sum()
    kept, no_more = d.mean(axis=0) > rules.loc[OWN, "threshold"], d.mean(axis=0) <= e.mean(axis=0)
    assert rules.loc[OWN, "no_more"] == (kept & no_more).sum()
    assert rules.loc[OWN, "kept"] == len(study.neuron_set(CONCEPT))
    assert (rules["disturbed"] == rules["kept"].clip(upper=8)).all()
    assert (rules.loc[rules["kept"] == 0, "neurons"] == "").all()


def test_rules_from_the_null_rank_by_what_a_patch_would_take_and_the_others_as_the_profile_does(start, rules):
    study = start()
    assert rules.loc[["bh", OWN], "kept"].min() > 8
    worth, shown = attribution.pooled(study, CONCEPT)["atp"], study.pooled(CONCEPT)["gradcam"]
    d, e = study.against_decoys(CONCEPT)
    passing = shown > study.thresholds(CONCEPT)["gradcam"]
    for rule, score, by in (("bh", thresholds.t_statistic(d - e), worth), (OWN, d.mean(axis=0), shown)):
        kept = np.flatnonzero((score > rules.loc[rule, "threshold"]) & passing)
        assert list(rules.loc[rule, "places"]) == kept[np.argsort(-by.flat[kept], kind="stable")][:8].tolist()


def test_the_same_neurons_are_tried_once_and_what_the_perturbations_tried_is_theirs(start, rules, monkeypatch):
    study = start()
    before, planned = study.perturbations(CONCEPT), []
    run = perturbation.run
    monkeypatch.setattr(perturbation, "run", lambda *given: (planned.extend(given[2]), run(*given))[1])
    tried = null_thresholds.trials(study, CONCEPT)
    wanted = set(rules.loc[[OWN, "decoy", "bh", "largest"], "neurons"]) - {""}
    assert set(tried["method"]) == wanted | {RANDOM}
    assert not tried.duplicated(["method", "image_id"]).any() and tried["image_id"].nunique() == 2
    assert {trial.neurons.method for trial in planned} == wanted - {rules.loc[OWN, "neurons"]}
    own = tried[tried["method"] == rules.loc[OWN, "neurons"]].set_index("image_id")["caption"]
    same = before.query("method == 'two-stage' and seed == 0 and n == 8 and sigma == 3 and intervention == 'noise'")
    same = same[same["image_concept"].eq(CONCEPT) & same["heldout"] & same["positions"].eq("image")]
    assert own.to_dict() == same.set_index("image_id")["caption"].to_dict()


def test_automatic_thresholds_hold_w_against_the_decoy_rule(start):
    study, settings = start(identification={"thresholds": "auto"}), start().profile.rules
    d, e = study.against_decoys(CONCEPT)
    limit = thresholds.automatic(d - e, settings, study.profile.data.seed)
    assert study.thresholds(CONCEPT)["delta"] == limit
    np.testing.assert_allclose(study.pooled(CONCEPT)["delta"], thresholds.contrast(d - e), rtol=1e-4, atol=1e-5)
    passing = (thresholds.contrast(d - e) > limit) & (
        study.pooled(CONCEPT)["gradcam"] > study.thresholds(CONCEPT)["gradcam"]
    )
    assert len(study.neurons(CONCEPT).query("method == 'two-stage'")) == passing.sum()
    assert study.inputs(CONCEPT) != start().inputs(CONCEPT)
    with pytest.raises(ValueError, match="takes no threshold_a by hand"):
        start(identification={"thresholds": "auto", "threshold_a": {"quantile": 0.5, "by_hand": {CONCEPT: 1.0}}})


def test_pictures_without_room_for_a_decoy_do_not_count(start, monkeypatch):
    study = start(identification={"over_positions": "mean"})  # another artefact
    rooms = iter([None] * 3)
    monkeypatch.setattr("kn_core.study.neurons.decoy", lambda *_: next(rooms))
    with pytest.raises(StudyError, match="fewer than two pictures have room for a decoy, of 3"):
        study.decoys(CONCEPT)


def test_other_kinds_are_studied_by_themselves(start):
    study = start(rules={"kinds": ["pizza"], "pictures": 1})
    other = null_thresholds.kinds(study)
    assert other.profile.concepts == ("pizza",) and null_thresholds.kinds(other) is None
    assert null_thresholds.kinds(start()) is None
    tried = null_thresholds.trials(other, "pizza", alone=True)
    assert RANDOM in set(tried["method"]) and set(tried["concept"]) == {"pizza"}
    assert not (other.folder / "perturbations.parquet").exists()


def test_how_often_a_neuron_is_among_the_best_of_a_half_stands_beside_it(start):
    assert start().neurons(CONCEPT)["stability"].isna().all()  # three pictures have no halves
    study = start(data={"select": 4})
    found = study.neurons(CONCEPT)
    d, e = study.against_decoys(CONCEPT)
    share = thresholds.stability(d - e, RULES["best"], study.profile.rules.halves, study.profile.data.seed)
    assert found["stability"].to_numpy() == pytest.approx(share[found["layer"], found["unit"]])
    assert found["stability"].between(0, 1).all() and np.ptp(found["stability"]) > 0
    tried = study.profile.rules.model_copy(update={"tried": ()})
    alone = Study(study.profile.model_copy(update={"rules": tried}), study.folder, study.model)
    assert alone.neurons(CONCEPT)["stability"].isna().all()
