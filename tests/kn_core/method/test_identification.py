"""The sets of a concept, each method's and the controls', from scores that were drawn by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from kn_core.method import identification
from kn_core.settings import Identification, Perturbation

LAYERS, WIDTH, BUDGET = 4, 50, 6


def test_controls_are_drawn_where_what_they_are_held_against_is():
    rng = np.random.default_rng(0)
    scores = {name: rng.random((2, LAYERS, WIDTH)) for name in ("delta", "gradcam", "activation")}
    scores["delta"][:, 0] += 1  # stage 1 looks at the first layer, stage 2 at the third
    scores["gradcam"][:, 2] += 1
    model = SimpleNamespace(
        n_layers=LAYERS,
        w_out=lambda layer: torch.ones(3, WIDTH) * (1 + layer),
        top_tokens=lambda layers, units: [["a"] for _ in layers],
    )
    limits, settings = {"threshold_a": {"quantile": 0.5}, "threshold_g": {"quantile": 0.5}}, {"budget": BUDGET}
    found = identification.neurons(
        "bear",
        model,
        scores,
        {"delta": 0.1, "gradcam": 0.1},
        Identification.model_validate(limits | settings),
        Perturbation(rivals=("stage-1",), controls=("random", "uniform", "stage-1-layers"), draws=3),
        seed=2,
    )
    by = dict(list(found.groupby(["method", "draw"])))
    assert set(by["two-stage", 0].head(BUDGET)["layer"]) == {2} and set(by["stage-1", 0]["layer"]) == {0}
    for draw in range(3):
        for method, like in (("random", "two-stage"), ("stage-1-layers", "stage-1")):
            drawn, held = by[method, draw], by[like, 0].head(BUDGET)
            assert drawn["layer"].tolist() == held["layer"].tolist()
            assert not set(drawn["unit"]) & set(held["unit"])
        assert by["uniform", draw]["layer"].max() < LAYERS - 1  # the last one's cannot act
    assert by["random", 0]["unit"].tolist() != by["random", 1]["unit"].tolist()
