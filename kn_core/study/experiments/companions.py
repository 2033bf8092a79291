"""Whether stage 2 tells the concept from what merely came along: scenes in which a companion goes with the object.

Stage 2 is to drop neurons of something else that went with the object. So scenes get a companion, which goes together
with the object, and what stage 2 drops of either's neurons is counted; and what the third stage drops, when it keeps as
many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method import identification
from kn_core.method.attribution import first_order
from kn_core.method.capture import find_target
from kn_core.method.identification import score_pair, stage_scores
from kn_core.method.interventions import inpainted_activations
from kn_core.method.two_stages import stage_1, stage_2
from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.planted import Planted, likely_companion, planted
from kn_core.profile import Profile
from kn_core.study.experiments import ladder
from kn_core.study.study import Study, StudyError

SCENES = 2  # a concept, with a companion


def companions(study: Study, concept: str) -> pd.DataFrame:
    """How much stage 2 drops of the concept's own neurons and of its companion's, when stage 1 has found both.

    On `SCENES` scenes of both. Columns concept, companion, image_id, caption (of the whole scene), then those of
    `drops`, a row a kind, and third_dropped and third_best, the same when the third stage keeps as many. A scene whose
    caption does not name the concept has a single row, of kind ''. Raises StudyError where pictures are photographs,
    into which nothing can be planted.
    """
    inputs = fingerprint(ladder.upstream(study), companion_of(study, concept), code(__name__))
    return study.store.table(f"companions-{concept}", inputs, lambda: pd.DataFrame(_companions(study, concept)))


def drops(
    delta: Mapping[str, np.ndarray], gradcam: np.ndarray, threshold_a: float, threshold_g: float, budget: int
) -> list[dict[str, Any]]:
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


def lacks(profile: Profile) -> str:
    """Why nothing can be planted beside the profile's concepts, or ''."""
    if profile.data.source == "scenes":
        return ""
    return (
        f"Companions are planted in scenes; the profile '{profile.name}' reads photographs. "
        "Run a profile whose data.source is 'scenes'."
    )


def companion_of(study: Study, concept: str) -> str:
    """What is planted beside a concept (`planted.likely_companion`): another of the profile, or any where it has none.

    Raises StudyError where pictures are photographs.
    """
    if why := lacks(study.profile):
        raise StudyError(why)
    others = [other for other in study.profile.concepts if other != concept]
    return likely_companion(concept, others or [kind for kind in KINDS if kind != concept])


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

    inputs = fingerprint(study.inputs(concept), companion_of(study, concept), scene.image_id, code(__name__))
    said = study.store.table(f"planted-{concept}", inputs, compute)
    return scene, dict(zip(said["gone"], said["caption"], strict=True))


def _planted(study: Study, concept: str) -> list[Planted]:
    """The concept's scenes with its companion; the study's own are another namespace's."""
    return list(planted(concept, companion_of(study, concept), SCENES, study.profile.data.seed + 1))


def _companions(study: Study, concept: str) -> Iterator[dict[str, Any]]:
    model, settings, threshold = study.model, study.profile.identification, study.thresholds(concept)
    if settings.thresholds == "auto":  # is of several pictures, and a scene is one
        pooled = identification.pooled(study.measured(concept), settings)["delta"]
        threshold["delta"] = identification.threshold(settings.threshold_a, concept, pooled)
    found = _planted(study, concept)
    captions = model.caption([scene.image for scene in found], study.profile.model.max_new_tokens)
    for scene, caption in zip(found, captions, strict=True):
        row = {"concept": concept, "companion": companion_of(study, concept)}
        row |= {"image_id": scene.image_id, "caption": caption}
        target = find_target(model, caption, concept)
        if target is None:
            counts = ("candidates", "dropped", "last", "best", "third_dropped", "third_best")
            yield row | dict.fromkeys(counts, 0) | {"kind": ""}
            continue
        pictures, maps = (scene.image, scene.without["both"]), model.token_maps([scene.image])[0]
        pair, both = score_pair(model, *pictures, caption, target, scene.masks["both"], maps, settings)
        delta, alone = {"both": both["delta"]}, ("concept", "companion")
        shown = model.prompts([scene.without[gone] for gone in alone])
        for gone, left in zip(alone, inpainted_activations(model, shown, settings.site), strict=True):
            one_less = replace(pair, inpainted=left)
            delta[gone] = stage_scores(model, one_less, scene.masks[gone], maps, settings)["delta"]
        limits = threshold["delta"], threshold["gradcam"]
        stage2 = drops(delta, both["gradcam"], *limits, settings.budget)
        prompts = model.prompts([scene.image, scene.without["both"]]).detach()
        specific = ladder.specific(study, concept, first_order(model, prompts, caption, target))
        kept = sum(counted["candidates"] - counted["dropped"] for counted in stage2)
        falling = np.sort(specific[delta["both"] > limits[0]])[::-1]
        least = falling[kept] if kept < len(falling) else -np.inf  # the best that is dropped
        third = drops(delta, specific, limits[0], least, settings.budget)
        for counted, other in zip(stage2, third, strict=True):
            yield row | counted | {f"third_{key}": other[key] for key in ("dropped", "best")}
