"""What a run will take, told from shapes: held against what a real pass keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kn_core.models import eva, load_model, memory
from kn_core.profile import load_profile
from kn_core.settings import Checkpoint
from tests import tiny_checkpoints, tiny_release
from tests.tiny_checkpoints import FAMILIES, pictures
from tests.tiny_families import adapted

CAPTION = "A bear in a forest."


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "paligemma2", "llava_onevision-all"])
def test_what_a_backward_pass_keeps_is_what_was_told(name):
    model = adapted(name)
    length = len(model.encode(CAPTION)[0])
    own = {weight.untyped_storage()._cdata for weight in model.parameters()}
    prompt = model.teacher_forced(model.prompts(pictures(1)), [CAPTION]).requires_grad_()
    kept = memory._kept(model, prompt, own)
    told = memory.predict(model, length)
    logits = model.unembed.shape[0] * (1 + length) * 4
    assert told.pair - 2 * logits == pytest.approx(kept, rel=0.1)
    assert told.weights == sum(weight.nbytes for weight in model.parameters())


def test_a_checkpoint_is_measured_before_its_weights_are_read(tmp_path):
    folder, family = tiny_checkpoints.save("smolvlm", tmp_path), FAMILIES["smolvlm"]
    given = {"family": "transformers", "checkpoint": str(folder), "before": family.before, "after": family.after}
    settings = Checkpoint.model_validate(given)
    model = memory.outline(settings)
    assert all(weight.is_meta for weight in model.parameters())
    halved = memory.outline(settings.model_copy(update={"dtype": "bfloat16"}))
    whole, half = memory.predict(model), memory.predict(halved)
    assert half.weights * 2 == whole.weights
    assert half.captions < whole.captions
    assert memory.predict(model, bits="4-bit").weights < whole.weights
    assert str(whole).startswith("about 0.00 GB at the peak: 0.00 of weights, and 0.")
    assert whole.peak == whole.weights + max(whole.pair, whole.captions)
    profile = SimpleNamespace(model=settings, concepts=[], name="tiny")
    (line,) = memory.foretold(profile)
    assert line.startswith("memory: about 0.00 GB at the peak")
    assert not list(memory.foretold(load_profile("embedded")))


def test_the_papers_model_is_measured_before_its_weights_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("KN_MODELS", str(tiny_release.write(tmp_path)))
    monkeypatch.setattr(eva, "eva_vit_g", lambda: tiny_release.VISION)
    profile = load_profile("minigpt4-llama2")
    told = memory.predict(memory.outline(profile.model), 12)
    there = load_model(profile.model_copy(update={"model": profile.model.model_copy(update={"device": "cpu"})}))
    assert told == memory.predict(there, 12)
    assert told.weights == sum(weight.nbytes for weight in there.parameters())
    (line,) = memory.foretold(profile)
    assert line.startswith("memory: about 0.00 GB at the peak")
