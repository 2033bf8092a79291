"""A toy study's ceilings, bounds and curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from book.ceiling import ceilings
from kn_core.method.complements import gaps, naming
from kn_core.study.experiments import ceiling, curves, guard
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

SETTINGS = {"pictures": 2, "curve_pictures": 1, "shares": [0.1, 0.5], "matched": 3, "mask_steps": 3, "guarded": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory, taught_model, toy_profile):
    folder = tmp_path_factory.mktemp("ceilings")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        yield Study(changed(toy_profile, ceiling=SETTINGS), folder / "results", taught_model)


def test_what_is_said_with_whole_layers_patched(study):
    found = ceiling.ceiling(study, "bear")
    done = [ceiling.EVERYTHING, *map(ceiling.window_name, ceiling.windows(study)), "two-stage", ceiling.ACTIVATION]
    done += [ceiling.WITHOUT, ceiling.PROJECT_AWAY, ceiling.DIFFERENCE]
    assert found["method"].unique().tolist() == done and (found.groupby("method").size() == 2).all()
    assert found.set_index("method").loc[[ceiling.EVERYTHING, ceiling.ACTIVATION], "n"].unique().tolist() == [144]
    by = found.groupby("method")["target_probability"].mean()
    assert by[ceiling.EVERYTHING] < by["two-stage"]
    bare = found[found["method"] == ceiling.WITHOUT].set_index("image_id")["caption"]
    pairs = study.pairs("bear").set_index("image_id")["caption_inpainted"]
    assert bare.to_dict() == pairs[bare.index].to_dict()
    assert set(found["layer"].dropna()) <= {0, 1}


def test_curves_and_their_anchors(study):
    found = curves.curves(study, "bear")
    (picture,) = study.pictures("bear", "held_out", 1)
    at = naming(study.model, picture)
    anchors = found[found["side"] == ""].set_index("ranking")["y"]
    assert anchors["without"] == pytest.approx(at.y_without, abs=1e-4)
    full = np.ones((3, 48), bool)
    assert anchors[["nothing", "everything"]].tolist() == pytest.approx(gaps(study.model, at, [full, ~full]), abs=1e-4)
    assert anchors["layers 2–2"] == pytest.approx(anchors["nothing"], abs=1e-4)
    sets = found[found["side"] != ""].groupby(["ranking", "side"]).size()
    assert curves.sizes(study) == [8, 10, 48]
    assert sets.to_dict() == {
        **{(name, side): 3 for name in ("atp", "mask", "two-stage") for side in ("kept", "removed")},
        **{("random", side): 3 for side in ("kept", "removed")},
        ("uniform", "kept"): 6,
    }
    best = study.neuron_set("bear").top(8)
    alone = np.zeros((3, 48), bool)
    alone[best.layers, best.units] = True
    ours = found.query("ranking == 'two-stage' and n == 8 and side == 'removed'")["y"].item()
    if (best.layers < 2).all():
        assert ours == pytest.approx(gaps(study.model, at, [~alone])[0], abs=1e-4)


def test_orders_hold_what_can_act_and_fill_a_filter_up():
    score = np.array([[0.1, 0.5], [0.3, 0.3], [9, 9]])
    assert curves.order(score).tolist() == [1, 2, 3, 0]
    filled = curves._filled(np.array([[np.nan, 2.0], [1.0, np.nan]]), np.array([[7.0, 0.0], [0.0, 9.0]]))
    assert np.argsort(-filled, axis=None).tolist() == [1, 2, 3, 0]
    rng = np.random.default_rng(0)
    drawn = curves.same_layers(np.array([0, 1, 7, 3]), 3, 4, rng)
    assert sorted(drawn[:2]) == [2, 3] and drawn[2] in (4, 5, 6)


def test_what_is_flagged_is_spared(study, monkeypatch):
    best = study.neuron_set("bear").top(8)
    flagged = {"layer": best.layers[:1], "unit": best.units[:1], "ratio": [3.0]}
    monkeypatch.setattr(curves, "collapse", lambda *_: pd.DataFrame(flagged))
    sets = curves._sets(study, "bear", curves.rankings(study, "bear"))
    spared = sets["two-stage", 0, 8, curves.SPARED]
    assert spared[best.layers[0], best.units[0]] and (~spared).sum() == (best.layers[1:] < 2).sum()


def test_sets_are_captioned_with_and_without_what_is_flagged(study, monkeypatch):
    assert guard.spared(study, "bear").empty  # nothing is flagged, and nothing is computed
    best = study.neuron_set("bear").top(8)
    flagged = {"layer": best.layers[:8], "unit": best.units[:8], "ratio": [3.0] * 7 + [1.0]}
    monkeypatch.setattr(guard, "collapse", lambda *_: pd.DataFrame(flagged))
    found = guard.spared(study, "bear").set_index("method")
    assert found.index.tolist() == ["two-stage", "two-stage, spared", "atp", "atp, spared"]  # of one picture
    whole = ceiling.ceiling(study, "bear").query("method == 'two-stage'").iloc[0]
    assert found.loc["two-stage", "target_probability"] == pytest.approx(whole["target_probability"], abs=1e-5)
    assert found.loc["two-stage, spared", "target_probability"] > found.loc["two-stage", "target_probability"]


def test_the_guard_looks_at_each_of_the_best(study):
    found = curves.collapse(study, "bear")
    assert found["rank"].tolist() == [0, 1] and (found["ratio"] > 0).all()
    at_last = found[found["layer"] == 2]["ratio"]
    assert at_last.tolist() == pytest.approx([1] * len(at_last), rel=1e-4)


def test_concepts_whose_thresholds_leave_fewer_neurons_than_are_asked_for_go_into_one_table(study, monkeypatch):
    whole = type(study).neuron_set
    few = {"bear": 3, "bus": 5}
    monkeypatch.setattr(type(study), "neuron_set", lambda self, concept: whole(self, concept).top(few[concept]))
    found = pd.concat([ceiling._ceiling(study, concept) for concept in few], ignore_index=True)
    assert found[found["method"] == "two-stage"]["n"].unique().tolist() == [8]
    assert set(ceilings.summary(found, 50.0)["method"]) >= {"two-stage", ceiling.EVERYTHING}
