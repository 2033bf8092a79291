"""Which pairs of pictures the method may learn from: the data set's constraints, by name, and what each costs.

The paper names two: the model must name the concept in the picture, and no longer name it once the object is inpainted
away (section III). Its digest counts three; the others here are ours, and the profile says which are on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
import pandas as pd
from scipy import ndimage

from kn_core.concepts import names
from kn_core.method.capture import find_target
from kn_core.models.base import CaptionModel
from kn_core.pictures.inpaint import inpaint_all
from kn_core.pictures.sample import Sample
from kn_core.profile import Profile
from kn_core.settings import Data, Filtering


@dataclass(frozen=True, eq=False)
class Candidate:
    """A picture of a concept, with what the model says of it once it has been asked."""

    sample: Sample
    caption: str = ""
    caption_inpainted: str = ""


Constraint = Callable[[Candidate, Filtering], bool]


def _whole(caption: str) -> bool:
    """Three words or more, ended by a full stop: neither cut off nor a fragment."""
    return len(caption.split()) >= 3 and caption.endswith(".")


def regions(mask: np.ndarray, smallest: float = 0.1) -> int:
    """Connected regions of a mask (h, w) but those under a tenth of the whole: a leaf across a bear splits no bear."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    return int((areas > smallest * mask.sum()).sum()) if count else 0


def _named(candidate: Candidate, _: Filtering) -> bool:
    return names(candidate.caption, candidate.sample.concept)


def _not_named_after(candidate: Candidate, _: Filtering) -> bool:
    return not names(candidate.caption_inpainted, candidate.sample.concept)


BEFORE_CAPTIONS: dict[str, Constraint] = {
    "unsquashed": lambda candidate, _: not candidate.sample.resized,
    "area": lambda candidate, settings: settings.area[0] <= candidate.sample.area_fraction <= settings.area[1],
    "one_region": lambda candidate, _: regions(candidate.sample.mask) == 1,
    "one_instance": lambda candidate, _: candidate.sample.n_instances == 1,
}
AFTER_CAPTION: dict[str, Constraint] = {"named": _named}
AFTER_BOTH: dict[str, Constraint] = {
    "captions_whole": lambda candidate, _: _whole(candidate.caption) and _whole(candidate.caption_inpainted),
    "not_named_after": _not_named_after,
}
ORDER = (*BEFORE_CAPTIONS, *AFTER_CAPTION, *AFTER_BOTH)  # in which constraints are checked, the cheap ones first
MEANING = {
    "unsquashed": "the file keeps the photograph's proportions",
    "area": "the object fills {0:.0%} to {1:.0%} of the frame",
    "one_region": "the object is one connected region",
    "one_instance": "there is one instance of the object",
    "named": "the caption names the object (the paper's)",
    "captions_whole": "both captions are whole sentences",
    "not_named_after": "the inpainted picture's caption does not (the paper's)",
}


def explain(constraint: str, settings: Filtering) -> str:
    """A constraint in words."""
    return MEANING[constraint].format(*settings.area)


def could_keep(sample: Sample, settings: Filtering) -> bool:
    """Whether a picture passes what can be known of it before a model has seen it (`BEFORE_CAPTIONS`)."""
    return not _first_failure(Candidate(sample), BEFORE_CAPTIONS, settings)


def make_pairs(model: CaptionModel, samples: Iterable[Sample], profile: Profile, batch_size: int = 32) -> pd.DataFrame:
    """Look at pictures of one concept until enough pairs pass: one row a picture looked at.

    In batches of as many as are still wanted, so that few are looked at for nothing; no more pictures of a role than
    it wants, where drawings are kept for one (`Sample.role`).

    Columns: concept, image_id, drawing, area_fraction, caption, caption_inpainted, target_word, target_token,
    target_position, kept, reason (the first constraint that failed, '' if none), role ('select', 'held_out' or '').
    """
    data = profile.data
    wanted = {"select": data.select, "held_out": data.held_out, "": data.select + data.held_out}
    rows: list[dict[str, object]] = []
    remaining = iter(samples)
    while missing := wanted[""] - sum(bool(row["kept"]) for row in rows):
        kept = Counter(str(row["role"]) for row in rows if row["kept"])
        room = {role: count - kept[role] for role, count in wanted.items()}
        batch, later = _take(remaining, min(batch_size, missing), room)
        if not batch:
            break
        rows += _look_at(model, batch, profile)
        remaining = chain(later, remaining)
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"kept": bool})
    return _with_roles(frame, data)


def _take(samples: Iterator[Sample], n: int, room: dict[str, int]) -> tuple[list[Sample], list[Sample]]:
    """The first n samples for whose roles there is room, and those that were passed over."""
    taken: list[Sample] = []
    later: list[Sample] = []
    while len(taken) < n and (sample := next(samples, None)) is not None:
        (taken if room[sample.role] > 0 else later).append(sample)
        room[sample.role] -= 1
    return taken, later


COLUMNS = (
    *("concept", "image_id", "drawing", "area_fraction", "caption", "caption_inpainted"),
    *("target_word", "target_token", "target_position", "kept", "reason", "role"),
)


def _look_at(model: CaptionModel, samples: Sequence[Sample], profile: Profile) -> Iterator[dict[str, object]]:
    settings, tokens = profile.filtering, profile.model.max_new_tokens
    candidates = [Candidate(sample) for sample in samples]
    reasons = [_first_failure(candidate, BEFORE_CAPTIONS, settings) for candidate in candidates]
    for i, caption in _captions(model, [c.sample.image for c in candidates], reasons, tokens):
        candidates[i] = Candidate(samples[i], caption)
        reasons[i] = _first_failure(candidates[i], AFTER_CAPTION, settings)
    left, how = [sample for sample, reason in zip(samples, reasons, strict=True) if not reason], profile.inpainting
    painted = iter(inpaint_all(left, how.method, how.dilation, how.diffusion))
    without = [sample.image if reason else next(painted) for sample, reason in zip(samples, reasons, strict=True)]
    for i, caption in _captions(model, without, reasons, tokens):
        candidates[i] = Candidate(samples[i], candidates[i].caption, caption)
        reasons[i] = _first_failure(candidates[i], AFTER_BOTH, settings)
    for candidate, reason in zip(candidates, reasons, strict=True):
        sample, target = candidate.sample, find_target(model, candidate.caption, candidate.sample.concept)
        where = asdict(target) if target else {"word": "", "token": -1, "position": -1}
        yield {
            "concept": sample.concept,
            "image_id": sample.image_id,
            "drawing": sample.drawing,
            "area_fraction": sample.area_fraction,
            "caption": candidate.caption,
            "caption_inpainted": candidate.caption_inpainted,
            **{f"target_{key}": value for key, value in where.items()},
            "kept": not reason,
            "reason": reason,
            "role": sample.role,
        }


def _captions(
    model: CaptionModel, images: Sequence[np.ndarray], reasons: Sequence[str], tokens: int
) -> Iterator[tuple[int, str]]:
    """Captions of the pictures that nothing has ruled out yet, with their places."""
    places = [i for i, reason in enumerate(reasons) if not reason]
    yield from zip(places, model.caption([images[i] for i in places], tokens), strict=True)


def _first_failure(candidate: Candidate, constraints: dict[str, Constraint], settings: Filtering) -> str:
    on = (name for name in constraints if name in settings.constraints)
    return next((name for name in on if not constraints[name](candidate, settings)), "")


def _with_roles(frame: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Kept pairs in order: the first go to selection, the rest are held out, in the profile's proportion.

    Where a profile holds any out, two pairs are one to choose neurons on and one to try them on. Where drawings are
    kept for a role, their pairs have it, unless that leaves one of the roles without a pair.
    """
    wanted = data.select + data.held_out
    kept = frame.index[frame["kept"]]
    own = [kept[frame.loc[kept, "role"] == role] for role in ("select", "held_out")]
    frame["role"] = ""
    if all(map(len, own)):
        frame.loc[own[0][: data.select], "role"], frame.loc[own[1][: data.held_out], "role"] = "select", "held_out"
        return frame
    kept = kept[:wanted]
    most = len(kept) - 1 if data.held_out else len(kept)
    first = max(1, min(round(len(kept) * data.select / wanted), most))
    frame.loc[kept[:first], "role"], frame.loc[kept[first:], "role"] = "select", "held_out"
    return frame
