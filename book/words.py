"""Numbers in words: intervals, what an interval of a difference says, lists, names of methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from kn_core.study.study import Study


class NotRun(RuntimeError):
    """What a page is about was not run. Raised in a cell, it ends the page there, with these words in Markdown."""

    def __init__(self, why: str, command: str = "") -> None:
        super().__init__(f"**Not run:** {why}." + (f" Run `{command}`." if command else ""))


def of_every(made: Callable[[Study, str], pd.DataFrame], study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What an experiment made of every concept. Raises NotRun, with its reason, where the study cannot make it."""
    from kn_core.study.study import StudyError  # imports torch, which who builds the book does not wait for

    try:
        return pd.concat([made(study, concept) for concept in concepts], ignore_index=True)
    except StudyError as error:
        raise NotRun(str(error).removesuffix(".")) from error


def listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def told(low: float, high: float, above: str, below: str, neither: str, unknown: str = "not enough to tell") -> str:
    """What the 95 % interval of a difference says: `above` where all of it lies above zero, and so on.

    `unknown` is said where there is no interval.
    """
    if np.isnan(low) or np.isnan(high):
        return unknown
    return above if low > 0 else below if high < 0 else neither


def compared_with_zero(low: float, high: float) -> str:
    """Where the interval of a difference lies."""
    return told(low, high, "clear of zero", "on the wrong side of zero", "not clear of zero")


CHANGE = "{:+z.2f}"  # how a difference is written


def interval(value: float, low: float, high: float, pattern: str = "{:z.2f}") -> str:
    """'0.57 [0.43, 0.70]'; a count of two or more, which is its own interval, alone; a dash where there is no value.

    What rounds to zero has no sign.
    """
    if np.isnan(value):
        return "–"
    if low == value == high and value > 1:
        return f"{value:.0f}"
    if np.isnan(low) or np.isnan(high):
        return f"{pattern.format(value)} [too few]"
    return "{} [{},\u00a0{}]".format(*map(pattern.format, (value, low, high)))  # breaks before the bracket alone


def spread(value: float, low: float, high: float, pattern: str = "{:z.2f}") -> str:
    """The same within a sentence: '0.57 (95 % interval 0.43 to 0.70)'; without a width, what that comes of."""
    if np.isnan(value):
        return "not measured"
    if np.isnan(low) or np.isnan(high):
        return f"{pattern.format(value)} (too few pictures for an interval)"
    if low == high:
        return f"{pattern.format(value)} (the same in every concept)"
    return "{} (95 % interval {} to {})".format(*map(pattern.format, (value, low, high)))


def indexed(words: str) -> str:
    """Words in which S_se and S_re have their indices set as such."""
    return re.sub(r"\bS_(se|re)\b", lambda found: {"se": "Sₛₑ", "re": "Sᵣₑ"}[found[1]], words)
