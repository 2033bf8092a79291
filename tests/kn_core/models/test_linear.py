"""Linear layers by oneDNN: torch's own numbers, gradients too, and torch's own way wherever oneDNN has none."""

from __future__ import annotations

import copy
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from kn_core.models import linear


@pytest.fixture
def pair() -> tuple[nn.Linear, nn.Linear]:
    """A frozen layer, and the same by oneDNN."""
    torch.manual_seed(0)
    ours = nn.Linear(24, 40).requires_grad_(False)
    return copy.deepcopy(ours), linear.by_onednn(nn.Sequential(ours))[0]


@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 5, 24), (0, 24), (2, 0, 24)])
def test_products_and_gradients_are_torchs(pair, shape):
    torchs, ours = pair
    x, upstream = torch.randn(shape), torch.randn(*shape[:-1], 40)
    found = []
    for layer in (torchs, ours):
        leaf = x.clone().requires_grad_()
        layer(leaf).backward(upstream)
        found.append((layer(x), layer(leaf).detach(), leaf.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_view_that_is_not_contiguous_is_multiplied_as_it_reads(pair):
    torchs, ours = pair
    x = torch.randn(24, 7, 3).transpose(0, 2)[:, ::2]
    torch.testing.assert_close(torchs(x), ours(x), atol=1e-5, rtol=1e-5)


def test_onednn_is_asked_where_it_can_and_torch_where_it_cannot(pair, monkeypatch):
    _, ours = pair
    x, asked = torch.randn(3, 24), Mock(wraps=linear._product)
    monkeypatch.setattr(linear, "_product", asked)
    ours(x)
    assert asked.call_count == 1  # this version of torch has the product
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    assert copy.deepcopy(ours).to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert copy.deepcopy(ours).to("meta")(x.to("meta")).is_meta
    trained = copy.deepcopy(ours).requires_grad_()
    trained(x).sum().backward()
    torch.testing.assert_close(trained.weight.grad, x.sum(0).expand(40, -1))
    assert asked.call_count == 1


def test_weights_that_are_edited_in_place_are_read_anew(pair):
    _, ours = pair
    x = torch.randn(3, 24)
    before = ours(x)
    with torch.no_grad():
        ours.weight.mul_(2)
    torch.testing.assert_close(ours(x) - ours.bias, 2 * (before - ours.bias), atol=1e-5, rtol=1e-5)
