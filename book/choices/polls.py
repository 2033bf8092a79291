"""Suppression by polling beside captions: 'Is there a bear in this picture?', and whether the model can be asked."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from book.words import interval
from kn_core.measures.metrics import headline
from kn_core.measures.stats import Estimate, estimate
from kn_core.study.experiments import ladder, polling
from kn_core.study.experiments.ladder import CONTROL, THIRD
from kn_core.study.experiments.polling import NOTHING, REMOVAL, THIRD_RANDOM, TWO_STAGE
from kn_core.study.study import Study, StudyError

LABELS = {
    NOTHING: "nothing done",
    REMOVAL: "the object taken out of the picture",
    TWO_STAGE: "two stages, the paper’s recipe",
    polling.RANDOM: "random neurons, as the paper’s",
    THIRD: "third stage",
    THIRD_RANDOM: "random neurons, as the third stage’s",
}


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`polling.polls` of every concept; an empty frame, `attrs['why']` says why, where nothing is asked."""
    try:
        return pd.concat([polling.polls(study, concept) for concept in concepts], ignore_index=True)
    except StudyError as error:
        empty = pd.DataFrame()
        empty.attrs["why"] = str(error)
        return empty


def threshold(polls: pd.DataFrame) -> float:
    """The odds above which an answer counts as yes: halfway between selection pictures with and without the object."""
    means = polls[polls["role"] == "select"].groupby(["method", "concept"])["odds"].mean().groupby("method").mean()
    return float((means[NOTHING] + means[REMOVAL]) / 2)


def lost(polls: pd.DataFrame, at: float) -> pd.DataFrame:
    """Held-out pictures in which a poll loses the object: columns concept, image_id, method, lost (0 or 1)."""
    rows = polls[polls["role"] == "held_out"]
    return rows[["concept", "image_id", "method"]].assign(lost=(rows["odds"] <= at).astype(float))


def accuracy(polls: pd.DataFrame, at: float) -> Estimate:
    """Share of right answers about held-out pictures with the object and without it, nothing disturbed."""
    wide = lost(polls, at).pivot_table("lost", ["concept", "image_id"], "method")
    right = (1 - wide[NOTHING] + wide[REMOVAL]) / 2
    return estimate(right, right.index.get_level_values("concept"))


def readable(polls: pd.DataFrame) -> bool:
    """Whether the model as it is answers better than by guessing: else what it answers when disturbed means nothing."""
    return bool(len(polls)) and accuracy(polls, threshold(polls)).low > 0.5


def with_sets(study: Study, concepts: Sequence[str], polls: pd.DataFrame) -> pd.DataFrame:
    """The same with sets of neurons disturbed."""
    return pd.concat([polls, *(polling.disturbed(study, concept) for concept in concepts)], ignore_index=True)


def captioned(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """The same pictures by caption: columns image_id, method, by_caption (0 or 1)."""
    rows = headline(study.perturbations(), study.effort).query("seed == 0 and method in [@TWO_STAGE, 'random']")
    removed = study.perturbations().query("intervention == 'removal'")
    third = pd.concat([ladder.third_stage(study, concept) for concept in concepts])
    third = third[third["n"] == study.profile.identification.budget]
    third = third[third["method"].isin([THIRD, CONTROL])].replace({"method": {CONTROL: THIRD_RANDOM}})
    every = pd.concat([rows, removed.assign(method=REMOVAL), third])
    own = every[every["concept"] == every["image_concept"]].drop_duplicates(["image_id", "method"])
    return own[["image_id", "method"]].assign(by_caption=1 - own["target_present"].astype(float))


def summary(polls: pd.DataFrame, by_caption: pd.DataFrame) -> pd.DataFrame:
    """S_se by both readings on the same pictures: columns method, reading ('caption', 'poll'), value, low, high, n."""
    both = lost(polls, threshold(polls)).merge(by_caption, on=["image_id", "method"], how="left")
    both.loc[both["method"] == NOTHING, "by_caption"] = 0.0
    rows = []
    for method in LABELS:
        of = both[both["method"] == method]
        for reading, column in (("caption", "by_caption"), ("poll", "lost")):
            found = estimate(of[column], of["concept"])
            rows.append((method, reading, *found.ends, found.n))
    return pd.DataFrame(rows, columns=["method", "reading", "value", "low", "high", "n"])


def for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`summary`, a row a set."""
    ends = {(row[0], row[1]): interval(*row[2:5]) for row in found.itertuples(index=False, name=None)}
    names = {"caption": "suppression by caption", "poll": "Sₛₑ by polling"}
    return pd.DataFrame(
        [{"neurons": LABELS[method]} | {names[of]: ends[method, of] for of in names} for method in LABELS]
    )


def in_words(polls: pd.DataFrame) -> str:
    """Whether the model can be asked, with its numbers."""
    if polls.empty:
        return f"Nothing was asked: {polls.attrs['why']}"
    plain, at = lost(polls, 0.0), threshold(polls)
    by = {str(method): 1 - estimate(of["lost"], of["concept"]).value for method, of in plain.groupby("method")}
    right = accuracy(polls, at)
    said = (
        f"Nothing disturbed, it says yes to {by[NOTHING]:.0%} of {right.n} pictures with the object and to "
        f"{by[REMOVAL]:.0%} of the same without it. With the line between yes and no where selection pictures put it, "
        f"{interval(*right.ends)} of the answers are right, where guessing has 0.50"
    )
    if readable(polls):
        return f"This captioner can be asked. {said}; that line is the poll’s in the table."
    vain = (
        "what it answers with neurons disturbed would say nothing of them, and suppression has no second reading here"
    )
    return f"This captioner cannot be asked. {said}: {vain}."
