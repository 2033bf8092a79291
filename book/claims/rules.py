"""What is claimed, what we measured, and the verdict: `paper/claims.yml` and the rules that its claims name.

    claims = load_claims()
    table(claims, [Measurement("suppression", 0.81, 0.72, 0.90, n=54, baseline=0.04)]).to_csv("claims.csv", index=False)

A verdict is a pure function of the paper's value, our estimate with its 95 % interval, the value of the control, and
what the profile shares with the paper's setting. The head of `paper/claims.yml` states the rules in words.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CLAIMS = Path(__file__).parents[2] / "paper" / "claims.yml"

Word = Literal["reproduced", "same direction", "inconclusive", "not reproduced", "not comparable", "not run"]
By = Literal["the paper", "this book"]
Part = Literal["data", "model"]
Words = Annotated[str, Field(min_length=1)]


class ClaimsError(ValueError):
    """The file of claims is malformed; the message names the claim and the key."""


@dataclass(frozen=True)
class Measurement:
    """A statistic of ours: estimate, 95 % interval, number of images, and what the control gives in its place.

    A count is its own interval. NaN says that there is none.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    baseline: float | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.name}: low must not pass high. Got [{self.low}, {self.high}].")

    def clears(self, control: str | None) -> bool:
        """Whether the interval lies above the control, which `control` names. Without one there is nothing to clear."""
        return control is None or (self.baseline is not None and self.low > self.baseline)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a claim, and which clause of its rule said so."""

    word: Word
    reason: str


class _Entry(BaseModel):
    """A mapping in the file: no key that we do not know, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Near(_Entry):
    """The paper prints a number, and so do we. An interval that holds anything, or the control too, is no evidence."""

    kind: Literal["near"]
    tolerance: float = Field(ge=0)
    widest: float = Field(gt=0)
    above: Words | None = None
    because: Words

    def __str__(self) -> str:
        control = f", and above {self.above}" if self.above else ""
        return f"within {self.tolerance:g}, or in an interval no wider than {self.widest:g}{control}"

    def decide(self, paper: float | str, ours: Measurement) -> Verdict:
        inside, width = ours.low <= float(paper) <= ours.high, ours.high - ours.low
        if not ours.clears(self.above):
            if inside and width > self.widest:
                return Verdict("inconclusive", f"the interval holds the printed value and {self.above} alike")
            return Verdict("not reproduced", f"not clear of {self.above}")
        if (inside and width <= self.widest) or abs(ours.value - float(paper)) <= self.tolerance:
            return Verdict("reproduced", "agrees with the printed value")
        if self.above:
            return Verdict("same direction", f"above {self.above}, but away from the printed value")
        return Verdict("not reproduced", "away from the printed value")


class AtLeast(_Entry):
    """The paper's words set a size; with a control, the effect must also be there at all."""

    kind: Literal["at_least"]
    threshold: float
    above: Words | None = None
    because: Words

    def __str__(self) -> str:
        return f"at least {self.threshold:g}" + (f", and above {self.above}" if self.above else "")

    def decide(self, paper: float | str, ours: Measurement) -> Verdict:
        if self.above is None:
            return _one_sided(self, ours, self.threshold, operator.ge)
        if not ours.clears(self.above):
            if ours.high >= self.threshold:
                return Verdict("inconclusive", f"the interval holds {self.threshold:g} and {self.above} alike")
            return Verdict("not reproduced", f"not clear of {self.above}")
        if ours.value >= self.threshold:
            return Verdict("reproduced", f"is {self}")
        return Verdict("same direction", f"interval above {self.above}, but estimate below {self.threshold:g}")


class Positive(_Entry):
    """There is an effect, or one thing is more than another: a difference, a correlation.

    `smallest` is the least effect that would bear the claim out: where that is neither shown nor excluded, the design
    cannot see what the claim asks.
    """

    kind: Literal["positive"]
    smallest: float = Field(gt=0)
    because: Words

    def __str__(self) -> str:
        return "above 0"

    def decide(self, paper: float | str, ours: Measurement) -> Verdict:
        return _one_sided(self, ours, 0, operator.gt, self.smallest)


Rule = Near | AtLeast | Positive


class SameSetting(_Entry):
    """The parts of the paper's setting that a profile must share, or the comparison means nothing."""

    parts: list[Part] = Field(min_length=1)
    because: Words


class Claim(_Entry):
    """A checkable statement: of the paper, or one that this book adds, which has no place in it and nothing printed."""

    id: Words
    by: By = "the paper"
    page: Words  # of the book, which settles it
    figure: Words | None = None  # there
    where: Words = "this book"  # in the paper
    statement: Words
    paper: float | Words = "–"  # as printed
    statistic: Words  # the name of our Measurement
    measured: Words  # what it is, for a reader
    rule: Rule = Field(discriminator="kind")
    same_setting: SameSetting | None = None
    needs: Words | None = None  # what has to run before there is a measurement

    @model_validator(mode="after")
    def _printed(self) -> Self:
        if self.by == "the paper" and not {"where", "paper"} <= self.model_fields_set:
            raise ValueError("'where' and 'paper' must be given where the statement is the paper's.")
        return self

    @model_validator(mode="after")
    def _near_a_number(self) -> Self:
        if isinstance(self.rule, Near) and not isinstance(self.paper, float):
            raise ValueError(f"'paper' must be a number where the rule is 'near'. Got {self.paper!r}.")
        return self


class _File(_Entry):
    claims: list[Claim]


def load_claims(path: Path | str | None = None) -> tuple[Claim, ...]:
    """The claims of `path` (default: the repository's `paper/claims.yml`), in the file's order. Raises ClaimsError."""
    path = Path(path or CLAIMS)
    if not path.is_file():
        raise ClaimsError(f"no claims at {path}. Run from a checkout of the repository, or name the file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = _File.model_validate(content)
    except yaml.YAMLError as error:
        raise ClaimsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        raise ClaimsError(f"{path}: " + "; ".join(_place(found, content) for found in error.errors())) from error

    ids = [claim.id for claim in file.claims]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ClaimsError(f"{path}: claim {', '.join(repeated)}, key 'id': must not be given twice.")
    return tuple(file.claims)


def judge(claim: Claim, measurement: Measurement | None, same_setting: Collection[Part] = ()) -> Verdict:
    """The verdict on one claim. `same_setting` holds what the profile shares with the paper: 'data', 'model'."""
    if unknown := sorted(set(same_setting).difference(get_args(Part))):
        raise ValueError(f"same_setting must be of {get_args(Part)}. Got {unknown}.")
    if measurement and measurement.name != claim.statistic:
        raise ValueError(f"claim {claim.id} is compared with {claim.statistic!r}. Got {measurement.name!r}.")
    wanted = claim.same_setting
    if wanted and (missing := [part for part in wanted.parts if part not in same_setting]):
        return Verdict("not comparable", f"other {' and '.join(missing)}: {wanted.because}")
    if measurement is None or math.isnan(measurement.value):
        return Verdict("not run", f"needs {claim.needs}" if claim.needs else f"no value of {claim.statistic}")
    if math.isnan(measurement.low) or math.isnan(measurement.high):
        return Verdict("inconclusive", "no interval: too few pictures, or what is compared hangs on one concept")
    control = getattr(claim.rule, "above", None)
    if control and (measurement.baseline is None or math.isnan(measurement.baseline)):
        return Verdict("not run", f"no value of {control}")  # as where one concept alone was studied
    return claim.rule.decide(claim.paper, measurement)


def table(
    claims: Iterable[Claim], measurements: Iterable[Measurement], same_setting: Collection[Part] = ()
) -> pd.DataFrame:
    """One row a claim: claim, where, paper, ours, low, high, n, verdict; statement, measured, rule, reason, page,
    figure, by.

    Raises ValueError for a measurement that comes twice or that no claim asks for: misspelt, it would read 'not run'.
    """
    claims, measurements = tuple(claims), tuple(measurements)
    found = {measurement.name: measurement for measurement in measurements}
    if unknown := sorted(found.keys() - {claim.statistic for claim in claims}):
        raise ValueError(f"every measurement must be a claim's statistic. Got {unknown}.")
    if len(found) < len(measurements):
        raise ValueError(f"a statistic must be measured once. Got {sorted(each.name for each in measurements)}.")
    return pd.DataFrame([_row(claim, found.get(claim.statistic), same_setting) for claim in claims])


def _row(claim: Claim, ours: Measurement | None, same_setting: Collection[Part]) -> dict[str, object]:
    verdict = judge(claim, ours, same_setting)
    return {
        "claim": claim.id,
        "where": claim.where,
        "paper": claim.paper if isinstance(claim.paper, str) else f"{claim.paper:g}",
        "ours": ours.value if ours else math.nan,
        "low": ours.low if ours else math.nan,
        "high": ours.high if ours else math.nan,
        "n": ours.n if ours else 0,
        "verdict": verdict.word,
        "statement": claim.statement,
        "measured": claim.measured,
        "rule": str(claim.rule),
        "reason": verdict.reason,
        "page": claim.page,
        "figure": "" if verdict.word == "not run" else claim.figure or "",  # its page may draw none then
        "by": claim.by,
    }


def _one_sided(
    rule: Rule, ours: Measurement, bound: float, passes: Callable[[float, float], bool], smallest: float = 0
) -> Verdict:
    """Whether the whole interval, the estimate, or at least the interval's upper end is on the side that is claimed.

    An estimate that lies less far beyond the bound than its interval reaches back across it shows no direction. Where
    the interval holds the bound, and what lies `smallest` beyond it too, nothing is shown and nothing is excluded.
    """
    if passes(ours.low, bound):
        return Verdict("reproduced", f"the whole interval is {rule}")
    if not passes(ours.high, bound):
        return Verdict("not reproduced", f"the whole interval is not {rule}")
    if passes(ours.value, bound) and ours.value - bound >= bound - ours.low:
        return Verdict("same direction", f"the estimate is {rule}, the interval reaches across")
    if ours.high >= bound + smallest:
        least = f" by {smallest:g} or more" if smallest else ""
        return Verdict("inconclusive", f"the interval leaves open whether it is {rule}{least}")
    return Verdict("not reproduced", f"not {rule} by {smallest:g} or more")


def _place(found: Any, content: Any) -> str:
    """One of pydantic's errors, with the claim's id where it has the claim's number."""
    match found["loc"]:
        case ("claims", int(number), *keys):
            entry = content["claims"][number]
            name = entry["id"] if isinstance(entry, dict) and "id" in entry else f"number {number + 1}"
            return f"claim {name}, key '{'.'.join(map(str, keys))}': {found['msg']}"
        case keys:
            return f"key '{'.'.join(map(str, keys))}': {found['msg']}"
