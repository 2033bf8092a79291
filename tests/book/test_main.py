"""`python -m book`: the claims on the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from book.__main__ import main
from kn_core.profile import PROFILES


@pytest.fixture
def profile(toy_profile, tmp_path, monkeypatch):
    """The toy profile under the default's name."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "embedded.yaml").write_text(
        yaml.safe_dump(toy_profile.model_dump(mode="json", exclude={"name"}))
    )
    monkeypatch.setenv("KN_PROFILES", str(tmp_path / "profiles"))


def test_claims_are_printed_or_asked_to_be_made(profile, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    assert main(["claims"]) == 2
    own = tmp_path / "profiles" / "embedded.yaml"
    assert capsys.readouterr().err.endswith(f"Make it: `make book PROFILE={own}`.\n")
    assert main(["claims", "--profile", str(PROFILES / "embedded-coco.yaml"), "--check"]) == 2
    assert capsys.readouterr().err.endswith("Make it: `make book PROFILE=embedded-coco COCO=folder`.\n")
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "claims.csv").write_text(
        "claim,where,paper,ours,low,high,n,verdict,statement,rule,reason,page\n"
        'suppression,Table II,0.77,0.81,0.72,0.9,54,reproduced,"x, y",z,because,perturbation\n'
        "objects,III,9 of 9,,,,0,not run,x,z,because,stage-1\n"
    )
    assert main(["claims", "--profile", "embedded"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "claim       paper  ours               n verdict   ",
        "suppression 0.77   0.81 [0.72, 0.90] 54 reproduced",
        "objects     9 of 9                    0 not run   ",
    ]


GOOD = "claim,paper,ours,low,high,n,verdict,rule,reason\nobjects,9,9.0,8.5,9.5,9,reproduced,z,because\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "No columns to parse from file"),
        (GOOD[:-12].encode(), "its last line is cut off"),
        (GOOD.partition("\n")[0].encode() + b"\n", "its last line is cut off"),
        ((GOOD + GOOD.partition("\n")[2]).encode(), "a claim stands there twice"),
        (GOOD.replace(",", ";").encode(), "no column claim, paper"),
        (GOOD.replace("9.0", "nine").encode(), "could not convert string to float"),
        (GOOD.encode("utf-16"), "codec can't decode"),
    ],
    ids=["empty", "cut off", "its head", "twice", "semicolons", "words", "utf-16"],
)
def test_claims_that_another_program_saved_are_one_line(profile, monkeypatch, tmp_path, capsys, content, found):
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "claims.csv").write_bytes(content)
    assert main(["claims"]) == 2
    said = capsys.readouterr().err
    assert found in said and said.count("\n") == 1
    assert said.endswith("Make it anew: `make book`.\n") or "`make book" in said


@pytest.mark.parametrize("module", ["kn_core", "kn_core.training", "book"])
def test_help_and_a_misspelt_option_wait_for_nothing(module):
    script = f"import sys, {module}.__main__ as it\ntry: it.main(['--hlp'])\nexcept SystemExit: pass\n"
    script += "print({'torch', 'pandas', 'transformers', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"
