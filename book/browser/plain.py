"""The neuron browser's page: what its scripts fill, and the same as plain tables for whoever has none."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from book.browser import records, shards
from book.press.neuron_links import BROWSER, CODE
from book.words import NotRun
from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments.heatmaps import shown
from kn_core.study.study import Study, StudyError

HERE = Path(__file__).parent


def made(study: Study, concept: str | None = None) -> tuple[dict[str, str], str]:
    """Write the shards; words for the page's text, and the page itself. Raises NotRun where there is nothing to show."""
    if concept:
        raise NotRun("the browser sets every concept beside the others", "doit section:neurons")
    try:
        return in_words(study, shards.write(study)), page(study)
    except StudyError as error:
        raise NotRun(str(error).removesuffix(".")) from error


def page(study: Study) -> str:
    """The browser as HTML, scripts named but not held; tables are open until a script closes them."""
    style = f'<link rel="stylesheet" href="{BROWSER}/browser.css">'
    scripts = "".join(f'<script src="{BROWSER}/{name}"></script>' for name in (*CODE[:3], "core.js"))
    skeleton = (HERE / "browser.html").read_text(encoding="utf-8")
    return "\n".join([style, skeleton, *tables(study), scripts])


def tables(study: Study) -> Iterable[str]:
    """Everything that the browser shows as plain tables, each in a fold that stands open."""
    concepts, sets = study.studied(), records.sets(study)
    measured = {concept: records.measures(study, concept) for concept in concepts}
    effects = {concept: records.exact(study, concept).set_index(["layer", "unit"]) for concept in concepts}
    promoted = records.promoted(study)
    for method in list(sets)[:2]:
        rows, held = [], _held(sets[method].values())
        for concept, neurons in sets[method].items():
            for rank, at in enumerate(zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True), start=1):
                scores = [_digits(measured[concept][name][at]) for name in records.MEASURES]
                known = effects[concept]
                exact = [_digits(known.loc[at, name]) if at in known.index else "" for name in ("removed", "patched")]
                said = " ".join(token.replace(" ", "␣").replace("\n", "⏎") for token in promoted.get(at, [])[:3])
                rows.append([concept, rank, f"L{at[0]}/{at[1]}", held[at], *scores, *exact, said])
        heads = ["concept", "rank", "neuron", "sets", "gradient", "difference", "gradient, summed", "third stage"]
        heads += ["taken out", "as without the object", "promotes"]
        yield _fold(f"The best neurons by {records.said(method)}", heads, rows)
    for method, matrix in records.silencing(study).items():
        rows = [
            [name, *(f"{share:.0%}" if share == share else "" for share in row)]
            for name, row in zip(concepts, matrix, strict=True)
        ]
        yield _fold(
            f"Whose set takes whose word, {records.said(method)}: share of its probability", ["set of", *concepts], rows
        )
    told = records.captions(study, {concept: shown(study, concept) for concept in concepts})
    rows = [
        [
            row.image_id,
            row.concept,
            records.said(row.method),
            f"{row.intervention}, {row.n}{_sigma(row.sigma)}",
            row.caption,
            f"{row.before:.2f} → {row.after:.2f}",
        ]
        for row in told.sort_values("image_id", kind="stable").itertuples()
    ]
    yield _fold(
        "What is said with a set disturbed", ["picture", "set of", "chosen by", "done", "caption", "word"], rows
    )


def in_words(study: Study, sizes: dict[str, int]) -> dict[str, str]:
    """What the page says of itself."""
    sets = records.sets(study)
    held, concepts = {method: _held(sets[method].values()) for method in list(sets)[:2]}, len(study.studied())
    two, third = held.values()
    return {
        "neurons": f"{len(two)}",
        "places": f"{sum(two.values())}",
        "shared": f"{sum(count == concepts for count in two.values())}",
        "own": f"{sum(count == 1 for count in two.values())}",
        "third": f"{len(third)}",
        "third-own": f"{sum(count == 1 for count in third.values())}",
        "concepts": f"{concepts}",
        "megabytes": f"{sum(sizes.values()) / 1e6:.1f}",
    }


def _held(sets: Iterable[NeuronSet]) -> dict[tuple[int, int], int]:
    """How many of the sets hold each neuron."""
    counts: dict[tuple[int, int], int] = {}
    for neurons in sets:
        for at in zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True):
            counts[at] = counts.get(at, 0) + 1
    return counts


def _digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}"


def _sigma(sigma: float) -> str:
    return "" if np.isnan(sigma) else f", σ {sigma:g}"


def _fold(heading: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    fold = f'<details class="knb-plain" open><summary>{html.escape(heading)}</summary><div tabindex="0" role="region"'
    return f'{fold} aria-label="{html.escape(heading)}"><table><thead><tr>{head}<tbody>{body}</table></div></details>'
