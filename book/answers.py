"""The first page: what the paper claims in three questions, what came out, and what does work instead."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from book import first_figures as drawn
from book.ceiling import ceilings
from book.choices import third_stage
from book.choices.ladder import DONE
from book.perturbation import matched, ownership, references
from book.perturbation.readings import neurons_in_words, printed
from book.words import NotRun, interval, told
from kn_core.measures.metrics import headline
from kn_core.measures.stats import GAP, SHARE, Estimate
from kn_core.measures.summaries import contrast, main_retention, perplexity_limit, summarise
from kn_core.settings import Checkpoint
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ownership import cross
from kn_core.study.study import Study


def in_words(study: Study) -> dict[str, str]:
    """What was run, for the first page's sentences, and what the object's removal itself keeps of the rest."""
    perturbations, profile = study.perturbations(), study.profile
    own = headline(perturbations, profile).query("method == 'two-stage'")
    model = profile.model
    bounds = references.bounds(perturbations, perplexity_limit(perturbations)).set_index(["method", "metric"])
    removal = bounds["value"].get(("removal", main_retention(perturbations)), math.nan)
    return {
        "n": f"{profile.identification.budget}",
        "pictures": f"{own['image_id'].nunique()}",
        "concepts": f"{own['concept'].nunique()}",
        "kind-of-pictures": "drawn scenes" if profile.data.source == "scenes" else "photographs",
        "model": Path(model.checkpoint).name if isinstance(model, Checkpoint) else f"{model.tower} and {model.decoder}",
        "removal": "–" if math.isnan(removal) else f"{removal:.0%}",
    }


@dataclass(frozen=True)
class Answer:
    """A question of the first page, the answer in a word or five, its numbers in a sentence, where to read on."""

    question: str
    answer: str
    numbers: str
    page: str  # address, relative to the first page
    figure: Figure | None = None
    drawing: str = ""  # the figure in words


def answers(study: Study) -> list[Answer]:
    """Does noise take the object away, are the neurons its own, does the rest stay; and what works."""
    doses = matched.Doses(study.perturbations(), study.effort)
    return [_taken(study, doses), _whose(study), _kept(doses), _works(study, doses)]


def _taken(study: Study, doses: matched.Doses) -> Answer:
    perturbations, paper = study.perturbations(), printed()
    main = headline(perturbations, study.profile)
    means = summarise(main, ["method"]).query("metric == 'suppression'").set_index("method")
    found = {name: _shares(means, name) for name in ("two-stage", "random")}
    (gap,) = contrast(main, "two-stage", "random").query("metric == 'suppression'").to_dict("records")
    ours = doses.at_main("two-stage")
    alike = doses.told(ours[1] - doses.at("random", ours[0]), GAP)
    more = told(
        alike.low,
        alike.high,
        "Yes, and more neatly than random neurons",
        "Yes, but random neurons do it more neatly",
        "Yes, but so does more noise on any neurons",
        "Yes, more than on random neurons",
    )
    return Answer(
        "Does noise on these neurons take the object away?",
        told(gap["low"], gap["high"], more, "No: less than on random neurons", "Not to be told from random neurons"),
        f"{found['two-stage']} of the captions lose the name (the paper: {paper['suppression']:.0%}); with noise on "
        f"random neurons of the same layers, {found['random']}.",
        "perturbation.html",
        drawn.over_noise(doses, paper["suppression"]),
        "Share of captions that lose the name against the noise, on the neurons of both stages and on random ones.",
    )


def _whose(study: Study) -> Answer:
    concepts = study.studied()
    crossed = pd.concat([cross(study, concept) for concept in concepts], ignore_index=True)
    found = ownership.silenced(crossed)
    own, gap = found["concept"] == found["image_concept"], ownership.own_minus_foreign(found)
    means = [found[rows].groupby("image_concept")["probability"].mean().mean() for rows in (own, ~own)]
    here, there = ("–" if math.isnan(mean) else f"{mean:.0%}" for mean in means)
    return Answer(
        "Are they the object’s own?",
        told(gap.low, gap.high, "Yes", "No: others’ take more", "Not visibly: others’ neurons do as much"),
        f"A concept’s own neurons take {here} of its word’s probability, another concept’s {there} (difference "
        f"{interval(*gap.ends)}). Of {study.profile.identification.budget} neurons "
        f"{neurons_in_words(study, concepts)['every']} are in every concept’s set.",
        "perturbation.html",
        drawn.who_silences_whom(found, concepts),
        "A row the concept whose neurons are disturbed, a column the concept shown; dark where its word is lost.",
    )


def _kept(doses: matched.Doses) -> Answer:
    paper = printed()
    there = doses.told(doses.at("two-stage", paper["suppression"]), SHARE)
    most = doses.means["two-stage"][0, :, 0].max()
    short = Estimate(there.value - paper["retention"], there.low - paper["retention"], there.high - paper["retention"])
    kept = f"{interval(*there.ends, '{:z.0%}')} of the rest stays"
    if math.isnan(there.value):
        beyond = f"no noise goes beyond {most:.0%}" if doses.several("two-stage") else "one noise alone was tried"
        kept = f"nothing can be read: {beyond}"
    return Answer(
        "Does the rest stay?",
        told(
            short.low, short.high, "Yes, more than in the paper", "No: less than in the paper", "As in the paper", "–"
        ),
        f"Where {paper['suppression']:.0%} of the captions lose the name, as in the paper, {kept}; the paper: "
        f"{paper['retention']:.0%}.",
        "perturbation.html",
        drawn.plane(doses, paper),
        "Retention against suppression over the noise: neurons of both stages, random ones, and the paper’s point.",
    )


def _works(study: Study, doses: matched.Doses) -> Answer:
    """What as many neurons do that a third stage chooses; or why it was not run."""
    question, page = "What does work?", "each-choice.html"
    n, tried, paper = study.profile.identification.budget, study.perturbations(), printed()
    try:
        everything = ceilings.measured(study)[0]
        chosen = third_stage.main(third_stage.of_all(study, study.studied()), n, perplexity_limit(tried)).set_index(
            "metric"
        )
    except NotRun as error:
        return Answer(question, "Not run", str(error).replace("**", "").replace("`", ""), page)
    has = {name: _shares(chosen, name) for name in chosen.index}
    return Answer(
        question,
        f"A third stage: as many neurons, {DONE[ladder.choice(study)[1]]}",
        f"{n} chosen by what they do for this word and not for others: {has['suppression']} lose the name, "
        f"{has[main_retention(tried)]} of the rest stays. All neurons, patched to what they say without the object: "
        f"{everything.value:.0%} lose it.",
        page,
        drawn.third(doses, chosen, paper),
        "Retention against suppression: the paper’s recipe here, the third stage here, and the paper’s point.",
    )


def _shares(found: pd.DataFrame, name: str) -> str:
    value, low, high = (float(found[end][name]) for end in ("value", "low", "high"))
    return interval(value, low, high, "{:z.0%}")


def cards(found: list[Answer]) -> str:
    """The answers as HTML: a card each, the last one as wide as the page."""
    made = []
    for one in found:
        figure = drawn.svg(one.figure) if one.figure else ""
        said = f' role="img" aria-label="{html.escape(one.drawing)}"' if figure else ""
        made.append(
            f'<a class="answer" href="{one.page}"><span class="question">{html.escape(one.question)}</span>'
            f'<strong>{html.escape(one.answer)}</strong><div class="drawn"{said}>{figure}</div>'
            f"<span>{html.escape(one.numbers)}</span></a>"
        )
    return f'<div class="answers">{"".join(made)}</div>'
