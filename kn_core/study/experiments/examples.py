"""What the model says of a few pictures under the main noise: what a concept's own page shows of its perturbations.

Those are tried on other concepts' pictures too, and so need every concept's pairs and scores; these need none.
"""

from __future__ import annotations

import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.study.study import Study

PICTURES = 3  # held-out ones, the first
ALONE: dict[str, object] = {
    "seeds": 1,
    "rival_seeds": 1,
    "draws": 1,
    "choosing": 0,
    "others_per_concept": 0,
    "directions": False,
}
ALONE |= {"controls": ("random",), "text_sigma": ()}
ALONE |= {f"sweep_{over}": () for over in ("n", "sigma", "interventions", "positions")}


def examples(study: Study, concept: str) -> pd.DataFrame:
    """Rows of `perturbations.parquet`: all of the concept's where they are on disk, else those of the first pictures.

    These are every method's and the first random control's, in the main setting with the first seed.
    """
    if study.tried(concept):
        return study.perturbations(concept)
    settings = study.effort.perturbation.model_copy(update=ALONE)
    inputs = fingerprint(study.inputs(concept), settings.model_dump(), PICTURES, code(__name__))
    return study.store.table(f"examples-{concept}", inputs, lambda: study.perturb(concept, settings, PICTURES))
