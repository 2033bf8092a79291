"""What rules for stage 1's threshold leave, how much of it is false, and what noise on it does.

A rule says which neurons are candidates, by their answers to the object and to the decoys of the selection pictures
(`method.thresholds`). Stage 2 follows as the profile has it, and the best are disturbed in the main setting on held-out
pictures, as many as the budget allows: of rules from a null those of most worth to the word by attribution patching,
of the others those that the profile ranks first. Rules that leave the same neurons are tried once.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import get_args

import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.measures.metrics import headline
from kn_core.method import controls, identification, perturbation, protocol, thresholds
from kn_core.method.thresholds import Found
from kn_core.method.two_stages import NeuronSet, select, stage_2
from kn_core.profile import Profile
from kn_core.settings import FromNull
from kn_core.study.experiments import attribution
from kn_core.study.study import Study

RANDOM = "random"  # the method's name of random neurons of the layers of the profile's own set
TRIAL = ("tried", "pictures", "kinds")  # settings that say what is tried, not what a rule finds
OWN = "quantile"  # the rule that is tried whatever the profile says, because others are compared with it


def rules(study: Study, concept: str) -> pd.DataFrame:
    """A row a rule: columns concept, rule, and of what it finds (`thresholds.Found`) scale, threshold, candidates,
    exchanged, no_more, false_share.

    Then kept (of the candidates after stage 2), disturbed (of these) and neurons, the name of that set, '' of none:
    where it is the same, so are the neurons; places, layer * D + unit of each.
    """

    def compute() -> pd.DataFrame:
        rows = []
        for name, found in _found(study, concept).items():
            kept = _kept(study, concept, name, found)
            row = {"concept": concept, "rule": name, "scale": found.scale, "threshold": found.threshold}
            row |= {"candidates": int(found.kept.sum()), "exchanged": found.exchanged, "no_more": found.no_more}
            row |= {"false_share": found.false_share, "kept": len(kept)}
            best = _best(study, concept, name, found)
            places = (best.layers * study.measured(concept)["delta"].shape[2] + best.units).tolist()
            rows.append(row | {"disturbed": len(best), "neurons": _name(best), "places": places})
        return pd.DataFrame(rows)

    return study.store.table(f"rules-{concept}", _inputs(study, concept), compute)


def stimulus(study: Study, concept: str) -> pd.DataFrame:
    """How much a pixel changes, of 255, without the object and without the decoy: columns concept, object, decoy."""
    return pd.DataFrame(study.decoys(concept)["changed"], columns=["object", "decoy"]).assign(concept=concept)


def trials(study: Study, concept: str, alone: bool = False) -> pd.DataFrame:
    """Captions under the main noise on what the rules of `rules.tried` leave: rows as in `perturbations.parquet`.

    On the first `rules.pictures` held-out pictures, first seed. `method` is a set's name in `rules`, or `RANDOM`. What
    the perturbations have tried already is theirs; `alone`: there are none.
    """
    settings, named = study.effort, rules(study, concept)
    main = protocol.main_setting(settings.perturbation, settings.identification)
    ids = study.pairs(concept).query("role == 'held_out'")["image_id"].head(settings.rules.pictures).tolist()
    wanted = {*named[named["rule"].isin([OWN, *settings.rules.tried])]["neurons"], RANDOM} - {""}
    there = _perturbed(study, concept, ids, main.seed) if not alone else pd.DataFrame({"method": []})
    missing = sorted(wanted.difference(there["method"]))

    def compute() -> pd.DataFrame:
        found = _found(study, concept)
        best = {_name(each): each for each in (_best(study, concept, *of_rule) for of_rule in found.items())}
        rng = controls.generator(concept, main.seed)
        best[RANDOM] = controls.same_layers(_best(study, concept, OWN, found[OWN]), study.model.ffn_width, rng)
        chosen = [replace(best[name], method=name) for name in missing]
        planned = [perturbation.Trial(each, replace(main, n=len(each)), "own") for each in chosen]
        mean = study.mean_activation(without=concept) if main.intervention == "mean" else None
        pictures = study.pictures(concept, "held_out", len(ids))
        return perturbation.run(study.model, pictures, planned, mean, settings.model.max_new_tokens)

    name = f"null-{concept}" + ("-full" if settings != study.profile else "")
    inputs = fingerprint(_inputs(study, concept), asdict(main), missing, ids)
    tried = [study.store.table(name, inputs, compute)] if missing else []
    return pd.concat([there[there["method"].isin(wanted)], *tried], ignore_index=True)


def kinds(study: Study) -> Study | None:
    """The study of the concepts of `rules.kinds`, in the long version; None where there are none."""
    profile = study.effort
    if not profile.rules.kinds:
        return None
    changes = {"concepts": profile.rules.kinds, "ours": (), "full": {}}
    changes["rules"] = profile.rules.model_dump() | {"kinds": ()}
    changes["perturbation"] = profile.perturbation.model_dump() | {"rivals": (), "sweep_interventions": ()}
    other = Study(Profile.model_validate(profile.model_dump() | changes), study.folder / "kinds")
    if "model" in study.__dict__:
        other.model = study.model
    return other


def ahead(study: Study, concept: str) -> None:
    """A concept's rules and trials, and those of its share of the other kinds."""
    trials(study, concept)
    if other := kinds(study):
        place, concepts = study.profile.concepts.index(concept), other.profile.concepts
        for kind in concepts[place :: len(study.profile.concepts)]:
            trials(other, kind, alone=True)


def _inputs(study: Study, concept: str) -> str:
    settings = study.profile.identification.model_dump(), study.profile.rules.model_dump(exclude=set(TRIAL))
    scored = study.profile.choices.scored  # selection pictures that attributions are of
    return fingerprint(study.inputs(concept), study.decoy_inputs(concept), settings, scored, code(__name__))


def _found(study: Study, concept: str) -> dict[str, Found]:
    settings, seed = study.profile, study.profile.data.seed
    quantile = settings.identification.threshold_a.quantile
    return dict(thresholds.rules(*study.against_decoys(concept), settings.rules, quantile, seed))


def _best(study: Study, concept: str, rule: str, found: Found) -> NeuronSet:
    """What is disturbed of a rule's candidates."""
    return _kept(study, concept, rule, found).top(study.profile.identification.budget)


def _kept(study: Study, concept: str, rule: str, found: Found) -> NeuronSet:
    settings = study.profile.identification
    pooled = identification.pooled(study.measured(concept), settings)
    limit = identification.threshold(settings.threshold_g, concept, pooled["gradcam"])
    from_null = rule in get_args(FromNull)
    score = attribution.pooled(study, concept)["atp"] if from_null else pooled[settings.rank_by]
    return select(concept, "", stage_2(found.kept, pooled["gradcam"], limit), score)


def _name(neurons: NeuronSet) -> str:
    """The same neurons have the same name; none have ''."""
    places = zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True)
    return fingerprint(sorted(places)) if len(neurons) else ""


def _perturbed(study: Study, concept: str, ids: list[str], seed: int) -> pd.DataFrame:
    """What the perturbations tried on these pictures with this seed: the profile's own neurons, and random ones."""
    rows = headline(study.perturbations(concept), study.effort)
    rows = rows[(rows["image_concept"] == concept) & rows["image_id"].isin(ids) & (rows["seed"] == seed)]
    own = _name(study.neuron_set(concept).top(study.profile.identification.budget))
    named = rows["method"].map({"two-stage": own, "random": RANDOM})
    return rows.assign(method=named).dropna(subset="method")
