"""One training run from the command line: features, batches, the layer, its log and its card."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

import torch

from kn_core.fingerprint import digest, writing
from kn_core.models import PROJECTIONS, QFormerMiniGPT4, load_model
from kn_core.models.minigpt4 import load_projection
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import load_profile
from kn_core.training import card, distillation
from kn_core.training.data import PHOTO_CONCEPTS, Bank, all_examples, make_bank
from kn_core.training.train import SHARES, Recipe, ResumeError, average_with, save_projection, train


def run(options: argparse.Namespace, refuse: Callable[[str], NoReturn]) -> None:
    """What the command line asks for: bank, training, layer and card; what contradicts itself is refused."""
    options.shares = options.shares or SHARES
    if options.average and options.start is None:
        refuse("--average needs the layer that the run starts from, --start LAYER.")
    profile = load_profile(options.profile)
    folder = CocoFolder(options.coco) if options.coco else None
    if options.card:
        layer = PROJECTIONS / f"{profile.parts.projection}.safetensors"
        card.make(layer, profile, _earlier(layer)[0], folder)
        return
    model = load_model(profile, projection=None)
    if options.whiten and not isinstance(model.projection, torch.nn.Linear):
        refuse(f"--whiten is for linear layers; profile {profile.name!r} trains a Q-Former.")
    options.out.mkdir(parents=True, exist_ok=True)
    examples = all_examples(folder, options.scenes, options.views, options.pasted)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.tower_dtype == "bfloat16"):
        bank = make_bank(model, examples, options.bank)
    numbers = {kind: 3 if kind in PHOTO_CONCEPTS else 1 for kind in (*PHOTO_CONCEPTS, *list(scenes.KINDS)[::3])}
    validate = [sample for kind, n in numbers.items() for sample in scenes.samples(kind, n, 1)]
    validate += card.held_out_photos(folder) if folder is not None else []
    recipe = Recipe(**{each.name: getattr(options, each.name) for each in fields(Recipe)})
    parts, start = profile.parts, options.start
    if isinstance(model, QFormerMiniGPT4) and start is None:
        teacher = options.teacher or PROJECTIONS / f"{parts.tower}_{parts.decoder}.safetensors"
        start = distilled(model, bank, options.out, teacher, recipe.seed)
    model.decoder.to(getattr(torch, options.dtype))
    train(model, bank, options.out, recipe, validate, start)
    if options.average:
        average_with(model, options.start)
    layer = options.out / f"{parts.projection}.safetensors"
    save_projection(model, layer)
    counts = {source: int((bank.sources == source).sum()) for source in SHARES}
    told = {"dtype": options.dtype, "tower_dtype": options.tower_dtype, "average": options.average}
    made, log = _earlier(start)
    phases = [*made.get("phases", []), told | {"examples": counts} | asdict(recipe)]
    rows = (options.out / "log.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    with writing(layer.with_suffix(".csv")) as temporary:
        temporary.write_text("".join([rows[0], *log[1:], *rows[1:]]))  # one header
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
    with writing(report) as temporary:
        temporary.write_text(
            json.dumps({"made": {"distilled": told | {"variance_left": left}, "phases": []}}, indent=1)
        )
    return path


def _earlier(start: Path | None) -> tuple[dict[str, Any], list[str]]:
    """How the layer that a run starts from was made, and its log, so that the new layer's card tells both."""
    if start is None or not start.with_suffix(".json").exists():
        return {}, []
    log = start.with_suffix(".csv").read_text(encoding="utf-8").splitlines(keepends=True)
    return json.loads(start.with_suffix(".json").read_text(encoding="utf-8"))["made"], log
