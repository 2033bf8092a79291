"""What the paper's setting takes on an accelerator: its model at full size, with random weights, in under 8 minutes.

    python benchmarks/accelerator.py                                 # a CUDA device of 24 GB, and this package
    python benchmarks/accelerator.py --keep benchmarks/results.csv   # and keep what was measured, for the book's page
    python benchmarks/accelerator.py --device cpu --small            # the same on a tiny shape: does it run

A line of JSON a figure, as soon as it is known: a run that is cut off keeps what it has, and a part that fails, for
want of memory say, takes no other's figures with it. First, whether a tiny model gives on the device what it gives on
the processor; then EVA ViT-g, 64 image tokens and Llama-2-7B in half precision, created on the device (`random_model`).
How long a pass takes does not depend on weights and pictures. Ends with 1 where a part failed or a check was not met.
"""

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from figures import Device, Figures, operations
from identify import against_three_forwards, ratio
from random_model import SPECIAL, Shape, make, paper, said, small

from kn_core.method import identification, perturbation
from kn_core.method.capture import Capture, Target, capture
from kn_core.method.interventions import Setting
from kn_core.method.perturbation import Picture, Trial
from kn_core.method.rivals import integrated_gradients
from kn_core.method.two_stages import NeuronSet
from kn_core.models import MiniGPT4, memory
from kn_core.models.hooks import descend, intervene, record, record_slopes
from kn_core.profile import load_profile

BATCHES = (1, 8, 32)
# Largest error over the largest number, as in tests/kn_core/models/test_precision.py: 8 and 11 bits in every layer.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.02}


@dataclass(frozen=True)
class Subject:
    """A pair of pictures, a caption, and the word in its middle."""

    image: np.ndarray
    without: np.ndarray
    caption: str
    target: Target

    @classmethod
    def of(cls, shape: Shape) -> "Subject":
        image, without = np.random.default_rng(0).integers(0, 256, (2, 375, 500, 3), dtype=np.uint8)
        words, middle = said(shape.written), shape.written // 2
        return cls(image, without, " ".join(words), Target(words[middle], len(SPECIAL) + middle, middle))

    def captured(self, model: MiniGPT4) -> Capture:
        return capture(model, self.image, self.without, self.caption, self.target)


def digits(model: MiniGPT4, one: Subject, written: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What is held against another device's: logits, captures, integrated gradients; and captions."""
    pictures, pair = [one.image, one.without], one.captured(model)
    with torch.no_grad():
        logits = model.logits(pictures, [one.caption] * 2).float().cpu()
    dai = integrated_gradients(model, one.image, one.caption, one.target, steps=5)
    kept = {name: getattr(pair, name) for name in Capture.__annotations__}
    return kept | {"logits": logits, "dai": torch.from_numpy(dai)}, model.caption(pictures, written)


def compare(figures: Figures, device: str) -> None:
    """A tiny model there against the same in float32 on the processor."""
    shape, one = small(), Subject.of(small())
    here = make(shape, torch.float32, "cpu")
    expected, captions = digits(here, one, shape.written)
    for dtype, limit in LIMITS.items():
        there = make(shape, dtype, device)
        there.load_state_dict(here.state_dict())
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else 11 bits embed patches in float32
            found, others = digits(there, one, shape.written)
        errors = [float((found[name] - each).abs().max() / each.abs().max()) for name, each in expected.items()]
        name = str(dtype).removeprefix("torch.")
        figures.check(
            f"largest error in {name}, a tiny model there against float32 on the processor", max(errors), limit
        )
        if dtype == torch.float32:
            differ = sum(a != b for a, b in zip(captions, others, strict=True))
            figures.check("captions that differ from the processor's in float32", differ, 0)


def rates(figures: Figures, device: Device, side: int, dtype: torch.dtype) -> tuple[float, float]:
    """The card's own: operations a second in a product of square matrices, bytes a second in a copy."""
    a = torch.randn(side, side, device=device.name).to(dtype)
    b, times = torch.empty_like(a), 20  # a copy alone is as short as its launch
    product = 2 * side**3 / device.seconds(lambda: a @ a, 9)
    copied = 2 * a.nbytes * times / device.seconds(lambda: [b.copy_(a) for _ in range(times)], 9)
    figures.tell("million million operations a second, matrices", product / 1e12)
    figures.tell("GB a second, copies", copied / 1e9)
    return product, copied


def foretell(figures: Figures, model: MiniGPT4, written: int) -> None:
    figures.tell("GB at the peak, as foretold of the usual batch", memory.predict(model, written).peak / 1e9)


def identify(figures: Figures, device: Device, model: MiniGPT4, one: Subject, rate: float) -> None:
    pictures = (one.image, one.without)
    count = operations(lambda: one.captured(model))
    ours, bare = against_three_forwards(model, pictures, one.caption, one.target, 9, device.wait)
    figures.tell("seconds a pair", statistics.median(ours))
    figures.tell("over three bare forwards", ratio(ours, bare), aim=1.3, met=ratio(ours, bare) <= 1.3)
    figures.tell("share of the matrix rate, a pair", count / statistics.median(ours) / rate)
    figures.tell("GB at the peak, a pair", device.peak())
    gone_back = 0

    def slope(layer: torch.Tensor, _: int) -> torch.Tensor:
        nonlocal gone_back
        gone_back += 1
        return layer[0]

    def passes() -> None:
        """The same passes, watched, with nothing brought to the processor."""
        prompts = model.prompts(list(pictures))
        with record(model, keep=lambda layer: layer[0]), torch.no_grad():
            model.logits(prompts[1:])
        with ExitStack() as stack:
            places = ("activation", "preactivation")
            slopes = [stack.enter_context(record_slopes(model, place, slope)) for place in places]
            start = prompts[:1].requires_grad_()
            logits = model.logits(start, [one.caption])
            descend(logits[0, one.target.position, one.target.token], start, slopes, logits.dtype)

    figures.tell("seconds of a pair's passes, nothing copied to the processor", device.seconds(passes, 5))
    gone_back = 0
    passes()  # in half precision gradients that overflow are taken again, at a smaller scale
    figures.tell("backward passes of a pair", gone_back / (2 * model.n_layers))

    def watched() -> None:
        with intervene(model, dict.fromkeys(range(model.n_layers), lambda layer, _: layer)):
            model.logits(prompt, [one.caption])

    with torch.no_grad():
        prompt = model.prompts([one.image])
        clean = device.seconds(lambda: model.logits(prompt, [one.caption]), 9)
        figures.tell("a pass with a hook a layer over one without", device.seconds(watched, 9) / clean)

    mask = np.zeros(one.image.shape[:2], bool)
    mask[100:200, 100:300] = True
    settings, maps = load_profile("minigpt4-llama2").identification, model.token_maps([one.image])[0]

    def scored() -> None:
        pair, stages = identification.score_pair(model, *pictures, one.caption, one.target, mask, maps, settings)
        identification.scores_of(model, pair, one.target, stages)

    figures.tell("seconds of a pair's scores, all methods but Dai's", device.seconds(scored))


def write(
    figures: Figures, device: Device, model: MiniGPT4, written: int, rate: float, copied: float, batch: int
) -> None:
    """Captions, so many at once."""
    rng, usual = np.random.default_rng(1), model.batch_size
    images, model.batch_size = list(rng.integers(0, 256, (batch, 375, 500, 3), dtype=np.uint8)), batch
    weights = sum(each.nbytes for each in model.decoder.parameters())
    try:
        count = operations(lambda: model.caption(images, written))
        seconds = device.seconds(lambda: model.caption(images, written), 2)
    finally:
        model.batch_size = usual
    figures.tell(f"captions a second, batch {batch}", batch / seconds, tokens=written)
    figures.tell(f"seconds a caption, batch {batch}", seconds / batch, tokens=written)
    figures.tell(f"share of the matrix rate, captions, batch {batch}", count / seconds / rate)
    figures.tell(f"share of the rate of copies, captions, batch {batch}", weights * written / seconds / copied)
    figures.tell(f"GB at the peak, captions, batch {batch}", device.peak())


def perturb(figures: Figures, device: Device, model: MiniGPT4, one: Subject, written: int) -> None:
    """Noise on neurons of all layers, of two sets, on a batch of pictures: a row of the study's table."""
    rng, n, budget = np.random.default_rng(2), model.batch_size, 80
    noise = [np.asarray(image) for image in rng.integers(0, 256, (n + 1, 375, 500, 3), dtype=np.uint8)]
    *prompts, without = model.prompts(noise)
    captions = model.caption(torch.stack(prompts), written)
    pictures = []
    for i, caption in enumerate(captions):
        target = Target(one.target.word, model.encode(caption)[0][one.target.position], one.target.position)
        pictures.append(Picture(str(i), "bear", caption, target, True, False, False, prompts[i], without))
    trials = []
    for seed in range(2):
        layers, units = rng.integers(model.n_layers, size=budget), rng.integers(model.ffn_width, size=budget)
        found = NeuronSet("bear", "two-stage", layers, units, np.arange(budget, 0, -1.0))
        trials.append(Trial(found, Setting("noise", "image", budget, 3.0, seed), "own"))
    took = device.seconds(lambda: perturbation.run(model, pictures, trials, None, written), 2)
    figures.tell("seconds a perturbed caption", took / (n * len(trials)), tokens=written, batch=n)
    figures.tell("GB at the peak, perturbed captions", device.peak())


def dai(figures: Figures, device: Device, model: MiniGPT4, one: Subject) -> None:
    took = device.seconds(lambda: integrated_gradients(model, one.image, one.caption, one.target), 2)
    figures.tell("seconds of Dai's scores, a picture", took)
    figures.tell("GB at the peak, Dai's scores", device.peak())


def measure(figures: Figures, device: Device, shape: Shape, dtype: torch.dtype) -> None:
    rate, copied = rates(figures, device, shape.side, dtype)
    figures.attempt(compare, device.name)
    began, one = time.perf_counter(), Subject.of(shape)
    model = make(shape, dtype, device.name)
    device.wait()
    figures.tell("seconds to make the model", time.perf_counter() - began)
    figures.tell("GB of weights", sum(each.nbytes for each in model.parameters()) / 1e9)
    figures.attempt(foretell, model, shape.written)
    figures.attempt(identify, device, model, one, rate)
    for batch in BATCHES:
        figures.attempt(write, device, model, shape.written, rate, copied, batch)
    figures.attempt(perturb, device, model, one, shape.written)
    figures.attempt(dai, device, model, one)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny shape; nothing of it is worth keeping")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16"))
    parser.add_argument("--keep", type=Path, help="append what was measured to this table, as benchmarks/results.csv")
    chosen = parser.parse_args(arguments)
    if chosen.small and chosen.keep:
        parser.error("--keep wants the paper's shape. Leave --small out.")
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is there, or this torch has no CUDA. `--device cpu --small` tries the script.")
    device = Device(chosen.device)
    figures = Figures(device.machine, chosen.keep)
    measure(figures, device, small() if chosen.small else paper(), getattr(torch, chosen.dtype))
    return 0 if figures.met else 1


if __name__ == "__main__":
    sys.exit(main())
