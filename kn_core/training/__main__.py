"""Train what is between a frozen tower and a frozen decoder, as MiniGPT-4 (Zhu et al. 2023) and LiMBeR do.

    python -m kn_core.training --coco DIR [--profile embedded] [--steps 1500] [--out FOLDER]
    python -m kn_core.training --coco DIR --card     # evaluate the profile's layer again and write its card anew

Scenes are unlimited; photographs come from a COCO-format folder, those of `projections/held_out.json` excepted. A
linear layer starts from a ridge regression (`data.ridge`), a Q-Former from a trained linear layer (`distillation`).
Stopped at any point, the same command goes on from the last checkpoint and ends with the same numbers: every batch is
a function of (seed, step). Another command is refused.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from kn_core.fingerprint import digest
from kn_core.models import PROJECTIONS, QFormerMiniGPT4, load_model
from kn_core.models.minigpt4 import load_projection
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import load_profile
from kn_core.training import card, distillation
from kn_core.training.data import PHOTO_CONCEPTS, Bank, all_examples, make_bank
from kn_core.training.train import SHARES, Recipe, ResumeError, average_with, save_projection, train


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m kn_core.training", description=(__doc__ or "").split("\n")[0])
    add, precisions = parser.add_argument, ["float32", "bfloat16"]
    add("--profile", default="embedded")
    add("--coco", type=Path, help="COCO-format folder of photographs; without it, scenes only")
    add("--card", action="store_true", help="train nothing: write the card of the profile's layer anew")
    add("--out", type=Path, default=Path("_build/projection"), help="checkpoint, log, layer and its card")
    add("--bank", type=Path, default=Path("_build/bank"), help="where the features are kept")
    add("--start", type=Path, help="safetensors to go on from; else ridge regression, for a Q-Former distillation")
    add("--teacher", type=Path, help="safetensors of the layer that a Q-Former starts from; else the profile's linear")
    add("--scenes", type=int, default=90, help="scenes a kind; read when the bank is made")
    add("--views", type=int, default=5, help="views of a photograph; read when the bank is made")
    add("--pasted", type=int, default=3000, help="pasted pictures; read when the bank is made")
    add("--tower-dtype", choices=precisions, default="float32", help="what the tower multiplies in for the bank")
    add("--average", action="store_true", help="keep the mean of the start and what it became (Wortsman et al. 2022)")
    add("--whiten", action="store_true", help="train a linear layer on whitened inputs, where tower widths correlate")
    add("--steps", type=int, default=1500)
    add("--until", type=int, help="end at this step of the schedule")
    add("--seed", type=int, default=0, help="of the batches; the data follow from their own")
    add("--rate", type=float, default=1.5e-3, help="peak of the one-cycle schedule")
    add("--warm-up", type=float, default=0.1, help="share of the steps in which the rate rises")
    add("--shares", type=_shares, default=SHARES, help="of a batch, for example photo=4,pasted=2,scene=2")
    add("--every", type=int, default=200, help="steps between checkpoints, log rows and captions")
    add("--dtype", choices=precisions, default="float32", help="of the frozen decoder")
    options = parser.parse_args(arguments)
    if options.average and options.start is None:
        parser.error("--average needs the layer that the run starts from, --start LAYER.")
    profile = load_profile(options.profile)
    folder = CocoFolder(options.coco) if options.coco else None
    if options.card:
        layer = PROJECTIONS / f"{profile.parts.projection}.safetensors"
        card.make(layer, profile, _earlier(layer)[0], folder)
        return
    model = load_model(profile, projection=None)
    if options.whiten and not isinstance(model.projection, torch.nn.Linear):
        parser.error(f"--whiten is for linear layers; profile {profile.name!r} trains a Q-Former.")
    options.out.mkdir(parents=True, exist_ok=True)
    examples = all_examples(folder, options.scenes, options.views, options.pasted)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.tower_dtype == "bfloat16"):
        bank = make_bank(model, examples, options.bank)
    numbers = {kind: 3 if kind in PHOTO_CONCEPTS else 1 for kind in (*PHOTO_CONCEPTS, *list(scenes.KINDS)[::3])}
    validate = [sample for kind, n in numbers.items() for sample in scenes.samples(kind, n, 1)]
    validate += card.held_out_photos(folder) if folder is not None else []
    recipe = Recipe(**{each.name: getattr(options, each.name) for each in fields(Recipe)})
    parts, start = profile.parts, options.start
    try:
        if isinstance(model, QFormerMiniGPT4) and start is None:
            teacher = options.teacher or PROJECTIONS / f"{parts.tower}_{parts.decoder}.safetensors"
            start = distilled(model, bank, options.out, teacher, recipe.seed)
        model.decoder.to(getattr(torch, options.dtype))
        train(model, bank, options.out, recipe, validate, start)
    except ResumeError as error:
        parser.error(str(error))

    if options.average:
        average_with(model, options.start)
    layer = options.out / f"{parts.projection}.safetensors"
    save_projection(model, layer)
    counts = {source: int((bank.sources == source).sum()) for source in SHARES}
    told = {"dtype": options.dtype, "tower_dtype": options.tower_dtype, "average": options.average}
    made, log = _earlier(start)
    phases = [*made.get("phases", []), told | {"examples": counts} | asdict(recipe)]
    rows = (options.out / "log.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    layer.with_suffix(".csv").write_text("".join([rows[0], *log[1:], *rows[1:]]))  # one header
    card.make(layer, profile, made | {"phases": phases, "examples": counts}, folder)


def distilled(model: QFormerMiniGPT4, bank: Bank, out: Path, teacher: Path, seed: int) -> Path:
    """The Q-Former that learnt from the linear layer `teacher` (`distillation.distil`), in `out`; made once."""
    path = out / "distilled.safetensors"
    report = path.with_suffix(".json")
    told = {"teacher": digest(teacher), "steps": distillation.STEPS, "batch": distillation.BATCH, "seed": seed}
    if report.exists():  # written last
        found = _earlier(path)[0]["distilled"]
        if told.items() <= found.items():
            return path
        raise ResumeError(f"{path} was distilled otherwise ({found}). Delete it, or name another folder with --out.")
    layer = load_projection(teacher, model.tower.width, model.decoder.config.hidden_size)
    left = distillation.distil(model.projection, layer, bank, seed=seed)
    save_projection(model, path)
    path.with_suffix(".csv").write_text("")  # no captions were read yet
    report.write_text(json.dumps({"made": {"distilled": told | {"variance_left": left}, "phases": []}}, indent=1))
    return path


def _earlier(start: Path | None) -> tuple[dict[str, Any], list[str]]:
    """How the layer that a run starts from was made, and its log, so that the new layer's card tells both."""
    if start is None or not start.with_suffix(".json").exists():
        return {}, []
    log = start.with_suffix(".csv").read_text(encoding="utf-8").splitlines(keepends=True)
    return json.loads(start.with_suffix(".json").read_text(encoding="utf-8"))["made"], log


def _shares(text: str) -> dict[str, int]:
    """'photo=4,scene=2' -> {'photo': 4, 'scene': 2}."""
    return {name: int(count) for name, count in (part.split("=") for part in text.split(","))}


if __name__ == "__main__":
    main()
