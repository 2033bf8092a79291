"""What the page on stage 1 says, on a small frame of scores and on regions whose means can be counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from book.stages import figures, stage_1
from tests.book.stages.test_figures import heading, stage_frame

REGIONS = pd.DataFrame(
    [
        ("bear", "a", "object", 3.0, 0.5, 12.0),
        ("bear", "a", "other", 1.0, 0.4, 6.0),
        ("bear", "a", "removed", 4.0, 0.5, 9.0),
        ("bear", "a", "decoy", 3.0, 0.4, 8.0),
        ("bear", "b", "other", np.nan, np.nan, np.nan),  # no room
        ("bus", "c", "object", 2.0, 0.4, 10.0),
        ("bus", "c", "other", 1.0, 0.3, 5.0),
        ("bus", "c", "removed", 2.0, 0.4, 9.0),
        ("bus", "c", "decoy", 1.0, 0.3, 9.0),
        ("bus", "d", "object", 2.0, 0.4, 10.0),
        ("bus", "d", "other", 2.0, 0.2, 5.0),
        ("bus", "d", "removed", 2.0, 0.4, 9.0),  # nothing else to take out
    ],
    columns=["concept", "image_id", "region", "difference", "random", "changed"],
)


def test_words_are_means_over_concepts():
    words = stage_1.in_words(stage_frame(), {"bear": 1.0, "bus": 1.2})
    assert (words["neurons"], words["candidates"], words["passing"], words["passing-any"]) == ("12", "4", "75%", "25%")
    assert words["factor"] == "4"  # 2.0 four times; nothing else is above 0.8, and nothing above 2.5
    assert (words["low"], words["high"]) == ("1.00", "1.20")


def test_the_gap_between_regions_leaves_out_pictures_without_room():
    gap = stage_1.region_gap(REGIONS)
    assert gap.n == 3 and gap.value == pytest.approx((2 + (1 + 0) / 2) / 2)
    selective = stage_1.selectivity(REGIONS)  # what random neurons keep, less what the chosen keep
    assert selective.n == 2 and selective.value == pytest.approx(((0.8 - 0.75) + (0.75 - 0.5)) / 2)
    words = stage_1.regions_in_words(REGIONS)
    assert (words["pictures"], words["no-room"], words["moved-object"]) == ("3", "1", "2.50")
    assert (words["decoys"], words["kept-decoy-chosen"], words["kept-decoy-random"]) == ("2", "67%", "78%")
    assert words["changed-decoy"] == "8.5"
    nowhere = stage_1.region_gap(REGIONS.assign(difference=np.nan))
    assert nowhere.n == 0 and np.isnan(nowhere.value)


def test_the_figure_says_how_far_as_much_elsewhere_moves_them():
    means = stage_1.region_means(REGIONS)
    assert "67% as far" in heading(figures.regions(means))  # decoys: (3 + 1) / 2 over (4 + 2) / 2
    inpainted = means[means["region"].isin(["object", "other"])]
    assert "50% as far" in heading(figures.regions(inpainted))  # (1 + 1.5) / 2 over (3 + 2) / 2


def test_the_claim_is_measured_over_all_concepts(monkeypatch):
    monkeypatch.setattr(stage_1, "other_region", lambda study, concept: REGIONS[REGIONS["concept"] == concept])
    (measured,) = stage_1.measured(SimpleNamespace(studied=lambda: ["bear", "bus"]))
    assert (measured.name, measured.n, measured.value) == (
        "stage1_object_share",
        2,
        pytest.approx(stage_1.selectivity(REGIONS).value),
    )
