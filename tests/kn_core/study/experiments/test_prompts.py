"""The same toy pictures asked about in other words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kn_core.method.capture import find_target
from kn_core.method.two_stages import identify, pool_images
from kn_core.study.experiments import prompts
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

SAME, OTHER = " say: ", "  say:  "


@pytest.fixture
def start(tmp_path, monkeypatch, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)

    def with_prompts(*wordings: str) -> Study:
        return Study(changed(toy_profile, faithfulness={"prompts": list(wordings)}), tmp_path / "results", taught_model)

    return with_prompts


def test_a_model_asked_in_other_words_is_the_same_model_with_another_prompt(taught_model):
    other = taught_model.asking(OTHER)
    picture = np.full((16, 16, 3), 40, np.uint8)
    prompt, usual = other.prompts([picture])[0], taught_model.prompts([picture])[0]
    after = taught_model.embed_tokens(torch.tensor(taught_model.encode(OTHER)[0]))
    image = taught_model.image_positions.stop
    assert torch.equal(prompt, torch.cat([usual[:image], after]))
    assert len(usual) == taught_model.prompt_length != other.prompt_length == len(prompt)
    assert other.backbone is taught_model.backbone


def test_the_usual_wording_finds_the_same_neurons(start):
    asked = prompts.neurons(start(SAME), "bear").groupby("asked")[["layer", "unit"]].agg(list)
    assert asked.loc["as in this book"].equals(asked.loc["in other words"])
    assert len(asked.loc["in other words", "unit"]) == 8


def test_both_wordings_are_held_against_each_other_on_pictures_named_under_both(start):
    study = start(OTHER)
    rows = prompts.neurons(study, "bear")
    model, shown = (
        study.model.asking(OTHER),
        study.pairs("bear").query("role == 'select'")["image_id"].head(prompts.PICTURES),
    )
    captions = model.caption([study.sample("bear", image_id).image for image_id in shown], 12)
    kept = [place for place, caption in enumerate(captions) if find_target(model, caption, "bear")]
    assert set(rows["n_images"]) <= {len(kept)}
    usual = rows[rows["asked"] == "as in this book"]
    if kept:
        delta, gradcam = (pool_images(study.scores("bear")[name][kept]) for name in ("delta", "gradcam"))
        expected = identify("bear", delta, gradcam, np.quantile(delta, 0.5), np.quantile(gradcam, 0.5)).top(8)
        assert usual["unit"].tolist() == expected.units.tolist()
    else:
        assert rows.empty


def test_without_other_wordings_there_are_no_rows(start):
    assert prompts.neurons(start(), "bear").empty
