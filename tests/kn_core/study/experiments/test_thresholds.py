"""Stages on and off and thresholds over a grid: a toy study of three concepts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kn_core import models
from kn_core.measures.metrics import per_image
from kn_core.method import interventions, perturbation
from kn_core.pictures import scenes
from kn_core.profile import Profile
from kn_core.study.experiments import thresholds
from kn_core.study.experiments.thresholds import BUDGET, OWN
from kn_core.study.study import Study, StudyError
from tests.toy_world import COLOURS, toy_samples

CONCEPT = "bear"


@pytest.fixture(scope="module")
def profile(toy_profile) -> Profile:
    """The toy profile with the methods of the ablation; some cells of its grids leave the same neurons, or none."""
    changes: dict[str, dict[str, object]] = {
        "perturbation": {"seeds": 2, "rival_seeds": 2, "draws": 2, "rivals": ["stage-1", "stage-2"]},
        "sensitivity": {"pictures": 1, "quantiles_a": [0.25, 0.5], "quantiles_g": [0.5, 0.9]},
    }
    changes["perturbation"]["controls"] = ["random", "uniform"]
    changes["sensitivity"] |= {"raw_a": [1e-9, 100.0, 1000.0], "raw_g": [1e-9, 2e-9]}
    return Profile.model_validate(toy_profile.model_dump() | changes)


@pytest.fixture(scope="module")
def start(tmp_path_factory, taught_model, profile):
    """start(profile=...): a study in one folder; started again, it goes on from what lies there."""
    folder = tmp_path_factory.mktemp("sensitivity")
    (folder / "toy.safetensors").write_bytes(b"the taught model's")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "samples", toy_samples)
        patch.setattr(models, "PROJECTIONS", folder)
        yield lambda settings=profile: Study(settings, folder / "results", taught_model)


@pytest.fixture(scope="module")
def study(start) -> Study:
    return start()


@pytest.fixture(scope="module")
def ablations(study) -> pd.DataFrame:
    return pd.concat([thresholds.ablation(study, concept) for concept in COLOURS], ignore_index=True)


@pytest.fixture(scope="module")
def grids(study) -> pd.DataFrame:
    return pd.concat([thresholds.grid(study, concept) for concept in COLOURS], ignore_index=True)


# Stages on and off


def test_at_the_same_number_the_rows_are_those_of_the_perturbations(study, ablations):
    perturbations = study.perturbations()
    rows = ablations[ablations["at"] == BUDGET].drop(columns="at")
    assert rows.groupby("method").size().to_dict() == dict.fromkeys(thresholds.ARMS, 3 * 2 * 2)  # 2 pictures, 2 seeds
    assert (rows["concept"] == rows["image_concept"]).all() and rows["heldout"].all()
    assert set(rows["n"]) == {8}
    pd.testing.assert_frame_equal(rows.merge(perturbations), rows.reset_index(drop=True), check_dtype=False)


def test_at_its_own_thresholds_an_arm_has_all_that_pass(study, ablations):
    own = ablations[ablations["at"] == OWN]
    assert list(own["method"].unique()) == ["stage-1", "stage-2", "two-stage"]
    for concept in COLOURS:
        pooled, found = study.pooled(concept), study.thresholds(concept)
        first, second = pooled["delta"] > found["delta"], pooled["gradcam"] > found["gradcam"]
        counts = own[own["concept"] == concept].set_index("method")["n"].to_dict()
        assert counts == {"stage-1": first.sum(), "stage-2": second.sum(), "two-stage": (first & second).sum()}
        assert counts["two-stage"] == len(study.neuron_set(concept))
    assert own.groupby("concept")["image_id"].nunique().tolist() == [1, 1, 1]


def test_a_set_is_disturbed_as_any_other_of_its_size(study, ablations):
    row = ablations.query("at == @OWN and method == 'two-stage' and concept == @CONCEPT").iloc[0]
    neurons, pictures = study.neuron_set(CONCEPT), study.pictures(CONCEPT, "held_out")[:1]
    setting = interventions.Setting("noise", "image", len(neurons), 3.0, 0)
    alone = perturbation.run(study.model, pictures, [perturbation.Trial(neurons, setting, "own")], None, 12).iloc[0]
    assert row["caption"] == alone["caption"]
    assert row["target_probability"] == pytest.approx(alone["target_probability"], rel=1e-4)


def test_without_a_single_stage_there_is_no_ablation(start, toy_profile):
    with pytest.raises(
        StudyError, match=r"needs the methods stage-1, stage-2. Add them .* perturbation.rivals \(stage-1"
    ):
        thresholds.ablation(start(toy_profile), CONCEPT)


# The grid


def test_a_cell_says_what_passes_and_what_noise_on_it_does(study, grids):
    cells = grids[grids["concept"] == CONCEPT].set_index(["scale", "a", "g"])
    assert len(cells) == 4 + 6
    pooled = study.pooled(CONCEPT)
    for (scale, a, g), cell in cells.iterrows():
        limits = (np.quantile(pooled["delta"], a), np.quantile(pooled["gradcam"], g)) if scale == "quantile" else (a, g)
        assert (cell["threshold_a"], cell["threshold_g"]) == pytest.approx(limits)
        left = (pooled["delta"] > float(limits[0])) & (pooled["gradcam"] > float(limits[1]))
        assert cell["n_neurons"] == left.sum()
        assert cell["quantile_a"] == (pooled["delta"] <= float(limits[0])).mean()
    assert cells.loc[("quantile", 0.5, 0.5), "quantile_a"] == 0.5
    empty = cells.loc["raw"].loc[[100.0, 1000.0]]
    assert (empty["n_neurons"] == 0).all()
    assert empty[["suppression", "retention", "fluent", "n_images"]].isna().all(axis=None)
    assert cells.loc[("quantile", 0.5, 0.5), list(thresholds.METRICS)].between(0, 1).all()


def test_the_cell_of_our_thresholds_is_the_two_stage_set(ablations, grids):
    own = per_image(ablations.query("at == @OWN and method == 'two-stage'"), ["method", "n"])
    for metric in ("suppression", "retention"):
        expected = own[own["metric"] == metric].set_index("image_concept")["value"]
        found = grids.query("scale == 'quantile' and a == 0.5 and g == 0.5").set_index("concept")[metric]
        pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_names=False)


def test_thresholds_that_leave_the_same_neurons_are_tried_once(study, grids):
    kept = pd.read_parquet(study.folder / "parts" / f"sensitivity-{CONCEPT}.parquet")
    assert not kept.duplicated(["method", "image_id"]).any()
    sets = thresholds._sets(study, CONCEPT)
    assert len(kept) == len({neurons.method for neurons in sets.values() if len(neurons)}) < len(sets)
    raw = grids.query("concept == @CONCEPT and scale == 'raw' and a == 1e-9").set_index("g")
    assert raw.loc[1e-9, "n_neurons"] == raw.loc[2e-9, "n_neurons"]
    assert raw.loc[1e-9, "suppression"] == raw.loc[2e-9, "suppression"]


def test_a_second_run_computes_nothing_and_a_concept_is_computed_by_itself(start, profile, grids, monkeypatch):
    tried = []
    run = perturbation.run
    monkeypatch.setattr(perturbation, "run", lambda *given, **more: (tried.append(1), run(*given, **more))[1])
    again = start()
    again.__dict__["model"] = None  # whoever asks it anything fails
    pd.testing.assert_frame_equal(
        thresholds.grid(again, CONCEPT), grids[grids["concept"] == CONCEPT].reset_index(drop=True)
    )
    assert tried == []
    more = profile.sensitivity.model_copy(update={"pictures": 2})
    wider = thresholds.grid(start(profile.model_copy(update={"sensitivity": more})), "bus")
    assert tried == [1]
    assert set(wider["n_images"].dropna()) == {2}
