"""Rules for stage 1's threshold: what they leave, how much of it is estimated to be false, what noise on it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.perturbation import references
from book.perturbation.readings import READ_BY
from book.style import READINGS
from book.words import CHANGE, NotRun, interval, listed, spread, told
from kn_core.measures.metrics import per_image
from kn_core.measures.stats import GAP, Estimate, estimate
from kn_core.measures.summaries import perplexity_limit
from kn_core.method.thresholds import contrast, false_shares
from kn_core.study.experiments import null_thresholds
from kn_core.study.experiments.null_thresholds import OWN, RANDOM
from kn_core.study.study import Study, StudyError

AUTOMATIC = "automatic"  # the decoy rule, else sign flips: what `thresholds: auto` takes
METRICS = ("suppression", "retention_truth", "retention", "fluent")
FEW = 20  # neurons: of fewer no share can be told
CLEAN = {"suppression": 0.0, "retention_truth": 1.0, "retention": 1.0, "fluent": 1.0}  # what no noise does


@dataclass(frozen=True)
class Rule:
    """How the book shows a rule."""

    label: str
    marker: str = ""  # in the figure, of a rule that has its place there
    from_null: bool = False


RULES = {
    "decoy": Rule("decoys, {q:.0%} false", "D", True),
    "sign-flips": Rule("sign flips, {q:.0%} false", "^", True),
    "bh": Rule("Benjamini and Hochberg, {q:.0%}", from_null=True),
    "local-fdr": Rule("local false discovery rate, 20%", from_null=True),
    "stability": Rule("stable in {stable:.0%} of the halves", from_null=True),
    AUTOMATIC: Rule("automatic: decoys, else sign flips", from_null=True),
    "quantile": Rule("{quantile:g} quantile", "o"),
    "largest": Rule("{of_largest:g} of the largest (Dai et al.)", "s"),
    "total": Rule("smallest set with {of_total:.0%} of the total", "P"),
    "elbow": Rule("elbow", "X"),
    "raw-low": Rule("the paper’s lowest, {raw[0]:g}"),
    "raw-high": Rule("the paper’s highest, {raw[1]:g}"),
}


def label(study: Study, rule: str) -> str:
    rules, quantile = study.profile.rules, study.profile.identification.threshold_a.quantile
    return RULES[rule].label.format(**rules.model_dump(), q=rules.false_share, quantile=quantile)


def of_all(study: Study, concepts: Sequence[str], alone: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`null_thresholds.rules` of all concepts that have two decoys, with `AUTOMATIC`; and what was tried of them.

    Raises NotRun where no concept has.
    """
    found, tried, why = list[pd.DataFrame](), list[pd.DataFrame](), ""
    for concept in concepts:
        try:
            of_rules = null_thresholds.rules(study, concept).set_index("rule")
        except StudyError as error:
            why = str(error)
            continue
        chosen = "decoy" if np.isfinite(of_rules["threshold"]["decoy"]) else "sign-flips"
        found.append(pd.concat([of_rules, of_rules.loc[[chosen]].rename(index={chosen: AUTOMATIC})]))
        tried.append(null_thresholds.trials(study, concept, alone))
    if not found:
        raise NotRun(why.removesuffix("."))
    return pd.concat(found).reset_index(), pd.concat(tried, ignore_index=True)


def images(rules: pd.DataFrame, tried: pd.DataFrame, *, limit: float) -> pd.DataFrame:
    """What was tried, a row a rule, picture and metric: columns rule, concept, image_id, metric, value.

    `RANDOM` is a rule too. One that leaves no neurons leaves every caption as it is. Rules that were not tried on every
    concept have no rows.
    """
    of_sets = per_image(tried, ["method"], perplexity_limit=limit)
    of_sets = of_sets[of_sets["metric"].isin(METRICS)].rename(columns={"image_concept": "concept"})
    keys = ["concept", "image_id", "metric", "value"]
    found = rules.merge(of_sets, left_on=["concept", "neurons"], right_on=["concept", "method"])[["rule", *keys]]
    random = of_sets[of_sets["method"] == RANDOM].assign(rule=RANDOM)[["rule", *keys]]
    empty = rules[rules["neurons"] == ""][["rule", "concept"]].merge(random.drop(columns="rule"), on="concept")
    empty["value"] = empty["metric"].map(CLEAN)
    found = pd.concat([found, empty, random], ignore_index=True)
    every = found.groupby("rule")["concept"].transform("nunique") == rules["concept"].nunique()
    return found[every]


def summary(study: Study, rules: pd.DataFrame, of_images: pd.DataFrame) -> pd.DataFrame:
    """A row a rule: columns rule, label; means over concepts of candidates, no_more, kept, disturbed, `shared`.

    Then false_share (mean over those of which it leaves candidates), concepts (of which it leaves neurons to disturb),
    of each metric '<metric>', '<metric>_low', '<metric>_high', and n_images.
    """
    rows, common = [], shared(rules)
    for name, of_rule in rules.groupby("rule", sort=False):
        row: dict[str, object] = {"rule": name, "label": label(study, str(name))}
        row |= {of: of_rule[of].mean() for of in ("candidates", "no_more", "kept", "disturbed")}
        row["false_share"] = of_rule["false_share"][of_rule["candidates"] > 0].mean()
        row["shared"] = common.get(name, np.nan)
        row["concepts"] = int((of_rule["disturbed"] > 0).sum())
        rows.append(row | _effects(of_images, str(name)))
    rows.append({"rule": RANDOM, "label": "random neurons, same layers"} | _effects(of_images, RANDOM))
    order = [*RULES, RANDOM]
    return pd.DataFrame(rows).sort_values("rule", key=lambda names: names.map(order.index), ignore_index=True)


def shared(rules: pd.DataFrame) -> pd.Series:
    """Share of the disturbed neurons that the rule gives to another concept as well, mean over concepts, by rule."""
    rows = rules[["rule", "concept", "places"]].explode("places").dropna().reset_index(drop=True)
    held = rows.groupby(["rule", "places"])["concept"].transform("nunique") > 1
    by_concept = held.groupby([rows["rule"], rows["concept"]]).mean()
    return by_concept.groupby("rule").mean()


def _effects(of_images: pd.DataFrame, rule: str) -> dict[str, object]:
    rows, found = of_images[of_images["rule"] == rule], dict[str, object]()
    for metric in METRICS:
        of_metric = rows[rows["metric"] == metric]
        ends = estimate(of_metric["value"], of_metric["concept"]).ends
        found |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), ends, strict=True))
    return found | {"n_images": rows["image_id"].nunique()}


def for_readers(summary: pd.DataFrame, bounds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`summary` as a table, and `references.bounds` of its pictures below; what was not tried has dashes.

    Of both readings of retention it shows the one that leads.
    """
    other = "retention" if summary["retention_truth"].notna().any() else "retention_truth"
    metrics = [metric for metric in METRICS if metric != other]
    shown = pd.DataFrame({"threshold": summary["label"]})
    for column, name in (("candidates", "candidates"), ("kept", "after stage 2"), ("disturbed", "disturbed")):
        shown[name] = [f"{value:,.0f}" if np.isfinite(value) else "–" for value in summary[column]]
    false = [f"{value:.0%}" if np.isfinite(value) else "–" for value in summary["false_share"]]
    shown.insert(2, "estimated false", false)
    share = summary["no_more"] / summary["candidates"]
    shown.insert(3, "answer no more", [f"{value:.0%}" if np.isfinite(value) else "–" for value in share])
    shown["shared"] = [f"{share:.0%}" if np.isfinite(share) else "–" for share in summary["shared"]]
    shown["concepts"] = [f"{count:.0f}" if np.isfinite(count) else "–" for count in summary["concepts"]]
    for metric in metrics:
        ends = summary[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy()
        shown[READINGS[metric].label] = [interval(*of_rule) for of_rule in ends]
    below = pd.DataFrame() if bounds is None else references.for_readers(bounds, metrics, "threshold")
    return pd.concat([shown, below], ignore_index=True).fillna("–")


def gain(of_images: pd.DataFrame, metric: str, rule: str = AUTOMATIC, against: str = OWN) -> Estimate:
    """A rule's effect minus another's, picture by picture."""
    rows = of_images[of_images["metric"] == metric]
    wide = rows.pivot_table("value", ["concept", "image_id"], "rule").reindex(columns=[rule, against])
    difference = (wide[rule] - wide[against]).dropna()
    return estimate(difference, difference.index.get_level_values("concept"), within=GAP)


def curves(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """The estimated share of false ones over every threshold: columns concept, scale, threshold, kept, false_share.

    Scale 'difference' is stage 1's own, 'contrast' is W. As far up as `FEW` neurons pass.
    """
    frames = []
    for concept in concepts:
        d, e = study.against_decoys(concept)
        pairs = {"difference": (d.mean(axis=0), e.mean(axis=0)), "contrast": (w := contrast(d - e), -w)}
        for scale, (ours, theirs) in pairs.items():
            at = np.geomspace(0.3, max(0.6, float(ours.max())), 150)
            kept, share = false_shares(ours, theirs, at)
            made = {"concept": concept, "scale": scale, "threshold": at, "kept": kept, "false_share": share}
            frames.append(pd.DataFrame(made)[kept >= FEW])
    return pd.concat(frames, ignore_index=True)


def of_stimulus(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """How much a pixel changes without the object and without the decoy: columns concept, object, decoy."""
    return pd.concat([null_thresholds.stimulus(study, concept) for concept in concepts], ignore_index=True)


def in_words(
    study: Study, rules: pd.DataFrame, of_images: pd.DataFrame, stimulus: pd.DataFrame, kept: str
) -> dict[str, str]:
    """All of it for sentences; `kept` is the reading of S_re that leads."""
    q, by = study.profile.rules.false_share, rules.set_index("concept")
    own, decoy, flips, automatic = (by[by["rule"] == name] for name in (OWN, "decoy", "sign-flips", AUTOMATIC))
    ratio = (stimulus["decoy"] / stimulus["object"]).dropna()
    reached = own.index[np.isfinite(decoy["threshold"])].tolist()
    share = estimate(own["false_share"])
    suppression, retention = (gain(of_images, metric) for metric in ("suppression", kept))
    worse = ("more than", "less than", "not clearly more or less than")
    return {
        "pictures": f"{len(stimulus)}",
        "lacking": f"{stimulus['decoy'].isna().sum()}",
        "changed-object": f"{stimulus['object'].mean():.1f}",
        "changed-decoy": f"{stimulus['decoy'].mean():.1f}",
        "ratio-low": f"{ratio.quantile(0.05):.2f}",
        "ratio-high": f"{ratio.quantile(0.95):.2f}",
        "q": f"{q:.0%}",
        "own": f"{share.value:.0%}",
        "own-ends": interval(*share.ends, "{:.0%}"),
        "own-low": f"{own['false_share'].min():.0%}",
        "own-high": f"{own['false_share'].max():.0%}",
        "own-no-more": f"{(own['no_more'] / own['candidates']).mean():.0%}",
        "own-verdict": told(
            share.low - 0.5,
            share.high - 0.5,
            "More than half of what the quantile keeps is false by this count",
            "Less than half of what the quantile keeps is false by this count",
            "Whether more than half of what the quantile keeps is false is not clear",
            "Over several concepts more could be said",
        ),
        "untried": _untried(rules, of_images),
        "own-candidates": f"{own['candidates'].mean():,.0f}",
        "own-exchanged": f"{own['exchanged'].mean():,.0f}",
        "reached": _reached(reached, len(own), q),
        "flips-exchanged": f"{flips['exchanged'].mean():,.0f}",
        "flips": f"{flips['candidates'].mean():,.0f}",
        "flips-false": f"{flips['false_share'][flips['candidates'] > 0].mean():.0%}",
        "best": _best(study, rules),
        "tried": f"{of_images['image_id'].nunique()}",
        "gain-suppression": f"{told(*suppression.ends[1:], *worse)}",
        "gain-suppression-spread": spread(*suppression.ends, CHANGE),
        "gain-retention": f"{told(*retention.ends[1:], *worse)}",
        "gain-retention-spread": f"{spread(*retention.ends, CHANGE)} in retention {READ_BY[kept]}",
        "shared": _shared(shared(rules)) if len(own) > 1 else "",
        "auto-disturbed": f"{automatic['disturbed'].mean():.0f}",
        "own-disturbed": f"{own['disturbed'].mean():.0f}",
    }


def _reached(concepts: Sequence[str], of: int, q: float) -> str:
    if not concepts:
        return f"for none of the {of} concepts is there a threshold that promises {q:.0%}"
    if len(concepts) == of:
        return f"for each of the {of} concepts there is a threshold that promises {q:.0%}"
    return f"for {len(concepts)} of the {of} concepts ({listed(concepts)}) there is a threshold that promises {q:.0%}"


def _shared(share: pd.Series) -> str:
    """Whose else the neurons are, of the quantile and of sign flips, where these leave any."""
    own, flips = f"{share[OWN]:.0%}", share.get("sign-flips")
    finding = f"Of the neurons that the quantile leaves to be disturbed {own} are another concept's as well"
    return f"{finding}." if flips is None else f"{finding}; of those that sign flips leave, {flips:.0%}."


def _untried(rules: pd.DataFrame, of_images: pd.DataFrame) -> str:
    """Which rules no noise was tried on."""
    left = [name for name in RULES if name in set(rules["rule"]) - set(of_images["rule"])]
    return f"the short version tries no noise on {len(left)} of the rules" if left else "none"


def _best(study: Study, rules: pd.DataFrame) -> str:
    """The rule with the smallest estimated share among those that leave neurons for every concept."""
    whole = rules.groupby("rule")["neurons"].transform(lambda of: (of != "").all())
    means = rules[whole & (rules["rule"] != AUTOMATIC)].groupby("rule", sort=False)["false_share"].mean()
    return f"{label(study, str(means.idxmin()))}, at {means.min():.0%}"


def of_kinds(study: Study, concept: str | None) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """`summary` and `references.known` of `rules.kinds`; None of no kinds, or where the page is of one concept."""
    if concept or not (other := null_thresholds.kinds(study)):
        return None, None
    found, tried = of_all(other, other.studied(), alone=True)
    limit = perplexity_limit(tried)
    return summary(other, found, images(found, tried, limit=limit)), references.known(tried, limit)


def kinds_in_words(study: Study, others: pd.DataFrame | None) -> str:
    """What the other kinds say, or what would make them say it."""
    if others is None:
        later = "How the rules do on concepts of which nothing else in this book is known, the long version tries."
        return later if study.profile.long.rules.kinds else ""
    by, kinds = others.set_index("rule"), study.effort.rules.kinds
    gains = [
        f"{READINGS[metric].label} is {by[metric][AUTOMATIC]:.2f} with automatic thresholds, {by[metric][OWN]:.2f} "
        f"with the quantile and {by[metric][RANDOM]:.2f} with random neurons"
        for metric in METRICS[:3]
        if np.isfinite(by[metric][AUTOMATIC])
    ]
    false = f"At the quantile {by['false_share'][OWN]:.0%} are estimated to be false"
    return f"The rules have not seen {listed(kinds)}. {false}; {', and '.join(gains)}."


def measured(study: Study) -> list[Measurement]:
    """`quantile_false_share` over concepts, and what automatic thresholds gain in S_se: none, and S_re is whole."""
    rules, tried = of_all(study, study.studied())
    share = estimate(rules[rules["rule"] == OWN]["false_share"])
    of_images = images(rules, tried, limit=np.inf)
    gained = gain(of_images, "suppression")
    return [
        Measurement("quantile_false_share", *share.ends, share.n),
        Measurement("automatic_suppression_gain", *gained.ends, gained.n),
    ]
