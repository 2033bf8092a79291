"""Stages on and off, on four pictures of which each arm takes the object from some (see `perturbed`)."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from book.ablation import figures, stages
from kn_core.drawing import theme
from kn_core.study.experiments.thresholds import BUDGET, OWN
from tests.perturbed import CLEAN, row

GONE = {
    "uniform": (),
    "stage-1": ("bear-1",),
    "stage-2": ("bear-1", "bus-1"),
    "two-stage": ("bear-1", "bear-2", "bus-1"),
}


@pytest.fixture
def ablation() -> pd.DataFrame:
    """As many neurons each, and 10 or 20 at own thresholds; there, neither stage has no set."""
    images = ("bear-1", "bear-2", "bus-1", "bus-2")
    made = [row(image.split("-")[0], arm, image, image in gone) for arm, gone in GONE.items() for image in images]
    budget = pd.DataFrame(made).assign(at=BUDGET)
    own = budget[budget["method"] != "uniform"].assign(at=OWN)
    return pd.concat([budget, own.assign(n=own["concept"].map({"bear": 10, "bus": 20}))], ignore_index=True)


def test_effects_and_gains_are_means_over_concepts_of_pictures(ablation: pd.DataFrame) -> None:
    effects = stages.effects(ablation).set_index(["at", "metric", "method"]).sort_index()
    assert effects.loc[(BUDGET, "suppression"), "value"].to_dict() == dict(
        zip(GONE, (0, 1 / 4, 1 / 2, 3 / 4), strict=True)
    )
    assert set(effects.loc[BUDGET, "neurons"]) == {80} and set(effects.loc[OWN, "neurons"]) == {15}
    gains = stages.gains(ablation).set_index(["at", "metric", "gain"])["value"].sort_index()
    assert gains[BUDGET, "suppression"].to_dict() == {
        "stage 1 to neither": 1 / 4,
        "stage 2 to neither": 1 / 2,
        "stage 2 to stage 1": 1 / 2,
        "stage 1 to stage 2": 1 / 4,
        "together": 0,
    }
    assert set(gains[OWN, "suppression"].index) == {"stage 2 to stage 1", "stage 1 to stage 2"}
    words = stages.in_words(stages.effects(ablation), stages.gains(ablation), "retention_truth")
    assert (words["pictures-own"], words["reading"], words["retained-two-stage"]) == ("4", "of what is true", "0.25")


def test_the_figure_and_the_table_have_every_arm(ablation: pd.DataFrame) -> None:
    effects, done = stages.effects(ablation), {"intervention": "removal", "retained": 0.5, "retained_truth": 0.75}
    removed = pd.DataFrame([row(image.split("-")[0], "removal", image, True, **done) for image in CLEAN])
    bounds = stages.bounds(removed, ablation, math.inf)
    with theme():
        figure = figures.stages(effects, "retention_truth", bounds)
    moved = "takes suppression from 25% to 75% and retention of what is true from 100% to 25%"
    assert moved in " ".join(figure.get_suptitle().split())
    rows = ["neither", "stage 1 alone", "stage 2 alone", "both"]
    assert [label.get_text().split("\n")[0] for label in figure.axes[0].get_yticklabels()] == rows[::-1]
    assert stages.for_readers(effects)["stages"].tolist() == [*rows, *rows[1:]]
    table = stages.for_readers(effects, bounds)
    assert len(table) == 2 * len(rows) - 1 + 2 * 3  # nothing, removal and chance
    assert table.iloc[-2][["with", "retention, caption"]].tolist() == [OWN, "0.50 [0.50,\u00a00.50]"]
    assert [line.get_linestyle() for line in figure.axes[1].lines] == ["--", ":"]
    plt.close(figure)


def test_words_follow_the_interval() -> None:
    gains = pd.DataFrame(
        [
            ("stage 1 to stage 2", 0.25, 0.1, 0.4),
            ("stage 2 to stage 1", -0.25, -0.4, -0.1),
            ("together", 0.0, -0.1, 0.1),
        ],
        columns=["gain", "value", "low", "high"],
    ).assign(metric="suppression")
    kept = gains.assign(metric="retention_truth", value=0.01, low=math.nan, high=math.nan)
    both = pd.concat([gains, kept])
    effects = pd.DataFrame(columns=["at", "method", "neurons", "metric", "value"])
    words = stages.in_words(effects, pd.concat([both.assign(at=BUDGET), both.assign(at=OWN)]), "retention_truth")
    unclear = "makes no clear difference to retention of what is true, +0.01 (too few pictures for an interval)"
    assert words["added-1"] == f"raises suppression, +0.25 (95 % interval +0.10 to +0.40), and {unclear}"
    assert words["added-2-own"] == f"lowers suppression, -0.25 (95 % interval -0.40 to -0.10), and {unclear}"
    assert words["together"] == "not clearly more or less than"
    assert words["interaction"] == "+0.00 (95 % interval -0.10 to +0.10)"
