"""A set in parts that are its own and others', and the recipe on another word, on toy sets and in the toy world."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments import ownership
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit


def neurons(concept: str, *units: int) -> NeuronSet:
    return NeuronSet(concept, "two-stage", np.zeros(len(units), int), np.array(units), -np.arange(len(units)))


def test_a_set_is_split_by_how_many_concepts_hold_each_neuron():
    sets = {"bear": neurons("bear", 1, 2, 3, 4), "bus": neurons("bus", 1, 2, 9), "cat": neurons("cat", 1, 8)}
    parts = ownership.split(sets, "bear")
    assert {part: held.units.tolist() for part, held in parts.items()} == {"all": [1], "some": [2], "own": [3, 4]}
    assert parts["own"].scores.tolist() == [-2, -3] and parts["own"].method == "own"
    assert list(ownership.split(sets | {"bear": neurons("bear", 1)}, "bear")) == ["all"]


@pytest.fixture
def study(tmp_path, monkeypatch, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    return Study(toy_profile, tmp_path / "results", taught_model)


def test_each_part_is_disturbed_alone_and_beside_as_many_random_neurons(study):
    rows = ownership.parts(study, "bear")
    sizes = rows.groupby("method")["n"].unique().map(list)
    found = [part for part in ownership.PARTS if part in sizes.index]
    assert sum(sizes[part][0] for part in found) == 8
    for part in found:
        assert sizes[f"{part}, random"] == sizes[part] and len(sizes[part]) == 1
        done = rows[rows["method"] == part].groupby("intervention")["image_id"].nunique()
        assert done.to_dict() == {"noise": 2, "patch": 2}
    assert (rows["image_concept"] == "bear").all() and rows["heldout"].all()


def test_every_set_is_tried_on_every_concepts_pictures(study):
    rows = ownership.cross(study, "bear")
    assert rows.groupby("image_concept").size().to_dict() == dict.fromkeys(study.studied(), 2)
    main = study.perturbations("bear").query("method == 'two-stage' and sigma == 3 and n == 8 and seed == 0")
    main = main[(main["intervention"] == "noise") & (main["positions"] == "image")].set_index("image_id")
    for row in rows[rows["image_concept"] == "bear"].itertuples():
        same = main.loc[row.image_id]
        assert row.clean_probability == pytest.approx(same["clean_probability"], abs=1e-5)
        assert row.target_probability == pytest.approx(same["target_probability"], abs=1e-5)
        assert (row.caption, row.target_present) == (same["caption"], same["target_present"])


def test_the_recipe_runs_on_another_word_of_the_same_captions(study):
    rows = ownership.other_words(study, "bear")
    captions = study.pairs("bear").query("role == 'select'")["caption"]
    for word in rows["words"].unique()[0].split(", ") if len(rows) else ():
        assert word != "bear" and any(word in caption.lower() for caption in captions)
    assert rows["rank"].tolist() == list(range(len(rows))) and len(rows) <= 8


def test_the_other_word_is_the_last_that_does_not_name_the_concept(taught_model):
    said = "a bear on a red bear"
    target = ownership.last_other_word(taught_model, said, "bear")
    ids, spans = taught_model.encode(said)
    start, end = spans[target.position]
    assert target.word == "red" and "red".startswith(said[start:end].strip()) and ids[target.position] == target.token
    assert ownership.last_other_word(taught_model, "a bear", "bear") is None
