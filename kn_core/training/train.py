"""The training run: batches that follow from (seed, step), Adam on a one-cycle rate, a checkpoint to go on from."""

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.utils import parametrize

from kn_core.concepts import names, words
from kn_core.fingerprint import digest, writing
from kn_core.models import MiniGPT4
from kn_core.pictures import scenes
from kn_core.pictures.sample import Sample
from kn_core.training.data import Bank, ridge
from kn_core.training.loss import caption_loss
from kn_core.training.score import SCORES, means, score
from kn_core.training.whitening import whiten

SHARES = {"photo": 4, "pasted": 2, "scene": 2}  # examples of each source in a batch, unless a recipe says otherwise
COLUMNS = ["step", "loss", "rate", "seconds", "scenes_named", "photos_named", "scenes_named_without"]  # of the log
COLUMNS += ["setting", "companion", "true_words", "false_words"]


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
            chosen += rng.choice(rows, size=count, replace=False, p=chances).tolist()
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
    began, first, saved, checkpoint = time.time(), 0, None, out / "checkpoint.pt"
    run = asdict(recipe) | {  # what the numbers follow from
        "dtype": str(model.unembed.dtype).removeprefix("torch."),
        "start": digest(start) if start else "ridge",
        "examples": dict(Counter(bank.sources.tolist())),
    }
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        advice, before = f"Name another folder with --out, or delete {checkpoint} to start anew.", saved.get("run")
        if not before:
            raise ResumeError(f"{checkpoint} does not say which recipe made it. {advice}")
        if other := [f"{key} {before.get(key)} (asked for: {run[key]})" for key in run if before.get(key) != run[key]]:
            raise ResumeError(f"{checkpoint} is of another run: {', '.join(other)}. {advice}")
    elif start is not None:
        layer.load_state_dict({name: tensor.float() for name, tensor in load_file(start).items()})
    else:
        layer.load_state_dict(dict(zip(("weight", "bias"), ridge(model, bank), strict=True)))
    if recipe.whiten:
        whiten(layer, bank)
    steps = recipe.steps
    optimizer = torch.optim.Adam(layer.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=recipe.warm_up)
    named = (*bank.vocabulary, *scenes.KINDS, *(word for place in scenes.SETTINGS.values() for word in place.telling))
    nouns = frozenset(word for name in named for word in words(name) if " " not in word)
    if saved:
        layer.load_state_dict(saved["layer"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        began, first = began - saved["seconds"], saved["step"]
        print(f"going on from step {first} of {steps}")
    rows = log_until(out / "log.csv", first) if saved else [COLUMNS]

    def report(step: int, loss: float, rate: float) -> None:
        row = [str(step), f"{loss:.4f}", f"{rate:.2e}", f"{time.time() - began:.0f}"]
        rows.append(row + [f"{share:.3f}" for share in _validation(model, validate)])
        print("  ".join(rows[-1]), flush=True)
        with writing(out / "log.csv") as temporary:
            temporary.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")

    if not saved:
        report(0, math.nan, float(schedule.get_last_lr()[0]))
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
        if (step + 1) % recipe.every == 0 or step + 1 == last:
            report(step + 1, float(np.mean(losses)), rate)
            losses.clear()
            state = {"run": run, "step": step + 1, "seconds": time.time() - began}
            for name, part in (("layer", layer), ("optimizer", optimizer), ("schedule", schedule)):
                state[name] = part.state_dict()
            torch.save(state, packed := io.BytesIO())
            with writing(checkpoint) as temporary:
                temporary.write_bytes(packed.getvalue())  # a full disk is an OSError; torch's is none
    if recipe.whiten:
        parametrize.remove_parametrizations(layer, "weight")


def log_until(path: Path, step: int) -> list[list[str]]:
    """The header and the rows of a log up to the step of the checkpoint that a run goes on from."""
    header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    return [header, *(row for row in rows if int(row[0]) <= step)]


def _validation(model: MiniGPT4, validate: Sequence[Sample]) -> list[float]:
    """The log's columns after the first four: shares, and content words a caption. A few captions are printed."""
    told = list(zip(validate, model.caption([sample.image for sample in validate]), strict=True))
    for sample, caption in told[::7]:
        print(f"    {sample.concept:9s} {caption}")
    gone = [(sample, sample.without) for sample in validate if sample.without is not None]
    left = zip(gone, model.caption([picture for _, picture in gone]), strict=True)
    found = means([score(sample, caption) for sample, caption in told if sample.setting])
    return [
        _mean([names(caption, sample.concept) for sample, caption in told if sample.without is not None]),
        _mean([names(caption, sample.concept) for sample, caption in told if sample.without is None]),
        _mean([names(caption, sample.concept) for (sample, _), caption in left]),
        *(found[key] for key in SCORES[1:]),
    ]


def _mean(hits: Sequence[float]) -> float:
    return float(np.mean(hits or [np.nan]))


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
        temporary.write_bytes(save(state))
