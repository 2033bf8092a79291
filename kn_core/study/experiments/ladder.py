"""What each choice is worth: from the paper's recipe one choice at a time, and the third stage, held out.

The rule by which the third stage's contrasts are chosen, written down before any was tried: on `choices.choosing`
selection pictures of every concept, captions forced, that setting of lambda, contrast between concepts and intervention
wins whose share of the word's probability lost and share of the other tokens' probability kept, each a mean over
concepts, have the largest harmonic mean. One setting for all concepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.measures.metrics import headline, probability_suppression
from kn_core.method import controls, perturbation, protocol, recipes
from kn_core.method.interventions import Setting
from kn_core.method.perturbation import Trial
from kn_core.method.recipes import Recipe
from kn_core.method.two_stages import NeuronSet, select
from kn_core.settings import Intervention
from kn_core.study.experiments import attribution
from kn_core.study.experiments.attribution import STAGE_2
from kn_core.study.study import Study

PAPER, THIRD = "paper", "third stage"
CONTROL = "random"  # neurons of the same layers and number, under the same intervention


def neurons(
    study: Study, concept: str, recipe: Recipe, intervention: Intervention, most: int | None = None
) -> NeuronSet:
    """What a recipe leaves of a concept, at most `most` or as many as any budget asks for, the best first."""
    settings = study.profile.identification
    most = most or max((settings.budget, *study.profile.long.choices.budgets))
    if recipe.score == "maxima":
        return study.neuron_set(concept, "two-stage").top(most)
    own, *others = (attribution.pooled(study, each) for each in _own_first(study, concept))
    own |= attribution.elsewhere(study, concept) if recipe.places else {}
    return recipes.chosen_by(recipe, concept, own, others, intervention, settings).top(most)


def ladder(study: Study, concept: str) -> pd.DataFrame:
    """The steps of `recipes.LADDER` under the third stage's intervention and, every one or the last, the profile's.

    Rows of `perturbations.parquet`, the concept's own first held-out pictures, the profile's number of neurons; `step`
    is the step, `method` it too, or `CONTROL` (of every step, or of the first and the last). The paper's own step is
    the perturbations' own, so are its controls. The profile's intervention is on the very neurons that the third
    stage's is on; at the last step other interventions are tried too, each on the neurons that are worth most under it.
    """
    settings, budget = study.effort.choices, study.profile.identification.budget
    main, how = protocol.main_setting(study.effort.perturbation, study.profile.identification), choice(study)[1]
    inputs = fingerprint(upstream(study), settings.model_dump(), asdict(main), how, code(__name__))

    def compute() -> pd.DataFrame:
        planned = []
        for step, recipe in recipes.LADDER.items():
            last = step == list(recipes.LADDER)[-1]
            whole = settings.every_step or last
            also = settings.interventions if last else ()
            for each in dict.fromkeys((*([main.intervention] if whole else []), how, *also)):
                found = neurons(study, concept, recipe, how if each == main.intervention else each)
                if each == main.intervention:
                    planned += [_trial(found, step, main)] if step != PAPER else []
                else:
                    setting = _setting(study, each, budget)
                    planned.append(_trial(found, step, setting))
                    if whole or step == PAPER:
                        planned.append(_trial(_random(study, found), f"{step}/{CONTROL}", setting))
        return _run(study, study.pictures(concept, "held_out", settings.pictures), planned)

    tried = study.store.table(f"ladder-{concept}", inputs, compute)
    names = tried["method"].str.partition("/")
    tried = tried.assign(step=names[0], method=names[2].where(names[2] != "", names[0]))
    rows = headline(study.perturbations(concept), study.effort)
    rows = rows[rows["method"].isin(["two-stage", CONTROL]) & (rows["seed"] == 0)]
    rows = rows[rows["image_id"].isin(tried["image_id"])]
    of = rows["method"].replace({"two-stage": PAPER})
    return pd.concat([rows.assign(method=of, step=PAPER), tried], ignore_index=True)


def by_score(study: Study, concept: str) -> pd.DataFrame:
    """The best by each attribution and by each rival's own score, under the third stage's intervention.

    Rows of `perturbations.parquet`, the pictures and number of neurons of `ladder`; `method` is the score, of
    `attribution.HELD` but for the paper's own, or the rival. Attributions are of the first `choices.paths` selection
    pairs (`attribution.means`), rivals of all.
    """
    settings, budget = study.effort.choices, study.profile.identification.budget
    how, rivals = choice(study)[1], study.effort.perturbation.rivals
    inputs = fingerprint(upstream(study), settings.model_dump(), rivals, how, code(__name__))

    def compute() -> pd.DataFrame:
        scores = {name: each for name, each in attribution.means(study, concept).items() if name not in STAGE_2}
        sets = [select(concept, name, np.ones(each.shape, bool), each).top(budget) for name, each in scores.items()]
        sets += [study.neuron_set(concept, rival).top(budget) for rival in rivals]
        planned = [_trial(each, each.method, _setting(study, how, budget)) for each in sets]
        return _run(study, study.pictures(concept, "held_out", settings.pictures), planned)

    return study.store.table(f"by-score-{concept}", inputs, compute)


def contrasts(study: Study, concept: str) -> pd.DataFrame:
    """The third stage's settings on selection pictures, captions forced: a row a picture and setting.

    Columns `CHOICE`, concept, image_id, suppression_probability, retention_probability.
    """
    settings, budget = study.profile.choices, study.profile.identification.budget
    inputs = fingerprint(upstream(study), code(__name__))

    def compute() -> pd.DataFrame:
        every = recipes.contrasts(settings.within, settings.between, settings.places)
        tried = [(recipe, how) for recipe in every for how in settings.interventions]
        planned = [
            _trial(neurons(study, concept, recipe, how), str(place), _setting(study, how, budget), "choosing")
            for place, (recipe, how) in enumerate(tried)
        ]
        pictures = study.pictures(concept, "select", settings.choosing)
        shown = [replace(picture, chooses_dose=True) for picture in pictures]
        rows = perturbation.run(study.model, shown, planned, None, max_new_tokens=0)
        of = [tried[int(place)] for place in rows["method"]]
        return rows[["concept", "image_id", "intervention"]].assign(
            within=[recipe.within for recipe, _ in of],
            between=[recipe.between for recipe, _ in of],
            places=[recipe.places for recipe, _ in of],
            suppression_probability=probability_suppression(rows["clean_probability"], rows["target_probability"]),
            retention_probability=rows["retained_probability"],
        )

    return study.store.table(f"contrasts-{concept}", inputs, compute)


CHOICE = ["within", "between", "places", "intervention"]
DECIDES = {"scored", "choosing", "within", "between", "places", "interventions"}  # of `Choices`


def compared(study: Study, concepts: Iterable[str] | None = None) -> pd.DataFrame:
    """`contrasts` as means over concepts, the best by the rule first: `CHOICE`, both readings, harmonic."""
    of = list(concepts or study.studied())
    rows = pd.concat([contrasts(study, concept) for concept in of], ignore_index=True)
    readings = ["suppression_probability", "retention_probability"]
    means = rows.groupby([*CHOICE, "concept"], sort=False)[readings].mean().groupby(CHOICE, sort=False).mean()
    lost, kept = (means[name].clip(lower=0) for name in readings)
    means["harmonic"] = (2 * lost * kept / (lost + kept)).fillna(0)
    return means.sort_values("harmonic", ascending=False, kind="stable").reset_index()


def choice(study: Study) -> tuple[Recipe, Intervention]:
    """What the rule chooses for all concepts."""
    best = compared(study).iloc[0]
    return Recipe("worth", float(best["within"]), best["between"], float(best["places"])), best["intervention"]


def specific(study: Study, concept: str, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """The chosen score, (L, D), of another picture of the concept, from its `attribution.first_order`."""
    recipe, how = choice(study)
    own = {name: abs(score) if name.endswith("-other") else score for name, score in found.items()}
    own |= attribution.elsewhere(study, concept) if recipe.places else {}
    others = [attribution.pooled(study, other) for other in _own_first(study, concept)[1:]]
    return recipes.specific(recipe, own, others, recipes.worth(how))


def upstream(study: Study) -> str:
    """Neurons of one concept follow from the scores of all, and from what the contrasts were chosen by."""
    settings = study.profile.choices.model_dump(include=DECIDES), study.effort.perturbation.patch_site
    return fingerprint([study.inputs(concept) for concept in study.studied()], *settings)


def third_stage(study: Study, concept: str) -> pd.DataFrame:
    """The chosen setting on held-out pictures: rows of `perturbations.parquet`; `method` is `THIRD`, or its `CONTROL`.

    At every budget, and for the control, on all of the concept's own (or the first, `choices.held_out`), at the
    profile's also on some of other concepts'. `method` 'no contrasts' is what the same intervention on the neurons
    that are worth most to the word, whatever else they do, takes from other concepts' pictures.
    """
    settings, budget = study.effort.choices, study.profile.identification.budget
    recipe, how = choice(study)
    inputs = fingerprint(upstream(study), settings.model_dump(), asdict(recipe), how, code(__name__))

    def compute() -> pd.DataFrame:
        found, plain = (neurons(study, concept, each, how) for each in (recipe, Recipe()))
        setting = _setting(study, how, budget)
        planned = [_trial(found, THIRD, setting, "fresh"), _trial(plain, "no contrasts", setting, "choosing")]
        planned += [_trial(found, THIRD, replace(setting, n=n)) for n in settings.budgets]
        planned.append(_trial(_random(study, found), CONTROL, setting))
        pictures = study.pictures(concept, "held_out", settings.held_out)
        for other in _own_first(study, concept)[1:]:
            foreign = study.pictures(other, "held_out", settings.others_per_concept)
            pictures += [replace(picture, chooses_dose=True) for picture in foreign]
        return _run(study, pictures, planned)

    return study.store.table(f"third-{concept}", inputs, compute)


def _own_first(study: Study, concept: str) -> list[str]:
    return [concept, *(other for other in study.studied() if other != concept)]


def _setting(study: Study, intervention: Intervention, n: int) -> Setting:
    """Zero or patch where all that a neuron writes is read."""
    return Setting(intervention, "image", n, float("nan"), 0, study.effort.perturbation.patch_site)


def _trial(found: NeuronSet, method: str, setting: Setting, scope: perturbation.Scope = "own") -> Trial:
    return Trial(replace(found, method=method), setting, scope)


def _random(study: Study, like: NeuronSet) -> NeuronSet:
    at_budget = like.top(study.profile.identification.budget)
    rng = controls.generator(like.concept, study.profile.data.seed)
    return controls.same_layers(at_budget, study.model.ffn_width, rng)


def _run(study: Study, pictures: list[perturbation.Picture], planned: list[Trial]) -> pd.DataFrame:
    return perturbation.run(study.model, pictures, planned, None, study.profile.model.max_new_tokens)
