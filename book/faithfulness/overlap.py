"""Whose a set of neurons is: what sets chosen on single pictures, or under other wordings, have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.words import interval
from kn_core.measures.overlap import overlap
from kn_core.measures.stats import estimate
from kn_core.method.two_stages import select
from kn_core.study.experiments import prompts
from kn_core.study.study import Study


def across_images(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`single_pictures` by the score of stage 2, as many neurons as the profile disturbs, and column concept."""
    budget = study.profile.identification.budget
    found = [single_pictures(study.scores(name)["gradcam"], budget).assign(concept=name) for name in concepts]
    return pd.concat(found, ignore_index=True)


def single_pictures(scores: np.ndarray, budget: int) -> pd.DataFrame:
    """`overlap` of the `budget` best neurons of each picture of a concept, had it chosen alone; column `image`.

    `scores` (N, L, D) is what a method selects by, picture by picture; -inf where a neuron may not be chosen, such as
    one that does not pass stage 1. Pictures are named by their place, 0 to N - 1.
    """
    sets = {}
    for image, score in enumerate(scores):
        best = select(str(image), "", np.isfinite(score), score, budget)
        sets[image] = set(zip(best.layers.tolist(), best.units.tolist(), strict=True))
    return overlap(sets, scores.shape[1:]).rename(columns={"one": "image"})


def across_images_in_words(found: pd.DataFrame) -> dict[str, str]:
    """`across_images` for sentences: medians over pairs of pictures of a concept, then over concepts."""
    by = found.groupby("concept")[["shared", "jaccard", "expected"]].median().median()
    return {
        "shared-images": f"{by['shared']:g}",
        "jaccard-images": f"{by['jaccard']:.2f}",
        "expected-images": f"{by['expected']:.2f}",
    }


def across_prompts(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What a concept's sets under two wordings share: `overlap.overlap`, and columns concept, prompt, n_images."""
    shape = study.scores(concepts[0])["delta"].shape[1:]
    found = [pd.DataFrame(columns=["concept", "prompt", "n_images", *overlap({}, shape)])]
    for concept in concepts:
        for prompt, rows in prompts.neurons(study, concept).groupby("prompt", sort=False):
            by = rows.groupby("asked", sort=False)
            sets = {asked: set(zip(best["layer"], best["unit"], strict=True)) for asked, best in by}
            n_images = int(rows["n_images"].iloc[0])
            found.append(overlap(sets, shape).assign(concept=concept, prompt=str(prompt), n_images=n_images))
    return pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)


def across_prompts_in_words(found: pd.DataFrame) -> dict[str, str]:
    """`across_prompts` for sentences: means over concepts of the means over wordings, with 95 % intervals."""
    if found.empty:
        nothing = dict.fromkeys(("shared-prompts", "jaccard-prompts", "expected-prompts", "asked-of"), "–")
        return nothing | {"wordings": "no other wording"}
    wordings = found["prompt"].nunique()
    return {
        "shared-prompts": f"{found['shared'].groupby(found['concept']).mean().mean():.0f}",
        "jaccard-prompts": interval(*estimate(found["jaccard"], found["concept"]).ends),
        "expected-prompts": f"{found['expected'].mean():.2f}",
        "wordings": f"{wordings} other wording{'s' if wordings > 1 else ''}",
        "asked-of": f"{found['n_images'].mean():.1f}",
    }
