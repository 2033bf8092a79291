"""What a trained projection gets right, measured, and its model card (`card.md`), in which no number is typed."""

import csv
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from kn_core.concepts import names
from kn_core.fingerprint import digest, writing
from kn_core.models import TOWERS, MiniGPT4, held_out_ids, load_model
from kn_core.models.qformer import N_QUERIES
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.sample import Sample
from kn_core.pictures.scenes.kinds import ROLES
from kn_core.profile import Profile
from kn_core.settings import Model
from kn_core.training.data import PHOTO_CONCEPTS
from kn_core.training.score import means, score
from kn_core.weights.wheels import SMOLLM2_135M

LINEAR = """A linear layer from {features} to the {hidden} numbers of an input embedding of SmolLM2-135M-Instruct
(dequantized from Q4_1), trained with both networks frozen, as MiniGPT-4 and LiMBeR do it."""
RIDGE = """a ridge regression of the cells inside an object's mask on its word's embedding"""
Q_FORMER = """A Q-Former (BLIP-2's architecture, `kn_core.models.qformer`): {queries} learnt queries read {features} by
cross-attention, and a linear layer makes of each query an input embedding of SmolLM2-135M-Instruct (dequantized from
Q4_1). Trained with both networks frozen, as MiniGPT-4 and LiMBeR do it."""
DISTILLED = """one that learnt, without captions, the mean over a query's region of the tokens of the linear layer with
sha256 `{teacher}` ({steps} steps of {batch} pictures, {variance_left:.0%} of the variance left)"""
WORDS = """A scene's caption holds {true_words:.1f} true words beside the target, and {false_words:.1f} that the scene
does not bear out."""
OPTIONS = ("steps", "until", "seed", "rate", "warm_up", "dtype", "tower_dtype")  # of a phase, as the card gives them


def held_out_photos(folder: CocoFolder) -> list[Sample]:
    """The held-out photographs, one sample a concept that fills 5-60 % of the frame."""
    held_out = held_out_ids()
    found = (sample for concept in PHOTO_CONCEPTS for sample in folder.samples(concept))
    return [sample for sample in found if sample.image_id in held_out and 0.05 <= sample.area_fraction <= 0.6]


def evaluate(model: MiniGPT4, folder: CocoFolder | None, scenes_per_kind: int) -> dict[str, dict[str, Any]]:
    """For the model card: what is right in scenes, in the same without their objects, and in photographs."""
    kinds: dict[str, dict[str, int]] = {}
    scored: list[dict[str, float]] = []
    by_role: dict[str, list[bool]] = {}
    for kind, concept in scenes.KINDS.items():
        made = list(scenes.samples(kind, scenes_per_kind, seed=1))
        found = [score(s, c) for s, c in zip(made, model.caption([s.image for s in made]), strict=True)]
        without = sum(names(c, kind) for c in model.caption([s.without for s in made if s.without is not None]))
        for sample, right in zip(made, found, strict=True):
            by_role.setdefault(sample.role, []).append(bool(right["named"]))
        named = sum(bool(right["named"]) for right in found)
        outlines = len(concept.outlines())
        kinds[kind] = {"named": named, "named_without": without, "scenes": len(made), "drawings": outlines}
        scored += found
    n = len(scored)
    shares = means(scored) | {"named_without": sum(found["named_without"] for found in kinds.values()) / n}
    roles = {role: float(np.mean(hits)) for role, hits in by_role.items() if role}
    report: dict[str, dict[str, Any]] = {"scenes": {**shares, "n": n, "roles": roles, "kinds": kinds}}
    if folder is not None:
        photos = held_out_photos(folder)
        captions = model.caption([sample.image for sample in photos])
        rows = [[s.concept, s.image_id, names(c, s.concept), c] for s, c in zip(photos, captions, strict=True)]
        hits = {kind: [hit for concept, _, hit, _ in rows if concept == kind] for kind in PHOTO_CONCEPTS}
        report["photos"] = {
            "named": float(np.mean([row[2] for row in rows])),
            "n": len(rows),
            "concepts": {kind: {"named": sum(found), "photos": len(found)} for kind, found in hits.items()},
            "captions": rows,
        }
    return report


def make(layer: Path, profile: Profile, made: Mapping[str, Any], folder: CocoFolder | None) -> None:
    """Evaluate the layer as users get it (rounded, the decoder in float32) and write its .json and .md beside it."""
    report = {"made": made} | evaluate(load_model(profile, projection=layer), folder, scenes_per_kind=10)
    with writing(layer.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    write(layer.with_suffix(".md"), report, profile)


def write(path: Path, report: Mapping[str, Any], profile: Profile) -> None:
    """The card at `path` (.md) of the projection beside it, from its report (.json) and its log (.csv)."""
    layer, made, features = path.with_suffix(".safetensors"), report["made"], _features(profile.parts)
    if profile.parts.connector == "q-former":
        what, start = Q_FORMER.format(queries=N_QUERIES, features=features), DISTILLED.format(**made["distilled"])
    else:
        what, start = LINEAR.format(features=features, hidden=len(load_file(layer)["bias"])), RIDGE
    drawn, photos = report["scenes"], report.get("photos")
    rows, note = [], "No photographs were evaluated."
    if photos:
        rows.append(f"| held-out photographs, target fills 5-60 % | {photos['named']:.1%} | {photos['n']} |")
        rows += [f"| ... {name} | {c['named']} | {c['photos']} |" for name, c in photos["concepts"].items()]
        note = "Photographs are few: read the counts, not the percentages."
    log = list(csv.DictReader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    # the last row of each phase: the log's steps start anew with a phase
    last = [row for row, after in zip(log, [*log[1:], {"step": "0"}], strict=True) if int(after["step"]) == 0]
    tower, decoder = TOWERS[profile.parts.tower].wheel.licence, SMOLLM2_135M.licence
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    card = template.format(
        what=textwrap.fill(" ".join(what.split()), 120),
        start=start,
        profile=profile.name,
        licences=f"both {tower}" if tower == decoder else f"the tower {tower}, the language model {decoder}",
        examples=made["examples"],
        note=textwrap.fill(made.get("note", ""), 120),
        phases="\n".join(map(_phase, made["phases"])),
        name=path.stem,
        bytes=layer.stat().st_size,
        sha256=digest(layer),
        minutes=round(sum(float(row["seconds"]) for row in last) / 60),
        scenes=drawn,
        roles=" / ".join(f"{drawn['roles'][role]:.1%}" for role in ROLES),
        photo_rows="\n".join(rows),
        note_on_words=textwrap.fill(WORDS.format(**drawn), 120),
        photo_note=note,
        bad="\n".join(_weak(drawn["kinds"], photos)),
    )
    with writing(path) as temporary:
        temporary.write_text(card, encoding="utf-8")


def _features(parts: Model) -> str:
    """What the layer reads of the tower, in words."""
    tower, cells = TOWERS[parts.tower], parts.cells_per_token
    rows, columns = tower.grid
    if cells == 1:
        return f"the {tower.width} features of each of {tower.name}'s {rows} x {columns} cells"
    return (
        f"the {cells} x {tower.width} features of each {cells} neighbouring cells of a row of {tower.name}'s "
        f"{rows} x {columns} (so {rows * columns // cells} image tokens on {rows} x {columns // cells})"
    )


def _phase(phase: Mapping[str, Any]) -> str:
    given = [f"--{key.replace('_', '-')} {phase[key]}" for key in OPTIONS if phase.get(key) is not None]
    shares = ",".join(f"{source}={count}" for source, count in phase["shares"].items())
    flags = "".join(f" --{name}" for name in ("whiten", "average") if phase.get(name))
    counts = ", ".join(f"{count} of {source}" for source, count in phase.get("examples", {}).items())
    return f"* `{' '.join(given)} --shares {shares}{flags}`" + (f" (views: {counts})" if counts else "")


def _weak(kinds: Mapping[str, Any], photos: Mapping[str, Any] | None) -> list[str]:
    """Kinds of scenes that are missed most, objects that are named though absent, and photographs that are misread."""
    missed = sorted((k for k in kinds if kinds[k]["named"] < kinds[k]["scenes"]), key=lambda k: kinds[k]["named"])
    told = ", ".join(f"{k} ({kinds[k]['named']} of {kinds[k]['scenes']})" for k in missed) or "none"
    invented = ", ".join(k for k in kinds if kinds[k]["named_without"]) or "none"
    lines = [
        f"* Kinds missed at least once: {told}.",
        f"* Kinds named in a scene without them at least once: {invented}.",
        "* It names no numbers, and a colour now and then.",
    ]
    if photos:
        wrong = [(concept, caption) for concept, _, named, caption in photos["captions"] if not named]
        lines += ["* Photographs misread, for example:", *(f"  * {k}: “{caption}”" for k, caption in wrong[:8])]
    return lines
