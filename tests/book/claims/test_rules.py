"""Every verdict, at both sides of every boundary; the file of claims and what is wrong with bad ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from book.claims.rules import Claim, ClaimsError, Measurement, judge, load_claims, table

NEAR = {"kind": "near", "tolerance": 0.05, "widest": 0.4, "above": "the control", "because": "a test"}
AT_LEAST = {"kind": "at_least", "threshold": 0.8, "because": "a test"}
POSITIVE = {"kind": "positive", "because": "a test"}


def claim(rule: dict[str, Any], **changes: Any) -> Claim:
    return Claim.model_validate(entry(rule) | changes)


def entry(rule: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "suppression",
        "page": "perturbation",
        "where": "Table II",
        "statement": "Noise suppresses the object.",
        "paper": 0.75,
        "statistic": "suppression",
        "measured": "S_se",
        "rule": rule,
    }


def ours(value: float, low: float, high: float, baseline: float | None = 0.1) -> Measurement:
    return Measurement("suppression", value, low, high, n=54, baseline=baseline)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (ours(0.78, 0.77, 0.79), "reproduced"),  # within the tolerance
        (ours(0.60, 0.45, 0.80), "reproduced"),  # the interval, 0.35 wide, holds it
        (ours(0.60, 0.35, 0.85), "same direction"),  # it holds it, but is 0.5 wide
        (ours(0.50, 0.40, 0.60), "same direction"),
        (ours(0.99, 0.97, 1.00), "same direction"),  # too strong is not the printed value either
        (ours(0.50, 0.05, 0.70), "not reproduced"),  # the control may do as much
        (ours(0.75, 0.70, 0.80, baseline=0.72), "not reproduced"),  # a perfect match that the control matches too
        (ours(0.75, 0.70, 0.80, baseline=0.90), "not reproduced"),  # the control does more
        (ours(0.75, 0.70, 0.80, baseline=0.70), "not reproduced"),  # to touch is not to clear
    ],
)
def test_a_printed_number(measured: Measurement, verdict: str) -> None:
    assert judge(claim(NEAR), measured).word == verdict


def test_a_printed_number_without_a_control_has_no_direction() -> None:
    rule = {key: value for key, value in NEAR.items() if key != "above"}
    assert judge(claim(rule), ours(0.76, 0.70, 0.80, baseline=None)).word == "reproduced"
    assert judge(claim(rule), ours(0.50, 0.40, 0.60, baseline=None)).word == "not reproduced"


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (ours(0.90, 0.80, 0.95), "reproduced"),
        (ours(0.85, 0.79, 0.95), "same direction"),
        (ours(0.82, 0.79, 0.90), "same direction"),
        (ours(0.82, 0.70, 0.90), "not reproduced"),
        (ours(0.79, 0.70, 0.90), "not reproduced"),
    ],
)
def test_a_size_without_a_control(measured: Measurement, verdict: str) -> None:
    assert judge(claim(AT_LEAST), measured).word == verdict


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (ours(0.80, 0.70, 0.90, baseline=0.66), "reproduced"),
        (ours(0.79, 0.70, 0.90, baseline=0.66), "same direction"),
        (ours(0.90, 0.60, 0.95, baseline=0.66), "not reproduced"),
        (ours(0.50, 0.40, 0.60, baseline=0.66), "not reproduced"),
    ],
)
def test_a_size_with_a_control(measured: Measurement, verdict: str) -> None:
    assert judge(claim(AT_LEAST | {"above": "uniform neurons"}), measured).word == verdict


@pytest.mark.parametrize(("count", "verdict"), [(8, "not reproduced"), (9, "reproduced"), (10, "reproduced")])
def test_a_count_is_its_own_interval(count: int, verdict: str) -> None:
    assert judge(claim(AT_LEAST | {"threshold": 9}, paper=9), ours(count, count, count, None)).word == verdict


@pytest.mark.parametrize(
    ("measured", "verdict", "reason"),
    [
        (ours(0.2, 0.1, 0.3), "reproduced", "the whole interval is above 0"),
        (ours(0.2, -0.1, 0.5), "same direction", "reaches across"),
        (ours(0.2, 0.0, 0.5), "same direction", "reaches across"),
        (ours(0.2, -0.2, 0.5), "same direction", "reaches across"),
        (ours(0.2, -0.21, 0.5), "not reproduced", "nothing shown"),
        (ours(0.0, 0.0, 0.0), "not reproduced", "the whole interval is not above 0"),
        (ours(-0.1, -0.3, 0.1), "not reproduced", "the estimate is not above 0"),
        (ours(-0.2, -0.3, -0.1), "not reproduced", "the whole interval is not above 0"),
    ],
)
def test_an_effect(measured: Measurement, verdict: str, reason: str) -> None:
    judged = judge(claim(POSITIVE, paper="outperforms"), measured)
    assert judged.word == verdict
    assert reason in judged.reason


def test_what_the_profile_must_share_with_the_paper() -> None:
    tied = claim(NEAR, same_setting={"parts": ["data", "model"], "because": "it counts them"})
    assert judge(tied, ours(0.75, 0.7, 0.8), same_setting=["data", "model"]).word == "reproduced"
    judged = judge(tied, ours(0.75, 0.7, 0.8), same_setting=["data"])
    assert (judged.word, judged.reason) == ("not comparable", "other model: it counts them")
    assert judge(tied, None).word == "not comparable", "no run would help"
    with pytest.raises(ValueError, match=r"must be of \('data', 'model'\). Got \['weights'\]"):
        judge(tied, None, same_setting=["weights"])  # type: ignore[list-item]


@pytest.mark.parametrize("rule", [NEAR, AT_LEAST, POSITIVE])
def test_without_a_number_or_an_interval_nothing_was_run(rule: dict[str, Any]) -> None:
    assert judge(claim(rule), None).reason == "no value of suppression"
    assert judge(claim(rule, needs="rival methods"), None).reason == "needs rival methods"
    assert judge(claim(rule), ours(math.nan, math.nan, math.nan)).word == "not run"
    assert judge(claim(rule), ours(0.75, math.nan, math.nan)).reason == "too few images for an interval"


@pytest.mark.parametrize("baseline", [None, math.nan])
def test_a_missing_control_is_an_error_and_no_verdict(baseline: float | None) -> None:
    with pytest.raises(ValueError, match="suppression must come with a baseline, the value of the control"):
        judge(claim(NEAR), ours(0.75, 0.7, 0.8, baseline=baseline))


def test_a_measurement_is_checked() -> None:
    with pytest.raises(ValueError, match="low must not pass high"):
        ours(0.5, 0.6, 0.4)
    with pytest.raises(ValueError, match=r"claim suppression is compared with 'suppression'\."):
        judge(claim(NEAR), Measurement("retention", 0.5, 0.4, 0.6, n=9))


def test_the_table_has_the_columns_of_the_design_and_one_row_a_claim() -> None:
    claims = [claim(NEAR), claim(POSITIVE, id="causal", statistic="gap", paper="suppresses", needs="controls")]
    frame = table(claims, [ours(0.78, 0.70, 0.85)])
    assert list(frame.columns[:8]) == ["claim", "where", "paper", "ours", "low", "high", "n", "verdict"]
    assert frame.iloc[0, :8].tolist() == ["suppression", "Table II", "0.75", 0.78, 0.70, 0.85, 54, "reproduced"]
    assert frame[["paper", "n", "verdict", "reason"]].iloc[1].tolist() == ["suppresses", 0, "not run", "needs controls"]
    assert frame["ours"].isna().tolist() == [False, True]
    assert frame["rule"][0] == "within 0.05, or in an interval no wider than 0.4, and above the control"


def test_the_table_refuses_measurements_that_no_claim_asks_for_and_doubles() -> None:
    with pytest.raises(ValueError, match=r"every measurement must be a claim's statistic. Got \['supression'\]"):
        table([claim(NEAR)], [Measurement("supression", 0.5, 0.4, 0.6, n=9)])
    with pytest.raises(ValueError, match="measured once"):
        table([claim(NEAR)], [ours(0.5, 0.4, 0.6), ours(0.5, 0.4, 0.6)])


def test_the_claims_of_the_paper_load_and_reach_every_verdict() -> None:
    claims = {each.id: each for each in load_claims()}
    assert claims["suppression"].paper == 0.77
    assert claims["retention"].paper == 0.73
    assert all(each.rule.because and str(each.rule) for each in claims.values())
    measurements = [
        Measurement("suppression", 0.81, 0.72, 0.90, n=54, baseline=0.04),
        Measurement("retention", 0.50, 0.42, 0.58, n=54, baseline=0.20),
        Measurement("selectivity", -0.10, -0.20, 0.05, n=54),
        Measurement("pairs", 83, 83, 83, n=83),
    ]
    verdicts = table(claims.values(), measurements).set_index("claim")["verdict"]
    assert verdicts["suppression"] == "reproduced"
    assert verdicts["retention"] == "same direction"
    assert verdicts["selective"] == "not reproduced"
    assert verdicts["ninety-samples"] == "not comparable"
    assert verdicts["schwettmann-breaks-language"] == "not run"
    paper_setting = table(claims.values(), measurements, same_setting=["data", "model"]).set_index("claim")["verdict"]
    assert paper_setting["ninety-samples"] == "not reproduced"


def test_the_claims_hold_the_comparison_with_rivals_on_every_metric() -> None:
    asked = {claim.statistic for claim in load_claims()}
    assert {"suppression_over_rivals", "retention_over_rivals"} <= asked
    for metric in ("bleu", "rouge", "bertscore"):
        assert {f"{metric}_suppression_over_rivals", f"{metric}_retention_over_rivals"} <= asked


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["claims"][0].pop(key)


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place = content["claims"][0]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_without("where"), "claim suppression, key 'where': Field required"),
        (_without("rule"), "claim suppression, key 'rule': Field required"),
        (_without("id"), "claim number 1, key 'id': Field required"),
        (_set("statment", to="x"), "claim suppression, key 'statment': Extra inputs"),
        (_without("measured"), "claim suppression, key 'measured': Field required"),
        (_set("paper", to="much"), "claim suppression.*'paper' must be a number where the rule is 'near'. Got 'much'"),
        (_set("rule", "kind", to="close"), "claim suppression, key 'rule'.*'close'"),
        (
            _set("rule", "tolerance", to=-1),
            "claim suppression, key 'rule.near.tolerance': .*greater than or equal to 0",
        ),
        (_set("rule", "tolerance", to="0.1"), "claim suppression, key 'rule.near.tolerance'"),
        (_set("rule", "because", to=""), "claim suppression, key 'rule.near.because'"),
        (_set("rule", "treshold", to=1), "claim suppression, key 'rule.near.treshold': Extra inputs"),
        (_set("same_setting", to={"parts": ["luck"], "because": "x"}), "claim suppression, key 'same_setting.parts.0'"),
        (lambda content: content["claims"].append(content["claims"][0]), "claim suppression, key 'id': .*twice"),
        (lambda content: content["claims"].append("words"), "claim number 2"),
        (lambda content: content.update(statistics={}), "key 'statistics': Extra inputs"),
        (lambda content: content.pop("claims"), "key 'claims': Field required"),
    ],
)
def test_a_malformed_file_is_refused_by_claim_and_key(
    tmp_path: Path, break_it: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = {"claims": [entry(dict(NEAR))]}
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(content))
    assert len(load_claims(path)) == 1
    break_it(content)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ClaimsError, match=message):
        load_claims(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "claims.yml"
    with pytest.raises(ClaimsError, match="no claims at"):
        load_claims(path)
    path.write_text("claims: [")
    with pytest.raises(ClaimsError, match="is not YAML"):
        load_claims(path)
    path.write_text("- a list")
    with pytest.raises(ClaimsError, match="dictionary"):
        load_claims(path)
