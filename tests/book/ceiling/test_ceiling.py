"""A toy study's ceilings and curves: what is said of them and drawn, and words that follow the numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.ceiling import ceilings, curves, figures
from book.tables import P_HOLM
from kn_core.drawing import theme
from kn_core.study.experiments.ceiling import EVERYTHING, WITHOUT
from kn_core.study.experiments.curves import KEPT, REMOVED
from kn_core.study.study import Study
from tests.kn_core.study.experiments.test_ceiling import SETTINGS
from tests.kn_core.study.test_study import changed, inhabit

CONCEPTS = ["bear", "bus"]


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ceilings")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(changed(toy_profile, ceiling=SETTINGS), folder / "results", taught_model)


def test_ceilings_for_a_reader(study):
    found = ceilings.of_all(study, CONCEPTS)
    means = ceilings.summary(found, 50.0)
    assert not ceilings.summary(found, 0.0).query("metric == 'fluent'")["value"].any()
    assert means["method"].iloc[0] == EVERYTHING and set(means["metric"]) <= set(ceilings.SHOWN)
    table = ceilings.for_readers(means)
    assert table["patched"].iloc[0] == "all neurons" and len(table) == found["method"].nunique()
    said = ceilings.in_words(found, means)
    lost = 1 - found[found["method"] == EVERYTHING].groupby("concept")["target_present"].mean().mean()
    assert said["lost"].startswith(f"{lost:.0%} [") and said["pictures"] == "4"
    assert means.set_index(["method", "metric"]).loc[(WITHOUT, "suppression"), "value"] == 1
    (claim,) = ceilings.measured(study)  # of all concepts
    assert (claim.name, claim.n) == ("ceiling", 6)


def test_what_there_is_room_for_follows_the_number():
    assert ceilings._room(0.9, 0.7).startswith("Most")
    assert ceilings._room(0.5, 0.3).startswith("A part")
    assert ceilings._room(0.1, 0.0).startswith("Little")
    assert "not well chosen" in ceilings._so(0.9, 0.7) and "damage" in ceilings._so(0.1, 0.0)


def frame(rows: dict[tuple[str, int, int, str], float]) -> pd.DataFrame:
    """Curves of one concept's two pictures, the second's y twice the first's."""
    records = [
        (image, ranking, draw, n, side, scale * y)
        for image, scale in (("a", 1), ("b", 2))
        for (ranking, draw, n, side), y in rows.items()
    ]
    return pd.DataFrame(records, columns=["image_id", "ranking", "draw", "n", "side", "y"]).assign(concept="bear")


@pytest.fixture
def by_hand(study, monkeypatch):
    anchors = {("without", 0, 0, ""): -4, ("nothing", 0, 0, ""): 6, ("everything", 0, 100, ""): -2}
    anchors |= {("layers 0–0", 0, 48, ""): 1, ("layers 1–2", 0, 96, ""): 5}
    sets = {("two-stage", 0, 8, KEPT): 0, ("two-stage", 0, 8, REMOVED): 4}
    sets |= {("random", draw, 8, side): y for draw in range(3) for side, y in ((KEPT, draw - 2), (REMOVED, 5))}
    monkeypatch.setattr(curves, "curves", lambda *_: frame(anchors | sets))
    return curves.Curves(study, ["bear"])


def test_shares_by_hand(study, by_hand):
    assert curves.ffn_share(by_hand) == pytest.approx((0.8, 0.8, 0.8))  # 8 of 10, in either picture
    chosen = pd.DataFrame({"concept": ["bear"] * 4 + ["cat"] * 2, "layer": [0, 1, 2, 2, 0, 2]})
    layers = curves.layer_profile(by_hand, chosen)
    assert layers["value"].tolist() == pytest.approx([0.5, 0.1])
    assert layers["holds"].tolist() == pytest.approx([(1 / 4 + 1 / 2) / 2, (3 / 4 + 1 / 2) / 2])
    (row,) = curves.table(by_hand).to_dict("records")
    assert (row["alone"], row["lost"]) == pytest.approx((0.25, 0.25))
    assert row["cpr"] == pytest.approx((0.25 + 1) / 2) and row["cmd_log"] == pytest.approx((0.75 + 0) / 2)
    tests = curves.tests(study, by_hand).set_index("test")
    assert tests.loc["sufficiency", "won"] == pytest.approx(2 / 3)
    assert tests.loc["partial necessity", "won"] == 1 and "minimality" in tests.index
    assert tests.loc["sufficiency", "least"] >= 0.125 and tests.loc["sufficiency", "n_images"] == 2
    told = curves.tests_in_words(tests.reset_index())
    assert "artial necessity has too few sets to tell (100% of 3" in told and "ufficiency has too few" in told
    many = tests.reset_index().assign(least=0.01, **{P_HOLM: [0.2, 0.04, 0.2]})
    assert "ufficiency is not shown" in (told := curves.tests_in_words(many)) and "artial necessity holds" in told
    said = curves.in_words(by_hand, curves.table(by_hand), layers)
    assert said["ffn-share"].startswith("80%") and said["order"].startswith("What the first layers")
    (claim,) = curves.measured(study)
    assert (claim.name, claim.value, claim.n) == ("ffn_share", pytest.approx(0.8), 2)


def test_a_neuron_that_carries_language_is_told_and_left_out(study, monkeypatch):
    sets = {("nothing", 0, 0, ""): 6, ("everything", 0, 100, ""): -2, ("two-stage", 0, 8, REMOVED): 2}
    sets |= {("two-stage", 0, 8, KEPT): 0, ("two-stage", 0, 8, "spared"): 4}
    monkeypatch.setattr(curves, "curves", lambda *_: frame(sets))
    single = pd.DataFrame({"concept": "bear", "layer": [1, 0], "unit": [5, 7], "ratio": [2.5, 1.0]})
    monkeypatch.setattr(curves, "collapse", lambda *_: single)
    methods = ["two-stage", "two-stage", "two-stage, spared", "two-stage, spared", "atp", "atp, spared"]
    captions = pd.DataFrame({"method": methods, "concept": "bear", "target_present": [0, 0, 0, 1, 0, 1]})
    monkeypatch.setattr(curves, "spared", lambda *_: captions)
    said = curves.guard_in_words(study, curves.Curves(study, ["bear"]), ["bear"])
    assert "1 make captions of the other" in said and "(layer 1, unit 5)" in said and "carries 25% [25%" in said
    assert "takes 100% of the names with them and 50% without" in said and said.endswith("100% with and 0% without")
    monkeypatch.setattr(curves, "collapse", lambda *_: single.assign(ratio=[1.2, 1.0]))
    assert "none alone" in curves.guard_in_words(study, curves.Curves(study, ["bear"]), ["bear"])


def test_figures_state_what_they_show(by_hand):
    chosen = pd.DataFrame({"concept": ["bear"] * 2, "layer": [0, 2]})
    with theme():
        ax = figures.layer_profile(curves.layer_profile(by_hand, chosen), curves.ffn_share(by_hand))
        said = " ".join(ax.get_title(loc="left").split())
        assert "With layers 0–0 patched, 50% of what the object adds to its word is lost" in said
        figure = figures.curves(curves.points(by_hand), 0.08)
        assert "Sets of one size take away: two-stage neurons 25%" in " ".join(figure.get_suptitle().split())
    plt.close("all")


def test_a_toy_studys_curves_are_whole(study):
    found = curves.Curves(study, CONCEPTS)
    assert set(found.rankings) == {"two-stage", "atp", "mask"} and len(found.y) == 2
    ends = np.array([curves.ffn_share(found)])
    assert np.isfinite(ends).all()
    frame = curves.table(found)
    assert curves.table_for_readers(frame, found.budget)["ranked by"].nunique() == 3
    with theme():
        figures.curves(curves.points(found), found.budget / found.able)
    plt.close("all")
    assert "None" not in curves.guard_in_words(study, found, CONCEPTS)
    said = curves.tests_in_words(curves.tests(study, found))
    assert "minimality has too few sets to tell (" in said and "% of 2," in said  # a concept is one case
