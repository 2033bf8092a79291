"""How much evidence a run has, and how far concepts' neurons are the same: the numbers of the page on limitations."""

from __future__ import annotations

import math

import pandas as pd

from book.stages.neurons import between_concepts
from book.style import METHODS, methods_of
from kn_core.concepts import content_words
from kn_core.measures.metrics import fluent, headline, per_image
from kn_core.measures.stats import smallest_seen
from kn_core.measures.summaries import paired, perplexity_limit
from kn_core.profile import Profile
from kn_core.study.study import Study


def evidence_in_words(study: Study) -> dict[str, str]:
    """How many pictures chose neurons and how many tried them, in all and at least, and what their captions hold."""
    used = study.pairs().query("role != ''")
    words = [len(set(content_words(*row))) for row in zip(used["caption"], used["concept"], strict=True)]
    said = {"words": str(sorted(words)[len(words) // 2]), "seeds": str(study.effort.perturbation.seeds)}
    by_role = pd.crosstab(used["concept"], used["role"]).reindex(columns=["select", "held_out"], fill_value=0)
    for role, counts in by_role.items():
        said |= {f"{role}-total": str(counts.sum()), f"{role}-least": str(counts.min())}
    return said


def power_in_words(perturbations: pd.DataFrame, profile: Profile) -> dict[str, str]:
    """The smallest true differences that four in five samples such as this would show, and what clean captions fail.

    'seen-random' and 'seen-rival' in S_se, against random neurons and against the rival that suppresses most;
    'seen-selectivity'.
    """
    rows, limit = headline(perturbations, profile), perplexity_limit(perturbations)
    images = per_image(rows, ["method"], perplexity_limit=limit)
    own = images[(images["method"] == "two-stage") & (images["metric"] == "selectivity")]
    suppression = images[images["metric"] == "suppression"]
    by = suppression[suppression["method"].isin(methods_of("rival"))].groupby("method")["value"].mean()
    against = {"random": "random", "rival": str(by.idxmax()) if len(by) else ""}
    gaps = {name: paired(suppression, "two-stage", other) for name, other in against.items()} | {"selectivity": own}
    said = {f"seen-{name}": _smallest(values) for name, values in gaps.items()} | {"rival": _named(against["rival"])}
    clean = perturbations.drop_duplicates("image_id")
    reads = [fluent(*row, limit) for row in zip(clean["clean_caption"], clean["clean_perplexity"], strict=True)]
    return said | {"clean-fail": f"{reads.count(False)} of {len(reads)}"}


def _smallest(values: pd.DataFrame) -> str:
    found = smallest_seen([one.to_numpy(float) for _, one in values.groupby("image_concept")["value"]])
    return "nothing" if math.isnan(found) else f"{found:.2f}"


def _named(method: str) -> str:
    return METHODS[method].label if method else "none"


def shared(study: Study) -> pd.DataFrame:
    """`between_concepts` of the neurons that are disturbed."""
    shape = study.scores(study.studied()[0])["delta"].shape[1:]  # (L, D)
    return between_concepts(study.neurons(), study.profile.identification.budget, shape)


def shared_in_words(shared: pd.DataFrame) -> dict[str, str]:
    """`shared` for sentences; pairs above chance are those of a hypergeometric test at 5 % with Bonferroni."""
    if shared.empty:
        none = "One concept alone was studied here: no other one's neurons can be held against its own."
        return {
            "note": none,
            "pairs": "0",
            "above": "0",
            **dict.fromkeys(("median", "expected", "expected-layers"), "–"),
        }
    return {
        "note": "",
        "pairs": str(len(shared)),
        "above": str((shared["p"] < 0.05 / len(shared)).sum()),
        "median": f"{shared['shared'].median():g}",
        "expected": f"{shared['expected'].mean():.2f}",
        "expected-layers": f"{shared['expected_layers'].mean():.1f}",
    }
