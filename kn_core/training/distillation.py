"""A Q-Former's start: what a trained linear layer makes of the regions of a picture.

So that a few hundred steps of captions are enough, each query is anchored to a region, a few cells of the tower, and
learns, without the decoder, the mean of the linear layer's tokens there. The anchor is a start, no constraint: keys
read content too, and captions move the queries where they will. Training from random weights was not tried.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from kn_core.models.qformer import QFormerProjection, region_means, regions
from kn_core.training.data import Bank

STEPS, BATCH, RATE = 200, 32, 1e-3
SHARPNESS = 4.0  # attention to a cell of the query's rows over one of other rows, in logits; columns alike
SPREAD = 20.0  # length of what a query has seen, against 16, that of the query itself, in the first layer's sum


@torch.no_grad()
def anchor(projection: QFormerProjection, teacher: nn.Linear, bank: Bank, seed: int = 0) -> None:
    """Set all weights so that query p looks softly at its region and hands on the teacher's tokens there.

    The first layer's values are principal components of the teacher's tokens over the bank; every other sublayer adds
    nothing yet, and starts to learn from there. What is random follows from `seed`.
    """
    config, (rows, columns) = projection.qformer.config, projection.grid
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in projection.named_parameters():
        if name.endswith(("bias", "output.dense.weight", "output_query.dense.weight")):
            parameter.zero_()
        elif "LayerNorm" not in name and "layernorm" not in name:
            parameter.normal_(0, 0.02, generator=generator)
    down, across = regions(len(projection.queries), projection.grid)
    inner, free = config.hidden_size, config.hidden_size - down - across  # the queries' own axes come last
    width = config.encoder_hidden_size - rows - columns

    axes, mean, length = _components(teacher, bank, free)  # (H, free), (H,), root mean square of the centred tokens
    scale = SPREAD / length
    layers: Any = projection.qformer.encoder.layer
    cross = layers[0].crossattention
    cross.attention.value.weight.zero_()
    cross.attention.value.weight[:free, :width] = scale * axes.T @ teacher.weight
    cross.attention.value.bias[:free] = scale * axes.T @ (teacher.bias - mean)
    cross.output.dense.weight.copy_(torch.eye(inner))
    projection.linear.weight.zero_()
    projection.linear.weight[:, :free] = axes / scale
    projection.linear.bias.copy_(mean)

    projection.queries.normal_(0, 0.02, generator=generator)
    for query in range(len(projection.queries)):
        projection.queries[query, free + query // across] += 1
        projection.queries[query, free + down + query % across] += 1
    head = inner // config.num_attention_heads
    size = math.sqrt(inner / 2)  # of these two axes after the layer norm, nearly
    for first in range(0, inner, head):
        here = torch.arange(rows) + first
        cross.attention.query.weight[here, free + torch.arange(rows) * down // rows] += SHARPNESS / size
        cross.attention.key.weight[here, width + torch.arange(rows)] += math.sqrt(head)
        here = torch.arange(columns) + first + rows
        cross.attention.query.weight[here, free + down + torch.arange(columns) * across // columns] += SHARPNESS / size
        cross.attention.key.weight[here, width + rows + torch.arange(columns)] += math.sqrt(head)


def distil(projection: QFormerProjection, teacher: nn.Linear, bank: Bank, steps: int = STEPS, seed: int = 0) -> float:
    """Anchor the Q-Former, then Adam on the squared distance to the teacher's regional means.

    Returns what is left of their variance in the last tenth of the steps: 0 is a perfect pupil, 1 one that says the
    mean of everything.
    """
    anchor(projection, teacher, bank, seed)
    pool = region_means(len(projection.queries), projection.grid)
    _, mean, _ = _components(teacher, bank, 1)
    parameters = list(projection.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    left: list[float] = []
    progress = tqdm(range(steps), desc="distillation", mininterval=10)
    for step in progress:
        rows = np.random.default_rng([seed, 4, step]).choice(len(bank.features), min(BATCH, len(bank.features)))
        features = torch.from_numpy(np.asarray(bank.features[np.sort(rows)], np.float32))
        with torch.no_grad():
            wanted = pool @ teacher(features)  # (B, P, H)
        loss = (projection(features) - wanted).square().sum() / (wanted - mean).square().sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        left.append(loss.item())
        progress.set_postfix(variance_left=f"{left[-1]:.3f}")
    return float(np.mean(left[-max(1, steps // 10) :]))


def _components(teacher: nn.Linear, bank: Bank, n: int) -> tuple[Tensor, Tensor, float]:
    """Of the teacher's tokens over a sample of the bank: principal axes (H, n), mean (H,), spread about the mean."""
    rows = np.linspace(0, len(bank.features) - 1, min(300, len(bank.features))).astype(int)
    with torch.no_grad():
        tokens = teacher(torch.from_numpy(np.asarray(bank.features[rows], np.float32))).flatten(0, 1)
    mean = tokens.mean(0)
    centred = tokens - mean
    variance = centred.T @ centred / len(centred)
    axes = torch.linalg.eigh(variance)[1].flip(1)[:, :n]
    axes = F.pad(axes, (0, n - axes.shape[1]))  # where more are asked for than the tokens have numbers
    return axes, mean, float(variance.trace().sqrt())
