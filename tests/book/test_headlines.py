"""The headline settings of a profile of many kinds, here a study of the toy world."""

from __future__ import annotations

import pandas as pd
import pytest

from book import many_kinds as many
from book.claims.verdicts import OnRecord
from kn_core.pictures.scenes import KINDS
from kn_core.profile import Profile, load_profile
from kn_core.study.experiments.ladder import CONTROL, THIRD
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit

ALONE = {"rivals": [], "controls": ["random"], "seeds": 1, "draws": 1, "choosing": 0, "directions": False}
CHOICES = {"pictures": 2, "choosing": 1, "within": [0.5], "between": ["none"], "interventions": ["zero"]}
CHOICES |= {"budgets": [], "others_per_concept": 0}


def test_every_kind_that_scenes_can_draw_is_a_concept_in_the_settings_of_embedded():
    shipped, own = load_profile("embedded-many"), load_profile("embedded")
    assert sorted(shipped.concepts) == sorted(KINDS)
    for group in ("model", "inpainting", "filtering", "identification"):
        assert getattr(shipped, group) == getattr(own, group)
    assert (shipped.data.held_out, shipped.data.select, shipped.data.seed) == (12, own.data.select, own.data.seed)
    main = ("intervention", "positions", "sigma")
    assert [getattr(shipped.perturbation, name) for name in main] == [getattr(own.perturbation, name) for name in main]


def test_what_they_do_stands_in_a_table_and_a_sentence(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    changes = {"name": "toy-many", "perturbation": ALONE, "choices": CHOICES, "ceiling": {"pictures": 0}}
    study = Study(Profile.model_validate(toy_profile.model_dump() | changes), tmp_path / "toy-many", taught_model)
    found = many.rows(study)
    means = many.summary(found)
    assert set(zip(means["done"], means["method"], strict=True)) == set(many.ROWS)
    third = found[(found["done"] == "third") & (found["method"] == THIRD)]
    by_hand = 1 - third.groupby("concept")["target_present"].mean().mean()
    told = means.set_index(["done", "method", "metric"])["value"]
    assert told["third", THIRD, "suppression"] == pytest.approx(by_hand)
    assert (found["method"] == CONTROL).any()
    shown = many.for_readers(means)
    assert shown["neurons"].tolist() == list(many.ROWS.values())
    assert many.in_words(study, means, found).startswith(f"Of 3 kinds {len(study.studied())} are named often enough")
    claims = pd.read_csv(study.folder / "claims.csv").set_index("claim")
    assert claims.loc["third-stage-suppresses", "ours"] == pytest.approx(by_hand)
    assert claims.loc["balance-beats-rivals", "verdict"] == "not run"


def test_without_its_results_the_long_version_is_named(toy_profile, tmp_path):
    assert many.later(Study(toy_profile, tmp_path)) == ""  # there is no such profile
    own = Study("embedded", tmp_path / "embedded")
    assert "EFFORT=full" in many.later(own) and "embedded-many" in many.later(own)


def test_what_is_on_record_of_them_is_told_where_they_did_not_run(monkeypatch, tmp_path, toy_profile):
    taken, kept = (OnRecord(verdict="inconclusive", ours=value, low=0.4, high=0.6, n=90) for value in (0.5, 0.55))
    recorded = {"embedded-many": {"third-stage-suppresses": taken, "third-stage-retains": kept}}
    monkeypatch.setattr(many, "load_verdicts", lambda: recorded)
    own = Study(load_profile("embedded"), tmp_path)
    assert "the third stage suppresses 50% [40%,\u00a060%] of the names and keeps 55%" in many.later(own)
    assert (
        many.in_short(own) == f"; over {len(KINDS)} kinds the third stage takes away 50% [40%,\u00a060%] of the names"
    )
    assert many.in_short(Study(toy_profile, tmp_path)) == ""
    monkeypatch.setattr(many, "load_verdicts", dict)
    assert many.in_short(own) == "" and "On record" not in many.later(own)
