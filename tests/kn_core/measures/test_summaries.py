"""Means of the metrics over seeds, images and concepts, from rows whose means are computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from kn_core.measures import stats, summaries


def perturbation(concept: str, image_concept: str, image_id: str, present: bool, **changes: Any) -> dict[str, Any]:
    return {
        "concept": concept,
        "method": "two-stage",
        "intervention": "noise",
        "positions": "image",
        "n": 80,
        "sigma": 10.0,
        "seed": 0,
        "image_id": image_id,
        "image_concept": image_concept,
        "heldout": True,
        "caption": "A brown animal on grass.",
        "clean_caption": f"A brown {image_concept} on grass.",
        "target_present": present,
        "target_probability": 0.1,
        "clean_probability": 0.4,
        "retained": 0.5,
        "retained_truth": 1.0,
        "retained_probability": 0.8,
        "perplexity": math.e**2,
        "repetition": 0.0,
    } | changes


def perturbations() -> pd.DataFrame:
    """Two images of dogs and one of a cat, under the neurons of both; two seeds for the first dog."""
    return pd.DataFrame(
        [
            perturbation("dog", "dog", "d1", False, seed=0, retained=1.0),
            perturbation("dog", "dog", "d1", True, seed=1, retained=0.0),
            perturbation("dog", "dog", "d2", False, retained=math.nan),
            perturbation("dog", "cat", "c1", True),
            perturbation("cat", "cat", "c1", False, retained=0.25, caption="RRRRRRRR", perplexity=math.e**8),
            perturbation("cat", "dog", "d1", True),
            perturbation("cat", "dog", "d2", False),
        ]
    )


def value_of(frame: pd.DataFrame, metric: str, column: str = "value") -> Any:
    return frame.set_index("metric")[column][metric]


def test_the_summary_averages_seeds_then_images_then_concepts() -> None:
    summary = summaries.summarise(perturbations(), by=["method"])
    assert value_of(summary, "suppression") == ((1 / 2 + 1) / 2 + 1) / 2  # dogs d1 1/2, d2 1; cat 1
    assert value_of(summary, "retention") == (1 / 2 + 1 / 4) / 2  # d2 has none
    assert value_of(summary, "retention_others") == ((1 + 0) / 2 + 1) / 2
    assert value_of(summary, "selectivity") == ((1 / 2 + 0) / 2 + 1) / 2  # d1: 1/2 - 0, d2: 1 - 1, c1: 1 - 0
    assert value_of(summary, "suppression_probability") == pytest.approx(0.75)
    assert value_of(summary, "retention_probability") == pytest.approx(0.8)
    assert value_of(summary, "log_perplexity") == pytest.approx((2 + 8) / 2)
    assert value_of(summary, "repetition") == 0.0
    assert value_of(summary, "fluent") == (1 + 0) / 2
    assert value_of(summary, "suppression_fluent") == ((1 / 2 + 1) / 2 + 0) / 2  # the cat's caption is 'RRRRRRRR'
    assert value_of(summary, "retention_truth") == 1.0


def test_the_summary_counts_the_images_and_concepts_behind_each_number() -> None:
    summary = summaries.summarise(perturbations(), by=["method"])
    assert list(summary.columns) == ["method", "metric", "value", "low", "high", "n_images", "n_concepts"]
    assert (value_of(summary, "suppression", "n_images"), value_of(summary, "suppression", "n_concepts")) == (3, 2)
    assert (value_of(summary, "retention", "n_images"), value_of(summary, "retention", "n_concepts")) == (2, 2)


def test_the_summary_of_one_concept_has_no_selectivity() -> None:
    summary = summaries.summarise(perturbations(), by=["concept"])
    assert "selectivity" not in set(summary["metric"])
    cat = summary[summary["concept"] == "cat"]
    assert value_of(cat, "suppression") == 1.0
    assert math.isnan(value_of(cat, "suppression", "low")), "one image has no interval"
    assert value_of(cat, "retention_others") == 0.5


def test_the_summary_needs_no_groups() -> None:
    assert value_of(summaries.summarise(perturbations(), by=[]), "suppression") == 7 / 8


def test_images_that_never_named_their_concept_are_left_out() -> None:
    silent = perturbation("dog", "dog", "d3", False, clean_caption="An animal on grass.")
    summary = summaries.summarise(pd.concat([perturbations(), pd.DataFrame([silent])]), by=["method"])
    assert value_of(summary, "suppression", "n_images") == 3


def test_an_undefined_setting_is_a_setting() -> None:
    zeroed = perturbations().assign(intervention="zero", sigma=math.nan)
    summary = summaries.summarise(pd.concat([perturbations(), zeroed]), by=["intervention", "sigma"])
    assert set(summary["intervention"]) == {"noise", "zero"}


def test_two_settings_in_one_group_are_refused() -> None:
    mixed = pd.concat([perturbations(), perturbations().assign(n=160)])
    with pytest.raises(ValueError, match=r"n must be one value in every group of by=\['method'\]"):
        summaries.summarise(mixed, by=["method"])
    assert set(summaries.summarise(mixed, by=["n"])["n"]) == {80, 160}


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have the columns \['perplexity', 'seeds'\]"):
        summaries.summarise(perturbations().drop(columns="perplexity"), by=["seeds"])


def test_the_reading_by_truth_leads_where_half_of_the_pictures_have_something_true_to_keep() -> None:
    rows = perturbations()
    assert summaries.main_retention(rows) == "retention_truth"
    silent = rows.assign(retained_truth=rows["retained_truth"].mask(rows["image_id"] != "c1"))  # one picture of three
    assert summaries.main_retention(silent) == "retention"


def test_the_perplexity_limit_decides_fluency() -> None:
    summary = summaries.summarise(perturbations(), by=[], perplexity_limit=5.0)
    assert value_of(summary, "fluent") == 0.0


def test_of_a_probability_all_can_be_lost_and_no_more_and_some_can_be_won() -> None:
    lost = pd.DataFrame({"image_concept": ["dog", "cat"], "metric": "suppression_probability", "value": [0.5, 1.0]})
    ends = summaries.with_intervals(lost, []).iloc[0]
    assert ends["low"] < 0 and ends["high"] == 1
    assert summaries.with_intervals(lost, [], within=stats.SIGNED).iloc[0]["high"] > 1
    shares = summaries.with_intervals(lost.assign(metric="suppression"), []).iloc[0]
    assert (shares["low"], shares["high"]) == (0, 1)


def test_two_shares_differ_by_no_more_than_one_and_what_is_no_share_may() -> None:
    gaps = pd.DataFrame({"image_concept": ["dog", "cat"], "metric": "suppression", "value": [0.0, 0.5]})
    ends = summaries.with_intervals(gaps, [], within=stats.GAP).iloc[0]
    assert (ends["low"], ends["high"]) == (-1, 1)  # by t of two concepts -2.9 and 3.4
    logs = summaries.with_intervals(gaps.assign(metric="log_perplexity"), [], within=stats.GAP).iloc[0]
    assert logs["low"] < -2 and logs["high"] > 3


def test_the_contrast_pairs_images() -> None:
    control = perturbations().assign(method="random", target_present=True, retained=1.0)
    control = control[control["image_id"] != "d2"]
    difference = summaries.contrast(pd.concat([perturbations(), control]), "two-stage", "random")
    assert value_of(difference, "suppression") == (1 / 2 + 1) / 2  # d1 and c1
    assert value_of(difference, "suppression", "n_images") == 2
    assert value_of(difference, "retention") == (-1 / 2 - 3 / 4) / 2


def test_the_contrast_refuses_what_it_cannot_compare() -> None:
    table = pd.concat([perturbations(), perturbations().assign(method="random", sigma=3.0)])
    with pytest.raises(ValueError, match=r"must be two of \['random', 'two-stage'\]. Got \['rnadom'\]"):
        summaries.contrast(table, "two-stage", "rnadom")
    with pytest.raises(ValueError, match="sigma must be one value in every group"):
        summaries.contrast(table, "two-stage", "random")
    with pytest.raises(ValueError, match="by must not hold 'method'"):
        summaries.contrast(table, "two-stage", "random", by=["method"])
