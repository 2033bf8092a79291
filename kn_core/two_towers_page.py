"""What `two_towers` found, for readers: tables, sentences, and the page that holds them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kn_core import two_towers
from kn_core.outcomes import compared_with_zero
from kn_core.siblings import Page, Studies, both, compared_on, shared_neurons
from kn_core.stats import cluster_interval, each_alone
from kn_core.tables import P_HOLM, indexed, interval
from kn_core.two_towers import DIFFERENCE, MEASURED

PREFIX = "towers"  # of the files that the page writes
QUANTITIES = {
    "naming": "captions that name the concept",
    "suppression": "Sₛₑ, two-stage",
    "suppression-random": "Sₛₑ, random",
    "suppression-over-random": "Sₛₑ, two-stage minus random",
    "retention": "Sᵣₑ, two-stage",
    "retention-random": "Sᵣₑ, random",
    "retention-over-random": "Sᵣₑ, two-stage minus random",
    "fluent": "fluent captions, two-stage",
    "fluent-random": "fluent captions, random",
    "fluent-over-random": "fluent captions, two-stage minus random",
    "first-third": "neurons in the first third of the layers",
    "middle-third": "neurons in the middle third",
    "last-third": "neurons in the last third",
}


def page(studies: Studies) -> Page:
    """Everything that the page shows of two studies, computed or loaded. Raises NotRun."""
    concepts = both(studies)
    frames = {
        "compared": two_towers.compare(studies, concepts),
        "shared": shared_neurons(studies, concepts),
        "verdicts": two_towers.verdicts(studies, concepts),
    }
    towers = list(studies)
    readable = {
        "compared": compared_for_readers(frames["compared"], towers),
        "shared": shared_for_readers(frames["shared"]),
        "verdicts": verdicts_for_readers(frames["verdicts"], towers),
    }
    words = in_words(frames["compared"], frames["shared"], frames["verdicts"], towers)
    words["concepts"] = str(len(concepts))
    return Page(PREFIX, compared_on(studies, concepts), words, frames, readable, studies)


def compared_for_readers(frame: pd.DataFrame, towers: list[str]) -> pd.DataFrame:
    """`two_towers.compare`, a row a quantity: each tower's value, and the difference, with 95 % intervals."""
    cells = {place: interval(*row) for place, row in _by_place(frame).items()}
    headings = dict.fromkeys(towers) | {DIFFERENCE: None}
    shown = {"quantity": list(QUANTITIES.values())}
    return pd.DataFrame(
        shown | {str(tower): [cells.get((name, tower), "–") for name in QUANTITIES] for tower in headings}
    )


def shared_for_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """`two_towers.shared_neurons` under headings."""
    names = {
        "concept": "concept",
        "shared": "shared",
        "expected_layers": "by layers alone",
        "jaccard": "Jaccard",
        "jaccard_chance": "by chance",
        "jaccard_others": "with other concepts",
        "p_holm": P_HOLM,
    }
    return frame[list(names)].rename(columns=names)


def verdicts_for_readers(frame: pd.DataFrame, towers: list[str]) -> pd.DataFrame:
    """`two_towers.verdicts`, those that differ first: the claim, and each tower's verdict with its number."""
    rows = frame.sort_values("differ", ascending=False, kind="stable")
    shown = {
        "the paper says": rows["statement"].map(indexed).tolist(),
        "measured": rows["measured"].map(indexed).tolist(),
    }
    for tower in towers:
        numbers = rows[[f"{tower}, ours", f"{tower}, low", f"{tower}, high"]].itertuples(index=False)
        shown[tower] = [f"{word}: {interval(*row)}" for word, row in zip(rows[tower], numbers, strict=True)]
    return pd.DataFrame(shown)


def in_words(compared: pd.DataFrame, shared: pd.DataFrame, verdicts: pd.DataFrame, towers: list[str]) -> dict[str, str]:
    """What came out, for sentences; all but the number of concepts."""
    first, second = towers
    rows = _by_place(compared)
    sides = {"first": first, "second": second, "difference": DIFFERENCE}
    words = {"first": first, "second": second}
    for side, tower in sides.items():
        for name in ("naming", "last-third") if side == "difference" else ("naming", "last-third", *MEASURED):
            words[f"{name}-{side}"] = interval(*rows[name, tower])
        for name in MEASURED:
            words[f"{name}-over-{side}"] = interval(*rows[f"{name}-over-random", tower])
    words["naming-told"] = _told(rows["naming", DIFFERENCE], f"{first} names more", f"{second} names more")
    words["works"] = _works({tower: rows["suppression-over-random", tower] for tower in towers})
    words["advantage-told"] = _told(
        rows["suppression-over-random", DIFFERENCE], f"is larger with {first}", f"is larger with {second}"
    )
    words["layers-told"] = _told(rows["last-third", DIFFERENCE], f"{first} has more there", f"{second} has more there")
    moved = [words_ for name, words_ in QUANTITIES.items() if _apart(rows[name, DIFFERENCE])]
    words["depends"] = "; ".join(moved) or "none of them"
    other = verdicts[verdicts["differ"]]
    words["claims"] = str(len(verdicts))
    told = [f"{row['claim']} ({row[first]} with {first}, {row[second]} with {second})" for _, row in other.iterrows()]
    words["differ"] = f"{len(other)} of {len(verdicts)}" + (f": {'; '.join(told)}" if told else "")
    words["jaccard"] = interval(*_over_concepts(shared["jaccard"]))
    words["jaccard-chance"] = f"{shared['jaccard_chance'].mean():.3f}"
    words["jaccard-others"] = interval(*_over_concepts(shared["jaccard_others"]))
    words["shared"] = f"{shared['shared'].mean():.0f}"
    words["beyond-chance"] = f"{int((shared['p_holm'] < 0.05).sum())} of {len(shared)}"
    own = _over_concepts(shared["jaccard"] - shared["jaccard_others"])
    words["same-concept"] = f"{interval(*own)}, {compared_with_zero(*own[1:])}"
    return words


def _by_place(compared: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Each quantity and tower's value with its interval."""
    numbers = zip(compared["value"].tolist(), compared["low"].tolist(), compared["high"].tolist(), strict=True)
    return dict(zip(zip(compared["quantity"], compared["tower"], strict=True), numbers, strict=True))


def _apart(row: tuple[float, float, float]) -> bool:
    """Whether an interval of a difference leaves out zero; one with undefined ends does not."""
    return row[1] > 0 or row[2] < 0


def _told(row: tuple[float, float, float], above: str, below: str) -> str:
    if not _apart(row):
        return "the towers cannot be told apart" if row[1] <= row[2] else "too few concepts to tell"
    return above if row[1] > 0 else below


def _works(over_random: Mapping[str, tuple[float, float, float]]) -> str:
    """The method's first conclusion with each tower: does noise on its neurons suppress more than on random ones?"""
    clear = [tower for tower, row in over_random.items() if row[1] > 0]
    if len(clear) == len(over_random):
        return "With both towers noise on two-stage neurons suppresses more than on random ones of the same layers"
    if clear:
        return f"Only with {clear[0]} is it clear that noise on two-stage neurons suppresses more than on random ones"
    return "With neither tower is it clear that noise on two-stage neurons suppresses more than on random ones"


def _over_concepts(values: pd.Series) -> tuple[float, float, float]:
    found = values.dropna().to_numpy(float)
    if not len(found):
        return (float("nan"),) * 3
    return float(found.mean()), *cluster_interval(each_alone(found))
