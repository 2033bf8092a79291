"""Whether stage 1 finds the object or just any change: as much of the picture is inpainted elsewhere.

Stage 1 trusts that inpainting takes away the object alone. If so, the neurons that it chose move less when another
region is inpainted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.fingerprint import code, fingerprint
from kn_core.method import controls
from kn_core.method.identification import found_by
from kn_core.method.two_stages import reduce_positions
from kn_core.models.hooks import plain, record
from kn_core.pictures.inpaint import dilated, inpaint
from kn_core.pictures.token_grid import tokens_inside
from kn_core.study.study import Study

PICTURES = 3  # held-out ones a concept, on which another region is inpainted
INPAINTER = "telea"
DILATION = 8  # pixels by which a hole reaches beyond the object: farther than the inpainter reads around a hole


def other_region(study: Study, concept: str) -> pd.DataFrame:
    """What the concept's neurons of stage 1 lose when its object is inpainted, and when as much of the picture is.

    On the first `PICTURES` held-out pictures that have room. Columns concept, image_id, region ('object' and 'other',
    inpainted by `INPAINTER`; 'exact', the scene rendered again without its object, where there is one), difference (of
    activation, read over image tokens as stage 1 reads it, mean over neurons), random (the same for as many other
    neurons of the same layers), changed (mean change of the picture's pixels, of 255). A picture without room for
    another region has a single row, 'other', without numbers.
    """
    inputs = fingerprint(study.inputs(concept), code(__name__))
    columns = ["concept", "image_id", "region", "difference", "random", "changed"]
    return study.store.table(
        f"regions-{concept}", inputs, lambda: pd.DataFrame(_regions(study, concept), columns=columns)
    )


def elsewhere(hole: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """The hole (h, w) bool at another place of the picture, as large and apart from itself; None where it fits nowhere.

    It is shifted by whole pixels, and what would leave the frame on one side comes in on the other. Of all such places
    it is the one whose pixels stand out most from what is around them, the hole left out: an empty sky would have
    nothing to lose.
    """
    seen, width = (~hole).astype(np.float32), image.shape[1] / 8
    weight = np.maximum(cv2.GaussianBlur(seen, (0, 0), width), 1e-6)
    around = cv2.GaussianBlur(image * seen[..., None], (0, 0), width) / weight[..., None]
    detail = np.abs(image - around).sum(axis=-1)
    overlap, lost = (_under_shifts(values, hole) for values in (hole, detail))
    free = overlap < 0.5  # half a pixel: the sums are whole numbers, up to rounding
    if not free.any():
        return None
    shift = np.unravel_index(np.where(free, lost, -np.inf).argmax(), hole.shape)
    return np.roll(hole, shift, axis=(0, 1))


def _under_shifts(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The sum of `values` under the hole at every shift (down, right), around the frame's edges: all (h, w)."""
    product = np.fft.rfft2(values) * np.conj(np.fft.rfft2(hole))
    return np.fft.irfft2(product, s=hole.shape)


def _regions(study: Study, concept: str) -> Iterator[dict[str, Any]]:
    settings = study.profile.identification
    found = found_by("stage-1", concept, study.pooled(concept), study.thresholds(concept), settings)
    chosen = found.top(settings.budget)
    rng = np.random.default_rng(study.profile.data.seed)
    random = controls.same_layers(chosen, study.model.ffn_width, rng)
    pictures = 0
    for image_id in study.pairs(concept).query("role == 'held_out'")["image_id"]:
        if pictures == PICTURES:
            return
        sample, row = study.sample(concept, image_id), {"concept": concept, "image_id": image_id}
        hole = dilated(sample.mask, DILATION)
        other = elsewhere(hole, sample.image)
        if other is None:
            yield row | {"region": "other", "difference": np.nan, "random": np.nan, "changed": np.nan}
            continue
        pictures += 1
        holes = {"object": hole, "other": other}
        removed = {region: inpaint(replace(sample, mask=mask), INPAINTER, 0) for region, mask in holes.items()}
        if sample.without is not None:
            holes["exact"], removed["exact"] = sample.mask, sample.without
        original, *without = _activations(study, [sample.image, *removed.values()])
        maps = study.token_maps(concept, image_id).numpy()
        for region, activations in zip(removed, without, strict=True):
            tokens = tokens_inside(holes[region], study.model.grid, maps)
            delta = reduce_positions(original - activations, settings.over_positions, tokens).numpy()  # (L, D)
            yield row | {
                "region": region,
                "difference": float(delta[chosen.layers, chosen.units].mean()),
                "random": float(delta[random.layers, random.units].mean()),
                "changed": float(np.abs(sample.image - removed[region].astype(float)).mean()),
            }


def _activations(study: Study, images: Sequence[np.ndarray]) -> Tensor:
    """Activations at the image tokens of a few pictures, (B, L, P, D)."""
    model = study.model
    with record(model, study.profile.identification.site) as activations, torch.no_grad():
        model.logits(model.prompts(images))
    return torch.stack([plain(layer[:, model.image_positions]) for layer in activations], dim=1)
