"""How much evidence a run has, and how far concepts' neurons are the same: the numbers of the page on limitations."""

from __future__ import annotations

import pandas as pd

from book.stages.neurons import between_concepts
from kn_core.concepts import content_words
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


def shared(study: Study) -> pd.DataFrame:
    """`between_concepts` of the neurons that are disturbed."""
    shape = study.scores(study.studied()[0])["delta"].shape[1:]  # (L, D)
    return between_concepts(study.neurons(), study.profile.identification.budget, shape)


def shared_in_words(shared: pd.DataFrame) -> dict[str, str]:
    """`shared` for sentences; pairs above chance are those of a hypergeometric test at 5 % with Bonferroni."""
    return {
        "pairs": str(len(shared)),
        "above": str((shared["p"] < 0.05 / len(shared)).sum()),
        "median": f"{shared['shared'].median():g}",
        "expected": f"{shared['expected'].mean():.2f}",
        "expected-layers": f"{shared['expected_layers'].mean():.1f}",
    }
