"""Whether stage 1 finds the object or just any change: as much of the picture is inpainted elsewhere.

Stage 1 trusts that inpainting takes away the object alone. If so, the neurons that it chose move less when another
region is inpainted, and less when something else is taken out that changes the picture as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method import controls
from kn_core.method.identification import found_by
from kn_core.pictures.decoys import Removal, decoy, elsewhere
from kn_core.pictures.inpaint import dilated, inpaint
from kn_core.study.study import Study

PICTURES = 6  # held-out ones a concept, on which another region is inpainted
INPAINTER = "telea"
DILATION = 8  # pixels by which a hole reaches beyond the object: farther than the inpainter reads around a hole


def other_region(study: Study, concept: str) -> pd.DataFrame:
    """What the concept's neurons of stage 1 lose when its object is inpainted, and when as much of the picture is.

    On the first `PICTURES` held-out pictures that have room. Columns concept, image_id, region ('object' and 'other',
    inpainted by `INPAINTER`; 'removed', the object as the profile takes it out; 'decoy', what else can be taken out
    that changes a picture as much, `pictures.decoys`, where there is such a thing), difference (of activation, read
    over image tokens as stage 1 reads it, mean over neurons), random (the same for as many other neurons of the same
    layers), changed (mean change of the picture's pixels, of 255). A picture without room for another region has a
    single row, 'other', without numbers.
    """
    inputs = fingerprint(study.inputs(concept), code(__name__))
    columns = ["concept", "image_id", "region", "difference", "random", "changed"]
    return study.store.table(
        f"regions-{concept}", inputs, lambda: pd.DataFrame(_regions(study, concept), columns=columns)
    )


def _regions(study: Study, concept: str) -> Iterator[dict[str, Any]]:
    settings = study.profile.identification
    found = found_by("stage-1", concept, study.pooled(concept), study.thresholds(concept), settings)
    chosen = found.top(settings.budget)
    rng = controls.generator(concept, study.profile.data.seed)
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
        taken = {
            region: Removal(sample.image, inpaint(replace(sample, mask=mask), INPAINTER, 0), mask)
            for region, mask in (("object", hole), ("other", other))
        }
        taken["removed"] = Removal(sample.image, study.inpainted(sample), sample.mask)
        if (matched := decoy(sample, taken["removed"].without, study.profile.inpainting)) is not None:
            taken["decoy"] = matched
        for (region, each), delta in zip(taken.items(), study.answers(list(taken.values())), strict=True):
            yield row | {
                "region": region,
                "difference": float(delta[chosen.layers, chosen.units].mean()),
                "random": float(delta[random.layers, random.units].mean()),
                "changed": each.changed,
            }
