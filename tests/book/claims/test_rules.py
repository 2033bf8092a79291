"""Every verdict, at both sides of every boundary; the file of claims and what is wrong with bad ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from book import claims_table
from book.claims.rules import CLAIMS, Claim, ClaimsError, Measurement, judge, load_claims, table

NEAR = {"kind": "near", "tolerance": 0.05, "widest": 0.4, "because": "a test"}
ABOVE = NEAR | {"above": "the control"}
AT_LEAST = {"kind": "at_least", "threshold": 0.8, "because": "a test"}
POSITIVE = {"kind": "positive", "smallest": 0.15, "because": "a test"}


def entry(rule: dict[str, Any]) -> dict[str, Any]:
    found = {"id": "suppression", "page": "perturbation", "where": "Table II", "statement": "Noise suppresses."}
    return found | {"paper": 0.75, "statistic": "suppression", "measured": "S_se", "rule": rule}


def claim(rule: dict[str, Any], **changes: Any) -> Claim:
    return Claim.model_validate(entry(rule) | changes)


def ours(value: float, low: float, high: float, baseline: float | None = 0.1) -> Measurement:
    return Measurement("suppression", value, low, high, n=54, baseline=baseline)


STRAY = Measurement("supression", 0.5, 0.4, 0.6, n=9)


@pytest.mark.parametrize(
    ("rule", "measured", "verdict"),
    [
        (ABOVE, ours(0.78, 0.77, 0.79), "reproduced"),  # within the tolerance
        (ABOVE, ours(0.60, 0.45, 0.80), "reproduced"),  # the interval, 0.35 wide, holds it
        (ABOVE, ours(0.60, 0.35, 0.85), "same direction"),  # it holds it, but is 0.5 wide
        (ABOVE, ours(0.50, 0.40, 0.60), "same direction"),
        (ABOVE, ours(0.99, 0.97, 1.00), "same direction"),  # too strong is not the printed value either
        (ABOVE, ours(0.50, 0.05, 0.70), "not reproduced"),  # the control may do as much
        (ABOVE, ours(0.50, 0.05, 0.80), "inconclusive"),  # it may be the printed value, or the control's
        (ABOVE, ours(0.75, 0.70, 0.80, 0.72), "not reproduced"),  # a perfect match that the control matches too
        (ABOVE, ours(0.75, 0.70, 0.80, 0.90), "not reproduced"),  # the control does more
        (ABOVE, ours(0.75, 0.70, 0.80, 0.70), "not reproduced"),  # to touch is not to clear
        (NEAR, ours(0.76, 0.70, 0.80, None), "reproduced"),
        (NEAR, ours(0.50, 0.40, 0.60, None), "not reproduced"),  # without a control there is no direction
        (AT_LEAST, ours(0.90, 0.80, 0.95), "reproduced"),
        (AT_LEAST, ours(0.85, 0.79, 0.95), "same direction"),
        (AT_LEAST, ours(0.82, 0.79, 0.90), "same direction"),
        (AT_LEAST, ours(0.82, 0.70, 0.90), "inconclusive"),
        (AT_LEAST, ours(0.79, 0.70, 0.90), "inconclusive"),
        (AT_LEAST, ours(0.75, 0.70, 0.79), "not reproduced"),
        (AT_LEAST | {"above": "uniform neurons"}, ours(0.80, 0.70, 0.90, 0.66), "reproduced"),
        (AT_LEAST | {"above": "uniform neurons"}, ours(0.79, 0.70, 0.90, 0.66), "same direction"),
        (AT_LEAST | {"above": "uniform neurons"}, ours(0.90, 0.60, 0.95, 0.66), "inconclusive"),
        (AT_LEAST | {"above": "uniform neurons"}, ours(0.50, 0.40, 0.60, 0.66), "not reproduced"),
        (AT_LEAST | {"threshold": 9}, ours(8, 8, 8, None), "not reproduced"),  # a count is its own interval
        (AT_LEAST | {"threshold": 9}, ours(9, 9, 9, None), "reproduced"),
        (AT_LEAST | {"threshold": 9}, ours(10, 10, 10, None), "reproduced"),
        (POSITIVE, ours(0.2, 0.1, 0.3), "reproduced: the whole interval is above 0"),
        (POSITIVE, ours(0.2, -0.1, 0.5), "same direction: reaches across"),
        (POSITIVE, ours(0.2, 0.0, 0.5), "same direction: reaches across"),
        (POSITIVE, ours(0.2, -0.2, 0.5), "same direction: reaches across"),
        (POSITIVE, ours(0.2, -0.21, 0.5), "inconclusive: leaves open whether it is above 0 by 0.15 or more"),
        (POSITIVE, ours(0.05, -0.1, 0.14), "not reproduced: not above 0 by 0.15 or more"),
        (POSITIVE, ours(0.0, 0.0, 0.0), "not reproduced: the whole interval is not above 0"),
        (POSITIVE, ours(-0.1, -0.3, 0.1), "not reproduced: not above 0 by 0.15"),
        (POSITIVE, ours(-0.1, -0.4, 0.2), "inconclusive"),
        (POSITIVE, ours(-0.2, -0.3, -0.1), "not reproduced: the whole interval is not above 0"),
    ],
)
def test_every_verdict_and_why(rule: dict[str, Any], measured: Measurement, verdict: str) -> None:
    judged, (word, _, reason) = judge(claim(rule), measured), verdict.partition(": ")
    assert judged.word == word
    assert reason in judged.reason


def test_what_the_profile_must_share_with_the_paper() -> None:
    tied = claim(ABOVE, same_setting={"parts": ["data", "model"], "because": "it counts them"})
    assert judge(tied, ours(0.75, 0.7, 0.8), same_setting=["data", "model"]).word == "reproduced"
    judged = judge(tied, ours(0.75, 0.7, 0.8), same_setting=["data"])
    assert (judged.word, judged.reason) == ("not comparable", "other model: it counts them")
    assert judge(tied, None).word == "not comparable", "no run would help"


@pytest.mark.parametrize("rule", [ABOVE, AT_LEAST, POSITIVE])
def test_without_a_number_nothing_was_run_and_without_an_interval_nothing_is_decided(rule: dict[str, Any]) -> None:
    assert judge(claim(rule), None).reason == "no value of suppression"
    assert judge(claim(rule, needs="rival methods"), None).reason == "needs rival methods"
    assert judge(claim(rule), ours(math.nan, math.nan, math.nan)).word == "not run"
    assert judge(claim(rule), ours(0.75, math.nan, math.nan)).word == "inconclusive"


@pytest.mark.parametrize("baseline", [None, math.nan])
def test_without_its_control_as_in_a_book_of_one_concept_nothing_was_run(baseline: float | None) -> None:
    judged = judge(claim(ABOVE), ours(0.75, 0.7, 0.8, baseline))
    assert (judged.word, judged.reason) == ("not run", f"no value of {ABOVE['above']}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ours(0.5, 0.6, 0.4), "low must not pass high"),
        (lambda: judge(claim(NEAR), STRAY), r"claim suppression is compared with 'suppression'\."),
        (lambda: judge(claim(NEAR), None, same_setting=["weights"]), r"of \('data', 'model'\). Got \['weights'\]"),
        (lambda: table([claim(NEAR)], [STRAY]), r"every measurement must be a claim's statistic. Got \['supression'\]"),
        (lambda: table([claim(NEAR)], [ours(0.5, 0.4, 0.6)] * 2), "measured once"),
    ],
)
def test_what_is_no_measurement_of_the_claim_is_an_error_and_no_verdict(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_table_has_the_columns_of_the_design_and_one_row_a_claim() -> None:
    claims = [claim(ABOVE), claim(POSITIVE, id="causal", statistic="gap", paper="suppresses", needs="controls")]
    frame = table(claims, [ours(0.78, 0.70, 0.85)])
    assert list(frame.columns[:8]) == ["claim", "where", "paper", "ours", "low", "high", "n", "verdict"]
    assert frame.iloc[0, :8].tolist() == ["suppression", "Table II", "0.75", 0.78, 0.70, 0.85, 54, "reproduced"]
    assert frame[["paper", "n", "verdict", "reason"]].iloc[1].tolist() == ["suppresses", 0, "not run", "needs controls"]
    assert frame["ours"].isna().tolist() == [False, True]
    assert frame["rule"][0] == "within 0.05, or in an interval no wider than 0.4, and above the control"


def test_the_claims_of_the_paper_load_and_reach_every_verdict() -> None:
    claims = {each.id: each for each in load_claims()}
    assert (claims["suppression"].paper, claims["retention"].paper) == (0.77, 0.73)
    assert all(each.rule.because and str(each.rule) for each in claims.values())
    measurements = [
        Measurement("suppression_fluent", 0.81, 0.72, 0.90, n=54, baseline=0.04),
        Measurement("retention_at_suppression", 0.50, 0.42, 0.58, n=54, baseline=0.20),
        Measurement("selectivity", -0.10, -0.20, 0.05, n=54),
        Measurement("pairs", 83, 83, 83, n=83),
    ]
    verdicts = table(claims.values(), measurements).set_index("claim")["verdict"]
    reached = verdicts[["suppression", "retention", "selective", "ninety-samples", "schwettmann-breaks-language"]]
    assert reached.tolist() == ["reproduced", "same direction", "not reproduced", "not comparable", "not run"]
    paper_setting = table(claims.values(), measurements, same_setting=["data", "model"]).set_index("claim")["verdict"]
    assert paper_setting["ninety-samples"] == "not reproduced"


def test_what_the_paper_says_names_its_place_and_what_we_add_has_none() -> None:
    places = {claim.id: (claim.by, claim.where, claim.paper) for claim in load_claims()}
    assert places["suppression"] == ("the paper", "Table II", 0.77)
    assert places["neurons-can-take-it-away"] == ("this book", "this book", "–")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"where": None}, "'where' and 'paper' must be given where the statement is the paper's"),
        ({"rule": None}, "'rule': Field required"),
        ({"measured": None}, "'measured': Field required"),
        ({"statment": "x"}, "'statment': Extra inputs"),
        ({"paper": "much"}, ".*'paper' must be a number where the rule is 'near'. Got 'much'"),
        ({"rule": NEAR | {"kind": "close"}}, "'rule'.*'close'"),
        ({"rule": NEAR | {"tolerance": -1}}, "'rule.near.tolerance': .*greater than or equal to 0"),
        ({"rule": NEAR | {"tolerance": "0.1"}}, "'rule.near.tolerance'"),
        ({"rule": NEAR | {"because": ""}}, "'rule.near.because'"),
        ({"rule": NEAR | {"treshold": 1}}, "'rule.near.treshold': Extra inputs"),
        ({"same_setting": {"parts": ["luck"], "because": "x"}}, "'same_setting.parts.0'"),
    ],
)
def test_a_malformed_claim_is_refused_by_its_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path, content = tmp_path / "claims.yml", entry(NEAR) | change
    path.write_text(yaml.safe_dump({"claims": [{key: to for key, to in content.items() if to is not None}]}))
    with pytest.raises(ClaimsError, match=f"claim suppression.*{message}"):
        load_claims(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("claims: [", "is not YAML"),
        ("- a list", "dictionary"),
        ("{}", "key 'claims': Field required"),
        (yaml.safe_dump({"claims": [entry(NEAR)], "statistics": {}}), "key 'statistics': Extra inputs"),
        (yaml.safe_dump({"claims": [entry(NEAR)] * 2}), "claim suppression, key 'id': .*twice"),
        (yaml.safe_dump({"claims": [entry(NEAR), "words"]}), "claim number 2"),
        (yaml.safe_dump({"claims": [{"where": "Table II"}]}), "claim number 1, key 'id': Field required"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "claims.yml"
    with pytest.raises(ClaimsError, match="no claims at"):
        load_claims(path)
    path.write_text(yaml.safe_dump({"claims": [entry(NEAR)]}))
    assert len(load_claims(path)) == 1
    path.write_text(content)
    with pytest.raises(ClaimsError, match=message):
        load_claims(path)


def test_the_figures_that_claims_name_are_on_their_pages() -> None:
    for claim in load_claims():
        page = CLAIMS.parents[1] / "book" / f"{claims_table.PAGES[claim.page]}.md"
        assert claim.figure is None or f"name: {claim.figure}\n" in page.read_text(encoding="utf-8"), claim.id


def test_a_claim_leads_to_its_figure_only_where_it_was_measured() -> None:
    drawn = claim(NEAR, figure="fig-plane")
    assert table([drawn], [ours(0.75, 0.7, 0.8)])["figure"].tolist() == ["fig-plane"]
    assert table([drawn], [])["figure"].tolist() == [""]
