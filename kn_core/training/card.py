"""What a trained projection gets right, measured, and its model card, in which no number is typed.

python -m kn_core.model_card --coco DIR     # evaluate the profile's projection again and write its card anew
"""

from __future__ import annotations

import argparse
import csv
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from kn_core.concepts import names
from kn_core.fingerprint import digest
from kn_core.models import PROJECTIONS, TOWERS, MiniGPT4, held_out_ids, load_model
from kn_core.models.qformer import N_QUERIES
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.sample import Sample
from kn_core.profile import Model, Profile, load_profile
from kn_core.training.data import PHOTO_CONCEPTS
from kn_core.weights.wheels import SMOLLM2_135M

TEMPLATE = """# {name}

{what}
Half precision, {bytes:,} bytes, sha256 `{sha256}`.

**Made by** `python -m kn_core.train_projection --profile {profile} --coco DIR` in {minutes} minutes (log:
`{name}.csv`), in phases of 8 captions a step, each from the weights of the one before, the first from
{start}:

{phases}

**Data.** {examples[scene]} views of drawn scenes (OpenMoji, CC BY-SA 4.0; namespace 0) with and without their main
object; {examples[photo]} views of photographs of MS COCO 2017 with human captions or template captions (annotations
CC BY 4.0, photographs under their Flickr licences; none is kept here); {examples[pasted]} pictures in which an
object cut out of one photograph is pasted into another. The photographs of `held_out.json` were in none of them.
{note}

**Licence** of these weights: MIT, as the code. They are of no use without the two networks ({licences}).

## What it gets right

Greedy captions of at most 24 tokens, in float32. 'Named' means that the caption names the target by its name,
plural or synonym.

| | named | of |
|---|---|---|
| scenes never trained on | {scene_named:.1%} | {scene_n} |
| the same scenes without the object | {scene_gone:.1%} | {scene_n} |
{photo_rows}

{photo_note}

## What it is bad at

{bad}
"""


LINEAR = """A linear layer from {features} to the {hidden} numbers of an input embedding of SmolLM2-135M-Instruct
(dequantized from Q4_1), trained with both networks frozen, as MiniGPT-4 and LiMBeR do it."""
RIDGE = """a ridge regression of the cells inside an object's mask on its word's embedding"""
Q_FORMER = """A Q-Former (BLIP-2's architecture, `kn_core.models.qformer`): {queries} learnt queries read {features} by
cross-attention, and a linear layer makes of each query an input embedding of SmolLM2-135M-Instruct (dequantized from
Q4_1). Trained with both networks frozen, as MiniGPT-4 and LiMBeR do it."""
DISTILLED = """one that learnt, without captions, the mean over a query's region of the tokens of the linear layer with
sha256 `{teacher}` ({steps} steps of {batch} pictures, {variance_left:.0%} of the variance left)"""


def held_out_photos(folder: CocoFolder) -> list[Sample]:
    """The held-out photographs, one sample a concept that fills 5-60 % of the frame."""
    held_out = held_out_ids()
    found = (sample for concept in PHOTO_CONCEPTS for sample in folder.samples(concept))
    return [sample for sample in found if sample.image_id in held_out and 0.05 <= sample.area_fraction <= 0.6]


def evaluate(
    model: MiniGPT4, folder: CocoFolder | None, scenes_per_kind: int, kinds: Sequence[str], seed: int = 1
) -> dict[str, dict[str, Any]]:
    """For the model card: share of targets named in clean scenes, in the same scenes without them, in photographs."""
    report: dict[str, dict[str, Any]] = {}
    per_kind, clean, gone = {}, [], []
    for kind in kinds:
        made = list(scenes.samples(kind, scenes_per_kind, seed))
        with_it = [names(caption, kind) for caption in model.caption([sample.image for sample in made])]
        without = [s.without for s in made if s.without is not None]
        without_it = [names(caption, kind) for caption in model.caption(without)]
        per_kind[kind] = {"named": sum(with_it), "named_without": sum(without_it), "scenes": len(made)}
        clean += with_it
        gone += without_it
    report["scenes"] = {
        "named": float(np.mean(clean)),
        "named_without": float(np.mean(gone)),
        "n": len(clean),
        "kinds": per_kind,
    }
    if folder is not None:
        photos = held_out_photos(folder)
        captions = model.caption([sample.image for sample in photos])
        rows = [(s.concept, s.image_id, names(c, s.concept), c) for s, c in zip(photos, captions, strict=True)]
        by_concept = {k: [hit for concept, _, hit, _ in rows if concept == k] for k in PHOTO_CONCEPTS}
        report["photos"] = {
            "named": float(np.mean([row[2] for row in rows])),
            "n": len(rows),
            "concepts": {k: {"named": sum(v), "photos": len(v)} for k, v in by_concept.items()},
            "captions": [list(row) for row in rows],
        }
    return report


def make(layer: Path, profile: Profile, made: Mapping[str, Any], folder: CocoFolder | None, n: int = 10) -> None:
    """Evaluate the layer as users get it (rounded, the decoder in float32) and write its .json and .md beside it."""
    report = {"made": made} | evaluate(load_model(profile, projection=layer), folder, n, list(scenes.KINDS))
    layer.with_suffix(".json").write_text(json.dumps(report, indent=1))
    write(layer.with_suffix(".md"), report, profile)


def write(path: Path, report: Mapping[str, Any], profile: Profile) -> None:
    """The card at `path` (.md) of the projection beside it, from `train_projection`'s report and its log."""
    layer = path.with_suffix(".safetensors")
    if profile.parts.connector == "q-former":
        what = Q_FORMER.format(queries=N_QUERIES, features=_features(profile.parts))
        start = DISTILLED.format(**report["made"]["distilled"])
    else:
        what, start = LINEAR.format(features=_features(profile.parts), hidden=_hidden(layer)), RIDGE
    scenes, photos = report["scenes"], report.get("photos")
    rows, note = [], "No photographs were evaluated."
    if photos:
        rows.append(f"| held-out photographs, target fills 5-60 % | {photos['named']:.1%} | {photos['n']} |")
        rows += [f"| ... {name} | {c['named']} | {c['photos']} |" for name, c in photos["concepts"].items()]
        note = "Photographs are few: read the counts, not the percentages."
    log = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    path.write_text(
        TEMPLATE.format(
            what=textwrap.fill(" ".join(what.split()), 120),
            start=start,
            profile=profile.name,
            licences=_licences(profile.parts),
            examples=report["made"]["examples"],
            note=textwrap.fill(report["made"].get("note", ""), 120),
            phases="\n".join(map(_phase, report["made"]["phases"])),
            name=path.stem,
            bytes=layer.stat().st_size,
            sha256=digest(layer),
            minutes=round(sum(float(row["seconds"]) for row in _last_rows(log)) / 60),
            scene_named=scenes["named"],
            scene_gone=scenes["named_without"],
            scene_n=scenes["n"],
            photo_rows="\n".join(rows),
            photo_note=note,
            bad="\n".join(_weak(scenes, photos)),
        )
    )


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


def _hidden(layer: Path) -> int:
    with safe_open(layer, framework="pt") as file:
        return int(file.get_slice("bias").get_shape()[0])


def _licences(parts: Model) -> str:
    tower, decoder = TOWERS[parts.tower].wheel.licence, SMOLLM2_135M.licence
    return f"both {tower}" if tower == decoder else f"the tower {tower}, the language model {decoder}"


def _phase(phase: Mapping[str, Any]) -> str:
    options = ("steps", "until", "seed", "rate", "warm_up", "dtype", "tower_dtype")
    given = [f"--{key.replace('_', '-')} {phase[key]}" for key in options if phase.get(key) is not None]
    shares = ",".join(f"{source}={count}" for source, count in phase["shares"].items())
    flags = "".join(f" --{name}" for name in ("whiten", "average") if phase.get(name))
    counts = ", ".join(f"{count} of {source}" for source, count in phase.get("examples", {}).items())
    return f"* `{' '.join(given)} --shares {shares}{flags}`" + (f" (views: {counts})" if counts else "")


def _last_rows(log: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The last row of each phase: the log's steps start anew with a phase."""
    return [row for row, after in zip(log, [*log[1:], None], strict=True) if after is None or int(after["step"]) == 0]


def _weak(scenes: Mapping[str, Any], photos: Mapping[str, Any] | None) -> list[str]:
    """Kinds of scenes that are missed most, objects that are named though absent, and photographs that are misread."""
    kinds = scenes["kinds"]
    missed = sorted((k for k in kinds if kinds[k]["named"] < kinds[k]["scenes"]), key=lambda k: kinds[k]["named"])
    invented = [k for k in kinds if kinds[k]["named_without"]]
    lines = [
        "* Kinds missed at least once: "
        + (", ".join(f"{k} ({kinds[k]['named']} of {kinds[k]['scenes']})" for k in missed) or "none")
        + ".",
        "* Kinds named in a scene without them at least once: " + (", ".join(invented) or "none") + ".",
        "* It names objects, hardly ever numbers, colours or who does what; drawn settings are named by habit.",
    ]
    if photos:
        wrong = [(concept, caption) for concept, _, named, caption in photos["captions"] if not named]
        lines.append("* Photographs misread, for example:")
        lines += [f"  * {concept}: “{caption}”" for concept, caption in wrong[:8]]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m kn_core.model_card", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--coco", type=Path, help="COCO-format folder with the held-out photographs")
    options = parser.parse_args(arguments)
    profile = load_profile(options.profile)
    layer = PROJECTIONS / f"{profile.parts.projection}.safetensors"
    made = json.loads(layer.with_suffix(".json").read_text())["made"]
    make(layer, profile, made, CocoFolder(options.coco) if options.coco else None)


if __name__ == "__main__":
    main()
