"""`check-model`: right models pass, and each way to be subtly wrong is caught by the finding that is for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kn_core.__main__ import main
from kn_core.method.model_check import check, report
from kn_core.models import load_model
from tests import tiny_checkpoints
from tests.tiny_families import TINY, adapted, randomised


def wrong(model) -> list[str]:
    return [finding.subject for finding in check(model) if finding.right is False]


@pytest.mark.parametrize("name", ["qwen3_vl", "paligemma2", "llava_onevision-all"])
def test_a_right_model_is_told_so(name):
    found = list(check(adapted(name)))
    assert [finding.right for finding in found] == [True] * 8, "\n".join(map(str, found))
    assert report(found) == "8 of 8 are right, none is wrong."


@pytest.mark.parametrize("name", ["llava", "smolvlm"])
def test_random_attention_in_a_right_model_raises_no_alarm(name):
    """With these weights tokens change least in the cell that is lit: the grid is looked at without attention."""
    family, tokenizer = tiny_checkpoints.FAMILIES[name], tiny_checkpoints.byte_level()
    whole = randomised(family.config(len(tokenizer)), 90210)
    processor = SimpleNamespace(tokenizer=tokenizer, image_processor=family.processor())
    found = list(check(load_model((whole, processor), before="<s>USER: ", after=family.after)))
    assert [finding.right for finding in found] == [True] * 8, "\n".join(map(str, found))


def test_where_light_goes_everywhere_a_grid_cannot_be_told():
    model = adapted("paligemma")
    embeds = model.image_embeds

    def mixed(images):
        tokens = embeds(images)
        return tokens.mean(1, keepdim=True) + 0.01 * tokens.flip(1)

    model.image_embeds = mixed
    (finding,) = (finding for finding in check(model) if finding.subject == "grid")
    assert finding.right is None
    assert "cannot be told" in finding.seen


def test_two_layers_and_neurons_that_are_silent_raise_no_alarm():
    config = TINY["paligemma"].config(len(tiny_checkpoints.byte_level()))
    config.text_config.num_hidden_layers, config.text_config.hidden_act = 2, "relu"
    model = adapted("paligemma", randomised(config, 5))
    for block in model.ffn:
        block.gate_proj.weight[8:40] = 0
    assert not wrong(model)


def share_an_activation_function(model):
    model.ffn[2].act_fn = model.ffn[0].act_fn


def swap_rows_and_columns(model):
    embeds = model.image_embeds
    model.image_embeds = lambda images: embeds(images).unflatten(1, model.grid).transpose(1, 2).flatten(1, 2)


def turn_upside_down(model):
    embeds = model.image_embeds
    model.image_embeds = lambda images: embeds(images).unflatten(1, model.grid).flip(1).flatten(1, 2)


def shift_by_a_row(model):
    embeds = model.image_embeds
    model.image_embeds = lambda images: embeds(images).roll(model.grid[1], dims=1)


def stand_one_token_later(model):
    model.image_positions = slice(model.image_positions.start + 1, model.image_positions.stop + 1)


def read_activations_before_they_are(model):
    site = model.site
    model.site = lambda layer, place: site(layer, "preactivation" if place == "activation" else place)


def read_products_for_activations(model):
    site = model.site
    model.site = lambda layer, place: site(layer, "product" if place == "activation" else place)


def go_on_one_place_later(model):
    guide = model.guide

    def later(embeds, cache, picture):
        given = guide(embeds, cache, picture)
        return {**given, "position_ids": given["position_ids"] + (model.first_position > 0)}

    model.guide = later


def scale_logits(model):
    score = model.score
    model.score = lambda hidden: 1.05 * score(hidden)


def amplify_gradients(model):
    model.backbone.layers[2].register_forward_hook(lambda _, __, out: 1.1 * out - 0.1 * out.detach())


def number_in_order(model):
    model.guide = lambda embeds, cache, picture: model._split(embeds)


def stop_gradients(model):
    model.backbone.layers[2].register_forward_hook(lambda _, __, out: out.detach() + 0 * out)


def read_other_weights(model):
    w_out = model.w_out
    model.w_out = lambda layer: w_out({0: 1, 1: 0}.get(layer, layer))


def drift(model):
    passes = []

    def more(_, given):
        passes.append(1)
        return (given[0] * (1 + 1e-4 * len(passes)),)

    model.ffn[0].down_proj.register_forward_pre_hook(more)


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (share_an_activation_function, "hooks"),
        (swap_rows_and_columns, "grid"),
        (turn_upside_down, "grid"),
        (shift_by_a_row, "grid"),
        (stand_one_token_later, "grid"),
        (read_activations_before_they_are, "neurons"),
        (read_products_for_activations, "hooks"),
        (number_in_order, "logits"),
        (scale_logits, "logits"),
        (go_on_one_place_later, "cache"),
        (amplify_gradients, "slopes"),
        (stop_gradients, "slopes"),
        (read_other_weights, "neurons"),
        (drift, "noise"),
    ],
)
def test_a_subtly_wrong_model_is_caught(spoil, caught):
    model = adapted("qwen2_vl")
    spoil(model)
    assert caught in wrong(model)


def test_a_view_on_its_side_is_caught_beside_a_right_one():
    model = adapted("llava_onevision-all")
    pixels = model.pixels

    def turned(images):
        given = pixels(images)
        given["pixel_values"][:, 0] = given["pixel_values"][:, 0].flip(-1)
        return given

    model.pixels = turned
    assert wrong(model) == ["grid"]


def test_the_command_prints_a_report(tmp_path, capsys, monkeypatch):
    folder, family = tiny_checkpoints.save("llava", tmp_path / "llava"), tiny_checkpoints.FAMILIES["llava"]
    asked = ["check-model", str(folder), f"before={family.before}", f"after={family.after}", "device=cpu"]
    assert main(asked) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "ok   model: 3 layers of 48 neurons, 16 image tokens on a grid of 4 x 4"
    assert printed[-1] == "8 of 8 are right, none is wrong."
    monkeypatch.setattr("kn_core.models.hf.VisionLanguageModel.token_maps", lambda self, _: torch.eye(16).flip(0)[None])
    assert main(asked) == 1
    printed = capsys.readouterr().out
    assert "WRONG grid: 0% of 16 tokens change where their cell is lit" in printed
    assert "1 of 8 are wrong: grid." in printed
