"""Stages on and off and thresholds over a grid: a toy study, and grids small enough to read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from book.ablation import figures
from book.ablation import thresholds as on_the_page
from kn_core import models
from kn_core.drawing import theme
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
    changes = {
        "perturbation": {
            "seeds": 2,
            "rival_seeds": 2,
            "draws": 2,
            "rivals": ["stage-1", "stage-2"],
            "controls": ["random", "uniform"],
        },
        "sensitivity": {
            "pictures": 1,
            "quantiles_a": [0.25, 0.5],
            "quantiles_g": [0.5, 0.9],
            "raw_a": [1e-9, 100.0, 1000.0],
            "raw_g": [1e-9, 2e-9],
        },
    }
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


@pytest.fixture(autouse=True)
def canvas() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}), theme():
        yield
    plt.close("all")


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


def test_effects_and_gains_are_means_over_concepts_of_pictures(ablations):
    effects = on_the_page.effects(ablations).set_index(["at", "method", "metric"])
    gains = on_the_page.gains(ablations).set_index(["at", "gain", "metric"])
    images = per_image(ablations, ["at", "method", "n"]).query("metric == 'suppression'")
    means = images.groupby(["at", "method", "image_concept"])["value"].mean().groupby(["at", "method"]).mean()
    for (at, method), value in means.items():
        assert effects.loc[(at, method, "suppression"), "value"] == pytest.approx(value)
    neither, first, second, both = (means[BUDGET, arm] for arm in thresholds.ARMS)
    expected = {"stage 2 to stage 1": both - first, "stage 1 to stage 2": both - second}
    expected |= {"stage 1 to neither": first - neither, "together": both - first - second + neither}
    for gain, value in expected.items():
        assert gains.loc[(BUDGET, gain, "suppression"), "value"] == pytest.approx(value)
    assert set(gains.loc[OWN].index.get_level_values("gain")) == {"stage 2 to stage 1", "stage 1 to stage 2"}
    assert effects.loc[(BUDGET, "stage-1", "suppression"), "neurons"] == 8


def test_without_a_single_stage_there_is_no_ablation(start, toy_profile):
    with pytest.raises(
        StudyError, match=r"needs the methods stage-1, stage-2. Add them .* perturbation.rivals \(stage-1"
    ):
        thresholds.ablation(start(toy_profile), CONCEPT)


def test_words_follow_the_interval():
    base = {"metric": "suppression", "n_images": 4, "n_concepts": 2}
    rows = [
        ("stage 1 to stage 2", 0.25, 0.1, 0.4),
        ("stage 2 to stage 1", -0.25, -0.4, -0.1),
        ("together", 0.0, -0.1, 0.1),
    ]
    gains = pd.DataFrame([base | dict(zip(("gain", "value", "low", "high"), row, strict=True)) for row in rows])
    retention = gains.assign(metric="retention", value=0.01, low=math.nan, high=math.nan)
    both = pd.concat([gains, retention])
    gains = pd.concat([both.assign(at=BUDGET), both.assign(at=OWN)])
    effects = pd.DataFrame(columns=["at", "method", "neurons", "metric", "value"])
    words = on_the_page.in_words(effects, gains)
    unclear = "makes no clear difference to retention (+0.01, too few pictures for an interval)"
    assert words["added-1"] == f"raises suppression (+0.25, 95 % interval +0.10 to +0.40) and {unclear}"
    assert words["added-2-own"] == f"lowers suppression (-0.25, 95 % interval -0.40 to -0.10) and {unclear}"
    level = on_the_page.in_words(effects, gains.assign(low=-1.0, high=1.0))["added-1"]
    assert level.startswith("makes no clear difference to suppression (+0.25, ") and ") and retention (+0.01, " in level
    assert words["together"] == "not clearly more or less than (+0.00, 95 % interval -0.10 to +0.10)"


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


def test_pooled_cells_are_means_over_the_concepts_that_have_neurons_there():
    cell = {
        "scale": "raw",
        "a": 1.0,
        "g": 0.1,
        "threshold_a": 1.0,
        "threshold_g": 0.1,
        "quantile_g": 0.5,
        "fluent": 1.0,
    }
    filled = cell | {"quantile_a": 0.8, "n_neurons": 10, "suppression": 1.0, "retention": 0.5, "n_images": 2}
    empty = dict.fromkeys(("suppression", "retention", "fluent", "n_images"), math.nan)
    grids = pd.DataFrame([filled, filled | {"suppression": 0.5}, filled | empty | {"quantile_a": 1.0, "n_neurons": 0}])
    (pooled,) = on_the_page.over_concepts(grids).to_dict("records")
    assert (pooled["suppression"], pooled["retention"]) == (0.75, 0.5)
    assert pooled["quantile_a"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    assert (pooled["n_neurons"], pooled["n_images"], pooled["n_concepts"]) == (20 / 3, 4, 2)


# The plateau


def cells(suppression: list[list[float]], retention: list[list[float]], scale: str = "quantile") -> pd.DataFrame:
    """A grid as written: rows are steps of g from 0.8 up, columns steps of a."""
    steps, rows = (0.8, 0.9, 0.99), []
    for y, x in np.ndindex(len(suppression), len(suppression[0])):
        row = {
            "scale": scale,
            "a": steps[x],
            "g": steps[y],
            "suppression": suppression[y][x],
            "retention": retention[y][x],
        }
        limits = {
            "threshold_a": 1.0 + 2 * x,
            "threshold_g": 10.0 ** (y - 4),
            "quantile_a": steps[x],
            "quantile_g": steps[y],
        }
        rows.append(row | limits | {"n_neurons": 100 // (1 + x + y), "fluent": 1.0, "n_images": 2})
    return pd.DataFrame(rows)


def test_the_score_is_the_harmonic_mean():
    region = on_the_page.plateau(
        cells([[0.5, 0.0, 1.0], [1.0, 0.0, math.nan]], [[0.5, 1.0, 0.5], [0.0, 0.0, math.nan]])
    )
    assert region["score"].fillna(-1).tolist() == pytest.approx([0.5, 0, 2 / 3, 0, 0, -1])
    assert region["best"].tolist() == [False, False, True, False, False, False]
    assert region["plateau"].tolist() == region["best"].tolist()


def test_the_plateau_is_what_hangs_together_with_the_best_and_is_within_a_tenth_of_it():
    same = [[0.80, 0.73, 0.10], [0.71, 0.75, 0.10], [0.10, 0.10, 0.79]]  # suppression = retention = score
    region = on_the_page.plateau(cells(same, same))
    expected = [[True, True, False], [False, True, False], [False, False, False]]  # 0.79 only touches at a corner
    assert region["plateau"].to_numpy().reshape(3, 3).tolist() == expected
    shuffled = on_the_page.plateau(cells(same, same).sample(frac=1, random_state=0)).sort_index()
    pd.testing.assert_frame_equal(shuffled, region)


def test_equal_bests_have_a_region_each():
    same = [[0.8, 0.1, 0.8], [0.1, 0.1, 0.1]]
    assert on_the_page.plateau(cells(same, same))["plateau"].tolist() == [True, False, True, False, False, False]


def test_where_nothing_suppresses_and_retains_there_is_no_plateau():
    region = on_the_page.plateau(cells([[0.0, 1.0]], [[1.0, 0.0]]))
    assert not region["plateau"].any() and not region["best"].any()
    own = pd.DataFrame({"inside": [True], "plateau": [False]})
    assert on_the_page.in_words(region, own)["plateau"] == "no cell, for none suppresses and retains at once"


def test_two_grids_at_once_are_refused():
    both = pd.concat([cells([[0.5]], [[0.5]]), cells([[0.5]], [[0.5]], "raw")])
    with pytest.raises(ValueError, match="grid must be of one scale"):
        on_the_page.plateau(both)


@pytest.mark.parametrize(
    ("steps", "value", "scale", "expected"),
    [
        ((0.9, 0.99), 0.99, "quantile", 1),
        ((0.9, 0.99), 0.9683772, "quantile", 0.5),  # 1 - q = 10 ** -1.5
        ((0.9, 0.99), 0.0, "quantile", -1),
        ((0.9, 0.99), 1.0, "quantile", 2),  # lets nothing pass
        ((1e-4, 1e-3, 1e-1), 1e-2, "raw", 1.5),
        ((1e-4, 1e-3, 1e-1), 10**-4.5, "raw", -0.5),
        ((1e-4, 1e-3, 1e-1), -0.3, "raw", -1),
        ((1e-4, 1e-3, 1e-1), 1.0, "raw", 2.5),
    ],
)
def test_positions_count_steps_on_a_logarithmic_axis(steps, value, scale, expected):
    assert on_the_page.position(steps, value, scale) == pytest.approx(expected, abs=1e-6)


def test_our_thresholds_are_placed_by_share_and_by_value(study, grids):
    for scale in thresholds.SCALES:
        region = on_the_page.plateau(on_the_page.over_concepts(grids[grids["scale"] == scale])).assign(plateau=True)
        own = on_the_page.placed(study, list(COLOURS), region)
        if scale == "quantile":
            assert own["x"].tolist() == pytest.approx([1.0] * 3, abs=0.05)  # 0.5 is the second step of a
            assert own["y"].tolist() == pytest.approx([0.0] * 3, abs=0.05)
            assert own["inside"].all() and own["plateau"].all()
        else:
            assert own["a"].tolist() == [study.thresholds(concept)["delta"] for concept in COLOURS]
            assert not own["plateau"].any()  # the toy model's gradient scores are far above these steps


# Figures


def said(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


def own_at(x: float, y: float, on_plateau: bool) -> pd.DataFrame:
    row = {"concept": CONCEPT, "a": 0.9, "g": 0.9, "x": x, "y": y, "inside": True, "plateau": on_plateau}
    return pd.DataFrame([row])


def test_heatmaps_write_counts_outline_the_plateau_and_mark_our_thresholds():
    same = [[0.8, 0.73, math.nan], [0.1, 0.2, 0.3]]
    region = on_the_page.plateau(cells(same, same))
    figure = figures.heatmaps(region, own_at(1, 0, True))
    upper = figure.axes[0]
    written = [text.get_text() for text in upper.texts]
    assert written[:2] == ["80%", "n = 100"] and written[4:6] == ["–", "n = 33"]
    assert len(upper.lines) == 6  # around two cells side by side
    assert upper.collections[0].get_offsets().data.tolist() == [[1, 0]]
    assert said(figure) == (
        "The best cell suppresses 80% and retains 80%; 2 of 6 cells are on its plateau, "
        "and our thresholds of 1 of 1 concepts"
    )
    nothing = on_the_page.plateau(cells([[0.0, 1.0]], [[1.0, 0.0]]))
    assert said(figures.heatmaps(nothing, own_at(0, 0, False))) == "No cell suppresses and retains at once"


def test_a_raw_grid_has_brackets_at_the_papers_thresholds():
    region = on_the_page.plateau(cells([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]], "raw"))
    figure = figures.heatmaps(region.assign(a=[0.8, 2.5] * 2, g=[1e-4] * 2 + [2e-3] * 2), own_at(5, 5, False))
    across, up = figure.axes[0].lines[-2:]
    assert (across.get_xdata().tolist(), up.get_ydata().tolist()) == ([0, 1], [0, 1])
    assert figure.axes[0].collections[0].get_offsets().data.tolist() == [[1.5, 1.5]]  # at the edge, not outside


def test_small_multiples_have_two_panels_a_concept():
    same = [[0.8, 0.7], [0.1, 0.2]]
    regions = {name: on_the_page.plateau(cells(same, same)) for name in ("bear", "bus", "cat", "dog")}
    own = pd.concat([own_at(0, 0, True).assign(concept=name) for name in regions])
    figure = figures.by_concept(regions, own.assign(plateau=[True, False, True, True]))
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 8
    assert said(figure) == "Our thresholds lie on their own concept’s plateau in 3 of 4 concepts"
    plt.close(figure)
    assert len([ax for ax in figures.by_concept({"bus": regions["bus"]}, own).axes if ax.images]) == 2


def test_the_stages_figure_states_what_stage_2_does(ablations):
    effects = on_the_page.effects(ablations)
    figure = figures.stages(effects)
    at = effects[(effects["at"] == BUDGET) & (effects["metric"] == "suppression")].set_index("method")["value"]
    moved = f"suppression from {at['stage-1']:.0%} to {at['two-stage']:.0%}"
    assert said(figure).startswith(f"With as many neurons, adding stage 2 to stage 1 takes {moved} and retention from")
    assert [label.get_text().split("\n")[0] for label in figure.axes[0].get_yticklabels()] == [
        *("both", "stage 2 alone", "stage 1 alone", "neither")
    ]
    shown = on_the_page.for_readers(effects)
    assert shown["stages"].tolist() == ["neither", "stage 1 alone", "stage 2 alone", "both"] * 1 + [
        *("stage 1 alone", "stage 2 alone", "both")
    ]


def test_words_of_a_grid_are_its_numbers():
    same = [[0.8, 0.75], [0.1, 0.2]]
    region = on_the_page.plateau(cells(same, same, "raw"))
    words = on_the_page.in_words(region, own_at(0, 0, True))
    assert (words["suppression"], words["neurons"]) == ("10% to 80%", "33 to 100")
    assert (words["plateau"], words["best-score"]) == ("2 of 4 cells, with 50 to 100 neurons", "0.80")
    assert (words["own"], words["own-inside"]) == ("1 of 1", "1 of 1")
    assert words["paper-neurons"] == "50 to 100"
    assert (words["rank-suppression"], words["rank-retention"]) == ("0.63", "0.63")
    assert words["exception"] == "The number is not all: 33 neurons of one cell suppress 20%, 50 of another 10%"
    assert (words["along-a"], words["along-g"]) == ("2", "62")  # 0.45 to 0.475, and 0.15 to 0.775
    rising = on_the_page.plateau(cells([[1.0, 0.9], [0.9, 0.8]], [[0.2, 0.3], [0.3, 0.3]]))
    exception = on_the_page.in_words(rising, own_at(0, 0, True))["exception"]
    assert exception == "No cell with more neurons suppresses less than one with fewer"
    flat = on_the_page.plateau(cells([[1.0, 1.0]], [[0.0, 0.0]]))
    assert on_the_page.in_words(flat, own_at(0, 0, True))["rank-retention"] == "0.00"
