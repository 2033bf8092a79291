"""Whether the stages tell the concept from what is merely there: two tests of what the paper takes for granted.

Stage 1 trusts that inpainting takes away the object alone. So as much of the picture is inpainted elsewhere, which
should move the neurons that stage 1 chose less. Stage 2 is to drop neurons of something else that went with the object.
So scenes get a companion, which goes together with the object, and what stage 2 drops of either's neurons is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core import controls
from kn_core.claims import Measurement
from kn_core.coco import tokens_inside
from kn_core.gradients import plain
from kn_core.hooks import record
from kn_core.identification import found_by
from kn_core.inpaint import dilated, inpaint
from kn_core.neurons import capture, find_target, image_scores, reduce_positions, stage_1, stage_2
from kn_core.planted import Planted, likely_companion, planted
from kn_core.separation import confound_drop, region_gap
from kn_core.store import code, fingerprint
from kn_core.study import Study, StudyError

PICTURES = 3  # held-out ones a concept, on which another region is inpainted
SCENES = 2  # a concept, with a companion
INPAINTER = "telea"
DILATION = 8  # pixels by which a hole reaches beyond the object: farther than the inpainter reads around a hole


# Stage 1: another region


def other_region(study: Study, concept: str) -> pd.DataFrame:
    """What the concept's neurons of stage 1 lose when its object is inpainted, and when as much of the picture is.

    On the first `PICTURES` held-out pictures that have room. Columns concept, image_id, region ('object' and 'other',
    inpainted by `INPAINTER`; 'exact', the scene rendered again without its object, where there is one), difference (of
    activation, read over image tokens as stage 1 reads it, mean over neurons), random (the same for as many other
    neurons of the same layers), changed (mean change of the picture's pixels, of 255). A picture without room for
    another region has a single row, 'other', without numbers.
    """
    inputs = fingerprint(study.inputs(concept), code("spurious"))
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


# Stage 2: a companion


def companions(study: Study, concept: str) -> pd.DataFrame:
    """How much stage 2 drops of the concept's own neurons and of its companion's, when stage 1 has found both.

    On `SCENES` scenes of both. Columns concept, companion, image_id, caption (of the whole scene), then those of
    `drops`, a row a kind. A scene whose caption does not name the concept has a single row, of kind ''. Raises
    StudyError where pictures are photographs, into which nothing can be planted.
    """
    inputs = fingerprint(study.inputs(concept), companion_of(study, concept), code("spurious", "planted"))
    return study.store.table(f"companions-{concept}", inputs, lambda: pd.DataFrame(_companions(study, concept)))


def drops(
    delta: Mapping[str, np.ndarray], gradcam: np.ndarray, threshold_a: float, threshold_g: float, budget: int
) -> list[dict[str, object]]:
    """Candidates of one scene by what they answer to, and how many of them stage 2 drops.

    `delta` has the activation difference (L, D) to the scene without 'concept', 'companion' and 'both'; candidates are
    what stage 1 finds in the last. Of these, kind 'own' also passes stage 1 when the concept alone goes and not when
    the companion does, 'companion' the other way round, 'shared' both times and 'neither' never. Columns kind,
    candidates, dropped, last (those in the last layer, where the gradient is zero whatever a neuron answers to), best
    (those among the `budget` with the largest gradient scores of all that are not dropped).
    """
    candidates, own, companion = (stage_1(delta[gone], threshold_a) for gone in ("both", "concept", "companion"))
    kept = stage_2(candidates, gradcam, threshold_g)
    best = np.zeros_like(kept)
    order = np.argsort(np.where(kept, -gradcam, np.inf), axis=None, kind="stable")
    best.flat[order[: min(budget, kept.sum())]] = True
    kinds = {"own": own & ~companion, "companion": companion & ~own, "shared": own & companion}
    kinds["neither"] = ~(own | companion)
    return [
        {
            "kind": kind,
            "candidates": int((candidates & of_kind).sum()),
            "dropped": int((candidates & ~kept & of_kind).sum()),
            "last": int((candidates & of_kind)[-1].sum()),
            "best": int((best & of_kind).sum()),
        }
        for kind, of_kind in kinds.items()
    ]


def companion_of(study: Study, concept: str) -> str:
    """What is planted beside a concept: another of the profile (`planted.likely_companion`). Raises StudyError."""
    if study.profile.data.source != "scenes":
        raise StudyError(
            f"Companions are planted in scenes; the profile '{study.profile.name}' reads photographs. "
            "Run a profile whose data.source is 'scenes'."
        )
    others = [other for other in study.profile.concepts if other != concept]
    if not others:
        raise StudyError(f"A companion of '{concept}' must be another concept of the profile, and there is none.")
    return likely_companion(concept, others)


def example(study: Study, concept: str) -> tuple[Planted, dict[str, str]]:
    """The first planted scene whose caption names the concept (or else the first), and what the model says of it.

    Captions are by what is gone: '' for the whole scene, then as in `Planted.without`.
    """
    named = set(companions(study, concept).query("kind != ''")["image_id"])
    found = _planted(study, concept)
    scene = next((each for each in found if each.image_id in named), found[0])
    images = {"": scene.image, **scene.without}

    def compute() -> pd.DataFrame:
        captions = study.model.caption(list(images.values()), study.profile.model.max_new_tokens)
        return pd.DataFrame({"gone": list(images), "caption": captions})

    inputs = fingerprint(
        study.inputs(concept), companion_of(study, concept), scene.image_id, code("spurious", "planted")
    )
    said = study.store.table(f"planted-{concept}", inputs, compute)
    return scene, dict(zip(said["gone"], said["caption"], strict=True))


def _planted(study: Study, concept: str) -> list[Planted]:
    """The concept's scenes with its companion; the study's own are another namespace's."""
    return list(planted(concept, companion_of(study, concept), SCENES, study.profile.data.seed + 1))


def _companions(study: Study, concept: str) -> Iterator[dict[str, Any]]:
    model, settings, threshold = study.model, study.profile.identification, study.thresholds(concept)
    found = _planted(study, concept)
    captions = model.caption([scene.image for scene in found], study.profile.model.max_new_tokens)
    for scene, caption in zip(found, captions, strict=True):
        row = {"concept": concept, "companion": companion_of(study, concept)}
        row |= {"image_id": scene.image_id, "caption": caption}
        target = find_target(model, caption, concept)
        if target is None:
            yield row | dict.fromkeys(("candidates", "dropped", "last", "best"), 0) | {"kind": ""}
            continue
        pair = capture(model, scene.image, scene.without["both"], caption, target, settings.site)
        one_less = _activations(study, [scene.without["concept"], scene.without["companion"]])
        without = {"both": pair.inpainted, "concept": one_less[0], "companion": one_less[1]}
        maps = model.token_maps([scene.image])[0].numpy()
        scores = {
            gone: image_scores(
                replace(pair, inpainted=left),
                settings.over_positions,
                tokens_inside(scene.masks[gone], model.grid, maps),
            )
            for gone, left in without.items()
        }
        delta, gradcam = {gone: difference for gone, (difference, _) in scores.items()}, scores["both"][1]
        for counted in drops(delta, gradcam, threshold["delta"], threshold["gradcam"], settings.budget):
            yield row | counted


def _activations(study: Study, images: Sequence[np.ndarray]) -> Tensor:
    """Activations at the image tokens of a few pictures, (B, L, P, D)."""
    model = study.model
    with record(model, study.profile.identification.site) as activations, torch.no_grad():
        model.logits(model.prompts(images))
    return torch.stack([plain(layer[:, model.image_positions]) for layer in activations], dim=1)


# What both say of the claims (`separation`)


def other_region_measured(study: Study) -> list[Measurement]:
    """`stage1_over_other_region` over all concepts."""
    return [region_gap(pd.concat([other_region(study, concept) for concept in study.studied()]))]


def companions_measured(study: Study) -> list[Measurement]:
    """`stage2_confound_drop` over all concepts; nothing where pictures are photographs."""
    if study.profile.data.source != "scenes":
        return []
    return [confound_drop(pd.concat([companions(study, concept) for concept in study.studied()]))]
