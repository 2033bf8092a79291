"""Attribution on models whose answers are known: linear, quadratic and gated read-outs, captum's, RelP's rules."""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerConductance, LayerIntegratedGradients
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from kn_core.method import attribution, relp
from kn_core.method.attribution import along_the_path, first_order, mean_rank, others, rival_token, run
from kn_core.method.capture import Target
from kn_core.models.hooks import intervene, record
from tests.toy_world import toy_samples

CAPTION = "A pizza in a forest."


@pytest.fixture
def exact(tiny_model):
    """The tiny model in float64, RMSNorms too, which transformers computes in float32."""
    for module in tiny_model.double().modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = partial(F.rms_norm, normalized_shape=(32,), weight=module.weight, eps=1e-6)
    return tiny_model


@pytest.fixture
def target(tiny_model):
    return Target("pizza", tiny_model.encode(CAPTION)[0][2], 2)


@pytest.fixture
def prompts(exact):
    sample = next(toy_samples("pizza", 1, seed=4))
    found = exact.prompts([sample.image, sample.without]).detach()
    assert (found[0] != found[1]).any()
    return found


class ReadOut(torch.nn.Module):
    """A 'model' whose logits are a polynomial of one layer's product, which is its image tokens: y = w.a + a'Qa / 2."""

    n_layers, image_positions, backbone = 1, slice(0, 4), None

    def __init__(self, quadratic: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down_proj, self.act_fn = torch.nn.Identity(), torch.nn.Identity()
        self.w, self.q = torch.randn(4, 3).double(), torch.randn(12, 12).double() * quadratic

    def site(self, _: int, site: str):
        return (self.down_proj, False) if site == "product" else (self.act_fn, True)

    def encode(self, _: str):
        return [0, 1], [(0, 1), (1, 7)]

    def logits(self, prompts, captions):
        a = self.down_proj(self.act_fn(prompts))  # (B, P, D)
        flat = a.flatten(1)
        y = (self.w * a).sum((1, 2)) + torch.einsum("bi,ij,bj->b", flat, self.q, flat) / 2
        rest = torch.zeros(len(a), 3, 5).double()
        return torch.cat([y[:, None, None] * torch.eye(5)[2].double() + rest[:, :2], rest[:, 2:]], dim=1)


def difference_of_y(model, prompts, neuron: int) -> float:
    """Exactly what y = logit 2 - logit 0 loses when one neuron is as in the second of the prompts, at all tokens."""
    mixed = prompts[:1].clone()
    mixed[..., neuron] = prompts[1:, :, neuron]
    said, without = (model.logits(each, [""])[0, 0] for each in (prompts[:1], mixed))
    return float((said[2] - said[0]) - (without[2] - without[0]))


@pytest.fixture
def states():
    torch.manual_seed(1)
    return torch.randn(2, 4, 3).double()


def test_atp_is_the_exact_patch_where_the_word_s_logit_is_linear_in_the_neurons(states):
    model = ReadOut(quadratic=False)
    found = first_order(model, states, "a b", Target("b", 2, 0))
    found |= along_the_path(model, states, "a b", Target("b", 2, 0))
    exact_effects = np.array([[difference_of_y(model, states, neuron) for neuron in range(3)]])
    assert np.abs(exact_effects).min() > 0.01
    for name in ("atp", "trapezoid", "ig", "conductance"):
        assert found[name] == pytest.approx(exact_effects)
    assert found["gxa"] == pytest.approx((model.w * states[0]).sum(0)[None].numpy())


def test_the_trapezoid_is_exact_where_it_is_quadratic_and_all_neurons_are_patched_together(states):
    model = ReadOut(quadratic=True)
    found = first_order(model, states, "a b", Target("b", 2, 0))
    found |= along_the_path(model, states, "a b", Target("b", 2, 0))
    said = model.logits(states, ["", ""])[:, 0]
    change = float((said[0, 2] - said[0, 0]) - (said[1, 2] - said[1, 0]))
    for name in ("trapezoid", "ig", "conductance"):
        assert found[name].sum() == pytest.approx(change)
    assert abs(found["atp"].sum() - change) > 0.5  # first order is not enough


def test_integrated_gradients_along_a_neuron_s_own_path_are_its_exact_patch(exact, prompts, target):
    """The path on which no other neuron moves; the integral of the slope is then the difference, whatever the model."""
    without = run(exact, prompts[1:], CAPTION)
    rival = rival_token(without.logits[0], target)
    y = attribution._contrast(target, rival)
    shown = run(exact, prompts[:1], CAPTION, [y])
    change = (shown.product[0] - without.product[0])[0]
    neuron = int(change.abs().sum(0).argmax())
    at, step = exact.image_positions, change[:, neuron]

    def moved(share: float):
        def edit(values, _):
            changed = values.clone()
            changed[:, at, neuron] = without.product[0][0, :, neuron] + share * step
            return changed

        with intervene(exact, {0: edit}, "product"):
            return run(exact, prompts[:1], CAPTION, [y])

    nodes, weights = np.polynomial.legendre.leggauss(8)
    slopes = [moved((node + 1) / 2).slopes[0][0][0, :, neuron] for node in nodes]
    integral = sum(weight / 2 * float((slope * step).sum()) for weight, slope in zip(weights, slopes, strict=True))
    patch = float(y(shown.logits) - y(moved(0).logits))
    assert abs(patch) > 1e-3
    assert integral == pytest.approx(patch, rel=1e-6)


def test_the_product_site_has_the_cross_term_that_the_activation_site_loses():
    """u = S U: D_S g_S + D_U g_U - D_SU g_SU = D_S D_U g_SU; at the activation site D_S g_S is all there is."""
    s, u, slope = torch.randn(3, 5, dtype=torch.float64)
    s_i, u_i, _ = torch.randn(3, 5, dtype=torch.float64)
    by_s, by_u, by_product = (s - s_i) * u * slope, (u - u_i) * s * slope, (s * u - s_i * u_i) * slope
    assert torch.allclose(by_s + by_u - by_product, (s - s_i) * (u - u_i) * slope)
    assert (by_s - by_product).abs().min() > 1e-3


def test_the_path_goes_a_picture_at_a_time_and_is_the_sum_over_all_of_it(exact, prompts, target, monkeypatch):
    """No more than four runs' neurons lie in memory, however many steps; each number is as from all runs at once."""
    steps, alive, most, rows = 6, weakref.WeakSet(), [], []

    def counted(model, given, *more):
        found = run(model, given, *more)
        alive.add(found)
        most.append(len(alive))
        rows.append(len(given))
        return found

    rival = rival_token(run(exact, prompts[1:], CAPTION).logits[0], target)
    with monkeypatch.context() as patch:
        patch.setattr(attribution, "run", counted)
        found = along_the_path(exact, prompts, CAPTION, target, steps=steps)
    assert max(rows) == 1 and len(rows) == steps + 3 and max(most) == 4
    alphas = torch.tensor([0, *((np.arange(steps) + 0.5) / steps), 1], dtype=torch.float64)[:, None, None]
    path = run(
        exact, prompts[1:] + alphas * (prompts[:1] - prompts[1:]), CAPTION, [attribution._contrast(target, rival)]
    )
    product, slope = torch.stack(path.product), torch.stack(path.slopes[0])  # (L, B, P, D)
    change = product[:, -1] - product[:, 0]
    expected = {
        "trapezoid": change * (slope[:, 0] + slope[:, -1]) / 2,
        "ig": change * slope[:, 1:-1].mean(1),
        "conductance": (product.diff(dim=1) * (slope[:, 1:] + slope[:, :-1]) / 2).sum(1),
    }
    for name, score in expected.items():
        assert found[name] == pytest.approx(score.sum(1).numpy(), rel=1e-9, abs=1e-12)


def test_first_order_scores_are_sums_of_the_arrays_that_it_never_holds(exact, prompts, target):
    rival = rival_token(run(exact, prompts[1:], CAPTION).logits[0], target)
    places, ids = others(exact, CAPTION, target)
    at = exact.image_positions
    with record(exact, "product") as product, record(exact, "activation") as activation:
        logits = exact.logits(prompts.detach().requires_grad_(), [CAPTION] * 2)
        word = logits[0, target.position]
        numbers = [word[target.token] - word[rival], logits[0, places].log_softmax(-1)[range(len(ids)), ids].sum()]
        slopes = [torch.autograd.grad(number, product, retain_graph=True) for number in numbers]
    found = first_order(exact, prompts, CAPTION, target)
    for layer in range(exact.n_layers):
        o, i = product[layer][:, at].detach()
        expected = {"delta-sum": activation[layer][0, at] - activation[layer][1, at], "delta-sum-product": o - i}
        for suffix, slope in zip(("", "-other"), slopes, strict=True):
            expected |= {f"atp{suffix}": (o - i) * slope[layer][0, at], f"gxa{suffix}": o * slope[layer][0, at]}
        assert found.keys() == expected.keys()
        for name, score in expected.items():
            assert found[name][layer] == pytest.approx(score.detach().sum(0).numpy(), rel=1e-9, abs=1e-12), name


class Contrast(torch.nn.Module):
    """Embedded prompt and caption (B, t, H) -> y (B, 1), for captum."""

    def __init__(self, model, target, rival) -> None:
        super().__init__()
        self.model, self.tokens = model, (target.token, rival)

    def forward(self, embeds):
        last = self.model.decoder(inputs_embeds=embeds).logits[:, -1]
        return (last[:, self.tokens[0]] - last[:, self.tokens[1]])[:, None]


def test_conductance_is_captum_s(exact, prompts, target):
    y = Contrast(exact, target, rival_token(run(exact, prompts[1:], CAPTION).logits[0], target))
    both = exact.teacher_forced(prompts, [CAPTION] * 2)[:, : exact.prompt_length + target.position].detach()
    steps = 100
    found = along_the_path(exact, prompts, CAPTION, target, steps=steps)
    for layer in range(2):  # in the last one nothing reads what image tokens write
        oracle = LayerConductance(y, exact.ffn[layer].down_proj)
        theirs = oracle.attribute(both[:1], both[1:], 0, n_steps=steps, attribute_to_layer_input=True)
        theirs = (theirs[0] if isinstance(theirs, tuple) else theirs)[0, exact.image_positions].sum(0).detach().numpy()
        assert np.abs(theirs).max() > 1e-3
        assert found["conductance"][layer] == pytest.approx(theirs, abs=2e-2 * np.abs(theirs).max())


def test_integrated_gradients_are_captum_s_where_the_neurons_are_the_inputs(states):
    """Captum moves the layer in a straight line, we the image tokens: where these are the layer, all is the same."""
    model, target = ReadOut(quadratic=True), Target("b", 2, 0)
    found = along_the_path(model, states, "a b", target)

    class Read(torch.nn.Module):
        def forward(self, a):
            logits = model.logits(a, [""])[:, 0]
            return logits[:, [2]] - logits[:, [0]]

    oracle = LayerIntegratedGradients(Read(), model.act_fn)
    theirs = oracle.attribute(states[:1], states[1:], 0, n_steps=attribution.STEPS, method="riemann_middle")
    assert found["ig"] == pytest.approx(theirs.sum(1).detach().numpy())


def test_what_is_outside_the_word(tiny_model):
    caption = "A giraffe by a giraffe."
    places, ids = others(tiny_model, caption, Target("giraffe", 0, 0))
    assert (
        "".join(tiny_model.tokenizer.decode([each]) for each in ids) == "A  by a ."
    )  # the space before the word is a token of its own
    assert [tiny_model.encode(caption)[0][place] for place in places] == ids


def test_the_rival_is_what_is_said_without_the_object_or_the_next_best():
    logits = torch.tensor([[0.0, 3.0, 2.0], [5.0, 0.0, 1.0]])
    assert rival_token(logits, Target("b", 0, 0)) == 1
    assert rival_token(logits, Target("b", 1, 0)) == 2


def test_the_mean_rank_does_not_see_sizes():
    assert mean_rank({"a": np.array([[1, 2], [3, 4]]), "b": np.array([[10, 30], [20, 40]])}).tolist() == [
        [0.25, 0.625],
        [0.625, 1.0],
    ]


def test_relp_conserves_relevance_through_a_gated_block_where_the_gradient_does_not(exact):
    norm, block = exact.backbone.layers[0].post_attention_layernorm, exact.backbone.layers[0].mlp
    x, w = torch.randn(2, 7, 32, dtype=torch.float64)
    x.requires_grad_()

    def relevance() -> tuple[float, float]:
        y = (block(norm(x)) * w).sum()
        return float((x.detach() * torch.autograd.grad(y, x)[0]).sum()), float(y.detach())

    plain, y = relevance()
    with relp.local_rules(exact.backbone):
        conserved, same = relevance()
    assert abs(y) > 0.1
    assert same == pytest.approx(y, rel=1e-12)
    assert conserved == pytest.approx(y, rel=1e-12)
    assert abs(plain - y) > 0.01 * abs(y)
    assert relevance() == (plain, y)  # the modules are as they were


def test_relp_changes_no_number_and_leaves_no_hook_behind(exact, prompts, target):
    def hooks() -> int:
        return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in exact.modules())

    def fail() -> None:
        with relp.local_rules(exact.backbone):
            assert torch.allclose(exact.logits(prompts, [CAPTION] * 2), logits, rtol=1e-10)
            raise RuntimeError("inside")

    before, logits = hooks(), exact.logits(prompts, [CAPTION] * 2)
    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert hooks() == before
    found = along_the_path(exact, prompts, CAPTION, target)
    assert np.abs(found["relp"] - found["ig"]).max() > 1e-3


def test_relp_refuses_another_kind_of_decoder(tiny_model):
    tiny_model.backbone.config.model_type = "opt"
    with pytest.raises(ValueError, match="Got opt with silu: leave RelP out"), relp.local_rules(tiny_model.backbone):
        pass
