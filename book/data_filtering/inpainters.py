"""How far inpainters agree with the truth, or with one another: frames of `inpainters` in, numbers and words out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from book.pictures import Panel
from book.words import interval, told
from kn_core.measures.stats import GAP, SIGNED, Estimate, estimate
from kn_core.study.experiments import inpainters
from kn_core.study.experiments.inpainters import EXACT, OTHER, Way, taken_out
from kn_core.study.study import Study

NAMES = {
    "exact": "rendered again",
    "telea": "Telea",
    "navier-stokes": "Navier-Stokes",
    "flat": "one flat colour",
    "diffusion": "diffusion",
    "other": "(another picture)",
}
WITHIN = {"rho": GAP}
MEASURES = {  # column -> how the table heads it, how it writes a number
    "lost": ("captions that lose it", "{:.0%}"),
    "rho": ("correlation of ΔO", "{:.2f}"),
    "shared": ("strongest neurons shared", "{:.0%}"),
    "psnr": ("PSNR, dB", "{:.1f}"),
}


def named(way: Way) -> str:
    """'Telea, 8 px'."""
    method, dilation = way
    return NAMES[method] if way in (EXACT, OTHER) else f"{NAMES[method]}, {dilation} px"


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over concepts of means over their pictures, with 95 % intervals, a row a way and measure.

    Columns inpainter, dilation, measure, value, low, high, n (pictures). Inpainters come first.
    """
    rows = []
    for way, of_way in sorted(frame.groupby(["inpainter", "dilation"], sort=False), key=lambda each: each[0] == OTHER):
        means = {
            measure: estimate(of_way[measure], of_way["concept"], within=WITHIN.get(measure)) for measure in MEASURES
        }
        rows += [(*way, measure, *mean.ends, mean.n) for measure, mean in means.items()]
    return pd.DataFrame(rows, columns=["inpainter", "dilation", "measure", "value", "low", "high", "n"])


def gap(frame: pd.DataFrame, one: Way, other: Way) -> Estimate:
    """How much better one way agrees with the reference than another on the same pictures, by the correlation of ΔO."""
    by = frame.pivot_table("rho", ["concept", "image_id"], ["inpainter", "dilation"], sort=False)
    return estimate(by[one] - by[other], by.index.get_level_values("concept"), within=SIGNED)


def in_table(frame: pd.DataFrame, reason: str) -> pd.DataFrame:
    """The summary for a reader, a row a way; diffusion's says 'not run' where there is a `reason` why it was not."""
    rows: dict[Way, dict[str, str]] = {}
    for row in summary(frame).to_dict("records"):
        way, (heading, pattern) = (row["inpainter"], row["dilation"]), MEASURES[row["measure"]]
        said = rows.setdefault(way, {"taken out by": named(way)})
        said[heading] = interval(row["value"], row["low"], row["high"], pattern)
    if reason:
        unknown = dict.fromkeys((heading for heading, _ in MEASURES.values()), "not run")
        rows[inpainters.DIFFUSION] = {"taken out by": named(inpainters.DIFFUSION), **unknown}
    return pd.DataFrame(list(rows.values()))


def in_words(frame: pd.DataFrame, reference: Way, reason: str) -> dict[str, str]:
    """What the page says of the frame. Without a truth, sentences that need one are empty, and one says so."""
    means = summary(frame).set_index(["inpainter", "dilation", "measure"])["value"].to_dict()
    other = means.get((*OTHER, "rho"), math.nan)
    words = {
        "pictures": f"{frame.drop_duplicates(['concept', 'image_id']).shape[0]}",
        "most": f"{inpainters.PICTURES}",
        "reference": named(reference),
        "other": "–" if math.isnan(other) else f"{other:.2f}",
        "diffusion": _diffusion(means, reason),
        "truth": _TRUTH if reference == EXACT else _NO_TRUTH.format(named(reference)),
        **dict.fromkeys(("painters", "border", "flat"), ""),
    }
    if reference != EXACT or frame.empty:
        return words
    telea, stokes, bare, flat = *inpainters.OPENCV[:3], inpainters.FLAT
    return words | {
        "painters": f"Differences under Telea correlate with the exact ones by {means[*telea, 'rho']:.2f}, and "
        f"{means[*telea, 'shared']:.0%} of the strongest neurons are the same; under Navier-Stokes it is "
        f"{means[*stokes, 'rho']:.2f} and {means[*stokes, 'shared']:.0%}. "
        + _finding(
            gap(frame, telea, stokes),
            "Telea comes closer",
            "Navier-Stokes comes closer",
            "These pictures do not tell the two apart",
        ),
        "border": _finding(
            gap(frame, telea, bare),
            f"A border of {telea[1]} pixels around the mask brings Telea closer than none",
            f"A border of {telea[1]} pixels around the mask takes Telea farther away than none",
            f"These pictures do not tell a border of {telea[1]} pixels around the mask from none",
        ),
        "flat": _finding(
            gap(frame, telea, flat),
            "Telea comes closer than one flat colour over the hole does, so what is painted matters",
            "One flat colour over the hole comes closer than Telea, so here painting a background makes things worse",
            "That Telea comes closer than one flat colour over the hole is not shown",
        ),
    }


def _finding(gap: Estimate, above: str, below: str, neither: str) -> str:
    return f"{told(gap.low, gap.high, above, below, neither, neither)} ({interval(*gap.ends, '{:+.3f}')})."


_TRUTH = "Scenes can tell, since their objects can be taken out exactly: every inpainter is held against that."
_NO_TRUTH = (
    "Photographs cannot tell: nobody knows what was behind the object, so there is no truth to hold an inpainter "
    "against. Each is held against the profile's own ({}), which says how far they agree, not which of them is right."
)


def _diffusion(means: Mapping[Any, float], reason: str) -> str:
    way = inpainters.DIFFUSION
    if reason:
        return f"Diffusion was not run: {reason}."
    if (*way, "rho") not in means:
        return "The profile inpaints by diffusion itself."
    rho, shared = means[*way, "rho"], means[*way, "shared"]
    return f"Under diffusion they correlate by {rho:.2f}, and {shared:.0%} of the strongest neurons are the same."


def example(study: Study, frame: pd.DataFrame) -> tuple[list[Panel], np.ndarray]:
    """The first picture of the frame and the same without its object by every way: panels of `pictures.captioned`.

    The second part is the object's mask.
    """
    concept, image_id = frame[["concept", "image_id"]].iloc[0]
    sample, pairs = study.sample(concept, image_id), study.pairs(concept).set_index("image_id")
    rows = frame[(frame["image_id"] == image_id) & (frame["concept"] == concept) & (frame["inpainter"] != OTHER[0])]
    panels = [("the picture", sample.image, str(pairs["caption"][image_id]))]
    for row in rows.itertuples():
        way = row.inpainter, row.dilation
        panels.append((named(way), taken_out(study, [sample], way)[0], row.caption))
    return panels, sample.mask
