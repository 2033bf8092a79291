"""What is told beside the table of rules: what stability promises by itself, and where the ranking decides a set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from book.thresholds.rules import AUTOMATIC
from kn_core.method.thresholds import expected_false
from kn_core.study.study import Study


def stability_in_words(study: Study, rules: pd.DataFrame) -> str:
    """Shah & Samworth's bound on the false ones that stability keeps, beside the estimate by exchange.

    `rules` as of `null_thresholds.rules` of all concepts.
    """
    settings, of_rule = study.profile.rules, rules[rules["rule"] == "stability"]
    neurons = study.pooled(of_rule["concept"].iloc[0])["delta"].size
    bound = expected_false(settings.best, neurons, settings.stable)
    promise = (
        f"Stability has a bound of its own: where each half takes {settings.best:,} of {neurons:,} neurons, no more "
        f"than {bound:.1f} false ones are expected among those that {settings.stable:.0%} of the halves take"
    )
    kept, exchanged = of_rule["candidates"], of_rule["false_share"][of_rule["candidates"] > 0].mean()
    if np.isnan(exchanged):
        return f"{promise}. It keeps none."
    return (
        f"{promise}, {min(1, bound / kept.mean()):.0%} of the {kept.mean():.0f} that it keeps a concept. The bound "
        "calls false what halves choose no more often than by chance; the exchange, which counts what answers to a "
        f"decoy, estimates {exchanged:.0%}."
    )


def ranking_in_words(rules: pd.DataFrame) -> str:
    """For how many concepts the ranking decides what automatic thresholds disturb; `rules` as of `rules.of_all`."""
    of_rule = rules[rules["rule"] == AUTOMATIC]
    more = int((of_rule["kept"] > of_rule["disturbed"]).sum())
    if not more:
        return "Automatic thresholds leave no concept more than that, so that of these the ranking leaves out none."
    return f"Automatic thresholds leave {more} of {len(of_rule)} concepts more than that."
