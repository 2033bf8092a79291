"""The verdicts on record, `paper/verdicts.yml`: with them, a change of the code that changes a conclusion is noticed.

    record("embedded", frame)
    differences(load_verdicts()["embedded"], frame)  # no rows while every conclusion stands

`frame` is that of `claims.table`, or of `results/<profile>/claims.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from book.claims.rules import CLAIMS, ClaimsError, Word
from kn_core.fingerprint import writing

VERDICTS = CLAIMS.with_name("verdicts.yml")
HEAD = """\
# What a run of each profile made of the claims in claims.yml, in the short version and, where it is named, in full:
# the verdict, our estimate with its 95 % interval, and the number of pictures or counts behind it.
# `make check` fails where a verdict is another by now.
# Written by `python -m book claims --profile NAME --record`, not by hand.

"""
NUMBERS = ("ours", "low", "high", "n")


class OnRecord(BaseModel):
    """A claim's verdict in some run, with the numbers that it rests on; NaN (null in the file) where there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Word
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


Recorded = dict[str, dict[str, OnRecord]]  # edition -> claim -> what came out


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
    recorded[edition] = {row["claim"]: _on_record(row) for row in claims.to_dict("records")}
    plain = {name: {claim: found.model_dump() for claim, found in of.items()} for name, of in recorded.items()}
    with writing(path) as temporary:
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=200)
        temporary.write_text(HEAD + text, encoding="utf-8")


def _on_record(row: Mapping[Hashable, Any]) -> OnRecord:
    ours, low, high = (None if math.isnan(row[name]) else round(row[name], 4) for name in NUMBERS[:3])
    return OnRecord(verdict=row["verdict"], ours=ours, low=low, high=high, n=row["n"])


def differences(recorded: Mapping[str, OnRecord], claims: pd.DataFrame) -> pd.DataFrame:
    """The claims whose verdict is not the one on record, new and lost ones too: columns claim, recorded, now, why."""
    now, before = claims.set_index("claim"), {claim: found.verdict for claim, found in recorded.items()}
    rows = [
        (claim, before.get(claim, "nothing"), verdict, reason)
        for claim, verdict, reason in zip(now.index, now["verdict"], now["reason"], strict=True)
        if before.get(claim) != verdict
    ]
    lost = [claim for claim in before if claim not in now.index]
    rows += [(claim, before[claim], "nothing", "there is no such claim any more") for claim in lost]
    return pd.DataFrame(rows, columns=["claim", "recorded", "now", "why"])
