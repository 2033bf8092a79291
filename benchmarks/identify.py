"""Seconds to score every neuron on one pair, as a ratio to three bare forward passes of the same model."""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from kn_core.method.capture import Target, capture
from kn_core.models import CaptionModel, load_model
from kn_core.profile import load_profile

REPETITIONS = 9


def against_three_forwards(
    model: CaptionModel,
    pictures: tuple[np.ndarray, np.ndarray],
    caption: str,
    target: Target,
    repetitions: int = REPETITIONS,
    wait: Callable[[], None] = lambda: None,
) -> tuple[list[float], list[float]]:
    """Seconds of a capture, and of three bare forward passes, in turn; `wait` for a device before clocks are read."""

    def now() -> float:
        wait()
        return time.perf_counter()

    ours, bare = [], []
    for _ in range(repetitions + 1):
        began = now()
        capture(model, *pictures, caption, target)
        between = now()
        with torch.no_grad():
            for _ in range(3):
                model.logits([pictures[0]], [caption])
        ours.append(between - began)
        bare.append(now() - between)
    return ours[1:], bare[1:]  # the first round warms up


def ratio(ours: list[float], bare: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, bare, strict=True))


if __name__ == "__main__":
    from subject import subject  # draws scenes, which another script has no need of

    model = load_model(load_profile("embedded"))
    sample, caption, target = subject(model)
    assert sample.without is not None
    ours, bare = against_three_forwards(model, (sample.image, sample.without), caption, target)
    print(
        json.dumps(
            {
                "benchmark": "identify",
                "seconds": round(statistics.median(ours), 3),
                "three_forwards": round(statistics.median(bare), 3),
                "ratio": round(ratio(ours, bare), 2),
                "threads": torch.get_num_threads(),
            }
        )
    )
