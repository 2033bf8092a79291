"""Where image tokens look, held against where the object is: maps of neurons, of queries, of attention blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method.heatmap import heatmap, localise
from kn_core.models.qformer import QFormerMiniGPT4, region_means
from kn_core.models.rollout import rollout
from kn_core.pictures.token_grid import cells
from kn_core.study.experiments.heatmaps import shown
from kn_core.study.study import Study


def places(study: Study, concept: str) -> pd.DataFrame:
    """How maps lie on the object, a row a picture and map.

    Columns concept, image_id, map, iou, pointing, inside, area. The pictures are those of `heatmaps.shown`.
    Maps by the gradient score: 'own' of the two-stage neurons and 'random' of random ones, laid where the tokens look.
    With a Q-Former also 'plain', laid by rollout that counts all blocks alike, and 'exchanged', laid where another
    query looks. 'single' and 'any' need no neuron: the map of the query that looks at the object most, which
    no weighing of queries by scores of one sign can surpass, and that of all queries alike.
    """
    inputs = fingerprint(study.inputs(concept), shown(study, concept), code(__name__))
    return study.store.table(f"places-{concept}", inputs, partial(_places, study, concept))


def _places(study: Study, concept: str) -> pd.DataFrame:
    kept = study.neuron_set(concept).top(study.profile.identification.budget)
    random = study.neuron_set(concept, "random").top(len(kept))
    rows = []
    for image_id in shown(study, concept):
        pair, sample, grid = study.capture(concept, image_id), study.sample(concept, image_id), study.model.grid
        maps, score, share = study.token_maps(concept, image_id), pair.gradcam, cells(sample.mask, study.model.grid)
        found = {"own": heatmap(score, kept, grid, maps), "random": heatmap(score, random, grid, maps)}
        if isinstance(study.model, QFormerMiniGPT4):
            plain = rollout(study.model.projection.attentions(study.model.features([sample.image])))[0]
            order = np.random.default_rng(0).permutation(len(maps))
            best = int((maps.numpy() @ share.ravel()).argmax())
            found |= {
                "plain": heatmap(score, kept, grid, plain),
                "exchanged": heatmap(score, kept, grid, maps[order]),
                "single": maps[best].numpy().reshape(grid),
                "any": maps.mean(0).numpy().reshape(grid),
            }
        place = {"concept": concept, "image_id": image_id, "area": float(sample.mask.mean())}
        rows += [place | {"map": name} | localise(heat, share) for name, heat in found.items()]
    return pd.DataFrame(rows)


def blocks(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What each attention block of the Q-Former adds to a query, over that and what the query held, on shown pictures.

    Columns block (in order: 'self 1', 'cross 1', ...), share; and region: the part of the queries' maps that lies on
    the regions that they were anchored to, the same in every row.
    """

    def compute() -> pd.DataFrame:
        model = study.model
        assert isinstance(model, QFormerMiniGPT4)
        images = [study.sample(name, image_id).image for name in concepts for image_id in shown(study, name)]
        found = model.projection.attentions(model.features(images))
        maps = rollout(found, weighted=True)
        regions = region_means(maps.shape[1], model.grid) > 0
        region = float((maps * regions).sum(-1).mean())
        rows = []
        for layer, (own, cross) in enumerate(zip(found.own_share, found.cross_share, strict=True), start=1):
            rows.append((f"self {layer}", float(own[:, : maps.shape[1]].mean())))
            rows += [] if cross is None else [(f"cross {layer}", float(cross.mean()))]
        return pd.DataFrame(rows, columns=["block", "share"]).assign(region=region)

    inputs = fingerprint([study.inputs(name) for name in concepts], code(__name__))
    return study.store.table(f"blocks-{fingerprint(concepts)}", inputs, compute)
