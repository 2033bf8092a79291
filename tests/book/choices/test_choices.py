"""The ladder, the third stage and attributions for readers, from rows whose means can be worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book import tables
from book.choices import attributions, figures, ladder, third_stage, whose
from book.perturbation.matched import Doses
from book.perturbation.readings import ENDS
from kn_core.drawing import theme
from kn_core.study.experiments.ladder import CONTROL, THIRD
from tests.perturbed import profile, row


@pytest.fixture(autouse=True)
def look():
    with theme():
        yield


PICTURES = ("bear-1", "bear-2", "bus-1", "bus-2")
STEPS = list(ladder.STEPS)


def tried(step: str, how: str, gone: int, **changes) -> list[dict[str, object]]:
    """The first `gone` of the pictures no longer name their object."""
    setting = {"intervention": how, "sigma": 5.0 if how == "noise" else math.nan, "step": step, "method": step}
    return [
        row(image.split("-")[0], "", image, place < gone) | setting | changes for place, image in enumerate(PICTURES)
    ]


@pytest.fixture
def climbed() -> pd.DataFrame:
    """Under noise nothing helps; zeroed, each step takes one picture more; random neurons take none."""
    rows = [each for step in STEPS for each in tried(step, "noise", 1)]
    rows += [each for gone, step in enumerate(STEPS) for each in tried(step, "zero", min(gone, 4))]
    rows += [each for step in STEPS for each in tried(step, "zero", 0, method=CONTROL)]
    rows += tried(STEPS[-1], "patch", 2) + tried("40", "zero", 3, n=40)
    return pd.DataFrame(rows)


def test_a_step_is_held_against_the_one_that_it_is_one_choice_away_from(climbed):
    told = ladder.gains(climbed).query("metric == 'suppression'")
    at = told.set_index(["step", "at"])["value"]
    assert at["zeroed, not under noise"].to_dict() == {"paper": pytest.approx(-0.25), "between": pytest.approx(0.75)}
    found = told.query("at != 'paper'").set_index(["step", "intervention"])["value"]
    assert found["sums", "zero"] == pytest.approx(0.25)
    assert found["between", "zero"] == pytest.approx(0.0)  # both took all four
    assert found["within, whole", "zero"] == pytest.approx(0.0)
    assert (found.xs("noise", level="intervention") == 0).all()
    assert found["zeroed, not under noise", "zero"] == pytest.approx(0.75)
    assert found["patched, not zeroed", "patch"] == pytest.approx(-0.5)
    assert found[ladder.WHOLE, "zero"] == pytest.approx(0.75)


def test_steps_are_in_order_and_have_their_controls(climbed):
    effects = ladder.effects(climbed)
    assert [step for step, how in ladder.order(effects) if how == "zero"] == [*STEPS, "40"]
    cells = effects.set_index(["step", "intervention", "whose", "metric"])["value"]
    assert cells["between", "zero", "chosen", "suppression"] == 1
    assert cells["between", "zero", CONTROL, "suppression"] == 0
    bounds = pd.DataFrame([("removal", "retention_truth", 0.9, 0.8, 1.0)], columns=["method", "metric", *ENDS])
    below = ladder.for_readers(effects, ladder.gains(climbed), bounds=bounds)
    assert below.iloc[-1][["retention, truth", "suppression, caption"]].tolist() == ["0.90 [0.80,\u00a01.00]", "–"]
    shown = below.iloc[:-1]
    assert len(shown) == 2 * len(STEPS) + 2
    last = shown[shown["choice"] == f"{ladder.STEPS['between']}, zeroed"]
    assert last["suppression, random"].item() == "0.00"
    assert len(last["change of both"].item().split("; ")) == len(last[tables.P_HOLM].item().split("; ")) == 2
    first = shown[shown["choice"].str.startswith(ladder.STEPS[ladder.PAPER])]
    under_noise, zeroed = first["change of both"]
    assert under_noise == "–"  # nothing stands before it
    assert zeroed.startswith("-0.25") and zeroed.endswith(" (zeroed, not under noise)")


def test_every_step_stands_beside_random_neurons_at_the_dose_that_suppresses_as_much(climbed):
    def noise(method: str, sigma: float, gone: int, kept: float) -> list[dict[str, object]]:
        changes = {"sigma": sigma, "retained": kept, "retained_truth": kept}
        return [
            row(image.split("-")[0], method, image, place < gone, **changes) for place, image in enumerate(PICTURES)
        ]

    swept = [*noise("two-stage", 3.0, 2, 0.2), *noise("random", 3.0, 1, 0.8), *noise("random", 7.0, 3, 0.4)]
    doses = Doses(pd.DataFrame(swept), profile())
    shown = ladder.for_readers(ladder.effects(climbed), ladder.gains(climbed), doses).set_index("choice")
    column = shown["retention, random at equal suppression"]
    assert column[f"{ladder.STEPS['site']}, zeroed"].startswith("0.60")  # two of four: halfway between the two noises
    assert column[f"{ladder.STEPS['sums']}, zeroed"].startswith("0.80")
    assert column[f"{ladder.STEPS['between']}, zeroed"] == "not reached (at most 0.75)"


def test_the_ladder_in_words_and_drawn(climbed):
    effects, gains = ladder.effects(climbed), ladder.gains(climbed)
    words = ladder.in_words(effects, gains, "retention")
    assert (words["paper-suppression"], words["last-suppression"]) == ("0.25", "1.00")
    assert words["sure"] == "none of them"  # four pictures cannot tell
    bounds = pd.DataFrame({"method": ["removal", "chance"], "metric": "retention", "value": [0.8, 0.1]})
    figure = figures.ladder(effects, "retention", bounds)
    assert len(figure.axes) == 4
    figure.canvas.draw()
    heads = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(one.x1 < other.x0 for one, other in pairwise(heads))
    assert [line.get_xdata()[0] for line in figure.axes[1].lines] == [0.8, 0.1] and not figure.axes[0].lines
    assert "suppression 25% and 100%" in figure.get_suptitle().replace("\n", " ")
    plt.close(figure)


def test_the_fewest_neurons_that_reach_the_paper_s_numbers():
    def at(n: int, suppression: float, retention: float) -> list[dict[str, object]]:
        values = {"suppression": suppression, "retention": retention, "retention_truth": 0.9, "fluent": 1.0}
        return [{"n": n, "metric": name, "value": value, "low": 0, "high": 1} for name, value in values.items()]

    budgets = pd.DataFrame([*at(20, 0.5, 0.9), *at(40, 0.8, 0.74), *at(80, 0.9, 0.7)])
    few = budgets[budgets["n"] != 40]
    assert third_stage.smallest(budgets, "retention") == third_stage.smallest(budgets, "retention_truth") == 40
    assert third_stage.smallest(few, "retention") is None and third_stage.smallest(few, "retention_truth") == 80
    assert third_stage._smallest(budgets, "retention_truth") == "of what is true, 40 neurons; by words, 40 neurons"
    assert third_stage._smallest(few, "retention_truth").endswith("80 neurons; by words, none of the numbers tried")
    for kept, said in (("retention", "No number"), ("retention_truth", "80 neurons reach")):
        figure = figures.budgets(few, {"suppression": 0.77, "retention": 0.73}, kept)
        assert figure.axes[0].get_title(loc="left").startswith(said)
        plt.close(figure)


def test_the_budgets_are_of_the_pictures_that_saw_them_all():
    rows = pd.DataFrame([*tried("x", "zero", 4), *tried("x", "zero", 1, n=40)]).assign(method=THIRD)
    rows = rows[(rows["n"] == 80) | rows["image_id"].isin(["bear-1", "bus-1"])]
    found = third_stage.by_budget(rows).query("metric == 'suppression'").set_index("n")
    assert found["n_images"].tolist() == [2, 2]
    assert found["value"].tolist() == [0.5, 1.0]


def test_a_change_that_concepts_tell_too_has_a_double_dagger():
    concepts = [f"thing-{place}" for place in range(12)]
    setting = {"intervention": "zero", "sigma": math.nan}

    def step(name: str, gone: bool) -> list[dict[str, object]]:
        changes = setting | {"step": name, "method": name}
        made = [row("bear", "", image, gone) | changes for image in ("bear-1", "bear-2")]
        return [each | {"concept": of, "image_concept": of, "clean_caption": of} for of in concepts for each in made]

    rows = pd.DataFrame([*step(ladder.PAPER, False), *step("sums", True), *step("site", True)])
    found = ladder.gains(rows).query("metric == 'both'").set_index("step")
    assert (found["p_concepts"] >= found["p"]).all() and found.loc["sums", "p_concepts_holm"] < 0.05
    assert [ladder._mark(each) for each in found.to_dict("records")] == ["‡", ""]


def test_the_third_stage_beside_the_object_s_own_removal():
    third = pd.DataFrame(tried("x", "zero", 4, retained_truth=0.9)).assign(method=THIRD)
    removed = pd.DataFrame(tried("x", "removal", 4, method="removal", retained=0.9, retained_truth=0.7))
    said = third_stage.beside_removal(removed, third, 80)
    assert "keeps 0.70 [0.70,\u00a00.70] of what is true and 0.90" in said
    assert "+0.20 [+0.20,\u00a0+0.20] of what is true and +0.10" in said and "0.10 above it, is reached. " in said
    assert third_stage.beside_removal(third, third, 80).endswith("was not tried.")
    told = {"truths": "horse, field"}
    third, removed = third.assign(**told, caption="A horse."), removed.assign(**told, caption="A green field.")
    said = third_stage.beside_removal(removed, third, 80)
    assert "objects that are told truly the third stage keeps 1.00 [1.00,\u00a01.00] and the removal 0.00" in said
    assert said.endswith("of the places 0.00 [0.00,\u00a00.00] and 1.00 [1.00,\u00a01.00].")


def test_planted_companions_by_either_stage():
    found = pd.DataFrame({"kind": ["own", "companion"] * 2, "candidates": 10, "best": [3, 5, 3, 5]})
    found = found.assign(concept=["bear", "bear", "bus", "bus"], image_id=["a", "a", "b", "b"])
    found = found.assign(dropped=[4, 5, 4, 3], third_dropped=[2, 9, 3, 10], third_best=[8, 0, 8, 0])
    assert whose.dropped(found, "dropped").value == pytest.approx(0)
    assert whose.dropped(found, "third_dropped").value == pytest.approx(0.7)
    words = whose.planted_in_words(found)
    assert (words["own-third"], words["companion-third"]) == ("100%", "0%")
    assert "drops the companion's neurons more often" in words["finding"]
    assert whose.planted_in_words(None).keys() == words.keys()


def test_the_best_by_every_score_stand_between_the_two_stages_and_the_third(climbed, monkeypatch):
    by_score = [
        each for name, gone in (("atp", 3), ("ig", 1), ("schwettmann", 2)) for each in tried(name, "zero", gone)
    ]
    monkeypatch.setattr(attributions.ladder, "by_score", lambda study, concept: pd.DataFrame(by_score))
    found = attributions.best_of_each(None, ["bear"], climbed, math.inf)
    shown = attributions.best_for_readers(found, pd.DataFrame(columns=["method", "metric", "value", "low", "high"]))
    named = [*list(attributions.FROM_LADDER.values())[:2], "Schwettmann et al.", "integrated gradients"]
    assert shown["the best by"].tolist() == [*named, "attribution patching", "two contrasts, the last step"]
    lost = shown.set_index("the best by")["suppression, caption"].str[:4].tolist()
    assert lost == ["0.00", "0.25", "0.50", "0.25", "0.75", "1.00"]  # zeroed; random neurons are none of them
    said = attributions.best_in_words(found, 3)
    assert (said["done"], said["paths"]) == ("zeroed", "3 pictures")
    assert said["score"].startswith("attribution patching (0.75") and said["rival"].startswith(
        "Schwettmann et al. (0.50"
    )


def test_scores_that_agree_better_come_out_ahead():
    rng = np.random.default_rng(0)
    frames = []
    for concept in ("bear", "bus", "cat", "dog", "bed", "pizza"):
        effect = rng.normal(size=20)
        scores = {"gradcam": rng.normal(size=20), "gradcam-sum": effect + rng.normal(size=20), "atp": effect * 2}
        strata = np.repeat(["top", "random"], 10)
        places = {"concept": concept, "layer": 0, "unit": range(20), "stratum": strata, "effect": effect}
        frames += [pd.DataFrame(places | {"method": name, "score": score}) for name, score in scores.items()]
    patches = pd.concat(frames, ignore_index=True)
    found = attributions.agreement(patches)
    words = attributions.in_words(patches, found)
    assert words["best-name"] == attributions.SCORES["atp"] and words["atp"] == ", at the cost of one backward pass"
    assert words["sum-or-max"] == "better than" and words["fifth"] == "4"
    assert attributions.for_readers(found)["score"].tolist() == [
        attributions.SCORES[name] for name in ("atp", "gradcam-sum", "gradcam")
    ]
    plt.close(figures.attributions(found))
