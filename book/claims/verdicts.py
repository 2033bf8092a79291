"""The verdicts on record, `paper/verdicts.yml`: with them, a change of the code that changes a conclusion is noticed.

    record("embedded", frame)
    differences(load_verdicts()["embedded"], frame)  # no rows while every conclusion stands

`frame` is that of `claims.table`, or of `results/<profile>/claims.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import yaml
from pydantic import TypeAdapter, ValidationError

from book.claims.rules import CLAIMS, ClaimsError, Word
from kn_core.fingerprint import writing

VERDICTS = CLAIMS.with_name("verdicts.yml")
HEAD = """\
# What a run of each profile made of the claims in claims.yml, in the short version and, where it is named, in full.
# `make check` fails where a verdict is another by now.
# Written by `python -m book claims --profile NAME --record`, not by hand.

"""
Recorded = dict[str, dict[str, Word]]  # edition -> claim -> verdict


def edition(profile: str, claims: pd.DataFrame) -> str:
    """Under which name a run's verdicts are kept: its profile's, and apart from these those of a run at full effort."""
    return f"{profile}, full" if set(claims["effort"]) == {"full"} else profile


def load_verdicts(path: Path | None = None) -> Recorded:
    """What is on record for each edition; nothing where there is no file. Raises ClaimsError for a malformed one."""
    path = path or VERDICTS
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(Recorded).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ClaimsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        found = error.errors()[0]
        raise ClaimsError(f"{path}: key '{'.'.join(map(str, found['loc']))}': {found['msg']}") from error


def record(edition: str, claims: pd.DataFrame, path: Path | None = None) -> None:
    """Put an edition's verdicts on record in the order of `claims`, in place of its earlier ones; others' stay."""
    path = path or VERDICTS
    recorded = load_verdicts(path)
    recorded[edition] = dict(zip(claims["claim"], claims["verdict"], strict=True))
    with writing(path) as temporary:
        temporary.write_text(HEAD + yaml.safe_dump(recorded, sort_keys=False), encoding="utf-8")


def differences(recorded: Mapping[str, Word], claims: pd.DataFrame) -> pd.DataFrame:
    """The claims whose verdict is not the one on record, new and lost ones too: columns claim, recorded, now, why."""
    now = claims.set_index("claim")
    rows = [
        (claim, recorded.get(claim, "nothing"), verdict, reason)
        for claim, verdict, reason in zip(now.index, now["verdict"], now["reason"], strict=True)
        if recorded.get(claim) != verdict
    ]
    lost = [claim for claim in recorded if claim not in now.index]
    rows += [(claim, recorded[claim], "nothing", "there is no such claim any more") for claim in lost]
    return pd.DataFrame(rows, columns=["claim", "recorded", "now", "why"])
