"""The two stages on one picture of a reader's own: `python -m kn_core locate photo.jpg --mask mask.png --word dog`.

A study pools some ten pictures of a concept before it holds their scores against thresholds. Here one pair is all
there is: the thresholds are the profile's quantiles of its own scores; those set by hand for a concept do not apply.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from kn_core import drawing
from kn_core.concepts import ADJECTIVES, content_words, names
from kn_core.fingerprint import writing
from kn_core.method.capture import Target, find_target
from kn_core.method.heatmap import heatmap, mass_on_object
from kn_core.method.identification import score_pair
from kn_core.method.two_stages import NeuronSet, identify
from kn_core.models.base import CaptionModel
from kn_core.pictures.diffusion_pipeline import DiffusionError
from kn_core.pictures.image_files import box_mask, open_mask, open_picture
from kn_core.pictures.inpaint import inpaint
from kn_core.pictures.sample import Sample
from kn_core.pictures.token_grid import cells
from kn_core.profile import Profile

Box = tuple[float, float, float, float]

# Pixels a side. Inpainting more than this costs minutes, and the model looks at 256 x 256 of them.
MAX_SIDE = 1024
# Pixels, for photographs under a profile that renders scenes: a drawn mask misses an object's soft edge and its shadow.
DILATION = 8


class LocateError(ValueError):
    """The method does not apply to this picture and word; the message is one line that says why and what to do."""


@dataclass(frozen=True, eq=False)
class Located:
    """What both stages say of one picture."""

    sample: Sample
    inpainted: np.ndarray  # (h, w, 3) uint8
    caption: str
    caption_inpainted: str
    target: Target
    threshold_a: float
    threshold_g: float
    n_neurons: int  # L * D
    n_candidates: int  # of them pass stage 1
    neurons: NeuronSet  # and these both stages, the best first
    table: pd.DataFrame  # the same: concept, layer, unit, rank, score, delta, gradcam, top_tokens
    heatmap: np.ndarray  # (rows, columns) of image tokens: g_c, mean over the `n_mapped` best neurons
    n_mapped: int
    share: float  # of the heatmap's positive part that lies inside the mask; NaN where no cell is positive

    @property
    def finding(self) -> str:
        """What the heatmap shows, in a sentence."""
        best = f"{self.n_mapped} best neurons add" if self.n_mapped > 1 else "best neuron adds"
        if math.isnan(self.share):
            return f"The {best} nothing to “{self.target.word}” at any image token, taken together"
        return (
            f"{self.share:.0%} of what the {best} to “{self.target.word}” is added on the object, "
            f"{self.sample.area_fraction:.0%} of the picture"
        )


def open_sample(photo: Path, word: str, marked: Path | Box) -> Sample:
    """A picture whose object, named `word`, is marked by a mask file or by a box (x, y, width, height) in its pixels.

    A picture of more than `MAX_SIDE` pixels a side is scaled down to that, and its mask with it. Raises PictureError,
    and LocateError for a mask that is too small to survive this.
    """
    image = open_picture(photo)
    height, width = image.shape[:2]
    mask = open_mask(marked, (height, width)) if isinstance(marked, Path) else box_mask(marked, (height, width))
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        image = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
        mask = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5  # share of the area
        if not mask.any():
            raise LocateError(
                f"{photo}: scaled down to {size[1]} x {size[0]} pixels, nothing is left of the mask. The object is too "
                "small for the model, which looks at fewer still: crop the picture around it."
            )
    return Sample(photo.name, word, image, mask)


def take_out(sample: Sample, profile: Profile, method: str | None = None, dilation: int | None = None) -> np.ndarray:
    """The picture without its object, (h, w, 3) uint8: as asked, else as the profile does it.

    Where the profile renders scenes again, which no photograph allows, it is Telea with `DILATION`. Raises LocateError.
    """
    own = profile.inpainting
    drawn = own.method == "exact"
    method = method or ("telea" if drawn else own.method)
    dilation = dilation if dilation is not None else (DILATION if drawn else own.dilation)
    try:
        inpainted = inpaint(sample, method, dilation, own.diffusion)
    except (ValueError, DiffusionError) as error:
        raise LocateError(str(error)) from None
    if np.array_equal(inpainted, sample.image):
        raise LocateError(f"{sample.image_id}: painted over, the object looks as before. Is the mask on the object?")
    return inpainted


def locate(model: CaptionModel, sample: Sample, inpainted: np.ndarray, profile: Profile, top: int = 10) -> Located:
    """Caption both pictures, then stages 1 and 2 on this pair alone; the heatmap is that of the `top` best neurons.

    Raises LocateError where the caption does not name the word, or no neuron passes.
    """
    word, settings = sample.concept, profile.identification
    caption, caption_inpainted = model.caption([sample.image, inpainted], profile.model.max_new_tokens)
    target = find_target(model, caption, word)
    if target is None:
        held = dict.fromkeys(w for w in content_words(caption) if w not in ADJECTIVES)
        instead = f"Ask for a word that it holds: {', '.join(held)}." if held else "It holds no word to ask for."
        raise LocateError(f"{sample.image_id}: the caption is '{caption}', which does not name '{word}'. {instead}")
    inside = cells(sample.mask, model.grid)  # (rows, columns)
    maps = model.token_maps([sample.image])[0]  # (P, rows * columns)
    on_object = maps.numpy() @ inside.ravel() > 0.5  # (P,)
    if settings.over_positions == "mask" and not on_object.any():
        raise LocateError(
            f"{sample.image_id}: the object fills no image token by half, and the profile '{profile.name}' reads only "
            "such tokens (over_positions: mask). Crop the picture around the object, or choose another profile."
        )
    pair, scores = score_pair(model, sample.image, inpainted, caption, target, sample.mask, maps, settings)
    delta, gradcam = scores["delta"], scores["gradcam"]
    threshold_a = float(np.quantile(delta, settings.threshold_a.quantile))
    threshold_g = float(np.quantile(gradcam, settings.threshold_g.quantile))
    neurons = identify(word, delta, gradcam, threshold_a, threshold_g, settings.rank_by)
    if not len(neurons):
        raise LocateError(
            f"{sample.image_id}: no neuron passes both stages (difference above {threshold_a:.3g}, GradCAM above "
            f"{threshold_g:.3g}). Choose a profile with lower quantiles than '{profile.name}'."
        )
    mapped = neurons.top(top)
    heat = heatmap(pair.gradcam, mapped, model.grid, maps)
    at = (neurons.layers, neurons.units)
    table = pd.DataFrame({"layer": neurons.layers, "unit": neurons.units, "rank": np.arange(len(neurons))})
    table = table.assign(score=neurons.scores, delta=delta[at], gradcam=gradcam[at])
    tokens = model.top_tokens(neurons.layers.tolist(), neurons.units.tolist())
    table["top_tokens"] = [" ".join(map(repr, row)) for row in tokens]
    table.insert(0, "concept", word)
    return Located(
        sample,
        inpainted,
        caption,
        caption_inpainted,
        target,
        threshold_a,
        threshold_g,
        n_neurons=delta.size,
        n_candidates=int((delta > threshold_a).sum()),
        neurons=neurons,
        table=table,
        heatmap=heat,
        n_mapped=len(mapped),
        share=mass_on_object(heat, inside),
    )


def describe(found: Located) -> str:
    """The finding as plain text: both captions, what passed, a line for each of the mapped neurons."""
    word = found.sample.concept
    without = f"without the {word}"
    lines = [f"{'caption':{len(without)}}  {found.caption}", f"{without}  {found.caption_inpainted}", ""]
    if names(found.caption_inpainted, word):
        lines += [
            f"Warning: with the {word} painted over, the caption still names it. The paper would drop such a pair.",
            "Either the mask leaves some of the object (try --dilation), or the model has the word from elsewhere.",
            "",
        ]
    lines += [
        f"{found.n_candidates:,} of {found.n_neurons:,} neurons pass stage 1 (difference > {found.threshold_a:.3g}), "
        f"{len(found.neurons):,} of these stage 2 (GradCAM > {found.threshold_g:.3g}).",
        "",
        "rank  layer  unit      score   delta  promotes",
    ]
    for rank, row in enumerate(found.table.head(found.n_mapped).itertuples(), start=1):
        place = f"{rank:4d}  {row.layer:5d}  {row.unit:4d}"
        lines.append(f"{place}  {row.score:9.5f}  {row.delta:6.3f}  {row.top_tokens}")
    return "\n".join([*lines, "", f"{found.finding}."])


def save(found: Located, folder: Path) -> list[Path]:
    """Write heatmap.png, heatmap.svg and neurons.csv (every neuron that passed), each whole or not at all."""
    paths = [folder / name for name in ("heatmap.png", "heatmap.svg", "neurons.csv")]
    with drawing.theme():
        figure = draw(found)
        for path, dateless in zip(paths[:2], ({}, {"Date": None}), strict=True):  # an SVG is the same on every run
            metadata = {"Title": found.finding, **dateless}
            with writing(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], bbox_inches="tight", metadata=metadata)
    with writing(paths[2]) as temporary:
        found.table.to_csv(temporary, index=False)
    return paths


def draw(found: Located) -> Figure:
    """The picture with the object's outline, the picture without it, and the heatmap on the model's own token grid.

    To be called, and the figure saved, within `plots.theme()`.
    """
    image, word = found.sample.image, found.sample.concept
    height, width = image.shape[:2]
    shape = float(np.clip(height / width, 0.4, 1.8))  # of a panel: a narrow strip of a picture is stretched
    figure = Figure(figsize=(1.6 * drawing.WIDTH, 0.5 * drawing.WIDTH * shape + 1))
    drawing.title(figure, found.finding)
    original, without, heat = figure.subplots(1, 3)
    drawing.picture(original, image, f"“{found.caption}”", found.sample.mask)
    drawing.picture(without, found.inpainted, f"“{found.caption_inpainted}”")
    drawing.heatmap(heat, image, found.heatmap, mask=found.sample.mask)
    rows, columns = found.heatmap.shape
    meaning = f"mean contribution to the logit of “{found.target.word}”\non {rows} × {columns} cells"
    heat.set_xlabel(meaning, loc="left", parse_math=False)
    figure.colorbar(heat.images[-1], cax=heat.inset_axes((1.03, 0, 0.035, 1)))
    best = f"Its {found.n_mapped} best neurons" if found.n_mapped > 1 else "Its best neuron"
    for ax, heading in zip((original, without, heat), ("The picture", f"Without the {word}", best), strict=True):
        ax.set_title(heading, fontsize=10, fontweight="normal", parse_math=False)
        ax.set_aspect("auto")
        ax.set_box_aspect(shape)
    return figure
