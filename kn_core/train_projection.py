"""Train the linear layer between a frozen tower and a frozen decoder, as MiniGPT-4 (Zhu et al. 2023) and LiMBeR do.

    python -m kn_core.train_projection --coco DIR [--steps 3000] [--out FOLDER]

Scenes are unlimited; photographs come from a COCO-format folder, those of `projections/held_out.json` excepted. The layer starts
from a ridge regression (`training_data.ridge`). Stopped at any point, the same command goes on from the last checkpoint and ends
with the same numbers: every batch is a function of (seed, step).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from kn_core import scenes
from kn_core.coco import CocoFolder
from kn_core.concepts import names, words
from kn_core.models.minigpt4 import MiniGPT4
from kn_core.sample import Sample
from kn_core.training_data import (
    PHOTO_CONCEPTS,
    Bank,
    held_out_ids,
    make_bank,
    pasted_examples,
    photo_examples,
    ridge,
    scene_examples,
)

SHARES = {"photo": 4, "pasted": 2, "scene": 2}  # examples of each source in a batch
NOUN_WEIGHT = 3.0  # loss weight of tokens that name an object, against 1 for every other token
PEAK_RATE = 1.5e-3


def batch(model: MiniGPT4, bank: Bank, seed: int, step: int) -> tuple[Tensor, list[str]]:
    """Features (B, P, width) and one caption each, a function of (seed, step) alone."""
    rng = np.random.default_rng([seed, 3, step])
    chosen: list[int] = []
    for source, count in SHARES.items():
        rows = np.flatnonzero(bank.sources == source)
        if len(rows):
            chances = bank.weights[rows] / bank.weights[rows].sum()
            chosen += [int(row) for row in rng.choice(rows, size=count, replace=False, p=chances)]
    captions = [bank.captions[row][rng.integers(len(bank.captions[row]))] for row in chosen]
    return torch.from_numpy(np.stack([bank.features[row] for row in chosen]).astype(np.float32)), captions


def token_weights(model: MiniGPT4, caption: str, nouns: frozenset[str]) -> list[float]:
    """One weight a caption token, and one for the end token: `NOUN_WEIGHT` where a token starts or continues a known noun."""
    weights = []
    for start, end in model.encode(caption)[1]:
        left, right = start, end
        while left > 0 and caption[left - 1].isalpha() and caption[left].isalpha():
            left -= 1
        while right < len(caption) and caption[right].isalpha():
            right += 1
        weights.append(NOUN_WEIGHT if caption[left:right].strip().lower() in nouns else 1.0)
    return [*weights, 1.0]


def caption_loss(model: MiniGPT4, features: Tensor, captions: Sequence[str], nouns: frozenset[str]) -> Tensor:
    """Weighted mean cross-entropy of the captions' tokens and of the end token."""
    prompts = model.prompts_from_features(features)
    embeds = model.teacher_forced(prompts, captions)  # (B, T + C, H)
    hidden = model.decoder.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    rows, targets, weights = [], [], []
    for i, caption in enumerate(captions):
        ids = [*model.encode(caption)[0], model.end]
        rows.append(hidden[i, model.prompt_length - 1 : model.prompt_length - 1 + len(ids)])
        targets += ids
        weights += token_weights(model, caption, nouns)
    logits = model.decoder.lm_head(torch.cat(rows)).float()  # (all tokens, V)
    losses = F.cross_entropy(logits, torch.tensor(targets), reduction="none")
    weight = torch.tensor(weights)
    return (losses * weight).sum() / weight.sum()


def train(
    model: MiniGPT4, bank: Bank, out: Path, steps: int, seed: int, validate: Sequence[Sample], every: int = 250
) -> None:
    """Adam on a one-cycle rate; checkpoint, log row and validation captions every `every` steps, all under `out`."""
    layer = model.projection.requires_grad_(True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    nouns = frozenset(word for name in (*bank.vocabulary, *scenes.KINDS) for word in words(name) if " " not in word)
    checkpoint, first, spent = out / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        layer.load_state_dict(saved["layer"]), optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first, spent = saved["step"], saved["seconds"]
        print(f"going on from step {first} of {steps}")
    else:
        weight, bias = ridge(model, bank)
        layer.weight.data.copy_(weight), layer.bias.data.copy_(bias)
    began, running = time.time() - spent, 0.0
    log = _Log(out / "log.csv", first)
    for step in range(first, steps):
        if step % every == 0:
            log.write(
                step, running / every, schedule.get_last_lr()[0], time.time() - began, *_accuracy(model, validate)
            )
            running = 0.0
        features, captions = batch(model, bank, seed, step)
        loss = caption_loss(model, features, captions, nouns)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step(), schedule.step()
        running += loss.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps}  loss {loss.item():.3f}  {time.time() - began:.0f} s", flush=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            state = {
                "layer": layer.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            torch.save({**state, "step": step + 1, "seconds": time.time() - began}, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)
    log.write(steps, running / every, 0.0, time.time() - began, *_accuracy(model, validate))


class _Log:
    """The training log; rows past the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        header = ["step", "loss", "rate", "seconds", "scenes_named", "photos_named"]
        rows = list(csv.reader(path.open())) if path.exists() else [header]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if int(row[0]) < first)])

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
    named: dict[bool, list[bool]] = {True: [], False: []}
    for i, (sample, caption) in enumerate(zip(validate, captions, strict=True)):
        named[sample.without is not None].append(names(caption, sample.concept))
        if i % 7 == 0:
            print(f"    {sample.concept:9s} {caption}")
    scenes_named, photos_named = (float(np.mean(named[kind] or [np.nan])) for kind in (True, False))
    return scenes_named, photos_named


def held_out_photos(folder: CocoFolder) -> list[Sample]:
    """The held-out photographs, one sample a concept that fills 5-60 % of the frame."""
    held_out = held_out_ids()
    found = (sample for concept in PHOTO_CONCEPTS for sample in folder.samples(concept))
    return [sample for sample in found if sample.image_id in held_out and 0.05 <= sample.area_fraction <= 0.6]


def evaluate(
    model: MiniGPT4, folder: CocoFolder | None, scenes_per_kind: int, kinds: Sequence[str], seed: int = 1
) -> dict[str, object]:
    """What the model card reports: share of targets named in clean scenes, in the same scenes without them, in photographs."""
    report: dict[str, object] = {}
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


def save_projection(model: MiniGPT4, path: Path) -> str:
    """Half-precision safetensors, written whole or not at all. Returns its sha256."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in model.projection.state_dict().items()}
    save_file(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    from kn_core.models import load_model
    from kn_core.profile import load_profile

    parser = argparse.ArgumentParser(
        prog="python -m kn_core.train_projection", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--coco", type=Path, help="COCO-format folder of photographs; without it, scenes only")
    parser.add_argument("--out", type=Path, default=Path("_build/projection"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--scenes-per-kind", type=int, default=40)
    parser.add_argument("--views", type=int, default=5, help="views of each photograph")
    parser.add_argument("--pasted", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the frozen decoder")
    parser.add_argument(
        "--every", type=int, default=250, help="steps between checkpoints, log rows and validation captions"
    )
    parser.add_argument("--evaluate-scenes", type=int, default=4, help="scenes of each kind in the final evaluation")
    parser.add_argument(
        "--evaluate-only", action="store_true", help="evaluate the profile's projection and write evaluation.json"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model(load_profile(options.profile), projection=None if not options.evaluate_only else "profile")
    folder = CocoFolder(options.coco) if options.coco else None
    if not options.evaluate_only:
        sources = [scene_examples(options.scenes_per_kind, options.seed)]
        if folder is not None:
            sources += [
                photo_examples(folder, held_out_ids(), options.views, options.seed),
                pasted_examples(folder, held_out_ids(), options.pasted, options.seed),
            ]
        bank = make_bank(model, sources, options.out / "bank")
        validate = [sample for kind in PHOTO_CONCEPTS for sample in scenes.samples(kind, 3, 1)]
        validate += held_out_photos(folder) if folder is not None else []
        model.decoder.to(getattr(torch, options.dtype))
        train(model, bank, options.out, options.steps, options.seed, validate, options.every)
        model.decoder.float()
        print("sha256", save_projection(model, options.out / "projection.safetensors"))
    report = evaluate(model, folder, options.evaluate_scenes, list(scenes.KINDS))
    (options.out / "evaluation.json").write_text(json.dumps(report, indent=1))
    print(
        json.dumps(
            {key: {k: v for k, v in value.items() if k != "captions"} for key, value in report.items()}, indent=1
        )
    )


if __name__ == "__main__":
    main()
