"""The headline settings of profiles with more evidence, here studies of the toy world."""

from __future__ import annotations

import pandas as pd
import pytest

from book import headlines
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


def test_three_layers_are_tried_on_forty_pictures_in_the_settings_of_embedded():
    own = load_profile("embedded")
    seeds = headlines.beside(own, "seed-")
    assert [profile.name for profile in seeds] == [f"embedded-seed-{seed}" for seed in range(3)]
    assert len({profile.parts.projection for profile in seeds}) == 3
    assert seeds[0].parts == own.parts
    contrasts = ("scored", "choosing", "within", "between", "places", "interventions")
    for profile in seeds:
        assert (profile.concepts, profile.data.held_out, profile.data.select) == (own.concepts, 40, own.data.select)
        for group in ("inpainting", "filtering", "identification"):
            assert getattr(profile, group) == getattr(own, group)
        assert all(getattr(profile.choices, name) == getattr(own.choices, name) for name in contrasts)
        assert profile.perturbation.sigma == own.perturbation.sigma


def test_what_they_do_stands_in_a_table_and_a_sentence(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    changes = {"name": "toy-many", "perturbation": ALONE, "choices": CHOICES, "ceiling": {"pictures": 0}}
    study = Study(Profile.model_validate(toy_profile.model_dump() | changes), tmp_path / "toy-many", taught_model)
    found = headlines.rows(study)
    means = headlines.summary(found)
    assert set(zip(means["done"], means["method"], strict=True)) == set(headlines.ROWS)
    third = found[(found["done"] == "third") & (found["method"] == THIRD)]
    by_hand = 1 - third.groupby("concept")["target_present"].mean().mean()
    told = means.set_index(["done", "method", "metric"])["value"]
    assert told["third", THIRD, "suppression"] == pytest.approx(by_hand)
    assert (found["method"] == CONTROL).any()
    monkeypatch.setattr(headlines, "profiles", lambda own: [study.profile])
    beside = Study(toy_profile, tmp_path / "toy", taught_model)
    (seen,) = headlines.studies(beside)
    assert len(headlines.rows(seen)) == len(found)
    next((study.folder / "parts").glob("third-*.parquet")).unlink()  # a run that was stopped
    assert headlines.studies(beside) == []
    shown = headlines.for_readers({"some": found, "the same": found})
    known = ["nothing done", "the object taken out of the picture", "another concept's caption"]
    assert shown["neurons"].tolist() == 2 * [*headlines.ROWS.values(), known[0], known[2]]  # removal was not tried
    assert shown["evidence"].tolist() == 6 * ["some"] + 6 * ["the same"]
    assert shown["suppression, caption"].str[:4][[4, 5]].tolist() == ["0.00", "1.00"]
    said = headlines.in_words(study, means, found)
    assert said.startswith(f"toy-many: of 3 concepts {len(study.studied())} are named often enough")
    claims = pd.read_csv(study.folder / "claims.csv").set_index("claim")
    assert claims.loc["third-stage-suppresses", "ours"] == pytest.approx(by_hand)
    assert claims.loc["balance-beats-rivals", "verdict"] == "not run"


def test_without_their_results_the_long_version_is_named(monkeypatch, toy_profile, tmp_path):
    assert headlines.later(Study(toy_profile, tmp_path)) == ""  # there is no such profile
    own = Study("embedded", tmp_path / "embedded")
    assert headlines.studies(own) == []
    monkeypatch.setattr(headlines, "load_verdicts", dict)
    told = headlines.later(own)
    assert "EFFORT=full" in told and "embedded-many" in told and "on record" not in told
    assert not len(headlines.recorded(own)) and headlines.in_short(own) == headlines.spread(own, {}) == ""


def test_what_is_on_record_of_them_is_told_where_they_did_not_run(monkeypatch, tmp_path, toy_profile):
    def claims(taken: float, n: int) -> dict[str, OnRecord]:
        values = {"third-stage-suppresses": taken, "third-stage-retains": 0.55}
        return {name: OnRecord(verdict="inconclusive", ours=v, low=0.4, high=0.6, n=n) for name, v in values.items()}

    kept = {"embedded": claims(0.95, 108), "embedded-many": claims(0.5, 90)}
    kept |= {f"embedded-seed-{seed}": claims(0.9 - seed / 10, 360) for seed in range(3)}
    monkeypatch.setattr(headlines, "load_verdicts", lambda: kept)
    own = Study(load_profile("embedded"), tmp_path)
    ends = "[40%,\u00a060%]"
    assert headlines.in_short(own) == (
        f"; the third stage takes away 50% {ends} of the names over {len(KINDS)} kinds, 80% {ends} and 70% {ends} "
        "with another end of the captioner's training"
    )
    assert headlines.in_short(Study(toy_profile, tmp_path)) == ""
    assert "on record" in headlines.later(own)
    told = headlines.spread(own, {})
    assert told.endswith(
        "went on apart, the book's own for longest, the third stage's suppression is 0.90, 0.80 and 0.70."
    )
    without = {name: found for name, found in kept.items() if name != "embedded-seed-0"}  # as when it is trained on
    monkeypatch.setattr(headlines, "load_verdicts", lambda: without)
    assert headlines.spread(own, {}).endswith("went on apart, the third stage's suppression is 0.80 and 0.70.")
    monkeypatch.setattr(headlines, "load_verdicts", lambda: kept)
    shown = headlines.recorded(own)
    assert shown["evidence"].tolist() == [
        "9 concepts, 12 pictures each",
        f"{len(KINDS)} concepts, 12 pictures each",
        "9 concepts, 40 pictures each",
        "9 concepts, 40 pictures each, another end of the layer's training (1)",
        "9 concepts, 40 pictures each, another end of the layer's training (2)",
    ]
    assert shown["pictures"].tolist() == [108, 90, 360, 360, 360]
    assert shown["third stage: suppressed"].iloc[1] == "0.50 [0.40,\u00a00.60]"
    assert set(shown["two stages: suppressed and fluent"]) == {""}
    bounds = pd.DataFrame({"method": "removal", "metric": ["fluent"], "value": 0.5, "low": 0.4, "high": 0.6})
    below = headlines.recorded_for_readers(shown, own.profile, bounds.assign(n_images=108)).iloc[5:]
    assert below["evidence"].tolist() == ["the object taken out of the picture: 9 concepts, 12 pictures each"]
    assert below["third stage: fluent"].tolist() == ["0.50 [0.40,\u00a00.60]"] and below["pictures"].tolist() == [108]
    assert headlines.recorded_for_readers(shown, own.profile, bounds.iloc[:0]).equals(shown)
