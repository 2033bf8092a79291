"""What a concept's own page shows of its perturbations: of itself alone, and as the whole has it."""

from __future__ import annotations

import pytest

from kn_core.measures.metrics import headline
from kn_core.study.experiments.examples import examples
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(toy_profile, folder / "results", taught_model)


def test_they_need_no_other_concept_and_are_those_of_the_whole(study):
    begun: list[str] = []
    study.store.begins = begun.append
    few = examples(study, "bus")
    made = {"pairs-bus.parquet", "scores-bus.safetensors", "dai-bus.safetensors", "neurons-bus.parquet"}
    made |= {"undisturbed-bus.parquet", "examples-bus.parquet"}
    assert set(study.store.held()) == made and len(begun) == len(made)
    assert (
        few["method"].tolist()
        == [*["two-stage"] * 2, *["random"] * 2, *["schwettmann"] * 2, *["dai"] * 2] + ["removal"] * 2
    )
    whole = study.perturbations()
    own = whole.query("concept == 'bus' and image_concept == 'bus' and seed == 0")
    keys = ["method", "image_id"]
    shown = few.merge(headline(own, study.profile), on=keys, suffixes=("", "_whole"))
    assert len(shown) == 8 and (shown["caption"] == shown["caption_whole"]).all()
    assert shown["target_probability"].to_numpy() == pytest.approx(shown["target_probability_whole"].to_numpy())

    begun.clear()
    assert examples(study, "bus").equals(study.perturbations("bus")) and not begun  # the whole is there now


def test_a_concept_that_the_profile_does_not_list_lies_beside_its_own(toy_profile, study):
    profile = toy_profile.model_copy(update={"concepts": ("bear", "pizza")}).with_concept("bus")
    assert profile.concepts == ("bear", "pizza", "bus") and profile.with_concept("bear") is profile
    begun: list[str] = []
    again = Study(profile, study.folder, study.model)
    again.store.begins = begun.append
    again.neurons("bus")
    assert not begun  # the same artefacts
