"""The paper's equations, on numbers small enough to work out by hand and against finite differences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from kn_core.method.capture import Capture, Target, capture, find_target
from kn_core.method.heatmap import heatmap
from kn_core.method.two_stages import (
    NeuronSet,
    identify,
    image_scores,
    pool_images,
    reduce_positions,
    select,
    stage_1,
    stage_2,
)
from kn_core.models.hooks import intervene
from tests.toy_world import toy_samples

WEIGHTS = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[3.0, -1.0], [0.5, 4.0]]])  # (V, P, D)


class LinearNet(nn.Module):
    """y_c = sum over image tokens p and neurons i of WEIGHTS[c, p, i] * relu(x_p * (1, 2) - (0, 3))_i, at every row."""

    n_layers, image_positions, prompt_length = 1, slice(0, 2), 1

    def __init__(self) -> None:
        super().__init__()
        self.act_fn = nn.ReLU()

    def site(self, layer: int, site: str) -> tuple[nn.Module, bool]:
        return self.act_fn, site != "preactivation"

    def prompts(self, images: list[np.ndarray]) -> Tensor:
        """Two image tokens and a text token, (B, 3, 1)."""
        return torch.tensor([[*image, 5] for image in images], dtype=torch.float32)[..., None]

    def logits(self, prompts: Tensor, captions: list[str] | None = None) -> Tensor:
        activations = self.act_fn(prompts * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 3.0]))
        return torch.einsum("bpi,vpi->bv", activations[:, :2], WEIGHTS)[:, None].expand(-1, 4, -1)


def a_capture(original: list, inpainted: list, gradient: list) -> Capture:
    given = (torch.tensor(values, dtype=torch.float32) for values in (original, inpainted, gradient))
    return Capture(*given, *[torch.empty(0)] * 4)  # what rivals read is not asked for


def neurons(layers: list[int], units: list[int], scores: list[float] | None = None) -> NeuronSet:
    scores = scores or list(range(len(layers), 0, -1))
    return NeuronSet("bear", "two-stage", np.array(layers), np.array(units), np.array(scores, float))


def test_both_stages_of_a_linear_net_by_hand():
    picture, without = np.array([2.0, 1.0]), np.array([0.0, 1.0])
    pair = capture(LinearNet(), picture, without, "a bear", Target("bear", token=1, position=2))
    assert pair.original.tolist() == [[[2, 1], [1, 0]]]
    assert pair.inpainted.tolist() == [[[0, 0], [1, 0]]]
    assert pair.delta.tolist() == [[[2, 1], [0, 0]]]
    assert pair.gradient.tolist() == [WEIGHTS[1].tolist()]
    assert pair.gradcam.tolist() == [[[6, -1], [0.5, 0]]]
    assert pair.preactivation.tolist() == [[[2, 1], [1, -1]]]
    assert pair.preactivation_gradient.tolist() == [[[3, -1], [0.5, 0]]]  # relu passes none below 0
    assert pair.predicting.tolist() == [[5, 7]]  # the text token
    other = capture(LinearNet(), picture, without, "a bear", Target("a", token=0, position=0))
    assert other.gradcam.tolist() == [[[2, 1], [1, 0]]]


@pytest.fixture
def pair_of(taught_model):
    """pair_of(caption, word, model): the capture of a toy bear for a caption that we choose."""
    sample = next(toy_samples("bear", 1, seed=9))

    def of(caption="A bear in a forest.", concept="bear", model=taught_model):
        return capture(model, sample.image, sample.without, caption, find_target(model, caption, concept))

    return of


def test_gradients_are_those_of_finite_differences(make_model):
    model = make_model()
    for module in model.decoder.double().modules():
        if isinstance(module, LlamaRMSNorm):  # transformers' own computes in float32, too coarse for differences
            module.forward = partial(F.rms_norm, normalized_shape=(32,), weight=module.weight, eps=1e-6)
    sample = next(toy_samples("bear", 1, seed=9))
    caption, target = "A bear in a forest.", find_target(model, "A bear in a forest.", "bear")
    pair = capture(model, sample.image, sample.without, caption, target)
    prompt, step = model.prompts([sample.image]), 1e-5

    def logit(layer: int, token: int, unit: int, change: float) -> float:
        def nudge(activations: Tensor, first: int) -> Tensor:
            changed = activations.clone()
            changed[:, model.image_positions.start + token, unit] += change
            return changed

        with intervene(model, {layer: nudge}):
            return float(model.logits(prompt, [caption])[0, target.position, target.token])

    rng = np.random.default_rng(0)
    for layer, token, unit in zip(
        rng.integers(0, 3, 20), rng.integers(0, 16, 20), rng.integers(0, 48, 20), strict=True
    ):
        slope = (logit(layer, token, unit, step) - logit(layer, token, unit, -step)) / (2 * step)
        assert float(pair.gradient[layer, token, unit]) == pytest.approx(slope, rel=1e-5, abs=1e-9)
    assert (pair.gradient[2] == 0).all()  # what the last layer writes at image tokens reaches no logit


def test_one_backward_gives_every_neurons_gradient(taught_model, pair_of):
    pair, caption = pair_of(), "A bear in a forest."
    sample, target = next(toy_samples("bear", 1, seed=9)), find_target(taught_model, "A bear in a forest.", "bear")
    prompt = taught_model.prompts([sample.image])
    for layer, token, unit in ((0, 0, 0), (0, 7, 31), (1, 15, 47), (1, 3, 12)):
        shift = torch.zeros((), requires_grad=True)

        def add(activations: Tensor, first: int, shift=shift, token=token, unit=unit) -> Tensor:
            at = torch.zeros_like(activations)
            at[:, taught_model.image_positions.start + token, unit] = 1
            return activations + shift * at

        with intervene(taught_model, {layer: add}):
            logit = taught_model.logits(prompt, [caption])[0, target.position, target.token]
        (gradient,) = torch.autograd.grad(logit, shift)
        assert float(pair.gradient[layer, token, unit]) == pytest.approx(float(gradient), rel=1e-4, abs=1e-6)


def test_what_the_caption_says_after_the_target_does_not_matter(pair_of):
    one, other = pair_of("A bear in a forest."), pair_of("A bear eats a pizza on the bus!")
    assert torch.allclose(one.gradcam, other.gradcam, atol=1e-5)
    assert torch.equal(one.original, other.original)
    elsewhere = pair_of("In a forest, a bear.")
    assert torch.allclose(one.original, elsewhere.original, atol=1e-6)
    assert not torch.allclose(one.gradcam, elsewhere.gradcam, atol=1e-3)


def test_captures_are_plain_numbers_of_the_image_tokens(taught_model, pair_of):
    pair = pair_of()
    assert [tuple(values.shape) for values in (pair.delta, pair.gradcam)] == [(3, 16, 48)] * 2
    assert not any(values.requires_grad for values in (pair.original, pair.inpainted, pair.gradient))
    assert float(pair.delta.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in taught_model.parameters())


@pytest.mark.parametrize(
    ("caption", "concept", "word", "position"),
    [
        ("A bear in a forest.", "bear", "bear", 1),
        ("Bears.", "bear", "Bears", 0),
        ("A hot dog and two dogs", "dog", "dogs", None),
        ("A giraffe.", "giraffe", "giraffe", None),
    ],
)
def test_the_target_is_the_first_sub_token_of_the_first_mention(taught_model, caption, concept, word, position):
    target = find_target(taught_model, caption, concept)
    ids, spans = taught_model.encode(caption)
    assert target.word == word
    assert target.token == ids[target.position]
    start, end = spans[target.position]
    assert start <= caption.index(word) < end
    if position is not None:
        assert target.position == position


def test_a_caption_without_the_concept_has_no_target(taught_model):
    assert find_target(taught_model, "A bust on a table.", "bus") is None


def test_reductions_over_positions():
    scores = torch.tensor([[[1.0, -2.0], [5.0, -1.0], [3.0, -3.0]]])  # (1, 3, 2)
    assert reduce_positions(scores, "any").tolist() == [[5, -1]]
    assert reduce_positions(scores, "mean").tolist() == [[3, -2]]
    assert reduce_positions(scores, "mask", np.array([True, False, True])).tolist() == [[3, -2]]
    for cells in (None, np.zeros(3, bool)):
        with pytest.raises(ValueError, match="needs cells .* with at least one token inside the object"):
            reduce_positions(scores, "mask", cells)


def test_the_scores_of_a_pair():
    pair = a_capture([[[4, 1], [2, 8]]], [[[1, 0], [1, 5]]], [[[0.5, 2], [3, -1]]])
    assert (pair.delta.tolist(), pair.gradcam.tolist()) == ([[[3, 1], [1, 3]]], [[[2, 2], [6, -8]]])
    expected = {"any": ([3, 3], [6, 2]), "mean": ([2, 2], [4, -3]), "same": ([3, 3], [2, -8])}
    for how, (delta, gradcam) in expected.items():
        assert [scores.tolist() for scores in image_scores(pair, how)] == [[delta], [gradcam]]
    inside = np.array([False, True])
    assert [scores.tolist() for scores in image_scores(pair, "mask", inside)] == [[[1, 3]], [[6, -8]]]


def test_pooling_over_pictures():
    scores = np.array([[[1.0, 5.0]], [[3.0, -1.0]]])  # (N, L, D)
    assert pool_images(scores, "mean").tolist() == [[2, 2]]
    assert pool_images(scores, "max").tolist() == [[3, 5]]  # against a threshold: the union
    assert pool_images(scores, "min").tolist() == [[1, -1]]  # the intersection


def test_thresholds_are_strict():
    delta, gradcam = np.array([[0.8, 0.9, 2.0, -3.0]]), np.array([[1.0, 0.5, 0.6, 1.0]])
    candidates = stage_1(delta, 0.8)
    assert candidates.tolist() == [[False, True, True, False]]
    assert stage_2(candidates, gradcam, 0.5).tolist() == [[False, False, True, False]]


def test_two_stage_neurons_best_first():
    delta = np.array([[1.0, 0.2, 3.0], [2.0, 5.0, 2.5]])
    gradcam = np.array([[0.7, 0.9, 0.1], [0.4, 0.8, 0.6]])
    by_gradcam = identify("bear", delta, gradcam, 0.5, 0.3)
    assert list(zip(by_gradcam.layers, by_gradcam.units, strict=True)) == [(1, 1), (0, 0), (1, 2), (1, 0)]
    assert by_gradcam.scores.tolist() == [0.8, 0.7, 0.6, 0.4]
    assert (by_gradcam.concept, by_gradcam.method) == ("bear", "two-stage")
    by_delta = identify("bear", delta, gradcam, 0.5, 0.3, rank_by="delta")
    assert list(zip(by_delta.layers, by_delta.units, strict=True)) == [(1, 1), (1, 2), (1, 0), (0, 0)]
    assert len(identify("bear", delta, gradcam, 9, 0.3)) == 0


def test_selection_orders_by_score_breaks_ties_by_layer_and_keeps_to_its_budget():
    score = np.array([[1.0, 2.0], [2.0, 3.0]])
    chosen = select("bear", "mine", np.ones((2, 2), bool), score)
    assert list(zip(chosen.layers, chosen.units, strict=True)) == [(1, 1), (0, 1), (1, 0), (0, 0)]
    assert chosen.scores.tolist() == [3, 2, 2, 1]
    assert select("bear", "mine", np.ones((2, 2), bool), score, budget=3).units.tolist() == [1, 1, 0]
    assert select("bear", "mine", score > 2.5, score).layers.tolist() == [1]


def test_the_best_of_a_set_and_its_layers():
    found = neurons([2, 0, 2, 1], [5, 6, 7, 8])
    assert found.top(2).units.tolist() == [5, 6]
    assert len(found.top(9)) == 4
    assert {layer: units.tolist() for layer, units in found.by_layer().items()} == {0: [6], 1: [8], 2: [5, 7]}


def test_a_set_comes_back_from_its_table_in_order():
    rows = {"concept": "bear", "method": "random", "rank": [1, 0], "layer": [4, 3], "unit": [7, 8], "score": [0.1, 0.2]}
    found = NeuronSet.from_frame(pd.DataFrame(rows))
    assert (found.concept, found.method, len(found)) == ("bear", "random", 2)
    assert (found.layers.tolist(), found.units.tolist(), found.scores.tolist()) == ([3, 4], [8, 7], [0.2, 0.1])
    with pytest.raises(ValueError, match=r"one concept and one method expected. Got \['bear'\] and \['b', 'a'\]"):
        NeuronSet.from_frame(pd.DataFrame(rows | {"method": ["a", "b"]}))


def test_a_heatmap_is_the_neurons_mean_on_the_models_own_grid():
    scores = torch.arange(2 * 8 * 3, dtype=torch.float32).reshape(2, 8, 3)  # (L, P, D), 24 a layer, 3 a token
    found = neurons([0, 1], [2, 0])
    expected = [[(2 + 3 * p + 24 + 3 * p) / 2 for p in (2 * row, 2 * row + 1)] for row in range(4)]
    assert heatmap(scores, found, (4, 2)).tolist() == expected  # strips: four rows of two
    frame = pd.DataFrame({"concept": "bear", "method": "m", "rank": 0, "layer": [0], "unit": [1], "score": [1.0]})
    assert heatmap(scores, NeuronSet.from_frame(frame), (1, 8)).tolist() == [[1 + 3 * p for p in range(8)]]
    with pytest.raises(ValueError, match="grid must hold the score's 8 image tokens. Got 3 x 3."):
        heatmap(scores, found, (3, 3))
    with pytest.raises(ValueError, match="needs at least one neuron. Got none of 'bear'"):
        heatmap(scores, found.top(0), (4, 2))
