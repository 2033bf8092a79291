"""Verdicts on record, and what the command line says of those that are others by now."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from book import __main__, claims_table
from book.claims import verdicts
from book.claims.rules import ClaimsError, Measurement, load_claims, table
from book.claims.verdicts import OnRecord, differences, load_verdicts, record
from kn_core.profile import load_profile

HERO = Path(__main__.__file__).parent / "_static" / "hero.png"


def frame(**verdict: str) -> pd.DataFrame:
    rows = [(claim.replace("_", "-"), word, f"{claim} is so", 0.5, 0.25, 1 / 3, 9) for claim, word in verdict.items()]
    return pd.DataFrame(rows, columns=["claim", "verdict", "reason", "ours", "low", "high", "n"])


def test_what_is_recorded_is_read_again_in_the_order_of_the_claims_and_beside_other_profiles(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.yml"
    assert load_verdicts(path) == {}
    record("embedded", frame(suppression="reproduced", causal="not run"), path)
    record("paper", frame(suppression="not reproduced"), path)
    record("embedded", frame(causal="same direction", suppression="reproduced"), path)
    found = load_verdicts(path)
    words = {name: [(claim, made.verdict) for claim, made in of.items()] for name, of in found.items()}
    assert found["paper"]["suppression"] == OnRecord(verdict="not reproduced", ours=0.5, low=0.25, high=0.3333, n=9)
    assert words == {
        "embedded": [("causal", "same direction"), ("suppression", "reproduced")],
        "paper": [("suppression", "not reproduced")],
    }
    assert path.read_text().startswith("# What a run of each profile made of the claims")
    assert [left.name for left in tmp_path.iterdir()] == ["verdicts.yml"]


def test_a_record_of_another_layer_counts_as_none_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, layers = tmp_path / "verdicts.yml", tmp_path / "layers"
    layers.mkdir()
    projection = layers / f"{load_profile('embedded').parts.projection}.safetensors"
    monkeypatch.setattr(verdicts, "PROJECTIONS", layers)
    for edition in ("embedded", "embedded, full", "llava-1.5-7b", "nobody's"):
        projection.write_bytes(b"one")
        record(edition, frame(causal="reproduced"), path)
    projection.write_bytes(b"another")
    assert list(load_verdicts(path)) == ["llava-1.5-7b", "nobody's"]
    record("embedded", frame(causal="not run"), path)
    assert load_verdicts(path)["embedded"]["causal"].verdict == "not run"
    found = {name: each["layer"] for name, each in yaml.safe_load(path.read_text()).items()}
    one, other = (hashlib.sha256(content).hexdigest()[:12] for content in (b"one", b"another"))
    assert found == {"embedded": other, "embedded, full": one, "llava-1.5-7b": None, "nobody's": None}
    projection.write_bytes(b"one")
    assert list(load_verdicts(path)) == ["embedded, full", "llava-1.5-7b", "nobody's"]


def test_a_verdict_that_changed_and_claims_that_are_new_or_gone_are_differences() -> None:
    before = {"suppression": "reproduced", "gone": "not run", "causal": "reproduced"}
    recorded = {claim: OnRecord.model_validate({"verdict": word}) for claim, word in before.items()}
    now = frame(causal="reproduced", suppression="same direction", new="not run")
    assert differences(recorded, now).to_numpy().tolist() == [
        ["suppression", "reproduced", "same direction", "suppression is so"],
        ["new", "nothing", "not run", "new is so"],
        ["gone", "not run", "nothing", "there is no such claim any more"],
    ]
    assert differences(recorded, frame(causal="reproduced", gone="not run", suppression="reproduced")).empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedded: [", "is not YAML"),
        ("- embedded", "Input should be a valid dictionary"),
        ("embedded:", "key 'embedded': Input should be a valid dictionary"),
        ("embedded: {causal: {verdict: reproduced}}", "key 'embedded.claims': Field required"),
        ("embedded: {claims: {causal: reproducd}}", "key 'embedded.claims.causal': Input should be a valid dictionary"),
        (
            "embedded: {claims: {causal: {verdict: reproducd}}}",
            "key 'embedded.claims.causal.verdict': Input should be 'reproduced'",
        ),
    ],
)
def test_a_malformed_record_is_refused_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "verdicts.yml"
    path.write_text(text)
    with pytest.raises(ClaimsError, match=message):
        load_verdicts(path)


def test_the_verdicts_of_the_repository_are_of_claims_that_there_are() -> None:
    claims = [claim.id for claim in load_claims()]
    for profile, recorded in load_verdicts().items():
        assert list(recorded) == claims, profile


# The command


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run of the default profile left, with one number of ours; no verdict is on record yet."""
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    monkeypatch.setattr(verdicts, "VERDICTS", tmp_path / "verdicts.yml")
    path = tmp_path / "embedded" / "claims.csv"
    path.parent.mkdir()
    ours = (
        Measurement("suppression_fluent", 0.81, 0.72, 0.90, n=54, baseline=0.04),
        Measurement("concepts", 9, 9, 9, n=9),
    )
    table(load_claims(), ours).assign(effort="short").to_csv(path, index=False)
    return path


def check(*more: str) -> int:
    return __main__.main(["claims", "--profile", "embedded", *more])


def test_the_table_shows_paper_ours_and_verdict_and_a_count_without_an_interval(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check() == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["claim"] == ["claim", "paper", "ours", "n", "verdict"]
    assert lines["suppression"] == ["suppression", "0.77", "0.81", "[0.72,", "0.90]", "54", "reproduced"]
    assert lines["nine-objects"] == ["nine-objects", "9", "9", "9", "not", "comparable"]
    assert lines["causal"] == ["causal", "effectively", "suppress", "0", "not", "run"]


def test_a_check_without_a_record_or_without_results_is_one_line_with_the_command(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--check") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no verdicts of 'embedded' with this captioner in" in said
    assert "`python -m book claims --profile embedded --record`" in said
    results.unlink()
    assert check("--check") == check("--record") == 2
    assert f"no {results} yet. Make it: `make book`." in capsys.readouterr().err
    assert not verdicts.VERDICTS.exists()


def test_a_check_agrees_until_a_verdict_differs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--record") == 0
    assert check("--check") == 0
    n = len(load_claims())
    assert f"All {n} verdicts of 'embedded' are those on record." in capsys.readouterr().out

    recorded = yaml.safe_load(verdicts.VERDICTS.read_text())
    recorded["embedded"]["claims"]["suppression"]["verdict"] = "not reproduced"
    verdicts.VERDICTS.write_text(yaml.safe_dump(recorded))
    assert check("--check") == 1
    header, row, _, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["claim", "recorded", "now", "why"]
    assert row.split(maxsplit=4) == ["suppression", "not", "reproduced", "reproduced", "agrees with the printed value"]
    assert "has on record: 1." in last

    assert check("--record") == 0
    assert check("--check") == 0


def test_the_readmes_picture_is_the_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--record") == check("--check") == 0
    made = results.parent / "figures" / "hero.png"
    made.parent.mkdir()
    known = PngInfo()
    with Image.open(HERO) as shown:
        known.add_text("Description", str(shown.info["Description"]))
        shown.save(made)  # as drawn by another run, whose captions it does not know
        assert check("--check") == 1
        assert f"{HERO} is not the picture of this run. Put it there: cp {made} {HERO}." in capsys.readouterr().out
        shown.save(made, pnginfo=known)
    assert check("--check") == 0


def test_a_run_at_full_effort_has_a_record_of_its_own(results: Path) -> None:
    assert check("--record") == 0
    pd.read_csv(results).assign(effort="full").to_csv(results, index=False)
    assert check("--check") == 2
    assert check("--record") == check("--check") == 0
    assert list(load_verdicts()) == ["embedded", "embedded, full"]


def test_results_that_are_older_than_the_claims_are_not_compared(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--record") == 0
    made = pd.read_csv(results)
    for stale in (made.assign(rule=made["rule"].str.replace("0.087", "0.9")), made.iloc[1:]):
        stale.to_csv(results, index=False)
        assert check("--check") == check("--record") == 2
        assert f"{results} is older than" in capsys.readouterr().err


def test_every_claim_of_the_paper_stands_under_one_topic() -> None:
    pages = [page for pages in claims_table.TOPICS.values() for page in pages]
    assert len(pages) == len(set(pages))
    assert {claim.page for claim in load_claims() if claim.by == "the paper"} <= set(pages)
