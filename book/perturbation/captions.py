"""Table I: what the model says of a picture before and under noise. A rule chooses the pictures.

Words are marked by more than colour: the concept's is bold, a content word of the clean caption is underlined wherever
it stands, and those that a caption has lost follow it, struck through.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.pictures import data_address
from book.style import METHODS, methods_of
from kn_core.concepts import content_words, mention, names
from kn_core.measures.metrics import headline
from kn_core.profile import Profile
from kn_core.study.study import Study

# What a caption was written under; methods and controls are there as far as the run tried them.
TRIED = (*methods_of("ours", "stage", "rival"), "random")  # one random set is enough for an example
ROWS = {"clean": "clean", **{name: METHODS[name].label for name in TRIED}, "removed": "object removed instead"}
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # as `concepts.content_words` cuts a caption


def table_1(
    pairs: pd.DataFrame, perturbations: pd.DataFrame, profile: Profile, concepts: Sequence[str], n: int = 1
) -> pd.DataFrame:
    """Captions of each concept's first `n` held-out pictures, in the order of `ROWS`, under the first draw of noise.

    Columns concept, image_id, under (a key of `ROWS`), caption, named (whether it names the concept), clean_caption.
    """
    rows = headline(perturbations, profile)
    rows = rows[(rows["seed"] == 0) & (rows["concept"] == rows["image_concept"])]
    records = []
    for concept in concepts:
        own, pair = rows[rows["concept"] == concept], pairs[pairs["concept"] == concept].set_index("image_id")
        for image_id in own["image_id"].unique()[:n]:
            clean, removed = pair.loc[image_id, ["caption", "caption_inpainted"]]
            said = own[own["image_id"] == image_id].set_index("method")["caption"]
            captions = {"clean": clean, **said, "removed": removed}
            records += [
                (concept, image_id, under, captions[under], names(captions[under], concept), clean)
                for under in ROWS
                if under in captions
            ]
    return pd.DataFrame(records, columns=["concept", "image_id", "under", "caption", "named", "clean_caption"])


def cards(study: Study, examples: pd.DataFrame) -> str:
    """`table_1` as HTML: a card a picture, beside its captions."""
    made = []
    for _, rows in examples.groupby(["concept", "image_id"], sort=False):
        concept, image_id = rows[["concept", "image_id"]].iloc[0]
        made.append(_card(concept, rows, study.sample(concept, image_id).image))
    return "\n".join(made)


def marked(caption: str, clean: str, concept: str) -> str:
    """A caption as HTML: the concept's word <strong>, content words of the clean caption <u>, those it lost <s>."""
    counted = set(content_words(clean, without=concept))
    spans = dict.fromkeys(_mentions(caption, concept), "strong")
    inside = {place for start, end in spans for place in range(start, end)}
    for word in WORD.finditer(caption):
        if word.start() not in inside and re.sub(r"['’]s$", "", word.group().lower()) in counted:
            spans[word.span()] = "u"
    made, last = [], 0
    for (start, end), tag in sorted(spans.items()):
        made += [html.escape(caption[last:start]), f"<{tag}>{html.escape(caption[start:end])}</{tag}>"]
        last = end
    made.append(html.escape(caption[last:]))
    kept = set(content_words(caption, without=concept))
    lost = [html.escape(word) for word in dict.fromkeys(content_words(clean, without=concept)) if word not in kept]
    if not names(caption, concept):
        lost.insert(0, f"<strong>{html.escape(concept)}</strong>")
    gone = " ".join(f"<s>{word}</s>" for word in lost)
    return "".join(made) + (f' <span class="lost">lost: {gone}</span>' if gone else "")


def _mentions(caption: str, concept: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    while found := mention(caption[start:], concept):
        spans.append((start + found.start(), start + found.end()))
        start += found.end()
    return spans


def _card(concept: str, rows: pd.DataFrame, picture: np.ndarray) -> str:
    said = "".join(
        f"<dt>{ROWS[under]}</dt><dd>{'' if caption else '(nothing)'}{marked(caption, clean, concept)}</dd>"
        for under, caption, clean in zip(rows["under"], rows["caption"], rows["clean_caption"], strict=True)
    )
    words = html.escape(f"The picture of '{concept}' that these captions speak of: {rows['image_id'].iloc[0]}")
    return f'<div class="said"><img src="{data_address(picture)}" alt="{words}"><dl>{said}</dl></div>'
