"""Q-Formers: image tokens without a place, where their queries look, and how the embedded one starts and trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from kn_core.method.capture import capture, find_target
from kn_core.method.heatmap import heatmap
from kn_core.method.two_stages import NeuronSet
from kn_core.models import MiniGPT4, QFormerMiniGPT4
from kn_core.models.hooks import intervene, record
from kn_core.models.qformer import N_QUERIES, QFormerProjection, load_qformer, region_means, regions
from kn_core.models.rollout import Attentions, record_attention, rollout
from kn_core.pictures.token_grid import inside, tokens_inside
from kn_core.profile import load_profile
from kn_core.settings import Model
from kn_core.training import card, distillation
from kn_core.training import command as train_projection
from kn_core.training.command import Recipe, distilled, save_projection, train
from kn_core.training.data import Example, make_bank
from kn_core.training.distillation import anchor, distil
from tests.toy_world import DESCRIBED, ToyTower, toy_samples


@pytest.fixture
def make_qformer(toy_tokenizer) -> Callable[[], QFormerMiniGPT4]:
    """A tiny MiniGPT-4 whose 4 x 4 cells are looked at by 8 queries; the same random weights every time."""

    def make() -> QFormerMiniGPT4:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(toy_tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=toy_tokenizer.eos_token_id,
        )
        projection = QFormerProjection(3, 32, (4, 4), n_queries=8, inner=32, layers=3, heads=2)
        return QFormerMiniGPT4(
            ToyTower(4), projection, LlamaForCausalLM(config), toy_tokenizer, "See ", " say: ", batch_size=3
        )

    return make


def pictures(n: int) -> list[np.ndarray]:
    return [sample.image for sample in toy_samples("bear", n, seed=3)]


def examples(n: int = 12):
    for sample in toy_samples("bear", n, seed=0):
        yield Example("scene", sample.image, sample.references, (("bear", sample.mask),))


# Rollout


def test_rollout_by_hand_of_one_layer():
    own = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])  # query 0 looks at both queries, query 1 at itself
    cross = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]])
    # Nothing has been seen before the layer's own look at the picture: the self-attention has nothing to mix.
    assert rollout(Attentions([own], [cross]))[0].tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


def test_rollout_by_hand_of_what_one_query_takes_from_another():
    look = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    first, second = torch.eye(2)[None], torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    # After layer 0, half of each query is its own cell. In layer 1 query 0 takes half of what query 1 is.
    assert torch.equal(rollout(Attentions([first, second], [look, None]))[0], torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    # A second look, at the other cell, weighs as much as all before: 1/2 against 1/4 that is left of the first.
    other = look.flip(2)
    again = rollout(Attentions([first, first], [look, other]))[0]
    assert torch.allclose(again, torch.tensor([[1 / 3, 2 / 3], [2 / 3, 1 / 3]]))


def test_an_instruction_hands_on_what_queries_have_seen():
    look = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    own = torch.zeros(1, 3, 3)  # two queries, one token of an instruction
    own[0, 0, 2], own[0, 1, 1], own[0, 2, 1] = 1, 1, 1  # query 0 reads the token, the token reads query 1
    found = rollout(Attentions([torch.eye(3)[None], own, own], [look, None, None]))
    # Layer 1: token = query 1 / 2; query 0 halves. Layer 2: query 0 = (query 0 + token) / 2, in shares of 1/2:
    # own cell 1/2 * 1/2 * 1/2, the other cell, by way of the token, 1/2 * 1/2 * 1/2.
    assert torch.allclose(found[0], torch.tensor([[0.5, 0.5], [0.0, 1.0]]))


def test_weighted_rollout_by_hand_counts_a_look_by_what_it_adds():
    look, other = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    still, shares = [torch.zeros(1, 2)] * 2, [torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 0.75]])]
    found = Attentions([torch.full((1, 2, 2), 0.5)] * 2, [look, other], still, shares)
    # Query 0 gets nothing from the second look; query 1 three quarters, against a quarter of the half of its first.
    assert torch.allclose(rollout(found, weighted=True)[0], torch.tensor([[1.0, 0.0], [6 / 7, 1 / 7]]))
    halves = Attentions(found.own, found.cross, [torch.full((1, 2), 0.5)] * 2, [torch.full((1, 2), 0.5)] * 2)
    assert torch.equal(rollout(halves, weighted=True), rollout(found))


def test_rollout_needs_a_look_at_the_picture():
    with pytest.raises(ValueError, match="a layer with cross-attention. Got none"):
        rollout(Attentions([torch.eye(2)[None]], [None]))


def test_recorded_attention_is_the_qformers_own_and_hooks_are_gone(make_qformer):
    projection = make_qformer().projection
    features = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(0))
    plain = projection.look(features)
    with record_attention(projection.qformer.encoder.layer) as found:
        assert torch.equal(projection.look(features), plain)
    assert [None if weights is None else tuple(weights.shape) for weights in found.cross] == [
        (2, 8, 16),
        None,
        (2, 8, 16),
    ]
    assert [tuple(weights.shape) for weights in found.own] == [(2, 8, 8)] * 3
    for weights in (*found.own, found.cross[0], found.cross[2]):
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    cells = torch.cat([features, projection.places.expand(2, -1, -1)], dim=-1)
    block = projection.qformer.encoder.layer[0]
    state = projection.qformer.layernorm(projection.queries.expand(2, -1, -1))
    state = block.attention(state)
    query, key = block.crossattention.attention.query(state), block.crossattention.attention.key(cells)
    split = [each.view(2, -1, 2, 16).transpose(1, 2) for each in (query, key)]
    expected = (split[0] @ split[1].transpose(2, 3) / 4).softmax(-1).mean(1)
    assert torch.allclose(found.cross[0], expected, atol=1e-5)
    added, held = block.crossattention.output.dense(block.crossattention.attention(state, None, cells)[0]), state
    share = added.norm(dim=-1) / (added.norm(dim=-1) + held.norm(dim=-1))
    assert torch.allclose(found.cross_share[0], share, atol=1e-5)
    assert [weights is None for weights in found.cross_share] == [False, True, False]
    assert [tuple(weights.shape) for weights in found.own_share] == [(2, 8)] * 3
    hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in projection.modules()]
    assert not any(map(any, hooks))


def test_rollout_without_weights_says_what_to_do(make_qformer):
    projection = make_qformer().projection
    projection.qformer.config._attn_implementation = "sdpa"
    with pytest.raises(ValueError, match="load the Q-Former with attn_implementation='eager'"):
        projection.maps(torch.rand(1, 16, 3))


# Maps in the method


def test_a_heatmap_lays_scores_where_tokens_look():
    score = torch.tensor([[[2.0], [-1.0]]])  # (L, P, D) = (1, 2, 1)
    neurons = NeuronSet("bear", "two-stage", np.array([0]), np.array([0]), np.array([1.0]))
    maps = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.25, 0.25]])
    assert heatmap(score, neurons, (2, 2), maps).tolist() == [[1.0, 0.5], [-0.25, -0.25]]
    assert np.array_equal(heatmap(score, neurons, (1, 2), torch.eye(2)), heatmap(score, neurons, (1, 2)))
    with pytest.raises(ValueError, match=r"maps must have shape \(P, rows \* columns\)=\(2, 4\). Got \(4, 2\)"):
        heatmap(score, neurons, (2, 2), maps.T)


def test_a_query_is_on_the_object_by_its_map():
    mask = np.zeros((4, 4), bool)
    mask[:2, :3] = True  # fills cell 0, half of cell 1
    assert tokens_inside(mask, (2, 2), np.eye(4)).tolist() == inside(mask, (2, 2)).ravel().tolist()
    maps = np.array([[0.3, 0.2, 0.5, 0], [0.4, 0.0, 0.3, 0.3], [0, 0, 0.5, 0.5]])
    assert tokens_inside(mask, (2, 2), maps).tolist() == [True, False, False]
    assert tokens_inside(mask, (2, 2), maps[1:]).tolist() == [True, False]  # the one that looks there most


def test_queries_are_image_tokens_and_their_maps_those_of_each_picture(make_qformer):
    model, images = make_qformer(), pictures(4)
    assert (model.grid, model.image_positions.stop - model.image_positions.start) == ((4, 4), 8)
    prompts = model.prompts(images)
    assert prompts.shape == (4, model.prompt_length, 32)
    features = model.features(images)
    assert torch.allclose(prompts[:, model.image_positions], model.projection(features), atol=1e-6)
    maps = model.token_maps(images)
    assert maps.shape == (4, 8, 16)
    assert torch.allclose(maps.sum(-1), torch.ones(4, 8), atol=1e-5)
    assert torch.allclose(maps[2:3], model.token_maps(images[2:3]), atol=1e-6)


def test_both_stages_run_over_queries(make_qformer):
    model, sample = make_qformer(), next(toy_samples("bear", 1, seed=3))
    target = find_target(model, "A bear.", "bear")
    pair = capture(model, sample.image, sample.without, "A bear.", target)
    assert pair.delta.shape == (2, 8, 48)
    neurons = NeuronSet("bear", "x", np.array([0, 1]), np.array([5, 7]), np.array([1.0, 0.5]))
    maps = model.token_maps([sample.image])[0]
    heat = heatmap(pair.gradcam, neurons, model.grid, maps)
    by_hand = (pair.gradcam[0, :, 5] + pair.gradcam[1, :, 7]) / 2 @ maps
    assert np.allclose(heat.ravel(), by_hand.numpy(), atol=1e-6)
    with intervene(model, {0: lambda activations, _: activations * 0}), record(model) as seen:
        model.logits([sample.image])
    assert not seen[0].any()


def test_a_projection_that_does_not_fit_is_refused(make_qformer, tiny_model):
    model = make_qformer()
    parts = model.decoder, model.tokenizer, "See ", " say: "
    with pytest.raises(ValueError, match=r"grid\)=\(32, 11, \(4, 4\)\). Got \(31, 11, \(4, 4\)\)"):
        QFormerMiniGPT4(ToyTower(4), QFormerProjection(3, 31, (4, 4), 8, 32, 1, 2), *parts)
    with pytest.raises(ValueError, match=r"must be a QFormerProjection. Got Linear"):
        QFormerMiniGPT4(ToyTower(4), nn.Linear(3, 32), *parts)
    with pytest.raises(ValueError, match=r"shape \(H, width\)=\(32, 3\). Got QFormerProjection"):
        MiniGPT4(ToyTower(4), model.projection, *parts)


def test_a_profile_gives_a_qformer_single_cells():
    settings = {"tower": "efficientnet-lite0", "decoder": "smollm2-135m", "projection": "x", "before": "", "after": ""}
    assert Model(**settings).connector == "linear"
    with pytest.raises(ValueError, match="cells_per_token: a Q-Former looks at single cells, 1. Got 2"):
        Model(**settings, connector="q-former", cells_per_token=2)


# Its start and training


def test_regions_tile_the_grid():
    assert regions(32, (8, 8)) == (8, 4)
    assert regions(16, (8, 8)) == (8, 2)
    assert regions(4, (2, 2)) == (2, 2)
    assert region_means(2, (2, 2)).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    with pytest.raises(ValueError, match="5 queries cannot tile a grid of 8 x 8"):
        regions(5, (8, 8))


def test_an_anchored_query_looks_at_its_region_and_hands_on_the_teachers_tokens(make_qformer, tmp_path):
    model = make_qformer()
    bank = make_bank(model, [examples()], tmp_path)
    teacher = nn.Linear(3, 32)
    anchor(model.projection, teacher, bank)
    features = torch.from_numpy(bank.features[:4].astype(np.float32))
    with record_attention(model.projection.qformer.encoder.layer) as found:
        tokens = model.projection(features)
    pool = region_means(8, (4, 4))
    share = (found.cross[0] * (pool > 0)).sum(-1)  # of its attention on its own two cells of sixteen
    assert torch.equal(pool.gather(1, found.cross[0].mean(0).argmax(-1, keepdim=True)), torch.full((8, 1), 0.5))
    assert share.min() > 0.4
    wanted = pool @ teacher(features)
    assert (tokens - wanted).square().sum() < 0.6 * (wanted - wanted.mean((0, 1))).square().sum()
    again = make_qformer()
    anchor(again.projection, teacher, bank)
    assert all(map(torch.equal, again.projection.parameters(), model.projection.parameters()))


def test_distillation_brings_the_queries_to_the_teacher(make_qformer, tmp_path):
    bank, teacher = make_bank(make_qformer(), [examples()], tmp_path), nn.Linear(3, 32)
    short, long = make_qformer().projection, make_qformer().projection
    assert distil(long, teacher, bank, steps=60) < 0.7 * distil(short, teacher, bank, steps=2)


def test_a_distilled_start_is_made_once_and_says_what_made_it(make_qformer, tmp_path, monkeypatch):
    model = make_qformer()
    bank = make_bank(model, [examples()], tmp_path / "bank")
    teacher, out = tmp_path / "teacher.safetensors", tmp_path / "out"
    out.mkdir()
    save_file({name: value.detach() for name, value in nn.Linear(3, 32).state_dict().items()}, teacher)
    monkeypatch.setattr(distillation, "STEPS", 3)
    start = distilled(model, bank, out, teacher, seed=0)
    monkeypatch.setattr(distillation, "distil", None)
    assert distilled(make_qformer(), bank, out, teacher, seed=0) == start
    with pytest.raises(train_projection.ResumeError, match="was distilled otherwise"):
        distilled(make_qformer(), bank, out, teacher, seed=1)
    train(make_qformer(), bank, out, Recipe(steps=5, warm_up=0.4, shares={"scene": 4}, until=2), [], start)
    made, log = train_projection._earlier(start)
    assert made["distilled"]["steps"] == 3
    assert (made["phases"], log) == ([], [])


def test_training_moves_the_queries_and_saves_them_in_half_precision(make_qformer, tmp_path):
    model, untrained = make_qformer(), make_qformer()
    bank = make_bank(model, [examples()], tmp_path / "bank")
    save_projection(untrained, tmp_path / "start.safetensors")
    train(model, bank, tmp_path, Recipe(4, warm_up=0.4, shares={"scene": 4}), [], tmp_path / "start.safetensors")
    moved = [
        name
        for name, value in model.projection.named_parameters()
        if not torch.equal(value, dict(untrained.projection.named_parameters())[name])
    ]
    assert {"queries", "linear.weight", "qformer.encoder.layer.2.crossattention.attention.key.weight"} <= set(moved)
    save_projection(model, tmp_path / "trained.safetensors")
    loaded = QFormerProjection(3, 32, (4, 4), 8, 32, 3, 2)
    state = load_file(tmp_path / "trained.safetensors")
    loaded.load_state_dict({name: value.float() for name, value in state.items()})
    assert torch.equal(loaded.queries, model.projection.queries.half().float())
    with pytest.raises(FileNotFoundError, match="No usable Q-Former at .*nothing.safetensors"):
        load_qformer(tmp_path / "nothing.safetensors", 3, 32, (4, 4))


def test_the_card_says_what_stands_between_and_where_it_started(tmp_path):
    path = tmp_path / "some_q-former.md"
    save_file({"bias": torch.zeros(576)}, path.with_suffix(".safetensors"))
    path.with_suffix(".csv").write_text("step,loss,seconds\n0,nan,1\n600,1.5,1500\n")
    phase = {"steps": 600, "until": None, "seed": 0, "rate": 5e-4, "warm_up": 0.05, "dtype": "bfloat16"}
    kinds = {"bear": {"named": 9, "named_without": 1, "scenes": 10}}
    report = {
        "made": {
            "distilled": {"teacher": "abc", "steps": 200, "batch": 32, "seed": 0, "variance_left": 0.031},
            "phases": [phase | {"shares": {"scene": 8}}],
            "examples": {"scene": 5, "photo": 3, "pasted": 2},
        },
        "scenes": {"named": 0.9, "named_without": 0.1, "n": 10, "kinds": kinds} | DESCRIBED,
    }
    card.write(path, report, load_profile("embedded-qformer"))
    written = path.read_text()
    assert f"{N_QUERIES} learnt queries read the 1280" in written
    assert "`python -m kn_core.training --profile embedded-qformer --coco DIR` in 25 minutes" in written
    assert "the linear layer with\nsha256 `abc` (200 steps of 32 pictures, 3% of the variance left)" in written
    assert "ridge" not in written
    del report["made"]["distilled"]
    card.write(path, report, load_profile("embedded"))
    written = path.read_text()
    assert written.startswith("# some_q-former\n\nA linear layer from the 1280 features")
    assert "the first from\na ridge regression of the cells" in written
