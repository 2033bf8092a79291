"""Two models of one decoder, a linear layer and a Q-Former before it: does the method carry over (open question 2)?

Two studies of the same scenes in, tidy frames out: what is identified, what noise on it does, where it looks, and what
it costs that the queries of a Q-Former have no place in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from kn_core.coco import cells
from kn_core.distillation import region_means
from kn_core.evidence import headline, late_share, perplexity_limit
from kn_core.heatmaps import shown
from kn_core.localisation import localise
from kn_core.metrics import contrast, differences, summarise
from kn_core.models.qformer import QFormerMiniGPT4
from kn_core.models.rollout import rollout
from kn_core.neurons import heatmap
from kn_core.siblings import Studies, siblings
from kn_core.stats import cluster_interval, each_alone
from kn_core.store import code, fingerprint
from kn_core.study import Study

LINEAR, QUERIES = "linear layer", "Q-Former"
MEASURED = ("suppression", "retention")


def compared(profile: str) -> Studies:
    """The profile and its sibling with a Q-Former, `<profile>-qformer`; either may be named. Raises NotRun."""
    return siblings(profile, "qformer", lambda found: QUERIES if found.parts.connector == "q-former" else LINEAR)


def identified(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """What both stages find, a row a model and concept.

    Columns model, concept, captioned (pictures), named (of them, those whose caption names the concept), kept (pairs),
    neurons (that pass both stages), late (share of the best in the upper two thirds of the layers).
    """
    rows = []
    for model, study in studies.items():
        budget = study.profile.identification.budget
        for concept in concepts:
            pairs, neurons = study.pairs(concept), study.neurons(concept)
            rows.append(
                {
                    "model": model,
                    "concept": concept,
                    "captioned": int((pairs["caption"] != "").sum()),
                    "named": int((pairs["target_word"] != "").sum()),
                    "kept": int(pairs["kept"].sum()),
                    "neurons": int((neurons["method"] == "two-stage").sum()),
                    "late": late_share(neurons, budget, study.n_layers).value,
                }
            )
    return pd.DataFrame(rows)


def effects(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """Suppression and retention under the main setting, held-out pictures, a row a model and metric.

    Columns model, metric, then value, low, high of the two-stage neurons, of the random ones (`random`, `random_low`,
    `random_high`) and of the difference image by image, and n_images, n_concepts.
    """
    rows = []
    for model, study in studies.items():
        main, limit = _main(study, concepts)
        means = summarise(main, ["method"], perplexity_limit=limit)
        gap = contrast(main, "two-stage", "random", perplexity_limit=limit).set_index("metric")
        own, random = (means[means["method"] == name].set_index("metric") for name in ("two-stage", "random"))
        ends = ["value", "low", "high"]
        sides = [own[[*ends, "n_images", "n_concepts"]], random[ends].add_prefix("random_")]
        row = pd.concat([*sides, gap[ends].add_prefix("difference_")], axis=1)
        rows.append(row.loc[[*MEASURED, "fluent"]].reset_index(names="metric").assign(model=model))
    return pd.concat(rows, ignore_index=True)


def between(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """The Q-Former's advantage over the control minus the linear layer's: metric, value, low, high, n_concepts.

    The models keep other pictures, so concepts are what is paired; intervals resample concepts.
    """
    gaps = {}
    for model, study in studies.items():
        main, limit = _main(study, concepts)
        paired = differences(main, "two-stage", "random", perplexity_limit=limit)
        gaps[model] = paired.groupby(["metric", "image_concept"])["value"].mean()
    rows = []
    for metric in MEASURED:
        here = [gaps[QUERIES].loc[metric].reindex(concepts), gaps[LINEAR].loc[metric].reindex(concepts)]
        change = (here[0] - here[1]).dropna().to_numpy(float)
        rows.append(
            (
                metric,
                float(change.mean()),
                *cluster_interval(each_alone(change)),
                len(change),
            )
        )
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n_concepts"])


def _main(study: Study, concepts: Sequence[str]) -> tuple[pd.DataFrame, float]:
    """The main setting's rows on held-out pictures, and the perplexity above which a caption is not fluent."""
    trials = pd.concat([study.perturbations(concept) for concept in concepts], ignore_index=True)
    return headline(trials, study.profile), perplexity_limit(trials)


def places(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """How maps lie on the object, a row a model, picture and map.

    Columns model, concept, image_id, map, iou, pointing, inside, area. The pictures are those of `heatmaps.shown`.
    Maps by the gradient score: 'own' of the two-stage neurons and 'random' of random ones, laid where the tokens look.
    With a Q-Former also 'plain', laid by rollout that counts all blocks alike, and 'exchanged', laid where another
    query looks. 'single' and 'any' need no neuron: the map of the query that looks at the object most, which
    no weighing of queries by scores of one sign can surpass, and that of all queries alike.
    """
    frames = []
    for model, study in studies.items():
        for concept in concepts:
            inputs = fingerprint(
                study.inputs(concept), shown(study, concept), code("generalisation", "neurons", "localisation")
            )
            frame = study.store.table(f"places-{concept}", inputs, partial(_places, study, concept))
            frames.append(frame.assign(model=model))
    return pd.concat(frames, ignore_index=True)


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

    inputs = fingerprint([study.inputs(name) for name in concepts], code("generalisation", "distillation"))
    return study.store.table(f"blocks-{fingerprint(concepts)}", inputs, compute)
