"""Seconds that each method takes to score every neuron on one pair, as a ratio to one bare forward pass.

Each method is timed by itself, with only the passes that it needs; then all but that of Dai et al. from one capture,
as a study takes them.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from subject import subject

from kn_core.method import identification, rivals
from kn_core.method.capture import capture
from kn_core.models import load_model
from kn_core.models.hooks import record
from kn_core.profile import load_profile

REPETITIONS = 7

profile = load_profile("embedded")
model = load_model(profile)
sample, caption, target = subject(model)
assert sample.without is not None
pair = capture(model, sample.image, sample.without, caption, target)


def forward() -> None:
    with torch.no_grad():
        model.logits([sample.image], [caption])


def difference() -> None:
    """Stage 1: both pictures' activations."""
    for picture in (sample.image, sample.without):
        with record(model), torch.no_grad():
            model.logits([picture])


def gradient() -> None:
    """Stage 2, or Schwettmann et al.: one forward and one backward pass."""
    with record(model) as activations, torch.enable_grad():
        logits = model.logits(model.prompts([sample.image]).requires_grad_(), [caption])
        torch.autograd.grad(logits[0, target.position, target.token], list(activations))


def direct() -> None:
    """Pan et al.: one forward pass and the unembedding."""
    with record(model), torch.no_grad():
        model.logits([sample.image], [caption])
    rivals.pan(model, pair, target, "gated")


def together() -> None:
    pictures, maps = (sample.image, sample.without), model.token_maps([sample.image])[0]
    found, stages = identification.score_pair(
        model, *pictures, caption, target, sample.mask, maps, profile.identification
    )
    identification.scores_of(model, found, target, stages)


timed: dict[str, Callable[[], object]] = {
    "stage-1": difference,
    "stage-2 or schwettmann": gradient,
    "pan": direct,
    "two-stage": lambda: capture(model, sample.image, sample.without, caption, target),
    "all but dai, from one capture": together,
    "dai": lambda: rivals.integrated_gradients(model, sample.image, caption, target),
}
seconds: dict[str, list[float]] = {name: [] for name in ("forward", *timed)}
for _ in range(REPETITIONS + 1):
    for name, run in {"forward": forward, **timed}.items():
        began = time.perf_counter()
        run()
        seconds[name].append(time.perf_counter() - began)
pairs = profile.data.select
print(
    json.dumps(
        {"benchmark": "methods", "forward_seconds": round(statistics.median(seconds["forward"][1:]), 3)}
        | {
            name: {
                "over_a_forward": round(
                    statistics.median(a / b for a, b in zip(seconds[name][1:], seconds["forward"][1:], strict=True)), 2
                ),
                "seconds_a_concept": round(
                    statistics.median(seconds[name][1:])
                    * (profile.identification.dai_images if name == "dai" else pairs),
                    2,
                ),
            }
            for name in timed
        }
        | {"threads": torch.get_num_threads()}
    )
)
