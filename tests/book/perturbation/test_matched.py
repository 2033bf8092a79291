"""Equal suppression, references and ownership as the book shows them, on the run that can be counted (`perturbed`)."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.choices.ladder import at_equal
from book.perturbation import figures, matched, methods, ownership, plane, readings, references
from kn_core.drawing import theme
from kn_core.profile import Profile
from tests.perturbed import CLEAN, headline_rows, perturbations, profile, row

LIMIT = 50.0


def removed() -> pd.DataFrame:
    """What the model says without the object: the field stays, but on one picture."""
    done = {"intervention": "removal", "n": 0, "sigma": math.nan, "retained": 0.5, "retained_truth": 1.0}
    made = [row(image.split("-")[0], "removal", image, True, **done) for image in CLEAN]
    return pd.DataFrame([*made[:-1], made[-1] | {"retained_truth": 0.0}])


def crossed() -> pd.DataFrame:
    """Two pictures of each concept: a concept's own lose .8 and .4 of their word's probability, others' .2.

    Where most is lost the caption loses the name; noise on bear neurons takes it from one bus too.
    """
    of = {image: image.split("-")[0] for image in CLEAN}
    lost = {"bear-1": 0.8, "bear-2": 0.4, "bus-1": 0.8, "bus-2": 0.4}
    made = []
    for whose in ("bear", "bus"):
        for image in CLEAN:
            share = lost[image] if whose == of[image] else 0.2
            named = share < 0.5 and (whose, image) != ("bear", "bus-2")
            made.append((whose, of[image], image, named, 0.5, 0.5 * (1 - share)))
    columns = ["concept", "image_concept", "image_id", "target_present", "clean_probability", "target_probability"]
    return pd.DataFrame(made, columns=columns)


def values(frame: pd.DataFrame, method: str) -> pd.Series:
    return frame[frame["method"] == method].set_index("metric")["value"]


def test_nothing_removal_and_chance_stand_beside_every_method() -> None:
    found = references.bounds(pd.concat([perturbations(), removed()]), LIMIT)
    nothing, removal, chance = (values(found, name) for name in ("nothing", "removal", "chance"))
    assert (nothing["suppression"], nothing["retention"], nothing["retention_truth"]) == (0, 1, 1)
    assert (removal["suppression"], removal["retention_truth"]) == (1, (1 + 1 / 2) / 2)
    assert chance["retention"] == 1 / 4  # 'green grass' of bear-1 and bus-1 against the other's two captions
    assert (chance["suppression"], chance["retention_truth"]) == (1, 1 / 2)  # one in two of the others' names grass
    assert "retention_probability" not in chance
    assert references.bounds(perturbations(), LIMIT).empty


def test_references_are_told_where_a_table_has_no_row_for_them() -> None:
    found = references.bounds(pd.concat([perturbations(), removed()]), LIMIT)
    assert references.in_words(found, "retention") == (
        "Suppression and retention without a neuron disturbed: nothing done, 0.00 and 1.00; "
        "the object taken out of the picture, 1.00 and 0.50; another concept's caption, 1.00 and 0.25."
    )
    both = references.values(found, ("suppression", "retention_truth", "retention_probability"))
    assert both["another concept's caption"] == "1.00, 0.50 and –"
    turned = references.beside(found, ["retention", "selectivity"])
    assert turned.index.tolist() == ["retention, caption", "selectivity"]
    assert turned["nothing done"].tolist() == ["1.00 [1.00,\u00a01.00]", "–"]
    untried = references.bounds(perturbations(), LIMIT)
    assert references.in_words(untried, "retention") == "" and not references.values(untried, ["suppression"])
    assert references.beside(untried, ["retention"]).shape == (1, 0)


def test_what_needs_no_further_caption_is_known_where_removal_was_not_tried() -> None:
    found, whole = references.known(perturbations(), LIMIT), pd.concat([perturbations(), removed()])
    assert set(found["method"]) == {"nothing", "chance"}
    assert (values(found, "nothing")["suppression"], values(found, "nothing")["retention"]) == (0, 1)
    chance = values(found, "chance")
    assert (chance["suppression"], chance["retention"], chance["retention_truth"]) == (1, 1 / 4, 1 / 2)
    pd.testing.assert_frame_equal(references.known(whole, LIMIT), references.bounds(whole, LIMIT))
    of_one = references.known(perturbations().query("image_concept == 'bear'"), LIMIT)
    assert set(of_one["method"]) == {"nothing"}


def test_references_of_a_curve_are_of_its_pictures() -> None:
    tried = perturbations()
    tried = tried[(tried["sigma"] != 10) | (tried["image_id"] != "bus-2")]
    found = readings.bounds(pd.concat([tried, removed()]), profile(), "sigma")
    removal = found[found["method"] == "removal"].set_index("metric")
    assert removal["n_images"]["suppression"] == 3
    assert removal["value"]["retention_truth"] == 1  # all but on bus-2


def test_what_is_no_method_is_held_against_nothing_in_the_table() -> None:
    rows = pd.concat([perturbations().query("sigma == 3 and n == 80 and heldout and positions == 'image'"), removed()])
    table = methods.compare(rows, LIMIT, floor=references.bounds(rows, LIMIT)).set_index(["method", "metric"])
    assert table.loc[("removal", "suppression"), "value"] == 1 and not table.loc[("removal", "suppression"), "best"]
    assert table.loc["two-stage"].loc["suppression", "best"]
    assert table.loc[["removal", "chance"], "p"].isna().all()
    assert table.loc[("random", "suppression"), "p"] == table.loc[("random", "suppression"), "p_holm"]  # of one test


@pytest.fixture
def doses() -> matched.Doses:
    """Two-stage: .75 suppressed at 3 and all at 10, a quarter of the truth kept; directions all at 10, and all kept."""
    push = [row(image.split("-")[0], "direction", image, False) for image in CLEAN]
    push += [row(image.split("-")[0], "direction", image, True, sigma=10.0) for image in CLEAN]
    return matched.Doses(pd.concat([perturbations(), pd.DataFrame(push)]), profile())


def test_retention_is_read_at_equal_suppression(doses: matched.Doses) -> None:
    assert doses.sigma["two-stage"] == [0, 3, 10] and (doses.n, doses.n_concepts) == (4, 2)
    found = matched.table(doses, 0.375).set_index("method")
    assert found.loc["two-stage", ["sigma", "value", "most"]].tolist() == [1.5, (1 + 0.25) / 2, 1.0]
    assert found.loc["direction", ["sigma", "value", "kept"]].tolist() == pytest.approx([3 + 7 * 0.375, 1.0, 1.0])
    assert found.loc["direction", "difference"] == 0.25 - 1
    assert math.isnan(found.loc["random", "value"]) and math.isnan(found.loc["random", "low"])
    words = matched.in_words(found.reset_index(), doses, 0.375)
    assert words["matched-ours"].startswith("keep 0.6") and words["matched-random"] == "never reach it (at most 0.25)"
    assert words["matched-direction"].startswith("keep 1.00, ")
    assert words["matched-control"] == "random directions; random neurons of the same layers never suppress as much"
    shown = matched.for_readers(found.reset_index(), 0.375).set_index("neurons of")
    assert shown.loc["random, same layers", "retention at 0.375 suppressed"] == "not reached (at most 0.25)"
    assert set(found["doses"]) == {2} and words["matched-one"] == ""


def test_from_one_dose_nothing_is_interpolated() -> None:
    once = [row(image.split("-")[0], "stage-1", image, True) for image in CLEAN]
    doses = matched.Doses(pd.concat([perturbations(), pd.DataFrame(once)]), profile())
    assert doses.several("two-stage") and not doses.several("stage-1") and not doses.several("dai")
    found = matched.table(doses, 0.375)
    alone = found.set_index("method").loc["stage-1"]
    assert alone["doses"] == 1 and alone["most"] == 1.0
    assert alone[["sigma", "value", "low", "kept", "difference"]].isna().all()
    shown = matched.for_readers(found, 0.375).set_index("neurons of").loc["stage 1 alone"]
    assert shown.tolist() == ["1", "one dose", "–", "–", "–"]
    assert matched.in_words(found, doses, 0.375)["matched-one"].endswith("were tried: stage 1 alone.")


def test_where_one_noise_alone_was_tried_nothing_is_placed() -> None:
    doses = matched.Doses(perturbations().query("sigma != 10"), profile())
    words = matched.in_words(matched.table(doses, 0.375), doses, 0.375)
    assert words["matched-ours"] == words["matched-random"] == "cannot be placed (one noise alone was tried)"
    assert at_equal(doses, (0.2, 0.1, 0.3)) == "one dose"
    assert words["matched-control"].startswith("neither; random neurons of the same layers were not tried under")


def test_noise_is_held_against_whichever_control_keeps_more_where_as_much_is_suppressed() -> None:
    """At three quarters suppressed the two-stage neurons keep .25, random ones .55, directions .7 or .4."""
    taken = rival("random", True, (20.0,), retained_truth=0.4)  # from .25 at the main noise and nothing at 10

    def over(*kinds: list[dict[str, object]]) -> tuple[float, float, str]:
        rows = pd.concat([perturbations(), *map(pd.DataFrame, kinds)])
        doses = matched.Doses(rows, profile())
        found = matched.over_controls(doses)
        return found.value, found.n, matched.in_words(matched.table(doses, 0.375), doses, 0.375)["matched-control"]

    def directions(kept: float) -> list[dict[str, object]]:
        return rival("direction", False) + rival("direction", True, (20.0,), retained_truth=kept)

    neurons = "random neurons of the same layers"
    assert over(taken, directions(0.6)) == (pytest.approx(0.25 - 0.7), 4, "random directions")
    assert over(taken, directions(0.2)) == (pytest.approx(0.25 - 0.55), 4, neurons)
    alone = f"{neurons}; random directions were not tried under several noises"
    assert over(taken) == over(taken, rival("direction", True, (3.0,))) == (pytest.approx(0.25 - 0.55), 4, alone)
    value, n, said = over()
    assert math.isnan(value) and n == 0 and said.startswith(f"neither; {neurons} never suppress as much; random dir")


def rival(name: str, gone: bool, sigmas: tuple[float, ...] = (3, 10), **changes: Any) -> list[dict[str, object]]:
    return [row(image.split("-")[0], name, image, gone, sigma=s, **changes) for image in CLEAN for s in sigmas]


def held(*rivals: list[dict[str, object]], sigma: float = 3.0) -> tuple[Any, Any, dict[str, str]]:
    """`over_rivals` of the run with these, all under one noise; at text under 4."""
    whole = pd.concat([perturbations(), *map(pd.DataFrame, rivals)])
    doses = matched.Doses(whole, text_tried())
    own = {name: 4.0 if name.endswith("-text") else sigma for name in doses.means}
    chosen = pd.DataFrame({"method": list(own), "sigma": list(own.values()), "chosen": True})
    (kept, balance), best = matched.over_rivals(doses, matched.own_doses(doses, chosen))
    return kept, balance, best


def text_tried() -> Profile:
    settings = profile()
    tried = settings.perturbation.model_copy(update={"text_sigma": (2.0, 4.0)})
    return settings.model_copy(update={"perturbation": tried})


def test_a_rival_that_does_nothing_wins_nothing() -> None:
    idle, strong = rival("pan-gated", False), rival("schwettmann", True)
    kept, balance, best = held(idle, strong)
    assert best == {"matched": "schwettmann", "balance": "schwettmann"}
    assert kept.name == "matched_retention_over_rivals" and kept.value == 0.25 - 1.0
    assert balance.value == pytest.approx(2 * 0.75 * 0.25 / (0.75 + 0.25) - 1.0)
    kept, balance, best = held(idle)
    assert best == {"matched": "", "balance": ""} and math.isnan(kept.value) and math.isnan(balance.value)
    assert matched.rivals_in_words(best).count("against none, as none qualifies") == 2


def test_a_rival_suppresses_at_all_above_random_neurons_under_the_same_noise() -> None:
    strong = rival("schwettmann", True, (3.0,)) + rival("schwettmann", False, (10.0,))
    assert held(strong)[2]["balance"] == "schwettmann"
    assert held(strong, sigma=10.0)[2]["balance"] == ""  # its own noise does nothing
    broken = [row(image.split("-")[0], "random", image, True, sigma=20.0) for image in CLEAN]
    assert held(strong, broken)[2]["balance"] == "schwettmann"  # more noise breaks any caption: it is another noise
    doses = matched.Doses(pd.concat([perturbations(), pd.DataFrame(strong)]), profile())
    assert matched.suppresses(doses, "schwettmann", 3.0) and not matched.suppresses(doses, "random", 3.0)
    assert not matched.suppresses(doses, "schwettmann", 7.0)  # where no random neurons are beside it


def test_rivals_in_their_own_place_are_rivals_too() -> None:
    place = {"positions": "text"}
    dai = rival("dai-text", False, (2.0,), **place) + rival("dai-text", True, (4.0,), **place)
    idle = rival("random", False, (2.0, 4.0), **place)
    best = held(rival("schwettmann", False), dai, idle)[2]
    assert best == {"matched": "dai-text", "balance": "dai-text"}
    assert held(rival("schwettmann", False), dai)[2]["balance"] == ""  # no random neurons at text beside it
    once = rival("dai-text", True, (4.0,), **place)
    assert held(rival("schwettmann", False), once, idle)[2] == {"matched": "", "balance": "dai-text"}
    assert held(once, idle)[2] == {"matched": "", "balance": ""}  # no rival was tried under several noises
    said = matched.rivals_in_words({"matched": "", "balance": "dai-text"})
    assert said.endswith("in the balance of both numbers against Dai et al., at text")


def test_whose_noise_silences_whom() -> None:
    found = ownership.silenced(crossed()).set_index(["concept", "image_concept"])
    assert found["caption"].to_dict() == {
        ("bear", "bear"): 0.5,
        ("bear", "bus"): 0.5,
        ("bus", "bear"): 0.0,
        ("bus", "bus"): 0.5,
    }
    assert found.loc[("bear", "bear"), "probability"] == pytest.approx((0.8 + 0.4) / 2)
    gap = ownership.own_minus_foreign(found.reset_index(), "caption")
    assert gap.value == pytest.approx(((0.5 - 0.0) + (0.5 - 0.5)) / 2)
    with theme():
        axes = ownership.maps(found.reset_index(), ["bear", "bus"]).axes
        titles = [ax.get_title(loc="left") for ax in axes]
        assert titles == ["Names: own 50%, other 25%", "Probability: own 60%, other 20%"]
        assert [text.get_text() for text in axes[1].texts] == ["60", "20", "20", "60"]
    plt.close("all")


def test_the_units_that_lead_every_list_are_told_with_their_ranks() -> None:
    delta, score = np.array([[1.0, 5.0], [3.0, 2.0], [9.0, 9.0]]), np.array([[4.0, 1.0], [2.0, 3.0], [0.0, 0.0]])
    pooled = {"bear": {"delta": delta, "gradcam": score}, "bus": {"delta": delta + 1, "gradcam": -score}}
    found = ownership.generic(pooled, n=2)
    assert found[["layer", "unit", "difference"]].to_numpy().tolist() == [[0, 1, 5.5], [1, 0, 3.5]]
    assert found["bear"].tolist() == [4, 3] and found["bus"].tolist() == [3, 4]  # behind the last layer's two zeros


def test_parts_and_other_words_are_told() -> None:
    made = []
    for part, gone in (("all", True), ("own", False)):
        for method, lost in ((part, gone), (f"{part}, random", False)):
            made += [row(image.split("-")[0], method, image, lost, n=len(image)) for image in CLEAN]
        patch = {"intervention": "patch", "sigma": math.nan, "n": 6}
        made += [row(image.split("-")[0], part, image, False, **patch) for image in CLEAN]
    split = ownership.parts(pd.DataFrame(made))
    shown = ownership.parts_for_readers(split, "retention_truth").set_index("neurons")
    assert shown.loc["shared by all concepts", "suppression, noise"].startswith("1.00")
    assert shown.loc["the concept's own", "suppression, noise"].startswith("0.00")
    bounds = references.bounds(removed(), LIMIT)
    below = ownership.parts_for_readers(split, "retention_truth", bounds).set_index("neurons").iloc[2:]
    assert below.index.tolist() == ["nothing done", "the object taken out of the picture", "another concept's caption"]
    assert below["retention, noise"].str[:4].tolist() == ["1.00", "0.75", "0.50"]
    assert set(below["probability lost, patched"]) == set(below["of a set"]) == {"–"}
    sets = [("bear", 1), ("bear", 2), ("bus", 2), ("bus", 3)]
    neurons = pd.DataFrame({"concept": [c for c, _ in sets], "unit": [u for _, u in sets], "layer": 0, "rank": 0})
    other = pd.DataFrame({"concept": "bear", "words": "field", "layer": 0, "unit": [2, 9], "rank": [0, 1]})
    words = ownership.other_word(neurons.assign(method="two-stage"), other, 80)
    assert words.iloc[0].tolist() == ["bear", "field", 1, 2, 1.0]
    units = ownership.generic({"bear": {"delta": np.ones((2, 2)), "gradcam": np.ones((2, 2))}}, n=1)
    said = ownership.in_words(ownership.silenced(crossed()), split)
    assert said["cell-pictures"] == "2 pictures" and said["own-alone"].startswith("0.20")
    found = ownership.found_in_words(units, words)
    assert found["other-word"] == "1 of 2" and found["generic"] == "L0/0"


def test_figures_hold_what_is_no_method() -> None:
    whole, kept = pd.concat([perturbations(), removed()]), "retention"
    bounds, curve = references.bounds(whole, LIMIT), readings.curve(whole, profile(), "sigma")
    with theme():
        ax = plane.frontier(curve, "retention", dict.fromkeys(curve["method"], 3.0), bounds)
        assert {text.get_text() for text in ax.texts} >= {"nothing done", "another concept's caption"}
        figure = figures.dose_response(curve, "sigma", 3.0, "retention", bounds)
        labels = figure.axes[1].get_legend_handles_labels()[1]
        assert "the object taken out of the picture" in labels
        names = {"zero": "zero", "noise": "noise"}
        tried = figures.compared(readings.curve(whole, profile(), "intervention"), "intervention", names, kept, bounds)
        concepts = figures.by_concept(readings.by_concept(whole, profile()), readings.printed(), kept, (), bounds)
        rows = pd.DataFrame(headline_rows())
        draws = methods.control_draws(rows, LIMIT, kept)
        drawn = figures.among_controls(draws, methods.among_controls(rows, draws, LIMIT), kept, bounds)
        for each in (tried, concepts, drawn):
            at = [line.get_xdata()[0] for line in each.axes[1].lines if line.get_label().startswith("the object")]
            assert at == [1 / 2]
            assert "another concept's caption" in [text.get_text() for text in each.legends[0].get_texts()]
    plt.close("all")
