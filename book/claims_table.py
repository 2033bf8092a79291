"""Claims, the paper's and ours, with our numbers and verdicts: of a whole study, of one page, profile by profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain

import pandas as pd

from book.ceiling import ceilings, curves
from book.choices import ladder, third_stage
from book.claims import evidence, rules, verdicts
from book.claims.rules import Measurement
from book.faithfulness import exact_effects
from book.perturbation import matched, methods, ownership
from book.press import commands
from book.stages import stage_1, stage_2
from book.thresholds import rules as threshold_rules
from book.words import NotRun, indexed, interval
from kn_core.fingerprint import writing
from kn_core.profile import ProfileError, load_profile, profile_names
from kn_core.study.study import Study
from kn_core.weights.files import WeightsError

PAGES = {  # where the book settles a claim; what is missing here has no page yet
    "filtering": "data-filtering",
    "stage-1": "stage-1",
    "stage-2": "stage-2",
    "layers": "layer-distribution",
    "ceiling": "ceiling",
    "perturbation": "perturbation",
    "ablation": "ablation",
    "faithfulness": "faithfulness",
    "thresholds": "thresholds",
    "choices": "each-choice",
}


def claims_table(study: Study) -> pd.DataFrame:
    """Every claim with our number and its verdict; also written to `results/<profile>/claims.csv`."""
    return _kept(study, dict.fromkeys(chain(*SOURCES.values())))


def of_headline(study: Study) -> pd.DataFrame:
    """The same as far as the main setting and the third stage decide it: of a profile that runs nothing else."""
    return _kept(study, (*OF_MAIN_SETTING, third_stage.reached))


def _kept(study: Study, sources: Iterable[Callable[[Study], list[Measurement]]]) -> pd.DataFrame:
    frame = _table(study, sources)
    frame["effort"] = _effort(study) or "short"
    with writing(study.folder / "claims.csv") as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def by_profile(study: Study, claimed: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of every profile side by side: columns claim (in words), then one a profile.

    That of `study` is `claimed`, its `claims_table`; beside the short version's stands what is on record of the long
    one. Of another profile it is what `_made_beside` finds, else what is on record in `paper/verdicts.yml` (and its
    column is '<profile>, on record'), else 'not run'. Other trainings of one's own captioner are in `headlines`.
    """
    own, recorded = study.profile.name, verdicts.load_verdicts()
    found: dict[str, Mapping[str, str]] = {own: dict(zip(claimed["claim"], claimed["verdict"], strict=True))}
    long = own + verdicts.FULL
    others = [long] if long in recorded and study.effort == study.profile else []
    for name in [*others, *(one for one in profile_names() if one != own and not one.startswith(f"{own}-seed-"))]:
        made = None if name == long else _made_beside(study, name)
        if made is None and name in recorded:
            found[f"{name}, on record"] = {claim: made.verdict for claim, made in recorded[name].items()}
        else:
            found[name] = {} if made is None else dict(zip(made["claim"], made["verdict"], strict=True))
    columns = {name: [made.get(claim, "not run") for claim in claimed["claim"]] for name, made in found.items()}
    return pd.DataFrame({"claim": [indexed(said) for said in claimed["statement"]]} | columns)


def tried(beside: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """`by_profile` without the profiles of which nothing ran, and their names."""
    never = [str(name) for name in beside.columns[1:] if (beside[name] == "not run").all()]
    return beside.drop(columns=never), never


def with_long(study: Study, claimed: pd.DataFrame) -> pd.DataFrame:
    """`claims_table` with what is on record of the long version where the short one ran: a column `long`, in words."""
    recorded = {} if _effort(study) else verdicts.load_verdicts().get(study.profile.name + verdicts.FULL, {})

    def said(claim: str) -> str:
        if claim not in recorded or recorded[claim].ours is None:
            return ""
        found = recorded[claim]
        value, low, high = (math.nan if number is None else number for number in (found.ours, found.low, found.high))
        return f"long version, on record: {found.verdict}, {interval(value, low, high)}; n\u00a0=\u00a0{found.n}"

    return claimed.assign(long=[said(claim) for claim in claimed["claim"]])


def _made_beside(study: Study, name: str) -> pd.DataFrame | None:
    """Another profile's claims out of the results beside a study's; None where there are none.

    As its own book left them, else as far as its main setting decides them, and the ceiling and the third stage where
    they ran: all that runs of a profile that pages only compare with this one. Nothing more is computed.
    """
    folder = study.folder.with_name(name)
    if (folder / "claims.csv").is_file():
        return pd.read_csv(folder / "claims.csv")
    try:
        other = Study(load_profile(name), folder)
        return _as_far_as_it_ran(other) if other.tried() else None
    except (WeightsError, ProfileError):  # without weights, or settings that make sense, nothing was made
        return None


def _as_far_as_it_ran(other: Study) -> pd.DataFrame:
    measured = [found for source in OF_MAIN_SETTING for found in source(other)]
    for source in (ceilings.measured, third_stage.reached):
        with suppress(NotRun):
            measured += source(as_it_lies(other))
    return rules.table(rules.load_claims(), measured, other.profile.shares_with_paper)


def as_it_lies(study: Study) -> Study:
    """The study, which raises NotRun from here on where something would have to be computed."""

    def missing(artefact: str) -> None:
        raise NotRun(f"{artefact} is not made")

    study.store.begins = missing
    return study


def _effort(study: Study) -> str:
    """What has to be said of the effort for this version of the study: nothing for the short one."""
    return "" if study.effort == study.profile else "full"


def settled(study: Study, page: str) -> pd.DataFrame:
    """The claims that a page settles, as in `claims_table`; computes no more than they ask for.

    `page` is its file in `book/`, without the suffix.
    """
    of_page = [claim for claim in rules.load_claims() if PAGES.get(claim.page) == page]
    wanted = {claim.statistic for claim in of_page}
    measured = [found for source in SOURCES.get(page, ()) for found in source(study) if found.name in wanted]
    return rules.table(of_page, measured, study.profile.shares_with_paper)


def _table(study: Study, sources: Iterable[Callable[[Study], list[Measurement]]]) -> pd.DataFrame:
    measured = [found for source in sources for found in source(study)]
    return rules.table(rules.load_claims(), measured, study.profile.shares_with_paper)


def _counts(study: Study) -> list[Measurement]:
    return evidence.pair_counts(study.pairs())


def _layers(study: Study) -> list[Measurement]:
    neurons, budget = study.neurons(), study.profile.identification.budget
    return [evidence.late_share(neurons, study.n_layers, most) for most in (None, budget)]


def _effects(study: Study) -> list[Measurement]:
    return evidence.effects(study.perturbations(), study.profile)


def _stages(study: Study) -> list[Measurement]:
    return evidence.of_stages(*methods.main_rows(study, study.perturbations()))


def _thresholds(study: Study) -> list[Measurement]:
    return evidence.in_range({name: study.thresholds(name) for name in study.studied()})


SOURCES: dict[str, tuple[Callable[[Study], list[Measurement]], ...]] = {  # what each page measures
    "data-filtering": (_counts,),
    "stage-1": (stage_1.measured,),
    "stage-2": (stage_2.measured,),
    "layer-distribution": (_layers,),
    "ceiling": (ceilings.measured, curves.measured),
    "perturbation": (_effects, _stages, ownership.measured, matched.measured),
    "ablation": (_stages, matched.measured),
    "faithfulness": (exact_effects.measured,),
    "thresholds": (_thresholds, threshold_rules.measured),
    "each-choice": (ladder.measured, third_stage.measured),
}


OF_MAIN_SETTING = (_counts, _layers, _effects, _thresholds)  # what asks for no rivals, and for no model


def by_verdict(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each verdict that is there, first what contradicts the paper."""
    for verdict in ("not reproduced", "inconclusive", "same direction", "reproduced", "not comparable", "not run"):
        rows = table[table["verdict"] == verdict]
        if len(rows):
            yield verdict, rows


TOPICS = {  # what the paper's claims are about -> the pages that settle them
    "What noise on the neurons does": ("perturbation", "ceiling"),
    "How the neurons are found": ("stage-1", "stage-2", "ablation", "faithfulness", "choices"),
    "Where they lie": ("layers",),
    "The paper’s own setting": ("filtering", "thresholds"),
}


def by_topic(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each topic that has some, under its name and tally."""
    for topic, pages in TOPICS.items():
        rows = table[table["page"].isin(pages)]
        if len(rows):
            yield f"{topic}: {tally(rows)}", rows


def tally(table: pd.DataFrame) -> str:
    """'17 not reproduced, 4 same direction, 4 reproduced'."""
    return ", ".join(f"{len(rows)} {verdict}" for verdict, rows in by_verdict(table))


def not_run(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Claims without a number, a row for what they wait for: columns claims (in words), why, command."""
    rows = table[table["verdict"] == "not run"]
    grouped = rows.groupby(["reason", "page"], sort=False)["statement"].agg(" ".join).reset_index()
    grouped["command"] = [_command(study, PAGES.get(page)) for page in grouped["page"]]
    grouped["claims"] = grouped["statement"].map(indexed)
    return grouped.rename(columns={"reason": "why"})[["claims", "why", "command"]]


def _command(study: Study, page: str | None) -> str:
    """What makes a page of the book again."""
    if page is None:
        return "its page is not written yet"
    folder, _, name = page.rpartition("/")
    variables = commands.variables(study.profile, _effort(study))
    return commands.whole(f"doit {folder or 'section'}:{name}", variables)
