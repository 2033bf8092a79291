"""Captions under noise held against texts: BLEU, ROUGE-L and BERTScore of each, scored once and kept."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kn_core.concepts import without_concept
from kn_core.fingerprint import code, fingerprint
from kn_core.measures import text
from kn_core.measures.metrics import TEXT
from kn_core.study.study import Study


def with_text(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with BLEU, ROUGE-L and BERTScore for suppression and retention (`metrics.TEXT`).

    NaN on others' pictures, and for the retention of a clean caption that names its concept and nothing else.

    Suppression is held against the caption of the picture without the object, retention against the clean caption
    without the concept's phrase (method.md 2). Each pair of texts is scored once and kept.
    """
    removed = study.pairs().set_index(["concept", "image_id"])["caption_inpainted"]
    own = rows[rows["concept"] == rows["image_concept"]]
    references = {
        "suppression": removed.loc[list(zip(own["concept"], own["image_id"], strict=True))].tolist(),
        "retention": [without_concept(*row) for row in zip(own["clean_caption"], own["concept"], strict=True)],
    }
    said = own["caption"].tolist()
    pairs = sorted({pair for each in references.values() for pair in zip(said, each, strict=True)})

    def compute() -> pd.DataFrame:
        captions, against = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        scores = {"bleu": text.bleu, "rouge": text.rouge_l, "bertscore": text.bertscore}
        measured = {name: score(captions, against) for name, score in scores.items()}
        return pd.DataFrame({"caption": captions, "reference": against} | measured)

    inputs = fingerprint(pairs, code(text.__name__))
    scored = study.store.table(f"texts-{fingerprint(pairs)}", inputs, compute)
    scored = scored.set_index(["caption", "reference"])
    columns: dict[str, np.ndarray] = {}
    for side, against in references.items():
        found = scored.loc[list(zip(said, against, strict=True))]
        columns |= {f"{name}_{side}": found[name].to_numpy() for name in found}
    nothing_else = own["retained"].isna().to_numpy()  # the clean caption names the concept alone: nothing to keep
    columns |= {name: np.where(nothing_else, np.nan, columns[name]) for name in TEXT if name.endswith("retention")}
    return rows.join(pd.DataFrame(columns, index=own.index)[list(TEXT)])
