"""Seconds to score every neuron on one pair, as a ratio to three bare forward passes of the same model."""

import json
import statistics
import time

import torch
from subject import subject

from kn_core.method.capture import capture
from kn_core.models import load_model
from kn_core.profile import load_profile

REPETITIONS = 9

model = load_model(load_profile("embedded"))
sample, caption, target = subject(model)
assert sample.without is not None
ours, bare = [], []
for _ in range(REPETITIONS + 1):
    began = time.perf_counter()
    capture(model, sample.image, sample.without, caption, target)
    between = time.perf_counter()
    with torch.no_grad():
        for _ in range(3):
            model.logits([sample.image], [caption])
    ours.append(between - began)
    bare.append(time.perf_counter() - between)
ratios = [a / b for a, b in zip(ours[1:], bare[1:], strict=True)]  # the first round warms up
print(
    json.dumps(
        {
            "benchmark": "identify",
            "seconds": round(statistics.median(ours[1:]), 3),
            "three_forwards": round(statistics.median(bare[1:]), 3),
            "ratio": round(statistics.median(ratios), 2),
            "threads": torch.get_num_threads(),
        }
    )
)
