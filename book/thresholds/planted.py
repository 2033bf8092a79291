"""The rules where the truth is known: what they keep of neurons that were planted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.thresholds.rules import label
from kn_core.method import planted_truth
from kn_core.study.experiments.null_thresholds import OWN
from kn_core.study.study import Study

COLUMNS = ["candidates", "false", "estimated", "found"]


def planted(study: Study) -> pd.DataFrame:
    """`planted_truth.held`, means over draws: columns rule, candidates, false, estimated, found; without raw ends."""
    settings = study.profile
    held = planted_truth.held(settings.rules, settings.identification.threshold_a.quantile)
    held = held[~held["rule"].str.startswith("raw")]  # in units of a model that there is none of
    return held.groupby("rule", sort=False)[COLUMNS].mean().reset_index()


def for_readers(study: Study, planted: pd.DataFrame) -> pd.DataFrame:
    """The same as a table."""
    shown = pd.DataFrame({"threshold": [label(study, rule) for rule in planted["rule"]]})
    shown["candidates"] = [f"{value:,.0f}" for value in planted["candidates"]]
    for column, name in (("false", "false"), ("estimated", "estimated false"), ("found", "of the true ones")):
        shown[name] = [f"{value:.0%}" for value in planted[column]]
    return shown


def in_words(planted: pd.DataFrame, promised: float) -> dict[str, str]:
    """The same for sentences; `promised` is the share of false ones that rules from the null allow."""
    false, found, estimated = (planted.set_index("rule")[of] for of in ("false", "found", "estimated"))
    return {
        "neurons": f"{planted_truth.NEURONS:,}",
        "true": f"{planted_truth.TRUE}",
        "pictures": f"{planted_truth.PICTURES}",
        "decoy": f"{false['decoy']:.0%}",
        "decoy-found": f"{found['decoy']:.0%}",
        "quantile": f"{false[OWN]:.0%}",
        "flips": f"{false['sign-flips']:.0%}",
        "bh": f"{false['bh']:.0%}",
        "broken": _broken([false["sign-flips"], false["bh"]], promised),
        "draws": f"{planted_truth.DRAWS}",
        "error": f"{np.ceil(100 * (estimated - false).abs().max()):.0f}",
    }


def _broken(false: Sequence[float], promised: float) -> str:
    """Whether rules keep a promise of a share of false ones, on average over draws."""
    more = sum(share > promised for share in false)
    return ("keep it too", "do not both keep it", "keep more than they promise")[more]
