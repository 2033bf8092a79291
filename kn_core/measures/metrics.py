"""What a perturbation did: suppression, retention and fluency (S_se and S_re of the paper's Table II).

The paper gives the meaning of S_se and S_re and not their formulas. Both are read here by caption (the headline) and by
probability, and never without fluency, because a model that answers 'RRRRRR' suppresses perfectly.

The upper half works on one caption or its token probabilities, the lower half on the perturbations table, image by
image. Means over images and concepts, with intervals, are in `summaries`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import repeat

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kn_core.concepts import content_words, names
from kn_core.profile import Profile


def headline(perturbations: pd.DataFrame, profile: Profile, held_out: bool = True) -> pd.DataFrame:
    """The rows of the profile's main setting, on pictures that chose no neurons; or on some that did."""
    settings = profile.perturbation
    same = (perturbations["intervention"] == settings.intervention) & (perturbations["positions"] == settings.positions)
    same &= perturbations["n"] == profile.identification.budget
    if settings.intervention == "noise":
        same &= perturbations["sigma"] == settings.sigma
    return perturbations[same & (perturbations["heldout"] == held_out)]


MIN_WORDS = 3
# None of 4,806 human captions of COCO photographs comes above 0.24; 'The . The .' has 0.33 and 'RRRRRR' 0.8.
MAX_REPETITION = 0.25

# Effects at two of these settings are two effects: a mean over both would say nothing.
SETTINGS = ("method", "intervention", "positions", "n", "sigma")
EFFECTS = (
    *("caption", "clean_caption", "target_present", "target_probability", "clean_probability"),
    *("retained", "retained_truth", "retained_probability", "perplexity", "repetition"),
)
# Where a caption has been scored as text too (`comparison.with_text`), a table holds these columns.
TEXT = tuple(f"{score}_{side}" for score in ("bleu", "rouge", "bertscore") for side in ("suppression", "retention"))


def suppressed(caption: str, concept: str) -> bool:
    """Whether `caption` no longer names `concept`. An empty caption names nothing, so it counts; its fluency tells."""
    return not names(caption, concept)


def retention(clean: str, perturbed: str, concept: str) -> float:
    """Share of the clean caption's distinct content words, `concept`'s own left out, that the perturbed one holds.

    NaN where the clean caption has no other content word: nothing could be kept or lost, and 0 or 1 would be invented.
    """
    others = set(content_words(clean, without=concept))
    if not others:
        return math.nan
    return len(others.intersection(content_words(perturbed, without=concept))) / len(others)


def chance_retention(captions: Sequence[str], concepts: Sequence[str]) -> float:
    """Retention that a caption of some other concept's image has by chance: the floor below S_re, in [0, 1].

    `captions[i]` is the clean caption of an image of `concepts[i]`. Mean over pairs of images of two concepts, first
    over the captions that stand in for an image's own, then over images. NaN where there is no such pair.
    """
    described = list(zip(captions, concepts, strict=True))
    means = []
    for clean, concept in described:
        chances = [retention(clean, other, concept) for other, of in described if of != concept]
        if chances and not math.isnan(chances[0]):  # NaN depends on the clean caption alone: all or none
            means.append(np.mean(chances))
    return float(np.mean(means)) if means else math.nan


def probability_suppression(p: ArrayLike, p_perturbed: ArrayLike) -> np.ndarray:
    """(p - p~) / p, elementwise: the share of the target token's probability that the perturbation takes away.

    Teacher-forced probabilities in (0, 1] and [0, 1], of one shape. 1 is full suppression, below 0 the token became
    more likely.
    """
    clean, perturbed = _probabilities(p, p_perturbed)
    lost: np.ndarray = (clean - perturbed) / clean
    return lost


def probability_retention(p: ArrayLike, p_perturbed: ArrayLike) -> float:
    """Mean of min(1, p~ / p) over the caption's other tokens (T,), teacher-forced. NaN where there are none."""
    clean, perturbed = _probabilities(p, p_perturbed)
    return float(np.minimum(1, perturbed / clean).mean()) if clean.size else math.nan


def repetition(caption: str, n: int = 2) -> float:
    """Share of the caption's n-grams that repeat an earlier one: 1 - |distinct| / |all|, in [0, 1).

    seq-rep-n of Welleck et al. 2020 (1908.04319), one minus distinct-n of Li et al. 2016 (1510.03055), over lower-case
    words and punctuation marks. Two departures: n is 2, as captions are short, and a unit that stands three times or
    more in a row within a word counts as as many words ('RRRR' as four), or the commonest degenerate output would pass
    for one flawless word. A caption shorter than n words repeats nothing: 0.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1. Got {n}.")
    caption = re.sub(r"(\w+?)\1{2,}", lambda run: f" {run[1]}" * (len(run[0]) // len(run[1])) + " ", caption.lower())
    tokens = re.findall(r"\w+|[^\w\s]", caption)
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fluent(caption: str, perplexity: float, perplexity_limit: float = math.inf) -> bool:
    """Whether a caption still reads as a sentence: three words or more, little repetition, unsurprising enough.

    A stand-in for grammaticality, which nobody judged here. `perplexity` is the caption's under the clean model; the
    limit wants to come from clean captions (their 95th percentile, say). An undefined perplexity (NaN) is not fluent.
    """
    long_enough = len(re.findall(r"[^\W\d_]+", caption)) >= MIN_WORDS
    return long_enough and repetition(caption) <= MAX_REPETITION and perplexity <= perplexity_limit


def per_image(perturbations: pd.DataFrame, by: Sequence[str], *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """Every metric of every image, averaged over noise seeds: columns `by`, image_concept, image_id, metric, value.

    | metric | images | value |
    |---|---|---|
    | suppression (S_se) | the concept's own | share of captions that no longer name it |
    | suppression_fluent | the concept's own | share of captions that no longer name it and are fluent |
    | retention (S_re) | the concept's own | share of the other content words that survive |
    | retention_truth (S_re) | the concept's own | share of what the clean caption says truly that is still said |
    | retention_others (S_re) | other concepts' | share of captions that still name their own concept |
    | selectivity | all | what the image's own neurons suppress minus what those of other concepts do |
    | suppression_probability, retention_probability | the concept's own | the same by probability |
    | log_perplexity (nats a token), repetition, fluent | the concept's own | fluency |
    | bleu, rouge, bertscore_suppression, _retention | the concept's own | `text`; where the table has them |

    Images whose clean caption does not name their own concept are left out: what was never said cannot be suppressed.
    A metric that an image has no value for has no row; selectivity by concept, which compares concepts, is one such.
    Raises ValueError for missing columns and for several settings (`SETTINGS`) within one group.
    """
    keys = list(dict.fromkeys((*by, "image_concept", "image_id")))
    if missing := sorted({"concept", *SETTINGS, *EFFECTS, *keys}.difference(perturbations.columns)):
        raise ValueError(f"perturbations must have the columns {missing}. Got {list(perturbations.columns)}.")
    one_setting(perturbations, by, SETTINGS)
    rows = perturbations[list(map(names, perturbations["clean_caption"], perturbations["image_concept"]))]

    present = rows["target_present"].astype(float)
    reads = np.fromiter(map(fluent, rows["caption"], rows["perplexity"], repeat(perplexity_limit)), float, len(rows))
    effects = {
        "suppression": 1 - present,
        "suppression_fluent": (1 - present) * reads,
        "retention": rows["retained"],
        "retention_truth": rows["retained_truth"],
        "suppression_probability": probability_suppression(rows["clean_probability"], rows["target_probability"]),
        "retention_probability": rows["retained_probability"],
        "log_perplexity": np.log(rows["perplexity"]),
        "repetition": rows["repetition"],
        "fluent": reads,
    } | {name: rows[name] for name in TEXT if name in rows}
    own = rows["concept"] == rows["image_concept"]
    metrics = pd.DataFrame(effects, index=rows.index, dtype=float).where(own)
    metrics["retention_others"] = present.mask(own)
    images = metrics.groupby([rows[key] for key in keys], dropna=False).mean()
    images["selectivity"] = images["suppression"] - (1 - images["retention_others"])
    return images.reset_index().melt(id_vars=keys, var_name="metric").dropna(subset="value", ignore_index=True)


def one_setting(perturbations: pd.DataFrame, by: Sequence[str], settings: Sequence[str]) -> None:
    """Raises ValueError where a group holds several settings: a mean over both would say nothing."""
    groups = perturbations.groupby(list(by) or np.zeros(len(perturbations)), dropna=False)
    for name in settings:
        if name not in by and groups[name].nunique(dropna=False).gt(1).any():
            raise ValueError(f"{name} must be one value in every group of by={list(by)}. Select one, or add it to by.")


def _probabilities(p: ArrayLike, p_perturbed: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    clean, perturbed = np.asarray(p, dtype=float), np.asarray(p_perturbed, dtype=float)
    if clean.shape != perturbed.shape:
        raise ValueError(f"p and p_perturbed must have one shape. Got {clean.shape} and {perturbed.shape}.")
    if np.any((clean <= 0) | (clean > 1)) or np.any((perturbed < 0) | (perturbed > 1)):
        raise ValueError("probabilities must lie in (0, 1] for the clean model and in [0, 1] for the perturbed one.")
    return clean, perturbed
