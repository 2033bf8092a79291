"""What is told beside the table of rules: frames by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from book.thresholds import beside
from book.thresholds.rules import AUTOMATIC
from kn_core.profile import load_profile


def test_stability_is_told_with_the_bound_of_its_own():
    study = SimpleNamespace(
        profile=load_profile("embedded"), pooled=lambda _: {"delta": np.zeros((32, 2000))}
    )  # 400 ** 2 / (.5 * 64000)
    found = pd.DataFrame({"concept": ["bear", "bus"], "rule": "stability", "candidates": [30, 10]})
    said = beside.stability_in_words(study, found.assign(false_share=[0.5, 0.3]))
    assert "400 of 64,000 neurons, no more than 5.0 false ones are expected" in said
    assert "75% of the halves take, 25% of the 20 that it keeps" in said and said.endswith("estimates 40%.")
    none = found.assign(candidates=0, false_share=1.0)
    assert beside.stability_in_words(study, none).endswith("the halves take. It keeps none.")


def test_the_ranking_is_told_to_decide_where_it_does():
    found = pd.DataFrame({"rule": [AUTOMATIC, AUTOMATIC, "bh"], "kept": [80, 9, 90], "disturbed": [80, 9, 80]})
    assert beside.ranking_in_words(found).endswith("the ranking leaves out none.")
    assert beside.ranking_in_words(found.assign(kept=[81, 9, 90])).endswith("leave 1 of 2 concepts more than that.")
