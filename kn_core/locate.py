"""The method on one picture of your own: find the neurons behind a word of its caption, disturb them, look again.

    model = kn_core.load_model("embedded")
    picture = kn_core.open_picture("photo.jpg", word="dog", box=(10, 20, 300, 200))
    found = kn_core.find_neurons(model, picture)
    said = kn_core.perturb(model, picture, found.neurons)

A study pools some ten pictures of a concept before it holds their scores against thresholds. Here one pair is all
there is: the thresholds are quantiles of its own scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kn_core import drawing
from kn_core.concepts import ADJECTIVES, content_words, names, noun
from kn_core.fingerprint import writing
from kn_core.method import perturbation
from kn_core.method.capture import Target, find_target
from kn_core.method.heatmap import heatmap, mass_on_object
from kn_core.method.identification import RANKED_BY, found_by, score_pair, scores_of
from kn_core.method.interventions import Setting
from kn_core.method.rivals import integrated_gradients
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel, Site
from kn_core.pictures.inpaint import DILATION, take_out
from kn_core.pictures.sample import Sample
from kn_core.pictures.token_grid import cells
from kn_core.settings import Identification, Intervention, Positions, Threshold

SETTINGS = Identification(threshold_a=Threshold(quantile=0.95), threshold_g=Threshold(quantile=0.95))
METHODS = ("two-stage", *RANKED_BY)


class LocateError(ValueError):
    """The method does not apply to this picture and word; the message is one line that says why and what to do."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a method says of one picture."""

    picture: Sample
    inpainted: np.ndarray  # (h, w, 3) uint8
    caption: str
    caption_inpainted: str
    target: Target
    token: str  # the text of target.token, whose logit is scored
    threshold_a: float
    threshold_g: float
    n_neurons: int  # L * D
    n_candidates: int  # of them pass stage 1
    neurons: NeuronSet  # both stages, or what another method ranks highest; the best first
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
            f"which fills {self.picture.area_fraction:.0%} of the picture"
        )

    @property
    def word(self) -> str:
        """The object, as it stands within a sentence: 'the Dog' is 'dog', while 'TV' and 'Eiffel Tower' are names."""
        word = noun(self.picture.concept)
        return word.lower() if word[1:].islower() else word

    @property
    def scored(self) -> str:
        """Which token the scores are of, in a sentence, where it is not the whole word; else ''."""
        token, word = self.token.strip(), self.target.word
        return f"Scored is the logit of “{token}”, the first token of “{word}”." if token != word else ""

    def __str__(self) -> str:
        """Both captions, what passed, a line for each of the mapped neurons."""
        word = self.word
        without = f"without the {word}"
        lines = [f"{'caption':{len(without)}}  {self.caption}", f"{without}  {self.caption_inpainted}", ""]
        lines += [self.scored, ""] if self.scored else []
        if names(self.caption_inpainted, word):
            lines += [
                f"Warning: with the {word} painted over, the caption still names it. The paper would drop such a pair.",
                "Either the mask leaves some of the object (try --dilation), or the model has the word from elsewhere.",
                "",
            ]
        lines += [
            f"{self.n_candidates:,} of {self.n_neurons:,} neurons pass stage 1 (difference > {self.threshold_a:.3g}), "
            f"{len(self.neurons):,} of these stage 2 (GradCAM > {self.threshold_g:.3g})."
            if self.neurons.method == "two-stage"
            else f"The {len(self.neurons):,} of {self.n_neurons:,} neurons that {self.neurons.method} ranks highest.",
            *("", "rank  layer  unit      score   delta  promotes"),
        ]
        for rank, row in enumerate(self.table.head(self.n_mapped).itertuples(), start=1):
            place = f"{rank:4d}  {row.layer:5d}  {row.unit:4d}"
            lines.append(f"{place}  {row.score:9.5f}  {row.delta:6.3f}  {row.top_tokens}")
        return "\n".join([*lines, "", f"{self.finding}."])

    def plot(self) -> Figure:
        """The picture with the object's outline, the picture without it, and the heatmap on the model's token grid."""
        image, word = self.picture.image, self.word
        height, width = image.shape[:2]
        shape = float(np.clip(height / width, 0.4, 1.8))  # of a panel: a narrow strip of a picture is stretched
        with drawing.theme():
            figure = Figure(figsize=(drawing.WIDTH, drawing.WIDTH / 3 * shape + 1.2))
            drawing.title(figure, self.finding)
            original, without, heat = figure.subplots(1, 3)
            drawing.picture(original, image, f"“{self.caption}”", self.picture.mask)
            drawing.picture(without, self.inpainted, f"“{self.caption_inpainted}”")
            drawing.heatmap(heat, image, self.heatmap, mask=self.picture.mask)
            rows, columns = self.heatmap.shape
            meaning = f"mean contribution to the logit of “{self.target.word}”, on {rows} × {columns} cells"
            heat.set_xlabel(drawing.wrapped(heat, meaning), loc="left", parse_math=False)
            figure.colorbar(heat.images[-1], cax=heat.inset_axes((1.03, 0, 0.035, 1)))
            best = f"Its {self.n_mapped} best neurons" if self.n_mapped > 1 else "Its best neuron"
            headings = ("The picture", f"Without the {word}", best)
            for ax, heading in zip((original, without, heat), headings, strict=True):
                ax.set_title(heading, fontsize=10, fontweight="normal", parse_math=False)
                ax.set_aspect("auto")
                ax.set_box_aspect(shape)
        return figure

    def save(self, folder: str | Path) -> list[Path]:
        """Write heatmap.png, heatmap.svg and neurons.csv (every neuron of the set), each whole or not at all."""
        paths = [Path(folder) / name for name in ("heatmap.png", "heatmap.svg", "neurons.csv")]
        figure = self.plot()
        with drawing.theme():
            for path, dateless in zip(paths[:2], ({}, {"Date": None}), strict=True):  # an SVG is the same on every run
                metadata = {"Title": self.finding, **dateless}
                with writing(path) as temporary:
                    figure.savefig(temporary, format=path.suffix[1:], bbox_inches="tight", metadata=metadata)
        with writing(paths[2]) as temporary:
            self.table.to_csv(temporary, index=False)
        return paths


def find_neurons(
    model: CaptionModel,
    picture: Sample,
    *,
    inpaint: str | None = None,
    dilation: int = DILATION,
    method: str = "two-stage",
    settings: Identification = SETTINGS,
    top: int = 10,
    max_new_tokens: int = 24,
    step: Callable[[str], object] = str,
) -> Found:
    """The neurons behind a picture's word: stages 1 and 2 of section II-C, or an earlier method, on this pair alone.

    Both pictures are captioned, the one without its object painted by `take_out`. `method` is one of `METHODS`; all but
    'two-stage' rank every neuron, of which the best `settings.budget` are kept. The heatmap is that of the `top` best.
    Cost: two captions, two forward passes, one backward pass; `step` is told which begins, 'captions' or 'scores'.

    Raises LocateError where the caption does not name the word, or no neuron passes both stages.

    >>> found = find_neurons(model, picture)
    >>> found.table[["layer", "unit", "score"]].head(3).shape
    (3, 3)
    >>> found.heatmap.shape == model.grid
    True
    """
    _check(model, picture)
    if method not in METHODS:
        raise LocateError(f"method must be one of {', '.join(METHODS)}. Got '{method}'.")
    word, inpainted = picture.concept, take_out(picture, inpaint, dilation)
    step("captions")
    caption, caption_inpainted = model.caption([picture.image, inpainted], max_new_tokens)
    step("scores")
    target = _named(model, picture, caption)
    maps = model.token_maps([picture.image])[0]  # (P, rows * columns)
    pair, stages = score_pair(model, picture.image, inpainted, caption, target, picture.mask, maps, settings)
    scores = scores_of(model, pair, target, stages)  # (L, D) each
    if method == "dai":
        scores["dai"] = integrated_gradients(model, picture.image, caption, target)
    delta, gradcam = scores["delta"], scores["gradcam"]
    if not (np.isfinite(delta).all() and np.isfinite(gradcam).all()):
        raise LocateError(
            f"{picture.image_id}: some neurons' scores are no finite numbers: the model's overflow. Load it in "
            "bfloat16, or float32, instead of float16."
        )
    limits = {
        "delta": float(np.quantile(delta, settings.threshold_a.quantile)),
        "gradcam": float(np.quantile(gradcam, settings.threshold_g.quantile)),
    }
    neurons = found_by(method, word, scores, limits, settings)
    if not len(neurons):
        raise LocateError(
            f"{picture.image_id}: no neuron passes both stages (difference above {limits['delta']:.3g}, GradCAM above "
            f"{limits['gradcam']:.3g}). Choose settings, or a profile, with lower quantiles."
        )
    neurons = neurons if method == "two-stage" else neurons.top(settings.budget)
    mapped = neurons.top(top)
    heat = heatmap(pair.gradcam, mapped, model.grid, maps)
    at = (neurons.layers, neurons.units)
    table = pd.DataFrame({"concept": word, "layer": at[0], "unit": at[1], "rank": np.arange(len(neurons))})
    table = table.assign(score=neurons.scores, delta=delta[at], gradcam=gradcam[at])
    tokens = model.top_tokens(neurons.layers.tolist(), neurons.units.tolist())
    table["top_tokens"] = [" ".join(map(repr, row)) for row in tokens]
    return Found(
        *(picture, inpainted, caption, caption_inpainted, target, model.token(target.token)),
        *(limits["delta"], limits["gradcam"]),
        n_neurons=delta.size,
        n_candidates=int((delta > limits["delta"]).sum()),
        neurons=neurons,
        table=table,
        heatmap=heat,
        n_mapped=len(mapped),
        share=mass_on_object(heat, cells(picture.mask, model.grid)),
    )


def perturb(
    model: CaptionModel,
    picture: Sample,
    neurons: NeuronSet,
    *,
    kind: Intervention = "noise",
    n: int = 80,
    sigma: float = 3.0,
    positions: Positions = "image",
    seeds: int = 1,
    inpaint: str | None = None,
    dilation: int = DILATION,
    max_new_tokens: int = 24,
) -> pd.DataFrame:
    """What the model says of a picture while the `n` best neurons are disturbed (section II-D): a row a seed.

    `kind` is noise of `sigma` activation units, zero, patch (the activations without the object, painted by `take_out`)
    or weights (noise of `sigma` root mean squares on what a neuron writes); `positions` image, text or all. Columns
    kind, positions, n, sigma, seed, clean_caption, caption, target_present, clean_probability, target_probability (of
    the word's first token, teacher-forced), retained (share of the other content words), retained_probability,
    repetition, clean_perplexity, perplexity (of the caption without a picture).

    Raises LocateError where the clean caption does not name the word; for `kind` 'mean', which needs other concepts'
    pictures (see `Study`); and for more neurons than there are.

    >>> said = perturb(model, picture, find_neurons(model, picture).neurons, n=4, seeds=2)
    >>> said["seed"].tolist()
    [0, 1]
    """
    _check(model, picture)
    if not isinstance(neurons, NeuronSet):
        given = type(neurons).__name__
        raise TypeError(f"neurons must be a NeuronSet, such as find_neurons(...).neurons. Got {given}.")
    if kind == "mean":
        raise LocateError("'mean' puts in what other concepts' pictures give: it needs a Study. Take another kind.")
    if not 1 <= n <= len(neurons):
        raise LocateError(f"n must be 1 to {len(neurons)}, as many neurons as there are. Got {n}.")
    where: Positions = "all" if kind == "weights" else positions
    strength = sigma if kind in ("noise", "weights") else math.nan
    (caption,) = model.caption([picture.image], max_new_tokens)
    without = take_out(picture, inpaint, dilation) if kind == "patch" else picture.image
    named, prompts = _named(model, picture, caption), model.prompts([picture.image, without])
    shown = perturbation.Picture(  # held out, choosing no dose, swept
        picture.image_id, picture.concept, caption, named, True, False, True, prompts[0], prompts[1]
    )
    site: Site = "product" if kind == "patch" else "activation"
    each = [Setting(kind, where, n, strength, seed, site) for seed in range(seeds)]
    trials = [perturbation.Trial(neurons, one, "fresh") for one in each]
    said = perturbation.run(model, [shown], trials, None, max_new_tokens)
    same = ["concept", "method", "image_id", "image_concept", "heldout", "truths", "retained_truth"]
    return said.drop(columns=same).rename(columns={"intervention": "kind"})


def _check(model: CaptionModel, picture: Sample) -> None:
    if not isinstance(model, CaptionModel):
        raise TypeError(f"model must be what load_model gives. Got {type(model).__name__}.")
    if not isinstance(picture, Sample):
        given = type(picture).__name__
        raise TypeError(f"picture must be what open_picture gives, which says where the object is. Got {given}.")


def _named(model: CaptionModel, picture: Sample, caption: str) -> Target:
    """Where the caption names the picture's word. Raises LocateError where it does not."""
    target = find_target(model, caption, picture.concept)
    if target is None:
        held = dict.fromkeys(word for word in content_words(caption) if word not in ADJECTIVES)
        instead = f"Ask for a word that it holds: {', '.join(held)}." if held else "It holds no word to ask for."
        what = f"the caption is '{caption}', which does not name '{picture.concept}'"
        raise LocateError(f"{picture.image_id}: {what}. {instead}")
    return target
