"""Every method beside every other: doses chosen on the pictures that chose neurons, Table II, its tests, the controls.

Frames of `perturbations.parquet` in, tidy frames out. All methods have the same number of neurons.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.claims.evidence import RIVALS
from book.perturbation.readings import harmonic_mean, sweep
from book.perturbation.references import references
from book.style import METHODS, READINGS, methods_of, readings_of
from book.words import listed
from kn_core.measures.metrics import headline, per_image
from kn_core.measures.stats import GAP, each_alone, effect_size, holm, paired_permutation, percentile_among
from kn_core.measures.summaries import main_retention, paired, perplexity_limit, with_intervals
from kn_core.method.identification import found_by
from kn_core.profile import Profile
from kn_core.settings import Identification
from kn_core.study.experiments.texts import with_text
from kn_core.study.study import Study

CHOOSING = methods_of("ours", "stage", "rival")  # methods that choose neurons
AT_TEXT = methods_of("at text")
SUPPRESSION, RETENTION = readings_of("suppression"), (*readings_of("retention"), "fluent")  # columns of Table II
BOUNDS = methods_of("bound")  # what S_se and S_re are where no neuron is disturbed
CONTROLS = methods_of("control")  # those of single neurons too, which no perturbation has


def main_rows(study: Study, perturbations: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The main setting's rows on held-out pictures and `references`, scored as text too; and what is too perplexing."""
    main = headline(perturbations, study.profile).query("method != 'direction'")  # on the pictures of sweeps alone
    rows = pd.concat([main, references(perturbations)], ignore_index=True)
    return with_text(study, rows), perplexity_limit(perturbations)


def doses(perturbations: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """How each noise does on the pictures that choose a dose.

    Columns method, sigma, suppression, retention (`main_retention`), score (their harmonic mean), chosen: a method's
    best; of equals, the weakest noise. No held-out picture has a say. Where the profile lets no picture choose, all
    keep the main noise.
    """
    settings, kept = profile.perturbation, main_retention(perturbations)
    if not settings.choosing:
        unchosen = pd.DataFrame(
            {"method": headline(perturbations, profile)["method"].unique(), "sigma": settings.sigma}
        )
        return unchosen.assign(suppression=np.nan, retention=np.nan, score=np.nan, chosen=True)
    rows = perturbations[~perturbations["heldout"] & (perturbations["concept"] == perturbations["image_concept"])]
    rows = rows[(rows["seed"] == 0) & (rows["intervention"] == "noise") & (rows["n"] == profile.identification.budget)]
    rows = rows[(rows["positions"] == settings.positions) | rows["method"].isin(AT_TEXT)]
    tried = rows.groupby(["method", "image_id"])["sigma"].transform("nunique")
    every = {False: len({*settings.sweep_sigma, settings.sigma}), True: len(settings.text_sigma)}
    rows = rows[tried == rows["method"].isin(AT_TEXT).map(every)]  # two-stage ones have seen others at one dose
    found = per_image(rows, ["method", "sigma"]).groupby(["method", "sigma", "metric", "image_concept"])["value"].mean()
    means = found.groupby(["method", "sigma", "metric"]).mean().reset_index()
    wide = means.pivot_table(index=["method", "sigma"], columns="metric", values="value")
    wide = wide[["suppression", kept]].set_axis(["suppression", "retention"], axis="columns")
    wide["score"] = harmonic_mean(wide["suppression"], wide["retention"])
    wide = wide.reset_index().rename_axis(columns=None)
    wide["chosen"] = wide.index.isin(wide.groupby("method")["score"].idxmax())  # the first, so the weakest, of equals
    return wide


def swept(doses: pd.DataFrame) -> list[str]:
    """The methods, at image tokens, that have one of several `doses`; the only one that was tried is nobody's own."""
    tried = doses.groupby("method")["sigma"].nunique()
    return [name for name in (*CHOOSING, "random") if tried.get(name, 0) > 1]


def at_own_dose(study: Study, perturbations: pd.DataFrame, doses: pd.DataFrame) -> pd.DataFrame:
    """`main_rows`, but of the pictures that saw every noise, and under the chosen one of each `swept` method."""
    chosen = doses[doses["chosen"] & doses["method"].isin(swept(doses))].set_index("method")["sigma"]
    rows = sweep(perturbations, study.profile, "sigma", [*CHOOSING, "random"])
    rows = rows[rows["sigma"] == rows["method"].map(chosen)]
    return with_text(study, rows) if len(rows) else rows


def compare(
    rows: pd.DataFrame, limit: float, ours: str = "two-stage", floor: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Methods x metrics with tests against `ours`, all paired image by image on held-out pictures.

    Columns method, metric, value, low, high, n_images, n_concepts; difference (ours minus the method) with its interval
    difference_low, difference_high, effect (Cohen's d_z), p (sign flips of pictures: these concepts' pictures could as
    well be exchanged), p_concepts (of concepts: methods differ by concept, and these are a few of many), and both after
    Holm over the methods of a metric, p_holm and p_concepts_holm; best, and tie: not best, and not told from the best
    at 5 % after Holm. What is no method (`BOUNDS`) is held against nothing; `floor` has more of that
    (`references.bounds`). Raises ValueError without `ours`.
    """
    if ours not in (known := rows["method"].unique().tolist()):
        raise ValueError(f"ours must be one of the methods {known}. Got {ours!r}.")
    images = per_image(rows, ["method"], perplexity_limit=limit)
    table = with_intervals(images, ["method"])
    if floor is not None:
        table = pd.concat([table, floor[~floor["method"].isin(table["method"])]], ignore_index=True)
    order = {method: place for place, method in enumerate(METHODS)}
    table = table.sort_values("method", key=lambda methods: methods.map(order), kind="stable", ignore_index=True)
    against = [_against(images, ours, method) for method in table["method"].unique() if method not in (ours, *BOUNDS)]
    table = table.merge(pd.concat(against), how="left", on=["method", "metric"])
    for test in ("p", "p_concepts"):
        table[f"{test}_holm"] = table.groupby("metric")[test].transform(holm)
    good = table["value"].where(~table["metric"].map(lambda metric: READINGS[metric].low_is_good), -table["value"])
    good = good.mask(table["method"].isin(BOUNDS))  # no method's
    table["best"] = good == good.groupby(table["metric"]).transform("max")
    table["tie"] = False
    for metric, of_metric in table.groupby("metric"):
        best = of_metric.loc[of_metric["best"], "method"].iloc[0]
        others = of_metric[~of_metric["best"] & ~of_metric["method"].isin(BOUNDS)]
        p = [_p(images[images["metric"] == metric], str(best), method) for method in others["method"]]
        table.loc[others.index, "tie"] = holm(p) >= 0.05
    return table


def compare_own(rows: pd.DataFrame, limit: float, ours: str = "two-stage") -> pd.DataFrame:
    """`compare` of `at_own_dose` rows; no rows where `ours` was tried under one noise alone."""
    if ours in set(rows["method"]):
        return compare(rows, limit, ours)
    return pd.DataFrame(columns=["method", "metric", "value", "low", "high", "n_images", "n_concepts"])


def cannot_act(study: Study, concepts: Sequence[str]) -> dict[str, float]:
    """Share of a method's best neurons that lie in the last layer, where nothing reads what they write at image tokens.

    By method, the mean over concepts, were all neurons ranked; what is disturbed leaves them out (`found_by`).
    """
    settings, shares = study.profile.identification.model_copy(update={"inert": True}), {}
    for method in ("two-stage", *study.effort.perturbation.rivals):
        shares[method] = float(np.mean([_last_layer(study, method, concept, settings) for concept in concepts]))
    return shares


def _last_layer(study: Study, method: str, concept: str, settings: Identification) -> float:
    found = found_by(method, concept, study.pooled(concept), study.thresholds(concept), settings).top(settings.budget)
    return float(np.mean(found.layers == study.n_layers - 1))


def control_draws(rows: pd.DataFrame, limit: float, kept: str) -> pd.DataFrame:
    """What each draw of each control does, mean over concepts of their pictures: control, draw, metric, value.

    All draws of a control, and in `among_controls` what is held against them, are of the pictures on which every one of
    them was tried.
    """
    found = []
    for control in (name for name in CONTROLS if name in set(rows["method"])):
        of_control = _with_every_draw(rows, control)
        of_draw = _means(of_control[of_control["method"] == control], ["seed"], limit).rename("value").reset_index()
        found.append(
            of_draw[of_draw["metric"].isin(("suppression", kept))]
            .rename(columns={"seed": "draw"})
            .assign(control=control)
        )
    return pd.concat(found, ignore_index=True)[["control", "draw", "metric", "value"]]


def among_controls(rows: pd.DataFrame, draws: pd.DataFrame, limit: float, ours: str = "two-stage") -> pd.DataFrame:
    """Where `ours` stands among `control_draws`: control, metric, value, draws, low, high, percentile, n_images.

    low and high are the extremes of the draws, percentile the share of them that lies below `value`, ties half.
    """
    found = draws.groupby(["control", "metric"], sort=False)["value"].agg(draws=list).reset_index()
    found["low"], found["high"] = found["draws"].map(min), found["draws"].map(max)
    tried = {control: _with_every_draw(rows, control) for control in found["control"].unique()}
    value = {control: _means(own[own["method"] == ours], [], limit) for control, own in tried.items()}
    found["value"] = [value[control][metric] for control, metric in zip(found["control"], found["metric"], strict=True)]
    found["percentile"] = list(map(percentile_among, found["value"], found["draws"]))
    pictures = {name: of.loc[of["method"] == ours, "image_id"].nunique() for name, of in tried.items()}
    return found.assign(draws=found["draws"].map(len), n_images=found["control"].map(pictures))


def _with_every_draw(rows: pd.DataFrame, control: str) -> pd.DataFrame:
    """The rows of own pictures on which every draw of the control was tried."""
    rows = rows[rows["concept"] == rows["image_concept"]]
    draws = rows[rows["method"] == control].groupby("image_id")["seed"].nunique()
    return rows[rows["image_id"].isin(draws[draws == draws.max()].index)]


def controls_for_readers(among: pd.DataFrame) -> pd.DataFrame:
    """`among_controls` in words: a row a control, for each of the two numbers its draws and the percentile of ours."""
    shown = pd.DataFrame({"control": [METHODS[name].label for name in dict.fromkeys(among["control"])]})
    for metric in dict.fromkeys(among["metric"]):
        rows, heading = among[among["metric"] == metric], READINGS[metric].side
        shown[f"{heading} of the draws"] = [f"{row.low:.2f} to {row.high:.2f}" for row in rows.itertuples()]
        shown[f"{heading}, two-stage"] = rows["value"].tolist()
        if rows["percentile"].notna().any():
            shown[f"{heading}, percentile"] = [f"{100 * share:.0f}" for share in rows["percentile"]]
    return shown


def in_words(same: pd.DataFrame, own: pd.DataFrame, doses: pd.DataFrame, kept: str) -> dict[str, str]:
    """`compare` under one noise and under each method's own, for sentences; `kept` is the reading of S_re."""
    told = same[same["method"].isin(RIVALS) & (same["p_holm"] < 0.05)].assign(does=np.sign(same["difference"]))
    better = []
    for metric, number in (("suppression", "suppression"), (kept, "retention")):
        sides = {1: "better", -1: "worse"}
        than = {
            said: told[(told["metric"] == metric) & (told["does"] == does)]["method"] for does, said in sides.items()
        }
        each = [f"{said} than {listed([METHODS[name].label for name in of])}" for said, of in than.items() if len(of)]
        better += [f"in {number} they do {' and '.join(each)}"] if each else []
    return {
        "ranking": _ranking(same, kept),
        "better": "; ".join(better).removesuffix(".") or "they differ clearly from none in either number",
        "own-noise": _own_noise(same, own, doses, kept),
    }


def _own_noise(same: pd.DataFrame, own: pd.DataFrame, doses: pd.DataFrame, kept: str) -> str:
    """Which methods have a noise of their own and which were tried under one alone; that of the two-stage neurons."""
    if own.empty:
        unchosen = "Nothing was chosen: this profile sets no picture aside for it."
        return unchosen if doses["score"].isna().all() else "Here one noise alone was tried, and none is anyone's own."
    several = set(swept(doses))
    alone = [name for name in dict.fromkeys(same["method"]) if name not in (*several, *BOUNDS)]
    tried = "; ".join(METHODS[name].label for name in METHODS if name in several)
    one = "; ".join(METHODS[name].label for name in alone)
    chosen = doses[doses["chosen"]].set_index("method")["sigma"]
    return (
        f"Several noises were tried for these: {tried}. "
        + (f"Under one alone, so without a diamond: {one}. " if alone else "")
        + f"For the two-stage neurons σ = {chosen['two-stage']:g} was chosen{_balance(own, kept)}. "
        + f"{_ranking(own, kept)}."
    )


def _balance(own: pd.DataFrame, kept: str) -> str:
    """What the noise of their own gives the two-stage neurons and random ones, on the pictures that report it."""
    wide = own.pivot_table(index="method", columns="metric", values="value").reindex(["two-stage", "random"])
    ours, theirs = (2 / (1 / wide[["suppression", kept]].clip(lower=1e-9)).sum(axis=1, skipna=False)).tolist()
    beside = "" if np.isnan(theirs) else f", where random neurons under theirs have {theirs:.2f}"
    return f"; with it the harmonic mean of suppression and retention is {ours:.2f}{beside}"


def _ranking(table: pd.DataFrame, kept: str) -> str:
    """Who suppresses most and who keeps most, of the methods that choose neurons; beside them, random neurons."""
    by = {metric: rows.set_index("method") for metric, rows in table.groupby("metric")}
    most, least_lost = by["suppression"], by[kept]
    values = most["value"].reindex(CHOOSING).dropna()
    where = f", place {(values > values['two-stage']).sum() + 1} of {len(values)}"
    return (
        f"Of the methods that choose neurons, most is suppressed by {_first(most, where)}, "
        f"and most is kept with {_first(least_lost)}"
    )


def _first(found: pd.DataFrame, where: str = "") -> str:
    """The method of the largest value beside the two-stage neurons; if these are the first, beside the next."""
    values = found["value"].reindex(CHOOSING).dropna()
    two_stage, others = values["two-stage"], values.drop("two-stage")
    chance = f"; random neurons {found['value']['random']:.2f}" if "random" in found.index else ""
    if others.empty:
        return f"the two-stage neurons ({two_stage:.2f}{chance})"
    best = str(others.idxmax())
    theirs = f"those of {METHODS[best].label}"
    unclear = ", not to be told apart" if found["p_holm"][best] >= 0.05 else ""
    if others.max() > two_stage:
        return f"{theirs} ({others.max():.2f}; two-stage {two_stage:.2f}{where}{unclear}{chance})"
    return f"the two-stage neurons ({two_stage:.2f}; {theirs} {others.max():.2f}{unclear}{chance})"


def _means(rows: pd.DataFrame, by: list[str], limit: float) -> pd.Series:
    images = per_image(rows, by, perplexity_limit=limit)
    return images.groupby([*by, "metric", "image_concept"])["value"].mean().groupby([*by, "metric"]).mean()


def _against(images: pd.DataFrame, ours: str, method: str) -> pd.DataFrame:
    differences = paired(images, ours, method)
    names = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    found = with_intervals(differences, [], within=GAP)[["metric", *names]].rename(columns=names)
    clusters = {metric: _clusters(of_metric) for metric, of_metric in differences.groupby("metric")}
    found["effect"] = [effect_size(clusters[metric]) for metric in found["metric"]]
    found["p"] = [paired_permutation(clusters[metric]) for metric in found["metric"]]
    means = {metric: each_alone(values.mean() for values in of_metric) for metric, of_metric in clusters.items()}
    found["p_concepts"] = [paired_permutation(means[metric]) for metric in found["metric"]]
    return found.assign(method=method)


def _p(images: pd.DataFrame, method: str, against: str) -> float:
    clusters = _clusters(paired(images, method, against))
    return paired_permutation(clusters) if clusters else np.nan


def _clusters(images: pd.DataFrame) -> list[np.ndarray]:
    return [values.to_numpy(float) for _, values in images.groupby("image_concept")["value"]]
