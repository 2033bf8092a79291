"""The perturbation page's tables, examples and figures, on a run that can be worked out by hand (see `perturbed`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from book import tables, words
from book.perturbation import captions, figures, plane, readings
from book.style import READINGS, method_colour
from kn_core.drawing import theme
from kn_core.measures.metrics import TEXT
from kn_core.measures.summaries import main_retention
from tests.perturbed import headline_rows, perturbations, profile

PAPER = {"suppression": 0.77, "retention": 0.73}


@pytest.fixture(autouse=True)
def canvas() -> Iterator[None]:
    """Figures without a window, in the book's theme, closed when the test is over."""
    with mpl.rc_context({"backend": "agg"}), theme():
        yield
    plt.close("all")


def said(where: Figure | Axes) -> str:
    """A title as one line."""
    text = where.get_suptitle() if isinstance(where, Figure) else where.get_title(loc="left")
    return " ".join(text.split())


# Frames


@pytest.mark.parametrize(
    ("over", "suppression"),
    [
        ("n", {10: 0.0, 80: 3 / 4, 160: 1.0}),  # the first seed alone: of four pictures all but bus-2
        ("sigma", {3.0: 3 / 4, 10.0: 1.0}),
        ("intervention", {"noise": 3 / 4, "zero": 0.0}),
        ("positions", {"image": 3 / 4, "all": 1.0}),
    ],
)
def test_a_sweep_changes_one_thing(over: readings.Over, suppression: dict[object, float]) -> None:
    curve = readings.curve(perturbations(), profile(), over).query("metric == 'suppression' and method == 'two-stage'")
    assert dict(zip(curve[over], curve["value"], strict=True)) == suppression
    assert set(curve["n_images"]) == {4}


def test_a_curve_goes_through_pictures_that_saw_all_of_the_sweep() -> None:
    rows = perturbations()
    some = rows[(rows["sigma"] != 10.0) | rows["image_id"].isin(["bear-1", "bus-2"])]
    curve = readings.curve(some, profile(), "sigma").query("metric == 'suppression' and method == 'two-stage'")
    assert dict(zip(curve["sigma"], curve["value"], strict=True)) == {3.0: 1 / 2, 10.0: 1.0}
    assert set(curve["n_images"]) == {2}


def test_both_sides_and_their_difference_are_held_picture_by_picture() -> None:
    table = readings.against_random(perturbations(), profile()).set_index("metric")
    suppression = table.loc["suppression"]
    assert suppression[["two_stage", "random", "difference"]].tolist() == [5 / 8, 1 / 8, 1 / 2]
    kept = main_retention(perturbations())  # the paper's stands beside the reading that leads
    assert table["paper"].dropna().tolist() == [*PAPER.values()] and table["paper"].dropna().index[1] == kept
    assert table.loc["retention", ["two_stage", "random"]].tolist() == [1 / 2, 1.0]
    assert table.loc["selectivity", "n_images"] == 2
    assert table.index.tolist() == [metric for metric in READINGS if metric not in TEXT]


def test_pictures_that_chose_the_neurons_have_a_sentence_of_their_own() -> None:
    held_out = pd.DataFrame(headline_rows())
    assert readings.where_chosen(held_out, profile()) == "It was not tried on pictures that chose the neurons"
    seen = pd.concat([held_out, held_out.assign(heldout=False, image_id=held_out["image_id"] + "-seen")])
    rows = readings.against_random(held_out, profile()).set_index("metric")
    said = readings.where_chosen(seen, profile())
    assert said.startswith(
        f"On 4 pictures that had chosen the neurons, suppression is {rows.loc['suppression', 'two_stage']:.2f} ["
    )
    assert f"random neurons {rows.loc['suppression', 'difference']:.2f} [" in said


def test_a_reading_that_was_not_measured_has_a_dash_and_says_so() -> None:
    own = perturbations().query("concept == image_concept")
    table = readings.against_random(own, profile())
    assert readings.in_words(table, "retention")["selectivity"] == "not measured"
    one = readings.against_random(own.query("image_id == 'bear-1'"), profile())
    assert readings.in_words(one, "retention")["suppression"] == "1.00 (too few pictures for an interval)"
    assert words.spread(0.5, 0.5, 0.5) == "0.50 (the same in every concept)"
    shown = readings.for_readers(table).set_index("reading")
    assert shown.loc[READINGS["selectivity"].label, "difference"] == "–"
    assert shown.loc[READINGS["suppression"].label, "random"].startswith("0.12 [0.")
    bounds = pd.DataFrame({"method": ["removal"], "metric": "retention", "value": 0.7, "low": 0.6, "high": 0.8})
    last = readings.for_readers(table, bounds).set_index("reading")["the object taken out of the picture"]
    assert last[["retention, caption", "selectivity"]].tolist() == ["0.70 [0.60,\u00a00.80]", "–"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 0.3, "clear of zero"),
        (0.0, 0.3, "not clear of zero"),
        (-0.3, -0.1, "on the wrong side of zero"),
        (math.nan, math.nan, "not enough to tell"),
    ],
)
def test_an_interval_in_words(low: float, high: float, said: str) -> None:
    assert words.compared_with_zero(low, high) == said


def test_noise_is_measured_against_the_neurons_rest_and_the_objects_effect() -> None:
    rows = [("two-stage", 0, 0, 0.5), ("two-stage", 1, 1, 1.5), ("random", 0, 1, 0.1), ("random", 1, 0, 0.3)]
    neurons = pd.DataFrame(rows, columns=["method", "layer", "unit", "delta"])
    neurons = neurons.assign(concept="bear", draw=0, rank=[0, 1, 0, 1])
    at_rest = np.array([[[[0.5, -0.1], [0.3, 0.0]], [[1.5, -0.3], [0.1, 2.0]]]])[0]  # (N, L, D)
    found = readings.noise_units(neurons, {"bear": at_rest}, budget=2, sigma=3.0).set_index("method")
    assert found.loc["two-stage", ["activation", "change"]].tolist() == pytest.approx([1.0, 1.0])  # |1| and |1|
    assert found.loc["random", "sigma_per_activation"] == pytest.approx(3 / 0.2)  # |-0.2| and |0.2|
    assert found.loc["random", "sigma_per_change"] == pytest.approx(3 / 0.2)
    assert readings.units_in_words(found.reset_index()) == {
        "rest-two-stage": "3",
        "rest-random": "15",
        "change-two-stage": "3",
        "change-random": "15",
        "disturbed-more": "random",
    }
    shown = readings.units_for_readers(found.reset_index())
    assert shown.loc[0, ["at rest, two-stage", "by the object, random"]].tolist() == pytest.approx([1.0, 0.2])


# Table I


def test_words_are_marked_and_what_is_lost_follows() -> None:
    clean = "A bear in the snow next to a tree."
    marked = "A <strong>bear</strong> in the <u>snow</u> next to a <u>tree</u>."
    assert captions.marked(clean, clean, "bear") == marked
    lost = captions.marked("A <b> man in the snow's light.", clean, "bear")
    assert lost.startswith("A &lt;b&gt; man in the <u>snow&#x27;s</u> light.")
    assert '<span class="lost">lost: <s><strong>bear</strong></s>' in lost
    assert "<s>tree</s>" in lost


def test_table_1_takes_the_first_held_out_picture_under_the_first_draw() -> None:
    pairs = pd.DataFrame(
        [("bear", "bear-0", "A bear.", ""), ("bear", "bear-1", "A bear on green grass.", "Green grass.")],
        columns=["concept", "image_id", "caption", "caption_inpainted"],
    )
    table = captions.table_1(pairs, perturbations(), profile(), ["bear"])
    assert set(table["image_id"]) == {"bear-1"}
    assert dict(zip(table["under"], table["caption"], strict=True)) == {
        "clean": "A bear on green grass.",
        "two-stage": "A man on green grass.",
        "random": "A bear on green grass.",
        "removed": "Green grass.",
    }
    assert table["named"].tolist() == [True, False, True, False]
    sample = SimpleNamespace(image=np.zeros((4, 4, 3), np.uint8))
    study: Any = SimpleNamespace(sample=lambda concept, image_id: sample)
    soup = BeautifulSoup(captions.cards(study, table), "html.parser")
    assert "bear-1" in str(soup.img["alt"])
    assert [cell.text.split(" lost")[0] for cell in soup.find_all("dd")] == table["caption"].tolist()


# Figures


def test_dose_response_draws_the_curves_in_the_methods_colours_and_says_what_they_do() -> None:
    curve = readings.curve(perturbations(), profile(), "n")
    figure = figures.dose_response(curve, "n", main=80, kept="retention")
    suppression = figure.axes[0]
    ours = next(line for line in suppression.get_lines() if line.get_label() == "two-stage neurons")
    np.testing.assert_allclose(ours.get_xydata(), [(10, 0), (80, 3 / 4), (160, 1)])
    assert to_hex(str(ours.get_color())) == method_colour("two-stage")
    assert said(figure) == (
        "From 10 to 160 neurons, suppression goes from 0% to 100%; random neurons reach 25% at most"
    )


def test_one_dose_is_no_curve() -> None:
    curve = readings.curve(perturbations(), profile(), "n").query("n == 80")
    assert said(figures.dose_response(curve, "n", 80, "retention")) == "Two-stage neurons suppress 75%, random ones 25%"


@pytest.mark.parametrize(
    ("paper", "finding"),
    [
        ((0.9, 0.9), "No setting reaches the paper's suppression and its retention at once"),
        ((0.9, 0.5), "With σ = 10, suppression and retention reach the paper's values together"),
    ],
)
def test_the_plane_says_whether_any_setting_reaches_the_papers_point(paper: tuple[float, float], finding: str) -> None:
    curves, point = {"sigma": readings.curve(perturbations(), profile(), "sigma")}, dict(zip(PAPER, paper, strict=True))
    assert said(plane.trade_off(curves, point, {"sigma": 3.0}, "retention")).startswith(finding)


def test_settings_are_compared_in_the_order_asked_for() -> None:
    curve = readings.curve(perturbations(), profile(), "intervention")
    names = {"patch": "patch", "zero": "set to zero", "noise": "noise"}
    figure = figures.compared(curve, "intervention", names, "retention")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["set to zero", "noise"]
    assert said(figure) == "“noise” suppresses most, 75% (random neurons 25%); “set to zero” least, 0% (0%)"


def test_concepts_against_their_control_with_the_books_own_choices_marked() -> None:
    figure = figures.by_concept(readings.by_concept(perturbations(), profile()), PAPER, "retention", ours=("bus",))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "bus *",
        "bear",
    ]  # least suppressed first
    assert said(figure).startswith("In 0 of 2 concepts")


# Tables


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((0.5, 0.25, 0.75), "0.50 [0.25,\u00a00.75]"),
        ((9.0, 9.0, 9.0), "9"),
        ((1.0, 1.0, 1.0), "1.00 [1.00,\u00a01.00]"),
        ((-0.001, -0.125, 0.001), "0.00 [-0.12,\u00a00.00]"),
        ((0.5, math.nan, math.nan), "0.50 [too few]"),
        ((math.nan, math.nan, math.nan), "–"),
    ],
)
def test_a_value_with_its_interval(value: tuple[float, float, float], said: str) -> None:
    assert words.interval(*value) == said


def test_a_small_p_value_is_not_shown_as_zero() -> None:
    shown = tables.table(pd.DataFrame({"concept": list("abc"), tables.P_HOLM: [1e-9, 0.0123, math.nan]}), "Tests")
    cells = BeautifulSoup(shown.to_html(), "html.parser").find_all("td")
    assert [cell.text for cell in cells][1::2] == ["< 0.001", "0.012", "–"]


def test_claims_lead_to_the_page_that_settles_them_where_there_is_one() -> None:
    row = {"claim": "a", "where": "Table II", "paper": "0.77", "ours": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    row |= {"verdict": "same direction", "statement": "<It> works: S_se.", "rule": "", "reason": "so"}
    row |= {"measured": "S_re < 1", "by": "the paper", "long": "long version: < 1"}
    claims = pd.DataFrame([row | {"page": "perturbation"}, row | {"page": "no-page-yet"}])
    soup = BeautifulSoup(
        tables.claim_rows(claims, "Claims", {"perturbation": "perturbation.html"}).to_html(), "html.parser"
    )
    (link,) = soup.find_all("a")
    assert (link["href"], link.text) == ("perturbation.html", "perturbation")
    assert "<It> works: Sₛₑ." in soup.text  # the index is set as one
    small = [cell.text for cell in soup.find_all("small")]
    assert small[:3] == ["so", "Table II; see perturbation", "Sᵣₑ < 1; n\u00a0=\u00a09long version: < 1"]
    assert small[4] == "Table II"


def test_many_verdicts_stand_side_by_side_as_marks_whose_words_can_be_read() -> None:
    frame = pd.DataFrame({"claim": ["a"], "embedded": ["not run"], "other, on record": ["same direction"]})
    soup = BeautifulSoup(tables.marks(frame, "Side by side").to_html(), "html.parser")
    assert [cell.text for cell in soup.find_all("td")] == ["a", "not run", "same direction"]
    assert [one["class"] for one in soup.find_all(title=True)] == [
        ["verdict", "shape", "not-run"],
        ["verdict", "shape", "same-direction"],
    ]
    both = tables.marks(pd.concat([frame, frame], ignore_index=True), "Ours", [False, True])
    told = BeautifulSoup(both.to_html(), "html.parser")
    assert [cell.text for cell in told.find_all("td")][2::3] == ["same direction", "leaning"]
