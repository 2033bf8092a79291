"""Train what is between a frozen tower and a frozen decoder, as MiniGPT-4 (Zhu et al. 2023) and LiMBeR do.

    python -m kn_core.train_projection --coco DIR [--profile embedded] [--steps 1500] [--out FOLDER]

Scenes are unlimited; photographs come from a COCO-format folder, those of `projections/held_out.json` excepted. A
linear layer starts from a ridge regression (`training_data.ridge`), a Q-Former from a trained linear layer
(`distillation`). Stopped at any point, the same command goes on from the last checkpoint and ends with the same
numbers: every batch is a function of (seed, step). Another command is refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import parametrize

from kn_core.concepts import names, words
from kn_core.fingerprint import digest, writing
from kn_core.models import PROJECTIONS, MiniGPT4, QFormerMiniGPT4, load_model
from kn_core.models.minigpt4 import load_projection
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.sample import Sample
from kn_core.profile import load_profile
from kn_core.training import card, distillation
from kn_core.training.data import PHOTO_CONCEPTS, Bank, all_examples, make_bank, ridge
from kn_core.training.loss import caption_loss
from kn_core.training.whitening import whiten

SHARES = {"photo": 4, "pasted": 2, "scene": 2}  # examples of each source in a batch, unless a recipe says otherwise


class ResumeError(ValueError):
    """A checkpoint is of another run than the one that is asked for; the message says in what and what to do."""


def batch(bank: Bank, shares: Mapping[str, int], seed: int, step: int) -> tuple[Tensor, list[str]]:
    """Features (B, P, width) and one caption each, a function of (seed, step) alone."""
    rng = np.random.default_rng([seed, 3, step])
    chosen: list[int] = []
    for source, count in shares.items():
        rows = np.flatnonzero(bank.sources == source)
        if len(rows):
            chances = bank.weights[rows] / bank.weights[rows].sum()
            chosen += [int(row) for row in rng.choice(rows, size=count, replace=False, p=chances)]
    captions = [bank.captions[row][rng.integers(len(bank.captions[row]))] for row in chosen]
    return torch.from_numpy(np.stack([bank.features[row] for row in chosen]).astype(np.float32)), captions


@dataclass(frozen=True)
class Recipe:
    """What decides the trained layer, beside the data. A run may start from the layer of an earlier one."""

    steps: int
    seed: int = 0
    rate: float = 1.5e-3  # peak of the one-cycle schedule
    warm_up: float = 0.1  # share of the steps in which the rate rises
    shares: Mapping[str, int] = field(default_factory=lambda: dict(SHARES))
    whiten: bool = False  # train a linear layer in the coordinates of `whitening.Whitened`
    until: int | None = None  # end at this step of the schedule
    every: int = 200  # steps between checkpoints, log rows and validation captions


def train(
    model: MiniGPT4, bank: Bank, out: Path, recipe: Recipe, validate: Sequence[Sample], start: Path | None = None
) -> None:
    """Adam on a one-cycle rate; checkpoints, log rows and validation captions go to `out`.

    The layer starts from that of `start`, a projection's safetensors, or from the ridge regression. Where `out` has a
    checkpoint, the run goes on from it; raises ResumeError where recipe, bank, start or precision were others.
    """
    layer = model.projection.requires_grad_(True)
    began, first, checkpoint = time.time(), 0, out / "checkpoint.pt"
    run, saved = _identity(model, bank, recipe, start), None
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        _check_same(run, saved.get("run", {}), checkpoint)
    elif start is not None:
        layer.load_state_dict({name: tensor.float() for name, tensor in load_file(start).items()})
    else:
        weight, bias = ridge(model, bank)
        layer.load_state_dict({"weight": weight, "bias": bias})
    if recipe.whiten:
        whiten(layer, bank)
    steps, every = recipe.steps, recipe.every
    optimizer = torch.optim.Adam(layer.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=recipe.warm_up)
    nouns = frozenset(word for name in (*bank.vocabulary, *scenes.KINDS) for word in words(name) if " " not in word)
    if saved:
        layer.load_state_dict(saved["layer"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        began, first = began - saved["seconds"], saved["step"]
        log = _Log(out / "log.csv", last=first)
        print(f"going on from step {first} of {steps}")
    else:
        log = _Log(out / "log.csv", last=-1)
        rate = float(schedule.get_last_lr()[0])
        log.write(0, math.nan, rate, time.time() - began, *_accuracy(model, validate))
    losses: list[float] = []
    last = min(steps, recipe.until or steps)
    for step in range(first, last):
        features, captions = batch(bank, recipe.shares, recipe.seed, step)
        loss = caption_loss(model, features, captions, nouns)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {time.time() - began:.0f} s", flush=True)
        if (step + 1) % every == 0 or step + 1 == last:
            seconds = time.time() - began
            log.write(step + 1, float(np.mean(losses)), rate, seconds, *_accuracy(model, validate))
            losses.clear()
            state = {
                "run": run,
                "layer": layer.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step + 1,
                "seconds": time.time() - began,
            }
            with writing(checkpoint) as temporary:
                torch.save(state, temporary)
    if recipe.whiten:
        parametrize.remove_parametrizations(layer, "weight")


def _identity(model: MiniGPT4, bank: Bank, recipe: Recipe, start: Path | None) -> dict[str, Any]:
    """What a run's numbers follow from, as its checkpoint keeps it: the recipe, the start, the precision, the bank."""
    return asdict(recipe) | {
        "dtype": str(model.unembed.dtype).removeprefix("torch."),
        "start": digest(start) if start else "ridge",
        "examples": dict(Counter(bank.sources.tolist())),
    }


def _check_same(run: Mapping[str, Any], saved: Mapping[str, Any], checkpoint: Path) -> None:
    advice = f"Name another folder with --out, or delete {checkpoint} to start anew."
    if not saved:
        raise ResumeError(f"{checkpoint} does not say which recipe made it. {advice}")
    other = [f"{key} {saved.get(key)} (asked for: {run[key]})" for key in run if saved.get(key) != run[key]]
    if other:
        raise ResumeError(f"{checkpoint} is of another run: {', '.join(other)}. {advice}")


class _Log:
    """The training log. Rows past step `last`, the checkpoint that a run goes on from, are dropped."""

    def __init__(self, path: Path, last: int) -> None:
        self.path = path
        header = ["step", "loss", "rate", "seconds", "scenes_named", "photos_named"]
        rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else [header]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if int(row[0]) <= last)])

    def write(
        self, step: int, loss: float, rate: float, seconds: float, scenes_named: float, photos_named: float
    ) -> None:
        row = [step, f"{loss:.4f}", f"{rate:.2e}", f"{seconds:.0f}", f"{scenes_named:.3f}", f"{photos_named:.3f}"]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        print("  ".join(map(str, row)), flush=True)


def _accuracy(model: MiniGPT4, validate: Sequence[Sample]) -> tuple[float, float]:
    """Share of scenes and of photographs whose caption names the target; a few captions are printed."""
    captions = model.caption([sample.image for sample in validate])
    named: dict[bool, list[float]] = {True: [], False: []}
    for i, (sample, caption) in enumerate(zip(validate, captions, strict=True)):
        named[sample.without is not None].append(names(caption, sample.concept))
        if i % 7 == 0:
            print(f"    {sample.concept:9s} {caption}")
    scenes_named, photos_named = (float(np.mean(named[kind] or [np.nan])) for kind in (True, False))
    return scenes_named, photos_named


def average_with(model: MiniGPT4, start: Path) -> None:
    """Put the mean of the trained layer and of that which it started from in its place.

    What a second phase on other data gains is kept, and less is lost of what it forgets (Wortsman et al. 2022).
    """
    before = load_file(start)
    for name, tensor in model.projection.state_dict().items():
        tensor.copy_((tensor + before[name].float()) / 2)


def save_projection(model: MiniGPT4, path: Path) -> None:
    """Half-precision safetensors, written whole or not at all."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.projection.state_dict().items()}
    with writing(path) as temporary:
        save_file(state, temporary)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m kn_core.train_projection", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--coco", type=Path, help="COCO-format folder of photographs; without it, scenes only")
    parser.add_argument(
        "--out", type=Path, default=Path("_build/projection"), help="checkpoint, log, layer and its card"
    )
    parser.add_argument("--bank", type=Path, default=Path("_build/bank"), help="where the features are kept")
    parser.add_argument(
        "--start", type=Path, help="safetensors to go on from; else ridge regression, for a Q-Former distillation"
    )
    parser.add_argument(
        "--teacher", type=Path, help="safetensors of the linear layer that a Q-Former starts from; else the profile's"
    )
    parser.add_argument("--scenes", type=int, default=90, help="scenes a kind; read when the bank is made")
    parser.add_argument("--views", type=int, default=5, help="views of a photograph; read when the bank is made")
    parser.add_argument("--pasted", type=int, default=3000, help="pasted pictures; read when the bank is made")
    parser.add_argument(
        "--tower-dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="what the tower multiplies in while the bank is made; it stays in float32 elsewhere",
    )
    parser.add_argument(
        "--average", action="store_true", help="keep the mean of the start and what it became (Wortsman et al. 2022)"
    )
    parser.add_argument(
        "--whiten",
        action="store_true",
        help="train a linear layer on whitened inputs, for towers whose widths correlate",
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--until", type=int, help="end at this step of the schedule")
    parser.add_argument("--seed", type=int, default=0, help="of the batches; the data follow from their own")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--warm-up", type=float, default=0.1, help="share of the steps in which the rate rises")
    parser.add_argument(
        "--shares", type=_shares, default=SHARES, help="of a batch, for example photo=4,pasted=2,scene=2"
    )
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints, log rows and captions")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the frozen decoder")
    options = parser.parse_args(arguments)
    if options.average and options.start is None:
        parser.error("--average needs the layer that the run starts from, --start LAYER.")
    profile = load_profile(options.profile)
    model = load_model(profile, projection=None)
    if options.whiten and not isinstance(model.projection, torch.nn.Linear):
        parser.error(f"--whiten is for linear layers; profile {profile.name!r} trains a Q-Former.")
    options.out.mkdir(parents=True, exist_ok=True)
    folder = CocoFolder(options.coco) if options.coco else None
    examples = all_examples(folder, options.scenes, options.views, options.pasted)
    with torch.autocast("cpu", torch.bfloat16, enabled=options.tower_dtype == "bfloat16"):
        bank = make_bank(model, examples, options.bank)
    validate = [sample for kind in PHOTO_CONCEPTS for sample in scenes.samples(kind, 3, 1)]
    validate += card.held_out_photos(folder) if folder is not None else []
    recipe = Recipe(**{key: getattr(options, key) for key in Recipe.__dataclass_fields__})
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
    made = {
        **made,
        "phases": [*made.get("phases", []), told | {"examples": counts} | asdict(recipe)],
        "examples": counts,
    }
    layer.with_suffix(".csv").write_text("".join([*log, *_lines(options.out / "log.csv")[bool(log) :]]))
    card.make(layer, profile, made, folder)


def distilled(model: QFormerMiniGPT4, bank: Bank, out: Path, teacher: Path, seed: int) -> Path:
    """The Q-Former that learnt from the linear layer `teacher` (`distillation.distil`), in `out`; made once."""
    path = out / "distilled.safetensors"
    report = path.with_suffix(".json")
    told = {"teacher": digest(teacher), "steps": distillation.STEPS, "batch": distillation.BATCH, "seed": seed}
    if report.exists():  # written last
        found = json.loads(report.read_text())["made"]["distilled"]
        if {key: found[key] for key in told} != told:
            raise ResumeError(
                f"{path} was distilled otherwise ({found}). Delete it, or name another folder with --out."
            )
        return path
    layer = load_projection(teacher, model.tower.width, model.decoder.config.hidden_size)
    left = distillation.distil(model.projection, layer, bank, seed=seed)
    save_projection(model, path)
    path.with_suffix(".csv").write_text("")  # no captions were read yet
    report.write_text(json.dumps({"made": {"distilled": told | {"variance_left": left}, "phases": []}}, indent=1))
    return path


def _earlier(start: Path | None) -> tuple[dict[str, Any], list[str]]:
    """How the layer that a run starts from was made, and its log, so that the new layer's card tells both."""
    report = start.with_suffix(".json") if start else None
    if start is None or report is None or not report.exists():
        return {}, []
    made: dict[str, Any] = json.loads(report.read_text())["made"]
    return made, _lines(start.with_suffix(".csv"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def _shares(text: str) -> dict[str, int]:
    """'photo=4,scene=2' -> {'photo': 4, 'scene': 2}."""
    return {name: int(count) for name, count in (part.split("=") for part in text.split(","))}


if __name__ == "__main__":
    main()
