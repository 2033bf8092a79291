"""Polls of a toy study: what is asked of which picture, and that disturbed neurons change the answer."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from kn_core.profile import Profile
from kn_core.study.experiments import polling
from kn_core.study.experiments.ladder import THIRD
from kn_core.study.study import Study, StudyError
from tests.kn_core.study.test_study import inhabit

CHOICES = {"pictures": 2, "choosing": 1, "within": [0.0], "between": ["none"], "budgets": []}


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("polls")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        changes = {"choices": CHOICES, "editing": {"poll": " is it a {word}? say: "}}
        yield Study(Profile.model_validate(toy_profile.model_dump() | changes), folder / "results", taught_model)


def test_each_picture_is_asked_as_it_is_without_the_object_and_with_sets_disturbed(study):
    rows = pd.concat([polling.polls(study, "bear"), polling.disturbed(study, "bear")])
    held_out, chosen = (rows[rows["role"] == role] for role in ("held_out", "select"))
    everything = [polling.NOTHING, polling.REMOVAL, polling.TWO_STAGE, polling.RANDOM, THIRD, polling.THIRD_RANDOM]
    assert held_out["method"].value_counts().to_dict() == dict.fromkeys(everything, 2)
    assert chosen["method"].tolist() == [polling.NOTHING, polling.REMOVAL]
    odds = held_out.pivot_table("odds", "image_id", "method")
    assert (odds[polling.TWO_STAGE] != odds[polling.NOTHING]).all()
    model = study.model.asking(" is it a bear? say: ")
    image = study.sample("bear", odds.index[0]).image
    with torch.no_grad():
        chances = model.logits(model.prompts([image]))[0, 0].softmax(-1)
    yes, no = polling.yes_and_no(model)
    assert odds[polling.NOTHING].iloc[0] == pytest.approx(float((chances[yes] / chances[no]).log()), abs=1e-4)


def test_without_a_poll_nothing_is_asked(study):
    other = Study(study.profile.model_copy(update={"editing": type(study.profile.editing)()}), study.folder)
    with pytest.raises(StudyError, match="no editing.poll"):
        polling.polls(other, "bear")
