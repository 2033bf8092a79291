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
from kn_core.fingerprint import digest, writing
from kn_core.profile import ProfileError, load_profile
from kn_core.weights import PROJECTIONS

VERDICTS = CLAIMS.with_name("verdicts.yml")
HEAD = """\
# What a run of each profile made of the claims in claims.yml, in the short version and, where it is named, in full:
# the verdict, our estimate with its 95 % interval, and the number of pictures or counts behind it.
# `make check` fails where a verdict is another by now. `layer` is how the sha256 of the captioner's layer begins, where
# that was trained here: a record of another layer than today's counts as none.
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


class Edition(BaseModel):
    """What came out of one version of a profile's run, and of which layer of the captioner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str | None = None
    claims: dict[str, OnRecord]


Recorded = dict[str, dict[str, OnRecord]]  # edition -> claim -> what came out
FULL = ", full"


def edition(profile: str, claims: pd.DataFrame) -> str:
    """Under which name a run's verdicts are kept: its profile's, and apart from these those of a run at full effort."""
    return profile + FULL * (set(claims["effort"]) == {"full"})


def load_verdicts(path: Path | None = None) -> Recorded:
    """What is on record for each edition with its captioner as it is now. Raises ClaimsError for a malformed file."""
    return {name: found.claims for name, found in _all(path or VERDICTS).items() if found.layer == _layer(name)}


def _all(path: Path) -> dict[str, Edition]:
    """What the file has, of earlier layers too; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[str, Edition]).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ClaimsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        found = error.errors()[0]
        raise ClaimsError(f"{path}: key '{'.'.join(map(str, found['loc']))}': {found['msg']}") from error


def _layer(edition: str) -> str | None:
    """How the sha256 of the layer begins that a profile's captioner has; None where that was not trained here."""
    try:
        layer = PROJECTIONS / f"{load_profile(edition.removesuffix(FULL)).parts.projection}.safetensors"
    except ProfileError:  # of a profile that is not there by now, or of a model that comes whole
        return None
    return digest(layer)[:12] if layer.is_file() else None


def record(edition: str, claims: pd.DataFrame, path: Path | None = None) -> None:
    """Put an edition's verdicts on record in the order of `claims`, in place of its earlier ones; others' stay."""
    path = path or VERDICTS
    recorded = _all(path)
    found = {row["claim"]: _on_record(row) for row in claims.to_dict("records")}
    recorded[edition] = Edition(layer=_layer(edition), claims=found)
    plain = {name: each.model_dump() for name, each in recorded.items()}
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
