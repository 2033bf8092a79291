"""Interventions change the chosen neurons at the chosen positions by the amount asked for, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kn_core import concepts
from kn_core.measures import metrics, summaries
from kn_core.method import perturbation
from kn_core.method.capture import find_target
from kn_core.method.interventions import (
    Setting,
    direction_edits,
    edits_for,
    inpainted_activations,
    noisy_weights,
    side_by_side,
    written_by_noise,
)
from kn_core.method.perturbation import Picture, Trial, answers
from kn_core.method.two_stages import NeuronSet
from kn_core.models.hooks import intervene, record
from tests.toy_world import toy_samples

FOUND = NeuronSet("bear", "two-stage", np.array([1, 0, 1]), np.array([5, 7, 9]), np.array([3.0, 2.0, 1.0]))
CONTROL = NeuronSet("bear", "random", np.array([1, 0, 1]), np.array([6, 8, 10]), np.zeros(3))


def setting(intervention="noise", positions="image", n=3, sigma=2.0, seed=0) -> Setting:
    return Setting(intervention, positions, n, sigma, seed)


def only(activations, units, positions):
    """A mask of these units at these positions."""
    mask = torch.zeros_like(activations, dtype=torch.bool)
    for where in positions:
        mask[:, where, units] = True
    return mask


@pytest.fixture
def prompts(tiny_model):
    return tiny_model.prompts([sample.image for sample in toy_samples("bear", 2, seed=4)])


@pytest.mark.parametrize("positions", ["image", "text", "all"])
def test_zero_and_noise_touch_the_chosen_neurons_at_the_chosen_positions_alone(tiny_model, positions):
    first, last, length = tiny_model.image_positions.start, tiny_model.image_positions.stop, tiny_model.prompt_length
    wanted = {"image": [slice(first, last)], "text": [slice(0, first), slice(last, None)], "all": [slice(None)]}
    ones = torch.ones(2, length + 4, 48)
    for layer, units in ((0, [7]), (1, [5, 9])):
        chosen = only(ones, units, wanted[positions])
        zeroed = edits_for(tiny_model, FOUND, setting("zero", positions), ["a", "b"])[layer](ones, 0)
        assert torch.equal(zeroed == 0, chosen)
        noisy = edits_for(tiny_model, FOUND, setting("noise", positions), ["a", "b"])[layer](ones, 0)
        assert torch.equal(noisy != 1, chosen)
    assert (ones == 1).all()  # what is edited is a copy


@pytest.mark.parametrize(("positions", "changes"), [("image", False), ("text", True), ("all", True)])
def test_a_caption_token_is_text(tiny_model, positions, changes):
    one = torch.ones(2, 1, 48)
    first = tiny_model.prompt_length + 3
    edited = edits_for(tiny_model, FOUND, setting("zero", positions), ["a", "b"])[0](one, first)
    assert bool((edited[..., 7] == 0).all()) is changes
    assert (edited[..., 8] == 1).all()


def test_noise_is_the_same_whether_a_token_comes_in_the_prompt_or_alone(tiny_model):
    length = tiny_model.prompt_length
    edit = edits_for(tiny_model, FOUND, setting("noise", "all"), ["a"])[1]
    whole = edit(torch.zeros(1, length + 3, 48), 0)
    assert torch.equal(edit(torch.zeros(1, 1, 48), length + 1), whole[:, length + 1 : length + 2])


def test_noise_belongs_to_seed_picture_and_layer_and_to_nothing_else(tiny_model):
    zeros = torch.zeros(2, tiny_model.prompt_length, 48)

    def noise(ids, layer=1, **changes):
        return edits_for(tiny_model, FOUND, setting(**changes), ids)[layer](zeros[: len(ids)], 0)

    together = noise(["a", "b"])
    assert torch.equal(noise(["b"])[0], together[1])
    assert torch.equal(noise(["b", "a"]).flip(0), together)
    assert torch.equal(noise(["a", "b"]), together)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(noise(["a", "b"], seed=1), together)
    assert torch.allclose(noise(["a", "b"], sigma=4.0), 2 * together)
    assert not torch.equal(noise(["a"], layer=0)[..., 7], together[:1, :, 5])
    drawn = together[:, tiny_model.image_positions][..., [5, 9]] / 2.0
    assert abs(float(drawn.mean())) < 0.5
    assert 0.7 < float(drawn.std()) < 1.3


def test_only_the_best_n_neurons_are_disturbed(tiny_model):
    assert list(edits_for(tiny_model, FOUND, setting("zero", n=1), ["a"])) == [1]
    edited = edits_for(tiny_model, FOUND, setting("zero", n=2), ["a"])
    ones = torch.ones(1, tiny_model.prompt_length, 48)
    assert (edited[1](ones, 0)[..., 9] == 1).all()
    assert (edited[1](ones, 0)[:, tiny_model.image_positions, 5] == 0).all()


def test_mean_and_patch_put_in_exactly_what_they_are_given(tiny_model):
    image, ones = tiny_model.image_positions, torch.ones(2, tiny_model.prompt_length, 48)
    mean = torch.arange(3 * 48.0).reshape(3, 48)
    edited = edits_for(tiny_model, FOUND, setting("mean"), ["a", "b"], mean)[1](ones, 0)
    expected = ones.clone()
    expected[:, image, 5], expected[:, image, 9] = 48 + 5, 48 + 9
    assert torch.equal(edited, expected)
    patch = torch.randn(2, 3, 16, 48, generator=torch.Generator().manual_seed(0))  # (B, L, P, D)
    edited = edits_for(tiny_model, FOUND, setting("patch"), ["a", "b"], patch)[1](ones, 0)
    expected = ones.clone()
    expected[:, image, 5], expected[:, image, 9] = patch[:, 1, :, 5], patch[:, 1, :, 9]
    assert torch.equal(edited, expected)


def test_patching_with_a_pictures_own_activations_changes_nothing(tiny_model, prompts):
    own = inpainted_activations(tiny_model, prompts)
    assert own.shape == (2, 3, 16, 48)
    clean = tiny_model.logits(prompts, ["A bear."] * 2)
    with intervene(tiny_model, edits_for(tiny_model, FOUND, setting("patch"), ["a", "b"], own)):
        assert torch.allclose(tiny_model.logits(prompts, ["A bear."] * 2), clean, atol=1e-6)


@pytest.mark.parametrize("site", ["activation", "product"])
def test_patching_every_neuron_of_the_first_layer_gives_it_the_other_pictures_activations(tiny_model, prompts, site):
    everything = NeuronSet("bear", "all", np.zeros(48, int), np.arange(48), np.zeros(48))
    other = inpainted_activations(tiny_model, prompts.flip(0), site)
    edits = edits_for(tiny_model, everything, setting("patch", n=48), ["a", "b"], other)
    with intervene(tiny_model, edits, site), record(tiny_model, site) as found:
        tiny_model.logits(prompts)
    assert torch.equal(found[0][:, tiny_model.image_positions], other[:, 0])


def test_noise_without_strength_leaves_captions_and_probabilities_alone(taught_model):
    samples = list(toy_samples("bear", 3, seed=4))
    prompts = taught_model.prompts([sample.image for sample in samples])
    said = [sample.references[0] for sample in samples]
    clean = [*answers(taught_model, prompts, said, 12)]
    assert [answer.caption for answer in clean] == said
    ids = [sample.image_id for sample in samples]

    def noisy(sigma):
        chosen = setting("noise", "all", sigma=sigma)

        def edits(rows):
            return {chosen.site: edits_for(taught_model, FOUND, chosen, ids[rows])}

        return answers(taught_model, prompts, said, 12, edits)

    for before, faint, loud in zip(clean, noisy(1e-9), noisy(50.0), strict=True):
        assert faint.caption == before.caption
        assert np.allclose(before.probabilities, faint.probabilities, atol=1e-5)
        assert not np.allclose(before.probabilities, loud.probabilities, atol=1e-2)


@pytest.mark.parametrize("batch_size", [16, 2])
def test_the_probabilities_of_a_reference_caption_by_hand(taught_model, batch_size, monkeypatch):
    monkeypatch.setattr(taught_model, "batch_size", batch_size)
    prompts = taught_model.prompts([sample.image for sample in toy_samples("bear", 3, seed=4)])
    references = ["A bear.", "A pizza in a forest.", "A bus on it."]
    found = answers(taught_model, prompts, references, 12)
    for row, reference, answer in zip(taught_model.logits(prompts, references), references, found, strict=True):
        ids = taught_model.encode(reference)[0]
        expected = [float(row[t].softmax(-1)[token]) for t, token in enumerate(ids)]
        assert answer.probabilities == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_impossible_interventions_are_refused(tiny_model):
    with pytest.raises(ValueError, match="'mean' is defined at image positions. Got positions 'all'."):
        setting("mean", "all")
    with pytest.raises(ValueError, match="'weights' changes what is written at all positions. Got positions 'image'."):
        setting("weights")
    with pytest.raises(ValueError, match="'weights' edits no activation"):
        edits_for(tiny_model, FOUND, setting("weights", "all"), ["a"])
    with pytest.raises(ValueError, match="need a replacement, others take none. Got 'patch'"):
        edits_for(tiny_model, FOUND, setting("patch"), ["a"])
    with pytest.raises(ValueError, match="need a replacement, others take none. Got 'zero'"):
        edits_for(tiny_model, FOUND, setting("zero"), ["a"], torch.zeros(3, 48))


def test_several_interventions_share_a_batch(tiny_model):
    ones = torch.ones(5, tiny_model.prompt_length, 48)
    groups = [("a", FOUND, setting("zero")), ("b", CONTROL, setting("noise"))]
    edits = side_by_side(
        [(2, edits_for(tiny_model, neurons, one, [f"{name}1", f"{name}2"])) for name, neurons, one in groups]
        + [(1, {})]
    )
    assert list(edits) == [0, 1]
    for layer, edit in edits.items():
        alone = [
            edits_for(tiny_model, neurons, one, [f"{name}1", f"{name}2"])[layer](ones[:2], 0)
            for name, neurons, one in groups
        ]
        assert torch.equal(edit(ones, 0), torch.cat([*alone, ones[:1]]))


def test_noise_on_weights_is_of_the_columns_size_and_goes_away(tiny_model):
    before = [tiny_model.w_out(layer).clone() for layer in range(3)]
    chosen = setting("weights", "all", n=2, sigma=0.5)
    with noisy_weights(tiny_model, FOUND, chosen):
        noise = tiny_model.w_out(1)[:, 5] - before[1][:, 5]
        assert 0.3 < float(noise.std() / before[1][:, 5].square().mean().sqrt()) < 0.7
        assert not torch.equal(tiny_model.w_out(0)[:, 7], before[0][:, 7])
        assert torch.equal(tiny_model.w_out(1)[:, 9], before[1][:, 9])  # the third neuron of two
    with pytest.raises(KeyboardInterrupt), noisy_weights(tiny_model, FOUND, chosen):
        raise KeyboardInterrupt
    assert all(torch.equal(tiny_model.w_out(layer), before[layer]) for layer in range(3))


def test_a_random_direction_is_as_long_as_what_the_noise_writes_and_lies_at_the_image_tokens(tiny_model, prompts):
    image, ids = tiny_model.image_positions, ["a", "b"]
    lengths = written_by_noise(tiny_model, FOUND, setting(), ids, prompts)
    with torch.no_grad():
        with record(tiny_model, "written") as clean:
            tiny_model.logits(prompts)
        with (
            intervene(tiny_model, edits_for(tiny_model, FOUND, setting(), ids)),
            record(tiny_model, "written") as noisy,
        ):
            tiny_model.logits(prompts)
        edits = direction_edits(tiny_model, FOUND, setting(), ids, prompts)
        with intervene(tiny_model, edits, "written"), record(tiny_model, "written") as pushed:
            tiny_model.logits(prompts)
    by_noise, by_push = noisy[0] - clean[0], pushed[0] - clean[0]  # of the first layer: nothing above it differs
    assert torch.allclose(by_noise[:, image].norm(dim=-1), lengths[0], rtol=1e-3)
    assert torch.allclose(by_push[:, image].norm(dim=-1), lengths[0], rtol=1e-3)
    assert float(torch.cosine_similarity(by_noise[:, image], by_push[:, image], dim=-1).abs().mean()) < 0.5
    outside = torch.cat([by_push[:, : image.start], by_push[:, image.stop :]], dim=1)
    assert not outside.any() and set(lengths) == set(edits) == {0, 1}
    with pytest.raises(ValueError, match="noise at image tokens"):
        direction_edits(tiny_model, FOUND, setting("zero", sigma=math.nan), ids, prompts)


def test_removal_is_the_caption_of_the_picture_without_the_object(taught_model, pictures):
    planned = [Trial(FOUND, setting(), "own", "direction"), Trial(FOUND, setting(), "own", "removal")]
    rows = perturbation.run(taught_model, pictures, planned, None, 12).set_index("method")
    own = pictures[1]
    assert rows.loc["removal", "caption"] == taught_model.caption(own.prompt_inpainted[None], 12)[0]
    assert rows.loc["removal", ["intervention", "n"]].tolist() == ["removal", 0]
    assert rows.loc["direction", ["intervention", "n", "sigma"]].tolist() == ["noise", 3, 2.0]
    assert rows.loc["removal", "target_probability"] < rows.loc["removal", "clean_probability"]


@pytest.fixture
def pictures(taught_model):
    made = []
    for concept, held_out in (("bear", False), ("bear", True), ("pizza", True)):
        sample = list(toy_samples(concept, 2, seed=4))[held_out]
        caption = sample.references[0]
        prompt, without = taught_model.prompts([sample.image, sample.without])
        target = find_target(taught_model, caption, concept)
        chooses = concept == "bear" and not held_out
        shown = (sample.image_id, concept, caption, target, held_out, chooses, held_out, prompt, without)
        made.append(Picture(*shown, things=("lion", "sky")))
    return made


def test_a_run_has_one_row_a_picture_set_and_setting(taught_model, pictures):
    planned = [
        Trial(FOUND, setting(), "all"),
        Trial(CONTROL, setting(seed=1), "fresh"),
        Trial(FOUND, setting("zero", sigma=math.nan), "swept"),
        Trial(FOUND, setting("mean", sigma=math.nan), "choosing"),
        Trial(FOUND, setting("weights", "all"), "own"),
        Trial(CONTROL, setting("patch", sigma=math.nan), "dose"),
    ]
    rows = perturbation.run(taught_model, pictures, planned, torch.zeros(3, 48), 12)
    design = "concept method intervention positions n sigma seed image_id image_concept heldout caption target_present"
    assert {*design.split(), "target_probability", "retained", *metrics.EFFECTS} <= set(rows.columns)
    seen, own, other = (picture.image_id for picture in pictures)
    assert rows["image_id"].tolist() == [seen, own, other, own, other, own, seen, own, seen, own]
    assert rows["intervention"].tolist() == ["noise"] * 5 + ["zero", "mean", "weights", "patch", "patch"]
    said = {picture.image_id: picture.caption for picture in pictures}
    assert rows["clean_caption"].tolist() == [said[image_id] for image_id in rows["image_id"]]
    expected = [concepts.names(row.caption, row.image_concept) for row in rows.itertuples()]
    assert rows["target_present"].tolist() == expected
    assert rows["clean_probability"].gt(0.5).all()
    assert rows["perplexity"].gt(1).all()
    summary = summaries.summarise(rows[:3], ["method"])
    assert set(summary["metric"]) >= {"suppression", "retention", "retention_others", "fluent"}


def test_a_strong_patch_makes_the_model_say_what_it_says_without_the_object(taught_model, pictures):
    everything = NeuronSet("bear", "all", np.repeat(range(3), 48), np.tile(range(48), 3), np.zeros(144))
    rows = perturbation.run(
        taught_model, pictures, [Trial(everything, setting("patch", n=144, sigma=math.nan), "all")], None, 12
    )
    own = rows[rows["image_concept"] == "bear"]
    before = dict(zip(own["image_id"], own["clean_probability"], strict=True))
    assert all(row.target_probability < before[row.image_id] for row in own.itertuples())


def test_trials_that_edit_at_several_sites_share_batches(taught_model, pictures, monkeypatch):
    product = replace(setting("patch", sigma=math.nan), site="product")
    planned = [
        *(Trial(FOUND, one, "all") for one in (setting(), product, setting("patch", sigma=math.nan))),
        Trial(FOUND, setting(), "own", "direction"),
        Trial(FOUND, product, "own", "removal"),
        Trial(CONTROL, product, "own"),
    ]
    alone = [perturbation.run(taught_model, pictures, [trial], None, 12) for trial in planned]
    sizes, respond = [], taught_model.respond

    def counted(prompts, *rest):
        sizes.append(len(prompts))
        return respond(prompts, *rest)

    monkeypatch.setattr(taught_model, "respond", counted)
    together = perturbation.run(taught_model, pictures, planned, None, 12)
    assert sizes == [3 * 3 + 3]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True), rtol=1e-4)


def test_rows_do_not_depend_on_the_batches(taught_model, pictures, monkeypatch):
    settings = [
        setting(),
        setting("patch", sigma=math.nan),
        replace(setting("patch", sigma=math.nan), site="product"),
        setting("weights", "all"),
        setting(positions="all", seed=1),
    ]
    planned = [Trial(neurons, one, "all") for one in settings for neurons in (FOUND, CONTROL)]
    whole = perturbation.run(taught_model, pictures, planned, None, 12)
    monkeypatch.setattr(taught_model, "batch_size", 2)
    parts = perturbation.run(taught_model, pictures, planned, None, 12)
    assert whole["caption"].tolist() == parts["caption"].tolist()
    assert np.allclose(whole["target_probability"], parts["target_probability"], atol=1e-5)
    patched = whole[whole["intervention"] == "patch"].groupby("site")["target_probability"].agg(tuple)
    assert set(patched.index) == {"activation", "product"} and patched["activation"] != patched["product"]
