"""Editors' equations against minimisers and by hand, and edits that come out as they went in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from kn_core.method import editing, editors
from kn_core.method.editors import EDITORS, Other
from kn_core.method.edits import Edit, EditError
from kn_core.method.two_stages import NeuronSet
from tests.toy_world import toy_samples


@pytest.fixture
def toy(taught_model):
    """A model, neurons of its last layers and of its first ones, and pictures of two words."""
    places = np.arange(40)
    chosen = NeuronSet("bear", "mine", places % 2, places, np.zeros(40))
    other = NeuronSet("bus", "mine", places % 2, places + 4, np.zeros(40))
    shown = {
        word: editors.seen(taught_model, list(toy_samples(word, 4, 5)), word, 12) for word in ("bear", "bus", "pizza")
    }
    return taught_model, chosen, other, shown


def test_ridge_is_the_constrained_minimiser():
    draw = np.random.default_rng(0).standard_normal
    residuals, keys, c = draw((7, 2)), draw((7, 3)), editing.covariance(torch.from_numpy(draw((9, 3)))).numpy()

    def loss(flat: np.ndarray) -> float:
        w = flat.reshape(2, 3)
        return float(((residuals - keys @ w.T) ** 2).sum() + 0.7 * np.trace(w @ c @ w.T))

    least = minimize(loss, np.zeros(6), tol=1e-14).x.reshape(2, 3)
    found = editing.ridge(torch.from_numpy(residuals), torch.from_numpy(keys), torch.from_numpy(c), 0.7)
    np.testing.assert_allclose(found, least, atol=1e-5)


def test_without_penalty_ridge_writes_what_is_wanted_and_a_silent_neuron_is_left_alone():
    keys = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    wanted = torch.tensor([[1.0, 3.0], [0.0, -4.0]])
    found = editing.ridge(wanted, keys, torch.zeros(3, 3), 0.0)
    torch.testing.assert_close(found.float(), torch.tensor([[1.0, 0.0, 0.0], [3.0, -2.0, 0.0]]), atol=1e-4, rtol=0)


def test_dai_by_hand():
    columns = torch.tensor([[3.0, 0.0], [4.0, 2.0]])  # norms 5 and 2
    found = editing.dai_update(columns, torch.tensor([0.0, 9.0]), torch.tensor([0.5, 0.0]), 1, 8)
    torch.testing.assert_close(found, torch.tensor([[40.0, 16.0], [-5.0, -2.0]]))


def test_the_detector_is_one_on_the_object():
    object_, rest = torch.tensor([[2.0, 1.0], [2.0, -1.0]]), torch.tensor([[0.0, 3.0]] * 4)
    read = editors.detector(object_, rest, 1.0)
    torch.testing.assert_close(read, torch.tensor([0.5, 0.0]), atol=1e-4, rtol=0)


def test_the_threshold_by_hand():
    own, others = torch.tensor([0.9, 0.8, 0.4]), torch.tensor([0.1, 0.5, 0.2])
    assert editors.threshold(own[:2], others) == pytest.approx(0.65)  # nothing is lost between .5 and .8
    assert editors.threshold(own, others) == pytest.approx(0.3)  # one of four others; above .5 it were one of three
    assert editors.threshold(own, torch.empty(0)) == pytest.approx(0.2)  # halfway to nothing


def test_a_picture_is_read_by_what_was_fitted_without_it():
    """Two pictures whose objects no neuron has in common: each tells nothing of the other, though a fit knows both."""

    class Recorded:
        model = SimpleNamespace(image_positions=slice(0, 4), prompt_length=4)

        def __call__(self, one: editing.Seen) -> torch.Tensor:
            said = torch.zeros(1, 4, 3)
            said[0, 3, 2] = 1.0  # the ground
            if one.image_id != "other":
                said[0, :3, ("a", "b").index(one.image_id)] = 1.0
            return said

    inside = torch.tensor([True, True, True, False])
    own = [editing.Seen(name, torch.empty(0), "", -1, inside) for name in ("a", "b")]
    others = [editing.Seen("other", torch.empty(0), "", -1, torch.zeros(4, dtype=torch.bool))]
    every = NeuronSet("bear", "mine", np.zeros(3, int), np.arange(3), np.zeros(3))
    recorded = cast("editing.Recorder", Recorded())
    unseen = editors.says_unseen(recorded, own, others, every, 1.0)
    assert [each.tolist() for each in unseen] == [[0.0, 0.0], [0.0]]
    seen, _ = editors.says_unseen(recorded, own[:1], others, every, 1.0)  # which cannot be left out
    assert seen.tolist() == pytest.approx([1.0], abs=1e-4)


def test_surprise_by_hand(toy):
    model, _, _, shown = toy
    one, caption = shown["bear"][0], editors.renamed(shown["bear"][0].caption, "bear", "bus")
    assert "bus" in caption and "bear" not in caption
    row = model.logits(one.prompt[None], [caption])[0].log_softmax(-1)
    said = [-float(row[t, token]) for t, token in enumerate([*model.encode(caption)[0], model.end])]
    word = said.pop(one.position)
    assert float(editors.surprise(model, [one], [caption])) == pytest.approx(word + np.mean(said), rel=1e-4)
    whole = editors.surprise(model, [replace(one, position=-1)], [caption])
    assert float(whole) == pytest.approx(np.mean([word, *said]), rel=1e-4)


def test_a_swap_leaves_what_does_not_show_the_object_to_the_last_bit(toy):
    model, chosen, other, shown = toy
    made = editors.make(
        model, "bear", "bus", chosen, shown["bear"], shown["pizza"], "swap", towards=Other(other, shown["bus"])
    )
    before = [model.logits(one.prompt[None]) for one in (shown["pizza"][0], shown["bear"][0])]
    with made:
        after = [model.logits(one.prompt[None]) for one in (shown["pizza"][0], shown["bear"][0])]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_gamma_brings_the_margin_where_the_last_layer_alone_is_edited(toy):
    """To first order: the final norm's divisor moves with the stream."""
    model, _, _, shown = toy
    last = NeuronSet("bear", "mine", np.full(48, model.n_layers - 1), np.arange(48), np.zeros(48))
    old, new = (editing.token_of(model, word) for word in ("bear", "pizza"))
    saying = editing.keys(editing.Recorder(model), shown["bear"][:1], last).saying

    def difference() -> float:
        at = shown["bear"][0]
        logits = model.logits(at.prompt[None], [at.caption])[0, at.position]
        return float(logits[new] - logits[old])

    before = difference()
    gamma = editing.shift_for(model, shown["bear"][:1], old, new, saying, before + 0.01)
    edit = Edit(model, {
        "layer": torch.full((48,), model.n_layers - 1, dtype=torch.int16), "unit": torch.arange(48, dtype=torch.int32),
        "written": editing.direction(model, old, new)[:, None], "read": torch.full((1, 48), gamma),
    }, {"strength": 1.0})  # fmt: skip
    with edit:
        assert difference() - before == pytest.approx(0.01, rel=0.5)
    assert difference() == before


def weights(model) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.backbone.parameters()]


@pytest.mark.parametrize("method", EDITORS)
def test_an_edit_is_made_kept_loaded_and_undone_to_the_last_bit(method, toy, tmp_path):
    model, chosen, other, shown = toy
    before, logits = weights(model), model.logits(shown["bear"][0].prompt[None])
    towards = Other(other, shown["bus"])
    made = editors.make(model, "bear", "bus", chosen, shown["bear"], shown["pizza"], method, 1.0, towards, layer=1)
    path = made.save(tmp_path / "edit.safetensors")
    assert path.stat().st_size < 15_000
    loaded = Edit.load(path, model)
    assert loaded.made_from == made.made_from and loaded.made_from["old"] == "bear"
    with made:
        there = model.logits(shown["bear"][0].prompt[None])
        with pytest.raises(EditError, match="in the model already"):
            made.apply()
        if made.rank:  # a swap changes no weight
            with pytest.raises(EditError, match="made for other weights"):
                Edit.load(path, model)
    assert not torch.equal(there, logits)
    loaded.apply()
    assert torch.equal(model.logits(shown["bear"][0].prompt[None]), there)
    loaded.undo()
    assert all(map(torch.equal, before, weights(model)))
    assert torch.equal(model.logits(shown["bear"][0].prompt[None]), logits)
    with pytest.raises(EditError, match="`apply` it first"):
        loaded.undo()


def test_edits_come_out_in_reverse_order(toy):
    model, chosen, _, shown = toy
    before = weights(model)
    one, two = (
        editors.make(model, "bear", new, chosen, shown["bear"], method="dai").apply() for new in ("bus", "pizza")
    )
    with pytest.raises(EditError, match="undo what came later"):
        one.undo()
    two.undo()
    one.undo()
    assert all(map(torch.equal, before, weights(model)))


def test_strength_scales_what_is_added(toy):
    model, chosen, _, shown = toy
    edit = editors.make(model, "bear", "bus", chosen, shown["bear"], method="dai", strength=2.0)
    plain = editors.make(model, "bear", "bus", chosen, shown["bear"], method="dai")
    torch.testing.assert_close(edit.tensors["written"], 2 * plain.tensors["written"])
    assert edit.made_from["strength"] == 2.0


@pytest.mark.parametrize("method", ["fine", "driven"])
def test_an_edited_model_says_the_other_word(method, toy):
    model, _, _, shown = toy
    every, others = NeuronSet.of_layers("bear", "all", np.arange(2), model.ffn_width), shown["pizza"]
    towards = Other(every, shown["bus"])
    made = editors.make(model, "bear", "bus", every, shown["bear"], others, method, towards=towards)
    fresh = list(toy_samples("bear", 6, 77))
    with made:
        said = model.caption([one.image for one in fresh], 12)
    assert np.mean(["bus" in caption for caption in said]) >= 0.5


def test_what_cannot_be_is_said(toy):
    model, chosen, _, shown = toy
    late = NeuronSet("bear", "mine", np.array([2]), np.array([1]), np.zeros(1))
    with pytest.raises(EditError, match="take later layers"):
        editors.make(model, "bear", "bus", late, shown["bear"], layer=1)
    with pytest.raises(EditError, match="drives the other word's neurons"):
        editors.make(model, "bear", "bus", chosen, shown["bear"], method="swap")
    with pytest.raises(EditError, match="Got none"):
        editors.make(model, "bear", "bus", chosen, [], method="fine")
    with pytest.raises(ValueError, match="must have captions that say the word"):
        editing.wanted(model, [editors.seen(model, list(toy_samples("bear", 1, 5)), "giraffe", 12)[0]], 3, 1)


def test_a_file_of_another_kind_is_no_edit(toy, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(EditError, match="is no edit that"):
        Edit.load(tmp_path / "x.safetensors", toy[0])
