"""The neuron browser's page: what its scripts fill, and the same as plain tables for whoever has none."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from book.browser import controls, records, shards
from book.browser.records import Records
from book.browser.shards import FIRST
from book.press.neuron_links import BROWSER, CODE
from book.words import NotRun
from kn_core.method.two_stages import NeuronSet
from kn_core.study.study import Study, StudyError


def made(study: Study, concept: str | None = None) -> tuple[dict[str, str], str]:
    """Write the shards; words for the page's text, and the page. Raises NotRun where there is nothing to show."""
    if concept:
        raise NotRun("the browser sets every concept beside the others", "doit section:neurons")
    try:
        found = records.read(study)
        sizes = shards.write(found, study.folder / BROWSER)
    except StudyError as error:
        raise NotRun(str(error).removesuffix(".")) from error
    return in_words(found) | {"megabytes": f"{sum(sizes.values()) / 1e6:.1f}"}, page(found)


def page(found: Records) -> str:
    """The browser as HTML, scripts named but not held; its tables are open until a script closes them."""
    style = f'<link rel="stylesheet" href="{BROWSER}/browser.css">'
    scripts = "".join(f'<script src="{BROWSER}/{name}"></script>' for name in (*CODE[:-1], "core.js"))
    return "\n".join([style, controls.form(found), *tables(found), scripts])


def tables(found: Records) -> Iterable[str]:
    """Everything that the browser shows as plain tables, each in a fold that stands open."""
    for method in FIRST:
        yield _fold(f"The best neurons by {records.said(method)}", NEURON, list(_best(found, method)))
    for method, matrix in found.silencing.items():
        shares = [["" if np.isnan(share) else f"{share:.0%}" for share in row] for row in matrix]
        rows = [[name, *row] for name, row in zip(found.concepts, shares, strict=True)]
        heading = f"Whose set takes whose word, {records.said(method)}: share of its probability"
        yield _fold(heading, ["set of", *found.concepts], rows)
    told = found.captions.sort_values("image_id", kind="stable")
    n = told["n"].map(lambda n: "" if n == found.budget else f", {n}")  # said where it is not every set's
    done = told["method"].map(records.said) + ": " + told["intervention"] + n + told["sigma"].map(_sigma)
    word = told["before"].map("{:.2f} → ".format) + told["after"].map("{:.2f}".format)
    columns = (told["image_id"], told["concept"], done, told["caption"], word)
    heads = ["picture", "set of", "done", "caption", "its word’s probability"]
    yield _fold("What is said with a set disturbed", heads, list(zip(*columns, strict=True)))


NEURON = ["concept", "rank", "neuron", "sets", "gradient", "difference", "gradient, summed", "third stage"]
NEURON += ["taken out", "as without the object", "promotes"]


def _best(found: Records, method: str) -> Iterator[list[object]]:
    """A row a concept and neuron of its set, under `NEURON`."""
    held = _held(found.sets[method].values())
    for concept, neurons in found.sets[method].items():
        known = found.exact[concept].set_index(["layer", "unit"])
        for rank, at in enumerate(zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True), start=1):
            scores = [_digits(found.measured[concept][name][at]) for name in records.MEASURES]
            exact = [_digits(known.loc[at, name]) if at in known.index else "" for name in ("removed", "patched")]
            promotes = " ".join(found.promoted.get(at, [])[:2]).replace("\n", "⏎")
            yield [concept, rank, f"L{at[0]}/{at[1]}", held[at], *scores, *exact, promotes]


def in_words(found: Records) -> dict[str, str]:
    """What the page says of the sets."""
    two, third = (_held(found.sets[method].values()) for method in FIRST)
    alone = sum(count == 1 for count in third.values())
    return {
        "neurons": f"{len(two)}",
        "places": f"{sum(two.values())}",
        "shared": f"{sum(count == len(found.concepts) for count in two.values())}",
        "own": f"{sum(count == 1 for count in two.values())}",
        "third": f"{len(third)}",
        "third-own": "all are" if alone == len(third) else f"{alone} are",
        "concepts": f"{len(found.concepts)}",
    }


def _held(sets: Iterable[NeuronSet]) -> dict[tuple[int, int], int]:
    """How many of the sets hold each neuron."""
    counts: dict[tuple[int, int], int] = {}
    for neurons in sets:
        for at in zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True):
            counts[at] = counts.get(at, 0) + 1
    return counts


def _digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2g}"


def _sigma(sigma: float) -> str:
    return "" if np.isnan(sigma) else f", σ {sigma:g}"


def _fold(heading: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = ""
    for first, group in groupby(rows, key=itemgetter(0)):  # said once: the page is to stay light
        same = list(group)
        begin = f'<td rowspan="{len(same)}">{html.escape(str(first))}</td>'
        for row in same:
            body += f"<tr>{begin}" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row[1:]) + "</tr>"
            begin = ""
    fold = f'<details class="knb-plain" open><summary>{html.escape(heading)}</summary><div tabindex="0" role="region"'
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'{fold} aria-label="{html.escape(heading)}">{table}</div></details>'
