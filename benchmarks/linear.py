"""Processor seconds of captions and of a gradient: linear layers by oneDNN over torch's own way (MKL)."""

import json
import statistics
import time

import torch
from torch import nn

from kn_core.models import load_model
from kn_core.models.linear import Linear
from kn_core.pictures import scenes
from kn_core.profile import load_profile

REPETITIONS, PICTURES = 5, 16

model = load_model(load_profile("embedded"))
layers = [module for module in model.modules() if type(module) is Linear]
images = [sample.image for kind in ("bear", "pizza") for sample in scenes.samples(kind, PICTURES // 2, 2)]
prompts = model.prompts(images)
captions = model.caption(prompts)


def gradient() -> None:
    leaf = prompts.clone().requires_grad_()
    model.logits(leaf, captions).sum().backward()


def seconds(by: type[nn.Linear]) -> tuple[float, float]:
    for layer in layers:
        layer.__class__ = by
    began = time.process_time()
    assert model.caption(prompts) == captions, "captions must be the same"
    between = time.process_time()
    gradient()
    return between - began, time.process_time() - between


torch.set_num_threads(1)
kinds: tuple[type[nn.Linear], ...] = (nn.Linear, Linear)
found: dict[type[nn.Linear], list[tuple[float, float]]] = {by: [] for by in kinds}
for _ in range(REPETITIONS):  # in turn, so that a drifting machine does not decide
    for by in kinds:
        found[by].append(seconds(by))
for name, place in (("caption", 0), ("gradient", 1)):
    torchs, ours = (statistics.median(each[place] for each in found[by]) / PICTURES for by in kinds)
    print(
        json.dumps(
            {
                "benchmark": "linear",
                "of": name,
                "seconds_by_torch": round(torchs, 3),
                "seconds_by_onednn": round(ours, 3),
                "ratio": round(ours / torchs, 2),
            }
        )
    )
