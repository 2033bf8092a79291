"""The headline settings on every kind that scenes can draw: intervals over concepts with something to resample."""

from __future__ import annotations

import pandas as pd

from book import claims_table
from book.choices import third_stage
from book.claims.verdicts import load_verdicts
from book.style import READINGS
from book.words import interval, listed
from kn_core.measures.metrics import headline, main_retention, perplexity_limit, summarise
from kn_core.measures.stats import smallest_seen
from kn_core.profile import load_profile, profile_names
from kn_core.study.experiments.ladder import CONTROL, THIRD
from kn_core.study.study import Study

ROWS = {
    ("noise", "two-stage"): "two stages, under noise",
    ("noise", "random"): "random, under noise",
    ("third", THIRD): "third stage",
    ("third", CONTROL): "random, as the third stage",
}


def of(study: Study) -> Study | None:
    """The study of `<profile>-many`: in the long version, or where its results lie beside this one's; else None."""
    name = f"{study.profile.name}-many"
    if name not in profile_names():
        return None
    many = Study(load_profile(name), study.folder.with_name(name))
    long = bool(study.profile.full) and study.effort == study.profile.long
    return many if long or many.tried() else None


def rows(many: Study) -> pd.DataFrame:
    """Held-out captions of both settings; `done` is 'noise' or 'third'. Its claims are kept in its own folder too."""
    claims_table.of_headline(many)
    noise = headline(many.perturbations(), many.profile)
    third = third_stage.of_all(many, many.studied())
    both = pd.concat([noise.assign(done="noise"), third.assign(done="third")], ignore_index=True)
    return both[both["concept"] == both["image_concept"]]


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """`summarise` of `rows` by what was done: S_se, S_re by words, truth and probability, fluency."""
    means = summarise(found, ["done", "method"], perplexity_limit=perplexity_limit(found))
    return means[means["metric"].isin(_metrics(found))]


def _metrics(found: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(["suppression", main_retention(found), "retention", "retention_probability", "fluent"]))


def for_readers(means: pd.DataFrame) -> pd.DataFrame:
    """`summary`, a row a set."""
    by = {(row["done"], row["method"], row["metric"]): row for row in means.to_dict("records")}
    metrics = list(dict.fromkeys(means["metric"]))
    return pd.DataFrame(
        {"neurons": label}
        | {
            READINGS[name].label: interval(*(by[*key, name][end] for end in ("value", "low", "high")))
            for name in metrics
        }
        for key, label in ROWS.items()
        if (*key, metrics[0]) in by
    )


def later(study: Study) -> str:
    """What would tell, where it was not run and there is such a profile; and what is on record of it."""
    name = f"{study.profile.name}-many"
    if name not in profile_names():
        return ""
    told = (
        f"The long version of this book (EFFORT=full) runs the headline settings on every kind that scenes can draw "
        f"(the profile {name}), so that an interval over concepts has more of them to resample."
    )
    taken, kept = (on_record(study, claim) for claim in ("third-stage-suppresses", "third-stage-retains"))
    if taken and kept:
        told += f" On record: over {kinds(study)} kinds the third stage suppresses {taken[0]} of the names and keeps "
        told += f"{kept[0]} of the rest, on {taken[1]} held-out pictures, with contrasts against all other kinds."
    return told


def on_record(study: Study, claim: str) -> tuple[str, int] | None:
    """What a run of `<profile>-many` made of a claim, as `paper/verdicts.yml` has it: estimate with interval, and n."""
    found = load_verdicts().get(f"{study.profile.name}-many", {}).get(claim)
    if found is None or found.ours is None or found.low is None or found.high is None:
        return None
    return interval(found.ours, found.low, found.high, "{:z.0%}"), found.n


def kinds(study: Study) -> int:
    """How many kinds of object that run has."""
    return len(load_profile(f"{study.profile.name}-many").concepts)


def in_short(study: Study) -> str:
    """The same for the first page, in half a sentence; nothing where there is no such run on record."""
    taken = on_record(study, "third-stage-suppresses") if f"{study.profile.name}-many" in profile_names() else None
    return f"; over {kinds(study)} kinds the third stage takes away {taken[0]} of the names" if taken else ""


def in_words(many: Study, means: pd.DataFrame, found: pd.DataFrame) -> str:
    """How many kinds there are, how wide intervals over them, and what would have been seen."""
    studied = many.studied()
    left = [concept for concept in many.profile.concepts if concept not in studied]
    of_suppression = means[(means["metric"] == "suppression") & means["method"].isin(["two-stage", THIRD])]
    half = (of_suppression["high"] - of_suppression["low"]) / 2
    wide = found.assign(gone=1 - found["target_present"].astype(float)).query("done == 'noise'")
    gaps = wide.pivot_table("gone", ["concept", "image_id"], "method").reindex(columns=["two-stage", "random"]).dropna()
    seen = smallest_seen([gap.to_numpy() for _, gap in (gaps["two-stage"] - gaps["random"]).groupby(level="concept")])
    told = (
        f"Of {len(many.profile.concepts)} kinds {len(studied)} are named often enough to be studied, on "
        f"{found['image_id'].nunique()} held-out pictures. Half an interval of S_se is at most {half.max():.2f} there, "
        f"and a difference of {seen:.2f} in S_se from random neurons would show in four of five such samples."
    )
    return told + (f" Left out: {listed(left)}." if left else "")
