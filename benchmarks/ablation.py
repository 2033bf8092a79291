"""Seconds to switch off 64 neurons one by one: each from its own layer on, against whole runs from the first layer."""

import json
import statistics
import time
from functools import partial

import numpy as np
import torch
from subject import subject

from kn_core.models import load_model
from kn_core.models.hooks import intervene
from kn_core.profile import load_profile
from kn_core.study.experiments.single_neurons import ablate, residual_streams

REPETITIONS, NEURONS = 3, 64

model = load_model(load_profile("embedded"))
sample, caption, target = subject(model)
prompt = model.prompts([sample.image])[0]
rng = np.random.default_rng(0)
layers, units = rng.integers(model.n_layers, size=NEURONS), rng.integers(model.ffn_width, size=NEURONS)


def off(activations: torch.Tensor, _: int, rows: np.ndarray, units: np.ndarray) -> torch.Tensor:
    changed = activations.clone()
    for row, unit in zip(rows, units, strict=True):
        changed[row, model.image_positions, unit] = 0
    return changed


def logits(n: int) -> np.ndarray:
    """The target's logit in n copies of the run, from the first layer to the last."""
    said = model.teacher_forced(prompt[None], [caption])[:, : model.prompt_length + target.position]
    with torch.no_grad():
        *_, last = residual_streams(model, said.repeat(n, 1, 1))
        return (model.backbone.norm(last[:, -1]) @ model.unembed[target.token]).numpy()


def whole_runs() -> np.ndarray:
    """The same effects through hooks: every layer runs for every neuron."""
    effects, clean = np.empty(NEURONS), logits(1)
    for start in range(0, NEURONS, model.batch_size):
        batch = slice(start, start + model.batch_size)
        of_layer = {layer: np.flatnonzero(layers[batch] == layer) for layer in layers[batch].tolist()}
        edits = {layer: partial(off, rows=rows, units=units[batch][rows]) for layer, rows in of_layer.items()}
        with intervene(model, edits):
            effects[batch] = clean - logits(len(layers[batch]))
    return effects


ours, whole = [], []
for _ in range(REPETITIONS + 1):
    began = time.perf_counter()
    found = ablate(model, prompt, caption, target, layers, units)
    between = time.perf_counter()
    expected = whole_runs()
    ours.append(between - began)
    whole.append(time.perf_counter() - between)
assert np.allclose(found, expected, atol=1e-4), "both ways must find the same effects"
ratios = [b / a for a, b in zip(ours[1:], whole[1:], strict=True)]  # the first round warms up
print(
    json.dumps(
        {
            "benchmark": "ablation",
            "seconds_64_neurons": round(statistics.median(ours[1:]), 2),
            "whole_runs": round(statistics.median(whole[1:]), 2),
            "ratio": round(statistics.median(ratios), 2),
            "largest_difference": float(f"{np.abs(found - expected).max():.1g}"),
            "threads": torch.get_num_threads(),
        }
    )
)
