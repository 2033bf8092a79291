"""One concept's study on a reader's own pictures as one HTML file of the book's look: opens from disk, asks no host."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from book import pictures, tables
from book.ceiling import curves as carried
from book.ceiling import figures as ceiling_figures
from book.data_filtering import pairs as made_pairs
from book.perturbation import captions, figures, methods, readings, references
from book.stages import layer_figures, neurons
from kn_core.concepts import slug
from kn_core.drawing import WIDTH, figure_of, theme
from kn_core.fingerprint import writing
from kn_core.measures.metrics import headline
from kn_core.measures.summaries import main_retention, perplexity_limit
from kn_core.method.filtering import explain
from kn_core.study.own import OwnStudy, kept

HERE = Path(__file__).parent
STYLES = (HERE / "page.css", HERE.parent / "_static" / "kn.css")


def render(own: OwnStudy) -> Path:
    """Write `<concept>.html` beside the study's tables, and the tables that it shows among them; its path.

    Where too few pairs were kept, or something else is lacking, the page says so and shows what there is.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    with theme(), mpl.rc_context({"backend": "agg", "svg.fonttype": "path"}):
        shown = _pairs(own) | ({} if own.lacking else _neurons(own) | _noise(own) | _curves(own))
    style = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)
    said = template.render(shown | {"style": style, "lacking": own.lacking})
    path = own.folder / f"{slug(own.concept)}.html"
    with writing(path) as temporary:
        temporary.write_text(said, encoding="utf-8")
    return path


def _pairs(own: OwnStudy) -> dict[str, Any]:
    study, profile, concept = own.study, own.profile, own.concept
    frame = study.pairs(concept)
    funnel = made_pairs.attrition(frame, profile.filtering.constraints).drop(columns="concept")
    kept(own.folder, "attrition", funnel)
    told = funnel["constraint"].map(lambda name: name if name == "looked at" else explain(name, profile.filtering))
    examples = made_pairs.kept_examples(study, [concept]) if frame["kept"].any() else []
    examples = examples or made_pairs.rejected_examples(study, [concept])
    model = profile.model.model_dump()
    return {
        "concept": concept,
        "pictures": len(own.shown),
        "looked": len(frame),
        "kept": int(frame["kept"].sum()),
        "select": int((frame["role"] == "select").sum()),
        "held": int((frame["role"] == "held_out").sum()),
        "notes": [*own.notes, *own.unusable()],
        "attrition": _table(funnel.assign(constraint=told), "Pictures that are left after each constraint"),
        "examples": _picture(pictures.examples(examples), "webp", "Pictures, their objects outlined, and without them")
        if examples
        else "",
        "model": model.get("checkpoint") or f"{model['tower']}, {model['projection']}, {model['decoder']}",
        "inpainting": f"{profile.inpainting.method}, mask grown by {profile.inpainting.dilation} pixels",
        "version": version("kn-core"),
    }


def _neurons(own: OwnStudy) -> dict[str, Any]:
    study, concept = own.study, own.concept
    two_stage = study.neurons(concept).query("method == 'two-stage'")
    best = two_stage.head(own.profile.identification.budget)
    passed = neurons.thresholds(study, [concept]).drop(columns="concept")
    _, ax = plt.subplots(figsize=(WIDTH, 2.8))
    both = neurons.mapped(study, [concept], ["kept", "kept gradient"], n=3)
    single = neurons.mapped_singly(study, [concept], "best kept", n=3)
    maps = [(sample, [*two, ones[0]]) for (sample, two), (_, ones) in zip(both, single, strict=True)]
    headings = ["difference", "gradient score", "best neuron"]
    heat = pictures.gallery(maps, headings, "share of each map's largest", shared=False)
    layers = layer_figures.layer_scatter(best, study.n_layers, ax)
    return {
        "budget": len(best),
        "thresholds": _table(passed, "How many neurons each stage leaves"),
        "best": _html(neurons.neuron_table(best.head(10), "The ten best neurons")),
        "layers": _picture(layers, "svg", "Score of each of the best neurons against its layer"),
        "heatmaps": _picture(heat, "webp", "Pictures with maps over them of where the neurons answer"),
    }


def _noise(own: OwnStudy) -> dict[str, Any]:
    study, profile, concept = own.study, own.profile, own.concept
    frame, settings = study.perturbations(concept), profile.perturbation
    limit, retention = perplexity_limit(frame), main_retention(frame)
    against = readings.against_random(frame, profile).dropna(subset=["two_stage"])
    kept(own.folder, "readings", against)
    bounds = references.bounds(frame, limit)
    compared = methods.compare(headline(frame, profile), limit, floor=bounds)
    kept(own.folder, "methods", compared)
    shown = ("suppression", "suppression_probability", retention, "fluent")
    said = captions.table_1(study.pairs(concept), frame, profile, [concept], n=3)
    found = {
        "words": readings.in_words(readings.against_random(frame, profile), retention),
        "readings": _table(
            readings.for_readers(against, bounds).drop(columns="paper"),
            "Two-stage neurons against random ones of their layers",
        ),
        "methods": _html(tables.methods(compared, shown, "Every method and control, with 95 % intervals")),
        "captions": captions.cards(study, said),
        "intervention": settings.intervention,
        "sigma": f"{settings.sigma:g}",
        "draws": settings.draws,
        "dose": "",
    }
    if settings.intervention == "noise" and settings.sweep_sigma:
        dose = readings.curve(frame, profile, "sigma", ("two-stage", "random", "direction"))
        kept(own.folder, "dose", dose)
        drawn = figures.dose_response(dose, "sigma", settings.sigma, retention, bounds)
        found["dose"] = _picture(drawn, "svg", "Suppression, retention and fluency over the size of the noise")
    return found


def _curves(own: OwnStudy) -> dict[str, Any]:
    found = carried.Curves(own.study, [own.concept])
    points, ranked = carried.points(found), carried.table(found)
    kept(own.folder, "carried", points)
    drawn = ceiling_figures.curves(points, found.budget / found.able)
    return {
        "curves": _picture(drawn, "svg", "Share of the word's logit that sets of neurons carry, over their size"),
        "ranked": _table(carried.table_for_readers(ranked, found.budget), "What sets carry, with 95 % intervals"),
        "curve_pictures": len(found.y),
    }


def _table(frame: pd.DataFrame, caption: str) -> str:
    return _html(tables.table(frame, caption))


def _html(styled: Styler) -> str:
    return f'<div class="cell_output"><div class="output text_html">{styled.to_html()}</div></div>'


def _picture(drawn: Figure | Axes, kind: str, words: str) -> str:
    """A figure within the page; `words` say it to who cannot see it."""
    figure, file = drawn if isinstance(drawn, Figure) else figure_of(drawn), io.BytesIO()
    save: Callable[..., None] = figure.savefig
    how = {"metadata": {"Date": None}} if kind == "svg" else {"pil_kwargs": {"quality": 88}}
    save(file, format=kind, bbox_inches="tight", **how)
    plt.close(figure)
    mime = {"svg": "svg+xml"}.get(kind, kind)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/{mime};base64,{data}" alt="{html.escape(words)}">'
