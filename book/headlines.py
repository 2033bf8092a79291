"""The headline settings on more evidence: every kind that scenes can draw, and 40 pictures under three trainings.

Each is a profile beside the study's own: `<profile>-many`, and `<profile>-seed-0` and on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from book import claims_table
from book.choices import third_stage
from book.claims.verdicts import OnRecord, load_verdicts
from book.perturbation import references
from book.style import READINGS
from book.words import NotRun, interval, listed
from kn_core.measures.metrics import headline
from kn_core.measures.stats import smallest_seen
from kn_core.measures.summaries import main_retention, perplexity_limit, summarise
from kn_core.profile import Profile, load_profile, profile_names
from kn_core.study.experiments.ladder import CONTROL, THIRD
from kn_core.study.study import Study

ROWS = {
    ("noise", "two-stage"): "two stages, under noise",
    ("noise", "random"): "random, under noise",
    ("third", THIRD): "third stage",
    ("third", CONTROL): "random, as the third stage",
}
RECORDED = {  # claims whose estimates are kept of every run, and how a reader knows them
    "suppression": "two stages: suppressed and fluent",
    "third-stage-suppresses": "third stage: suppressed",
    "third-stage-retains": "third stage: kept, of what was told truly",
    "third-stage-retains-by-probability": "third stage: kept, by probability",
    "third-stage-reads-well": "third stage: fluent",
}
READ = ("suppression_fluent", "suppression", "retention_truth", "retention_probability", "fluent")  # by these claims


def beside(profile: Profile, ending: str) -> list[Profile]:
    """The profiles `<profile>-<ending>...` that there are, in the order of their names."""
    return [load_profile(name) for name in profile_names() if name.startswith(f"{profile.name}-{ending}")]


def profiles(own: Profile) -> list[Profile]:
    """Those with more evidence than a study's own."""
    return [*beside(own, "many"), *beside(own, "seed-")]


def studies(study: Study) -> list[Study]:
    """Those all of whose results lie beside this one's, as they do in the long version."""
    found = [Study(profile, study.folder.with_name(profile.name)) for profile in profiles(study.profile)]
    return [each for each in found if _lies_there(each)]


def _lies_there(more: Study) -> bool:
    """Whether all that `rows` asks for was made: a page neither goes on with a run that stopped, nor joins one."""
    with suppress(NotRun):
        return more.tried() and len(third_stage.of_all(claims_table.as_it_lies(more), more.studied())) > 0
    return False


def rows(more: Study) -> pd.DataFrame:
    """Held-out captions of both settings; `done` is 'noise' or 'third'. Its claims are kept in its own folder too."""
    claims_table.of_headline(more)
    noise = headline(more.perturbations(), more.profile)
    third = third_stage.of_all(more, more.studied())
    both = pd.concat([noise.assign(done="noise"), third.assign(done="third")], ignore_index=True)
    return both[both["concept"] == both["image_concept"]]


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """`summarise` of `rows` by what was done: S_se, S_re by words, truth and probability, fluency."""
    means = summarise(found, ["done", "method"], perplexity_limit=perplexity_limit(found))
    return means[means["metric"].isin(_metrics(found))]


def _metrics(found: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(["suppression", main_retention(found), "retention", "retention_probability", "fluent"]))


def for_readers(of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The `summary` of the `rows` of each body of evidence, by what it is called: a row a set; `references` below."""
    lines: list[dict[Any, str]] = []
    for evidence, found in of.items():
        means = summary(found)
        by = {(row["done"], row["method"], row["metric"]): row for row in means.to_dict("records")}
        metrics = list(dict.fromkeys(means["metric"]))
        lines += [
            {"evidence": evidence, "neurons": label}
            | {
                READINGS[name].label: interval(*(by[*key, name][end] for end in ("value", "low", "high")))
                for name in metrics
            }
            for key, label in ROWS.items()
            if (*key, metrics[0]) in by
        ]
        below = references.for_readers(references.known(found, perplexity_limit(found)), metrics, "neurons")
        lines += below.assign(evidence=evidence).to_dict("records")
    return pd.DataFrame(lines)


def called(own: Profile, more: Profile) -> str:
    """A body of evidence in a few words: concepts, pictures, and whose layer it is."""
    what = f"{len(more.concepts)} concepts, {more.data.held_out} pictures each"
    other = more.parts.projection != own.parts.projection
    return f"{what}, another end of the layer's training ({more.name.rpartition('-')[2]})" if other else what


def recorded(study: Study) -> pd.DataFrame:
    """What is on record of this profile and of those with more evidence, a row each; empty where nothing is."""
    found = load_verdicts()
    lines = []
    for profile in (study.profile, *profiles(study.profile)):
        if claims := found.get(profile.name):
            told = {label: _estimate(claims.get(claim)) for claim, label in RECORDED.items()}
            if any(told.values()):
                n = max((claims[claim].n for claim in RECORDED if claim in claims), default=0)
                lines.append({"evidence": called(study.profile, profile), "pictures": n} | told)
    return pd.DataFrame(lines) if len(lines) > 1 else pd.DataFrame()


def recorded_for_readers(found: pd.DataFrame, own: Profile, bounds: pd.DataFrame) -> pd.DataFrame:
    """`recorded`, and below what `references.bounds` says of the study's own pictures, which alone lie there."""
    if bounds.empty:
        return found
    below = references.for_readers(bounds, READ, "evidence", [*RECORDED.values()])
    below["evidence"] += f": {called(own, own)}"
    return pd.concat([found, below.assign(pictures=bounds["n_images"].max())], ignore_index=True)


def _estimate(found: OnRecord | None, form: str = "{:z.2f}") -> str:
    if found is None or found.ours is None or found.low is None or found.high is None:
        return ""
    return interval(found.ours, found.low, found.high, form)


def spread(study: Study, means: Mapping[str, pd.DataFrame]) -> str:
    """How far the third stage's S_se moves from one layer of the captioner to the next; of `means`, else of the record.

    `means` are the `summary` of each profile, by its name.
    """
    values, kept, own = [], load_verdicts(), ""
    for profile in beside(study.profile, "seed-"):
        name = profile.name
        if name in means:
            row = means[name].query("metric == 'suppression' and method == @THIRD")
            values.append(float(row["value"].iloc[0]))
        elif (found := kept.get(name, {}).get("third-stage-suppresses")) and found.ours is not None:
            values.append(found.ours)
        else:
            continue
        if profile.parts.projection == study.profile.parts.projection:
            own = ", the book's own for longest"
    if len(values) < 2:
        return ""
    told = listed([f"{value:.2f}" for value in values])
    return (
        f"Under {len(values)} layers of the captioner, which share the first part of the training and went on "
        f"apart{own}, the third stage's suppression is {told}."
    )


def later(study: Study) -> str:
    """What would tell, where it was not run and there are such profiles."""
    names = [profile.name for profile in profiles(study.profile)]
    if not names:
        return ""
    told = "The long version of this book (EFFORT=full) runs the headline settings on more: every kind that scenes can "
    told += "draw, and 40 held-out pictures a concept, under layers too whose training ended otherwise "
    told += f"(profiles {listed(names)})."
    return told + (" What earlier runs made of them is on record, in the table above." if len(recorded(study)) else "")


def in_short(study: Study) -> str:
    """For the first page, in half a sentence, what is on record of many kinds and of other layers; else ''."""
    own, found = study.profile, load_verdicts()
    kinds, others = [], []
    for more in profiles(own):
        if taken := _estimate(found.get(more.name, {}).get("third-stage-suppresses"), "{:z.0%}"):
            if set(more.concepts) != set(own.concepts):
                kinds.append(f"{taken} of the names over {len(more.concepts)} kinds")
            elif more.parts.projection != own.parts.projection:
                others.append(taken)
    trained = [f"{listed(others)} with another end of the captioner's training"] if others else []
    return f"; the third stage takes away {', '.join(kinds + trained)}" if kinds + trained else ""


def in_words(more: Study, means: pd.DataFrame, found: pd.DataFrame) -> str:
    """How many concepts there are, how wide intervals over them, and what would have been seen."""
    studied = more.studied()
    left = [concept for concept in more.profile.concepts if concept not in studied]
    of_suppression = means[(means["metric"] == "suppression") & means["method"].isin(["two-stage", THIRD])]
    half = (of_suppression["high"] - of_suppression["low"]) / 2
    wide = found.assign(gone=1 - found["target_present"].astype(float)).query("done == 'noise'")
    gaps = wide.pivot_table("gone", ["concept", "image_id"], "method").reindex(columns=["two-stage", "random"]).dropna()
    seen = smallest_seen([gap.to_numpy() for _, gap in (gaps["two-stage"] - gaps["random"]).groupby(level="concept")])
    told = (
        f"{more.profile.name}: of {len(more.profile.concepts)} concepts {len(studied)} are named often enough to be "
        f"studied, on {found['image_id'].nunique()} held-out pictures. Half an interval of suppression is at most "
        f"{half.max():.2f} there, and a difference of {seen:.2f} in it from random neurons would show in four of "
        "five such samples."
    )
    return told + (f" Left out: {listed(left)}." if left else "")
