"""How much it matters which inpainter takes the object out: the paper leaves it open, and a scene can tell.

A scene can be rendered again without its object, so every inpainter is held against that: in pixels, in what the model
then says, and in the activation differences that stage 1 reads. Photographs have no such truth; there inpainters are
held against the profile's own, which says how far they agree and not which of them is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from kn_core.concepts import names
from kn_core.fingerprint import code, fingerprint
from kn_core.method.two_stages import reduce_positions, select
from kn_core.models.hooks import Edit, intervene
from kn_core.pictures.diffusion_pipeline import identity, why_not
from kn_core.pictures.inpaint import dilated, inpaint_all
from kn_core.pictures.sample import Sample
from kn_core.pictures.token_grid import inside
from kn_core.study.experiments.heatmaps import shown
from kn_core.study.study import Study

Way = tuple[str, int]
"""How an object is taken out: inpainter, and pixels by which its mask is grown."""

PICTURES = 2  # a concept
DILATION = 8  # pixels: farther than OpenCV reads around a hole, as in `other_region` and `locate`
EXACT: Way = ("exact", 0)
OPENCV: tuple[Way, ...] = (("telea", DILATION), ("navier-stokes", DILATION), ("telea", 0), ("navier-stokes", 0))
FLAT: Way = ("flat", DILATION)  # the mean colour of what is left: no inpainter at all
DIFFUSION: Way = ("diffusion", DILATION)
OTHER: Way = ("other", 0)  # no inpainter either: the reference's differences on the concept's other pictures
COLUMNS = ["concept", "image_id", "inpainter", "dilation", "psnr", "caption", "lost", "rho", "shared"]
MSE_OF_ROUNDING = 1 / 12  # of levels from 0 to 255: no pixels are known better than that


def reference(study: Study) -> Way:
    """What the others are held against: the truth where there is one, else the profile's own inpainter."""
    return EXACT if study.profile.data.source == "scenes" else own(study)


def own(study: Study) -> Way:
    """The profile's inpainter."""
    how = study.profile.inpainting
    return EXACT if how.method == "exact" else (how.method, how.dilation)


def ways(study: Study) -> list[Way]:
    """Every way that any machine can try, the reference first."""
    return list(dict.fromkeys([reference(study), own(study), *OPENCV, FLAT]))


def not_run(study: Study) -> str:
    """Why diffusion has no row, in words; '' where it has one, or is the profile's own inpainter."""
    return "" if own(study)[0] == "diffusion" else why_not(study.profile.inpainting.diffusion)


def judged(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """Every way on up to `PICTURES` pictures of each concept, held-out ones first: a row a picture and way.

    Columns concept, image_id, inpainter, dilation; psnr (dB, where the object was, against the reference; NaN for that
    itself), caption, lost (1 where it no longer names the concept, else 0), rho (Spearman's, over all neurons, of the
    activation difference with the reference's, read over image tokens as stage 1 reads it), shared (of as many neurons
    with the largest differences as the profile's budget, the share that is the reference's too).

    Rows of the inpainter 'other' hold the reference on this picture against the reference on the concept's other
    pictures, the mean over these: how far two pictures agree when nothing is guessed. They have rho and shared alone.
    """
    frames = []
    for concept in concepts:
        frames.append(_kept(study, concept, "", ways(study)))
        if own(study)[0] != "diffusion" and not not_run(study):  # apart, so that a pipeline that comes changes no other
            frames.append(_kept(study, concept, "-diffusion", [DIFFUSION]))
    return pd.concat(frames, ignore_index=True)


def _kept(study: Study, concept: str, name: str, chosen: Sequence[Way]) -> pd.DataFrame:
    how = study.profile.inpainting.diffusion
    painter = [how.model_dump(), identity(how)] if DIFFUSION in chosen else []
    inputs = fingerprint(study.inputs(concept), chosen, _pictures(study, concept), painter, code(__name__))

    def compute() -> pd.DataFrame:
        return pd.DataFrame(_rows(study, concept, chosen), columns=COLUMNS)

    return study.store.table(f"inpainters-{concept}{name}", inputs, compute)


def _pictures(study: Study, concept: str) -> list[str]:
    """The first of `heatmaps.shown`, of which something is left around the grown hole."""
    ids = shown(study, concept)[:PICTURES]
    return [each for each in ids if not dilated(study.sample(concept, each).mask, DILATION).all()]


def _rows(study: Study, concept: str, chosen: Sequence[Way]) -> Iterator[dict[str, Any]]:
    first, budget = reference(study), study.profile.identification.budget
    samples = [study.sample(concept, image_id) for image_id in _pictures(study, concept)]
    painted = {way: taken_out(study, samples, way) for way in dict.fromkeys([first, *chosen])}
    truths: list[np.ndarray] = []  # the reference's differences, (L, D) a picture
    for place, sample in enumerate(samples):
        pictures = {way: of_way[place] for way, of_way in painted.items()}
        captions, deltas = _differences(study, sample, list(pictures.values()))
        truths.append(deltas[0])
        for way, caption, delta in zip(pictures, captions, deltas, strict=True):
            if way in chosen:
                yield {
                    "concept": concept,
                    "image_id": sample.image_id,
                    "inpainter": way[0],
                    "dilation": way[1],
                    "psnr": np.nan if way == first else psnr(pictures[way], pictures[first], sample.mask),
                    "caption": caption,
                    "lost": float(not names(caption, concept)),
                    **alike(delta, deltas[0], budget),
                }
    for sample, truth in zip(samples, truths, strict=True):
        if first in chosen and len(truths) > 1:
            each = [alike(other, truth, budget) for other in truths if other is not truth]
            yield {
                "concept": concept,
                "image_id": sample.image_id,
                "inpainter": OTHER[0],
                "dilation": OTHER[1],
                "psnr": np.nan,
                "caption": "",
                "lost": np.nan,
                **{name: float(np.mean([one[name] for one in each])) for name in ("rho", "shared")},
            }


def alike(delta: np.ndarray, truth: np.ndarray, budget: int) -> dict[str, float]:
    """rho and shared of two activation differences (L, D), as `judged` has them."""
    best = [select("", "", np.ones(each.shape, bool), each, budget) for each in (delta, truth)]
    one, other = (set(zip(found.layers.tolist(), found.units.tolist(), strict=True)) for found in best)
    rho = float(spearmanr(delta.ravel(), truth.ravel()).statistic)
    return {"rho": rho, "shared": len(one & other) / len(other)}


def taken_out(study: Study, samples: Sequence[Sample], way: Way) -> list[np.ndarray]:
    """The samples' pictures without their objects, each (h, w, 3) uint8."""
    method, dilation = way
    if method != "flat":
        return inpaint_all(samples, method, dilation, study.profile.inpainting.diffusion)
    return [_flat(sample.image, dilated(sample.mask, dilation)) for sample in samples]


def psnr(picture: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures (h, w, 3) uint8 where (h, w) bool says, at most that of rounding."""
    error = np.mean((picture[where].astype(float) - truth[where]) ** 2)
    return float(10 * np.log10(255**2 / max(error, MSE_OF_ROUNDING)))


def _flat(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The hole filled with the mean colour of what is left of the picture."""
    colour = np.rint(image[~hole].mean(axis=0)).astype(np.uint8)
    return np.where(hole[..., None], colour, image)


def _differences(study: Study, sample: Sample, without: Sequence[np.ndarray]) -> tuple[list[str], list[np.ndarray]]:
    """What the model says of each picture without the object, and the activation difference (L, D) to it."""
    captions, seen = _watched(study, [sample.image, *without])
    cells = inside(sample.mask, study.model.grid).ravel()
    how = study.profile.identification.over_positions
    return captions[1:], [reduce_positions(seen[0] - each, how, cells).numpy() for each in seen[1:]]


def _watched(study: Study, images: Sequence[np.ndarray]) -> tuple[list[str], Tensor]:
    """Captions, and from the same passes over the prompts the activations at the image tokens, (B, L, P, D)."""
    model, site = study.model, study.profile.identification.site
    seen: list[list[Tensor]] = [[] for _ in range(model.n_layers)]

    def look(layer: int) -> Edit:
        def unchanged(activations: Tensor, first_position: int) -> Tensor:
            if first_position == 0:  # the prompt, not a word of the caption
                seen[layer].append(activations[:, model.image_positions].detach())
            return activations

        return unchanged

    with intervene(model, {layer: look(layer) for layer in range(model.n_layers)}, site):
        captions = model.caption(images, study.profile.model.max_new_tokens)
    return captions, torch.stack([torch.cat(batches) for batches in seen], dim=1)
