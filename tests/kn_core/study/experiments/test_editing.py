"""Edits in the toy world: made on selection pictures, judged on held-out ones, each question in its place."""

from __future__ import annotations

import pytest

from kn_core.profile import Profile
from kn_core.study.experiments import editing, transfer
from kn_core.study.study import Study, StudyError
from tests.kn_core.study.test_study import inhabit

EDITING = {"pictures": 2, "towards": 2, "judged": 2, "judged_others": 2, "light": 1, "budget": 20}
EDITING |= {"editors": ["swap", "dai"], "phrasings": [" says: "], "poll": " is it {word}? ", "extra": 3}


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("edits")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        profile = Profile.model_validate(toy_profile.model_dump() | {"editing": EDITING})
        yield Study(profile, folder / "results", taught_model)


def test_every_edit_is_judged_by_every_question(study):
    rows = editing.edits(study, "bear")
    main = rows[rows["main"]]
    assert (main["new"] == "pizza").all() and set(rows["editor"]) == {"swap", "dai"}
    asked = {"learnt": 1, "own": 2, "other": 2, "without": 1, "asked": 1, "polled": 2, "text": 3}
    assert main["what"].value_counts().to_dict() == asked
    assert set(main.query("what == 'other'")["image_concept"]) == {"pizza", "bus"}
    learnt = set(study.pairs("bear").query("role == 'select'")["image_id"])
    held = set(study.pairs("bear").query("role == 'held_out'")["image_id"])
    assert set(main.query("what == 'learnt'")["image_id"]) <= learnt
    assert set(main.query("what in ('own', 'without', 'asked')")["image_id"]) <= held
    forced = ["old_probability", "clean_new_probability", "kept", "divergence"]
    assert main.query("what == 'own'")[forced].notna().all(axis=None)
    light = rows[~rows["main"]]
    assert set(light["neurons"]) == {"third stage", "random"} and set(light["what"]) == {"own", "other"}


def test_layers_are_halved(study):
    early, late = (editing.neurons(study, "bear", which, 10) for which in editing.THIRD[1:])
    assert len(early) and len(late) and max(early.layers) < study.n_layers // 2 <= min(late.layers)


def test_random_neurons_are_others_of_the_same_layers(study):
    found, random = (editing.neurons(study, "bear", which, 10) for which in ("third stage", "random"))
    assert found.layers.tolist() == random.layers.tolist()
    places = [set(zip(one.layers.tolist(), one.units.tolist(), strict=True)) for one in (found, random)]
    assert not places[0] & places[1]


def test_pictures_that_name_another_word_are_left_out(study):
    every = editing.seen(study, "pizza", "select", 9)
    word = every[0].caption.rstrip(".").split()[-1]  # where it stands
    without = editing.seen(study, "pizza", "select", 9, without=word)
    assert [one.image_id for one in without] == [one.image_id for one in every if word not in one.caption]
    assert len(without) < len(every)


def test_all_pairs_are_tried_with_the_main_edit_alone(study):
    changes = {"all_pairs": True, "editors": ("dai",), "sets": ("two-stage", "random"), "all_doses": True}
    long = study.profile.editing.model_copy(update=changes)
    other = Study(study.profile.model_copy(update={"editing": long}), study.folder, study.model)
    rows = editing.edits(other, "bus")
    assert set(rows["new"]) == {"bear", "pizza"}
    assert set(rows[rows["new"] == "pizza"]["neurons"]) == {"two-stage"}
    assert set(rows[rows["dose"] != "chosen"]["neurons"]) == {"two-stage"}  # strengths, with the first set
    assert set(rows["dose"]) == {"chosen", "0.1", "0.3", "1"}


def test_a_concept_without_others_has_no_name_to_take(study, monkeypatch):
    monkeypatch.setattr(study, "studied", lambda: ["bear"])
    with pytest.raises(StudyError, match="study two or more"):
        editing.new_name(study, "bear")


def test_sets_are_tried_elsewhere_and_from_fewer_pictures(study):
    rows = transfer.transfer(study, "bear")
    assert set(rows["where"]) == {"scenes", "words", "text"} and set(rows["of"]) == {
        "third stage",
        "random",
        "two stages",
    }
    sizes = transfer.sizes(study, "bear")
    assert set(sizes["k"]) == {1, 2, 5} and sizes.query("k < 5")["shared"].between(0, 1).all()
    assert sizes.query("k == 5")["shared"].isna().all()  # of six pictures there are no two fives
    assert set(transfer.taken(study, "bear")["neurons"]) == {"third stage", "random"}
