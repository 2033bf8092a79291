"""One decoder behind two vision towers: which conclusions, and which verdicts, depend on the tower?"""

from __future__ import annotations

import pandas as pd

from book.claims import evidence, rules
from book.other_models.two_studies import DIFFERENCE, MEASURED, QUANTITIES, Ends, Studies, ends, with_variant, works
from book.tables import P_HOLM
from book.words import compared_with_zero, indexed, interval, told
from kn_core.measures.stats import GAP, estimate
from kn_core.models import TOWERS


def studies(profile: str) -> Studies:
    """The profile and its variant with the ViT, `<profile>-vit`, by their towers. Raises NotRun."""
    return with_variant(profile, "vit", lambda found: TOWERS[found.parts.tower].name)


def verdicts(studies: Studies, concepts: list[str]) -> pd.DataFrame:
    """The claims that the main setting decides, with each tower's verdict on them, on these concepts alone.

    Columns claim, page, statement, measured, for each tower its verdict (under the tower's name) and estimate,
    `<tower>, ours`, with its interval `<tower>, low` and `<tower>, high`, and `differ`.
    """
    frame = pd.DataFrame()
    for tower, study in studies.items():
        neurons, trials = (
            pd.concat([of(concept) for concept in concepts], ignore_index=True)
            for of in (study.neurons, study.perturbations)
        )
        measured = [
            evidence.late_share(neurons, study.n_layers),
            evidence.late_share(neurons, study.n_layers, study.profile.identification.budget),
            *evidence.effects(trials, study.profile),
        ]
        there = {measurement.name for measurement in measured}
        asked = [claim for claim in rules.load_claims() if claim.statistic in there]
        found = rules.table(asked, measured, study.profile.shares_with_paper).set_index("claim")
        if frame.empty:
            frame = found[["page", "statement", "measured"]].copy()
        frame[tower] = found["verdict"]
        frame[[f"{tower}, {name}" for name in ("ours", "low", "high")]] = found[["ours", "low", "high"]]
    first, second = studies
    frame["differ"] = frame[first] != frame[second]
    return frame.reset_index()


def shared_for_readers(shared: pd.DataFrame) -> pd.DataFrame:
    """`two_studies.shared_neurons` under headings."""
    names = {
        "concept": "concept",
        "shared": "shared",
        "expected_layers": "by layers alone",
        "jaccard": "Jaccard",
        "jaccard_chance": "by chance",
        "jaccard_others": "with other concepts",
        "p_holm": P_HOLM,
    }
    return shared[list(names)].rename(columns=names)


def verdicts_for_readers(judged: pd.DataFrame, towers: list[str]) -> pd.DataFrame:
    """`verdicts`, those that differ first: the claim, and each tower's verdict with its number."""
    rows = judged.sort_values("differ", ascending=False, kind="stable")
    shown = {
        "the paper says": rows["statement"].map(indexed).tolist(),
        "measured": rows["measured"].map(indexed).tolist(),
    }
    for tower in towers:
        numbers = rows[[f"{tower}, ours", f"{tower}, low", f"{tower}, high"]].itertuples(index=False)
        shown[tower] = [f"{word}: {interval(*row)}" for word, row in zip(rows[tower], numbers, strict=True)]
    return pd.DataFrame(shown)


def compared_in_words(compared: pd.DataFrame) -> dict[str, str]:
    """`two_studies.compare` for sentences."""
    rows, (first, second, _) = ends(compared), compared["model"].unique()
    said = {"first": first, "second": second, "works": works(compared)}
    for side, tower in {"first": first, "second": second, "difference": DIFFERENCE}.items():
        said |= {f"{name}-{side}": interval(*rows[name, tower]) for name in ("naming", "last-third", *MEASURED)}
        said |= {f"{name}-over-{side}": interval(*rows[f"{name}-over-random", tower]) for name in MEASURED}
    said["naming-told"] = _told(rows["naming", DIFFERENCE], f"{first} names more", f"{second} names more")
    advantage = rows["suppression-over-random", DIFFERENCE]
    said["advantage-told"] = _told(advantage, f"larger with {first}", f"larger with {second}")
    said["layers-told"] = _told(rows["last-third", DIFFERENCE], f"{first} has more there", f"{second} has more there")
    moved = [name for quantity, name in QUANTITIES.items() if _told(rows[quantity, DIFFERENCE], "yes", "yes") == "yes"]
    return said | {"depends": "; ".join(moved) or "none of them"}


def _told(row: Ends, above: str, below: str) -> str:
    return told(*row[1:], above, below, "the towers cannot be told apart", "too few concepts to tell")


def shared_in_words(shared: pd.DataFrame) -> dict[str, str]:
    """`two_studies.shared_neurons` for sentences."""
    own = estimate(shared["jaccard"] - shared["jaccard_others"], within=GAP)
    return {
        "shared": f"{shared['shared'].mean():.0f}",
        "jaccard": interval(*estimate(shared["jaccard"]).ends),
        "jaccard-chance": f"{shared['jaccard_chance'].mean():.3f}",
        "jaccard-others": interval(*estimate(shared["jaccard_others"]).ends),
        "same-concept": f"{interval(*own.ends)}, {compared_with_zero(own.low, own.high)}",
        "beyond-chance": f"{int((shared['p_holm'] < 0.05).sum())} of {len(shared)}",
    }


def verdicts_in_words(judged: pd.DataFrame) -> dict[str, str]:
    """`verdicts` for sentences: how many there are, and how many differ."""
    return {"claims": str(len(judged)), "differ": str(int(judged["differ"].sum()))}
