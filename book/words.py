"""Numbers in words: intervals, what an interval of a difference says, lists, names of methods."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np


class NotRun(RuntimeError):
    """What a page is about was not run. Raised in a cell, it ends the page there, with these words in Markdown."""

    def __init__(self, why: str, command: str = "") -> None:
        super().__init__(f"**Not run:** {why}." + (f" Run `{command}`." if command else ""))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def compared_with_zero(low: float, high: float) -> str:
    """What an interval of a difference says, in words."""
    if np.isnan(low) or np.isnan(high):
        return "not enough to tell"
    return "clear of zero" if low > 0 else "on the wrong side of zero" if high < 0 else "not clear of zero"


# Methods and controls as the book names them: of Tables I and II the rows, in their order, and figures follow.
METHODS = {
    "two-stage": "both stages",
    "stage-1": "stage 1 alone",
    "stage-2": "stage 2 alone",
    "schwettmann": "Schwettmann et al.",
    "pan-released": "Pan et al. (released)",
    "pan-gated": "Pan et al. (gated)",
    "dai": "Dai et al.",
    "random": "random, same layers",
    "uniform": "random, any layer",
    "same-activation": "random, same activation",
    "same-norm": "random, same output size",
}


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


def indexed(words: str) -> str:
    """Words in which S_se and S_re have their indices set as such."""
    return re.sub(r"\bS_(se|re)\b", lambda found: {"se": "Sₛₑ", "re": "Sᵣₑ"}[found[1]], words)
