"""Rules as the book shows them: frames by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from book.thresholds import figures, planted, rules
from book.thresholds.rules import AUTOMATIC
from kn_core.drawing import theme
from kn_core.profile import load_profile
from kn_core.study.experiments.null_thresholds import OWN, RANDOM


@pytest.fixture
def found() -> pd.DataFrame:
    """Two concepts: the decoy rule finds a threshold for one of them, whose set the quantile leaves as well."""
    rows = [
        ("bear", "decoy", "contrast", 3.0, 20, 1, 0, 0.1, 5, 5, "one"),
        ("bear", OWN, "difference", 1.0, 100, 79, 40, 0.8, 9, 5, "one"),
        ("bear", AUTOMATIC, "contrast", 3.0, 20, 1, 0, 0.1, 5, 5, "one"),
        ("bus", "decoy", "contrast", math.inf, 0, 0, 0, 1.0, 0, 0, ""),
        ("bus", "sign-flips", "contrast", 2.0, 50, 9, 0, 0.2, 3, 3, "three"),
        ("bear", "sign-flips", "contrast", 2.5, 30, 2, 0, 0.1, 5, 5, "four"),
        ("bus", OWN, "difference", 1.5, 100, 59, 20, 0.6, 9, 5, "two"),
        ("bus", AUTOMATIC, "contrast", 2.0, 50, 9, 0, 0.2, 3, 3, "three"),
    ]
    columns = ["concept", "rule", "scale", "threshold", "candidates", "exchanged", "no_more", "false_share"]
    found = pd.DataFrame(rows, columns=[*columns, "kept", "disturbed", "neurons"])
    places = {"one": [1, 2, 3, 4, 5], "two": [4, 5, 6, 7, 8], "three": [7, 8, 9], "four": [9, 10, 11, 12, 13], "": []}
    return found.assign(places=found["neurons"].map(places))


def caption(concept: str, method: str, number: int, present: bool) -> dict[str, object]:
    said = f"A {concept if present else 'thing'} in a field."
    setting = {"intervention": "noise", "positions": "image", "n": 5, "sigma": 5.0, "seed": 0}
    chances = {"target_probability": 0.2, "clean_probability": 0.4, "retained": 1.0, "retained_probability": 0.9}
    chances["retained_truth"] = 1.0
    return {
        **setting,
        **chances,
        "concept": concept,
        "image_concept": concept,
        "image_id": f"{concept}-{number}",
        "method": method,
        "caption": said,
        "clean_caption": f"A {concept} in a field.",
        "target_present": present,
        "perplexity": 3.0,
        "repetition": 0.0,
    }


@pytest.fixture
def of_images(found) -> pd.DataFrame:
    tried = [caption("bear", "one", number, present=False) for number in range(2)]
    tried += [caption("bus", "two", number, present=number == 0) for number in range(2)]
    tried += [caption("bus", "three", number, present=True) for number in range(2)]
    tried += [caption(concept, RANDOM, number, present=True) for concept in ("bear", "bus") for number in range(2)]
    return rules.images(found, pd.DataFrame(tried), limit=10.0)


def test_a_rule_that_leaves_nothing_leaves_captions_as_they_are(of_images):
    means = of_images.groupby(["rule", "concept", "metric"])["value"].mean()
    assert means["decoy", "bus"].to_dict() == {"fluent": 1, "retention": 1, "retention_truth": 1, "suppression": 0}
    assert means["decoy", "bear", "suppression"] == means[OWN, "bear", "suppression"] == 1
    assert means[OWN, "bus", "suppression"] == 0.5
    assert "sign-flips" not in set(of_images["rule"])  # tried on one of two concepts alone


def test_the_gain_of_automatic_thresholds_is_paired(of_images):
    found = rules.gain(of_images, "suppression")
    assert found.value == pytest.approx((0 - 0.5) / 2)
    assert (found.n, found.n_concepts) == (4, 2)
    assert rules.gain(of_images, "retention_truth").value == 0


def test_the_table_has_a_row_a_rule_and_dashes_where_nothing_was_tried(found, of_images):
    study = SimpleNamespace(profile=load_profile("embedded"))
    bounds = pd.DataFrame({"method": ["removal"], "metric": "retention_truth", "value": 0.7, "low": 0.6, "high": 0.8})
    table = rules.for_readers(rules.summary(study, found, of_images), bounds).set_index("threshold")
    assert table.iloc[-1][["retention, truth", "disturbed"]].tolist() == ["0.70 [0.60,\u00a00.80]", "–"]
    table = table.iloc[:-1]
    assert table.index.tolist() == [
        *("decoys, 10% false", "sign flips, 10% false", "automatic: decoys, else sign flips", "0.95 quantile"),
        "random neurons, same layers",
    ]
    assert table.loc["0.95 quantile", ["candidates", "estimated false", "answer no more", "disturbed"]].tolist() == [
        *("100", "70%", "30%", "5")
    ]
    assert table.loc["0.95 quantile", "suppression, caption"].startswith("0.75 [")
    assert table.loc["sign flips, 10% false", "suppression, caption"] == "–"
    assert table.loc["decoys, 10% false", ["estimated false", "concepts"]].tolist() == ["10%", "1"]  # of the bear's
    stimulus = pd.DataFrame({"object": [10.0, 12.0], "decoy": [11.0, math.nan], "concept": "bear"})
    words = rules.in_words(study, found, of_images, stimulus, "retention_truth")
    assert words["own"] == "70%" and words["own-verdict"].startswith("Whether more than half")  # two concepts
    assert words["reached"] == "for 1 of the 2 concepts (bear) there is a threshold that promises 10%"
    assert words["best"] == "sign flips, 10% false, at 15%"
    assert words["shared"].endswith("40% are another concept's as well; of those that sign flips leave, 27%.")
    assert words["lacking"] == "1" and words["untried"] == "the short version tries no noise on 1 of the rules"


def test_other_kinds_stand_beside_what_is_known_of_them(found, monkeypatch):
    made = [caption(concept, RANDOM, number, present=True) for concept in ("bear", "bus") for number in range(2)]
    tried = pd.DataFrame(made).assign(heldout=True, truths="field", clean_perplexity=3.0)
    other = SimpleNamespace(studied=lambda: ["bear", "bus"], profile=load_profile("embedded"))
    monkeypatch.setattr(rules.null_thresholds, "kinds", lambda study: other)
    monkeypatch.setattr(rules, "of_all", lambda *asked, **alone: (found, tried))
    table = rules.for_readers(*rules.of_kinds(other, None)).set_index("threshold")
    assert table.index[-2:].tolist() == ["nothing done", "another concept's caption"]  # removal was not tried
    whole = "1.00 [1.00,\u00a01.00]"
    assert table.iloc[-1][["suppression, caption", "retention, truth"]].tolist() == [whole, whole]  # all name a field
    assert rules.of_kinds(other, "bear") == (None, None)


def test_the_figure_marks_the_places_of_rules(found):
    curves = [
        {"concept": concept, "scale": scale, "threshold": at, "kept": 20, "false_share": 1 / at}
        for concept in ("bear", "bus")
        for scale in figures.AXES
        for at in (1.0, 2.0, 3.0)
    ]
    with theme():
        figure = figures.false_shares(pd.DataFrame(curves), found, 0.1, {"decoy": "decoys", OWN: "quantile"})
    assert "At the quantile, 60% to 80% of a concept’s candidates" in figure.get_suptitle().replace("\n", " ")
    left, right = ([points.tolist() for dots in ax.collections for points in dots.get_offsets()] for ax in figure.axes)
    assert left == [[1.0, 0.8], [1.5, 0.6]]
    assert right == [[3.0, 0.1]]
    table_4 = pd.DataFrame({"concept": ["bear", "bus"], "θ_a": [0.9, 0.2], "θ_g": [1e-5, 3e-3]})
    with theme():
        title = figures.table_4(table_4).get_suptitle().replace("\n", " ")
    assert "1 of 2 thresholds of the difference and 0 of the gradient" in title
    plt.close("all")


def test_planted_truth_in_words():
    held = pd.DataFrame(
        {
            "rule": ["decoy", OWN, "sign-flips", "bh"],
            "candidates": [40.0, 200, 50, 50],
            "false": [0.08, 0.84, 0.13, 0.12],
            "estimated": [0.1, 0.871, 0.13, 0.12],
        }
    ).assign(found=0.9)
    found = planted.in_words(held, 0.1)
    assert found | {"decoy": "8%", "quantile": "84%", "error": "4", "flips": "13%"} == found
    assert found["broken"] == "keep more than they promise"
    assert planted.in_words(held, 0.2)["broken"] == "keep it too"
