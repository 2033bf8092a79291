"""What a run says of the claims, on a table small enough to work out by hand (see `perturbed`)."""

from __future__ import annotations

import pandas as pd
import pytest

from book.claims import evidence
from book.claims.rules import Measurement, load_claims, table
from kn_core.measures import metrics, summaries
from tests.perturbed import headline_rows, perturbations, profile, row

THRESHOLDS = {"bear": {"delta": 1.0, "gradcam": 1e-3}, "bus": {"delta": 2.6, "gradcam": 2e-3}}


@pytest.fixture(scope="module")
def measured() -> dict[str, Measurement]:
    # Pairs: two kept and used, one kept beyond what was wanted, one dropped.
    rows = [("bear", True, "select"), ("bus", True, "held_out"), ("bus", True, ""), ("cat", False, "")]
    pairs = pd.DataFrame(rows, columns=["concept", "kept", "role"])
    # Six layers: of the bear's four best, three are late; of the bus's, all. Ranks past the budget are early.
    found = [("bear", "two-stage", layer, rank) for rank, layer in enumerate([1, 2, 5, 3])]
    found += [("bus", "two-stage", layer, rank) for rank, layer in enumerate([4, 4, 5, 2])]
    found += [("bear", "two-stage", 0, 80), ("bus", "random", 0, 0)]
    neurons = pd.DataFrame(found, columns=["concept", "method", "layer", "rank"])
    measurements = [
        *evidence.effects(perturbations(), profile()),
        *evidence.pair_counts(pairs),
        evidence.late_share(neurons, n_layers=6),
        evidence.late_share(neurons, 6, profile().identification.budget),
        *evidence.in_range(THRESHOLDS),
    ]
    return {measurement.name: measurement for measurement in measurements}


def test_the_headline_is_the_main_setting_on_pictures_that_chose_no_neurons() -> None:
    rows = metrics.headline(perturbations(), profile())
    pd.testing.assert_frame_equal(rows.reset_index(drop=True), pd.DataFrame(headline_rows()))


def test_without_noise_the_headline_asks_for_no_sigma() -> None:
    settings = profile()
    zero = settings.perturbation.model_copy(update={"intervention": "zero"})
    rows = metrics.headline(perturbations(), settings.model_copy(update={"perturbation": zero}))
    assert set(rows["intervention"]) == {"zero"}
    assert len(rows) == 8


def test_the_perplexity_limit_is_the_95th_percentile_of_clean_captions_each_counted_once() -> None:
    assert summaries.perplexity_limit(pd.DataFrame(headline_rows())) == pytest.approx(30 + 0.85 * 10)


@pytest.mark.parametrize(
    ("statistic", "value", "baseline", "n"),
    [
        ("suppression_fluent", (3 / 4 + 1 / 2) / 2, 1 / 8, 4),  # control: only one of the bus-1's two draws
        ("fluent", 1.0, None, 4),
        ("concepts_suppressed", 0.0, 0.0, 2),  # two pictures' intervals reach down to nothing
        ("concepts", 2, None, 2),
        ("pairs", 2, None, 2),
        ("late_share", (3 / 5 + 1) / 2, 4 / 6, 2),
        ("late_share_of_best", (3 / 4 + 1) / 2, 4 / 6, 2),
        ("activation_thresholds_in_range", 1 / 2, None, 2),
        ("gradient_thresholds_in_range", 1.0, None, 2),
    ],
)
def test_every_statistic_is_what_one_gets_by_hand(
    measured: dict[str, Measurement], statistic: str, value: float, baseline: float | None, n: int
) -> None:
    found = measured[statistic]
    assert found.value == pytest.approx(value)
    assert found.baseline == (None if baseline is None else pytest.approx(baseline))
    assert found.n == n
    assert found.low <= found.value <= found.high


def test_every_measurement_is_a_statistic_that_a_claim_asks_for(measured: dict[str, Measurement]) -> None:
    verdicts = table(load_claims(), measured.values()).set_index("claim")["verdict"]
    assert verdicts["every-object"] == "not reproduced"  # two pictures a concept clear nothing
    assert verdicts["causal"] == verdicts["retention-beats-rivals"] == "not run"


def with_methods() -> pd.DataFrame:
    """The main setting, with methods that suppress all pictures but bus-2, none, and in a language that has gone."""
    fled = {"caption": "RRRRRR", "perplexity": 900.0}
    rows = headline_rows()
    for image_id in ("bear-1", "bear-2", "bus-1", "bus-2"):
        concept = image_id.split("-")[0]
        rows.append(row(concept, "stage-1", image_id, gone=False))
        rows.append(row(concept, "stage-1-layers", image_id, gone=image_id == "bus-1"))
        rows.append(row(concept, "pan-gated", image_id, gone=image_id != "bus-2"))
        rows.append(row(concept, "schwettmann", image_id, gone=True, **fled))
    return pd.DataFrame(rows).assign(bleu_suppression=0.25)


def test_the_paper_s_claims_on_single_stages_and_on_language() -> None:
    found = {each.name: each for each in evidence.of_stages(with_methods(), limit=50.0)}
    assert found["degenerate_schwettmann"].value == 1.0
    assert found["stage1_suppression_over_control"].value == pytest.approx(-1 / 4)
    assert not evidence.of_stages(pd.DataFrame(headline_rows()), limit=50.0)
