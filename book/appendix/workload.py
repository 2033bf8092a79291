"""What a study asks of its model: how often which pass, counted from the profile's protocol and the model's shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from book.appendix.roofline import Convolutions, Decoder, Load, ViT
from kn_core.method import protocol
from kn_core.method.two_stages import NeuronSet
from kn_core.profile import Perturbation, Profile

STEPS = 20  # m of Dai et al., as in `rivals.integrated_gradients`


@dataclass(frozen=True)
class Captioner:
    """The shapes of a caption model, and how long what it reads and writes is."""

    tower: ViT | Convolutions
    projection: int  # numbers
    decoder: Decoder
    image_tokens: int
    text_tokens: int  # of the prompt
    written: int  # tokens of a caption, its end included
    batch: int  # pictures at once
    diffusion: bool = True  # whether its pictures are inpainted by `INPAINTER`

    @property
    def prompt(self) -> int:
        return self.image_tokens + self.text_tokens

    @property
    def weights(self) -> int:
        return self.tower.weights + self.projection + self.decoder.weights

    def look(self, pictures: int) -> Load:
        """Image tokens of some pictures at once."""
        operations = 2.0 * pictures * self.image_tokens * self.projection
        return self.tower.forward(pictures) + Load(operations, self.projection)


# Stable Diffusion 2 inpainting, a picture of 512 px in 50 steps: U-Net 50 times, autoencoder there and back. Operations
# as torch.utils.flop_counter counts them in diffusers' modules; numbers of U-Net, autoencoder and text encoder; layers
# are the U-Net's residual and attention blocks, 38 a step.
INPAINTER = Load(
    50 * 804_375_429_120 + 1_116_658_466_816 + 2_514_518_933_504, 865_925_124 + 83_653_863 + 340_387_840, 50 * 38
)
LLAMA_2_7B = Decoder(layers=32, hidden=4096, ffn=11008, heads=32, kv_heads=32, vocabulary=32000)
CAPTIONERS = {
    "embedded": Captioner(
        tower=Convolutions(operations=1_002_860_544, weights=3_371_008, layers=18),  # EfficientNet-Lite0 at 256 px
        projection=(1280 + 1) * 576,
        decoder=Decoder(layers=30, hidden=576, ffn=1536, heads=9, kv_heads=3, vocabulary=49152, tied=True),
        image_tokens=64,
        text_tokens=21,
        written=8,
        batch=16,
        diffusion=False,
    ),
    "minigpt4-llama2": Captioner(
        tower=ViT(layers=39, width=1408, mlp=6144, patches=256, patch=14),
        projection=(4 * 1408 + 1) * 4096,
        decoder=LLAMA_2_7B,
        image_tokens=64,
        text_tokens=35,
        written=100,  # several sentences
        batch=8,
    ),
    "llava-1.5-7b": Captioner(
        tower=ViT(layers=24, width=1024, mlp=4096, patches=576, patch=14),
        projection=(1024 + 1) * 4096 + (4096 + 1) * 4096,
        decoder=replace(LLAMA_2_7B, vocabulary=32064),
        image_tokens=576,
        text_tokens=20,
        written=20,  # one sentence is asked for
        batch=8,
    ),
}


# How often


@dataclass(frozen=True)
class Size:
    """How many of what a study makes, a concept; pairs are those that pass the filters."""

    concepts: int
    select: int
    held_out: int
    captions: float  # written to find these pairs, of both pictures
    inpainted: float  # pictures, to find them
    dai: int  # pairs that Dai et al.'s method scores
    answers: int  # under interventions: captions with the clean caption's probabilities
    patched: int  # of these with activations of the inpainted picture
    choosing: int  # pictures that chose neurons and are answered, too
    others: int  # pictures of other concepts likewise

    @property
    def pairs(self) -> int:
        return self.select + self.held_out

    @property
    def answered(self) -> int:
        """Pictures that are answered, also without an intervention."""
        return self.choosing + self.held_out + self.others


def size(profile: Profile, pairs: pd.DataFrame, concepts: int, images: int) -> Size:
    """A study of the profile's protocol on other numbers of concepts and of kept images a concept.

    In the profile's own proportion, the first images choose neurons and the others are held out. `pairs`, a study's,
    say how many pictures are captioned and inpainted until one is kept.
    """
    kept = int(pairs["kept"].sum())
    first, second = ((pairs[column] != "").sum() / kept for column in ("caption", "caption_inpainted"))
    data, settings = profile.data, profile.perturbation
    select = max(1, round(images * data.select / (data.select + data.held_out)))
    others = (concepts - 1) * settings.others_per_concept
    tried = list(_tried(settings, profile.identification.budget, select, images - select, others))
    return Size(
        concepts=concepts,
        select=select,
        held_out=images - select,
        captions=float(first + second) * images,
        inpainted=float(second) * images,
        dai=min(select, profile.identification.dai_images) if "dai" in settings.rivals else 0,
        answers=sum(pictures for _, pictures in tried),
        patched=sum(pictures for intervention, pictures in tried if intervention == "patch"),
        choosing=min(select, settings.choosing),
        others=others,
    )


def _tried(settings: Perturbation, budget: int, select: int, held_out: int, others: int) -> Iterator[tuple[str, int]]:
    """Intervention and number of pictures of each trial of a concept."""
    none = np.empty(0, int)
    found = {method: NeuronSet("own", method, none, none, none) for method in ("two-stage", *settings.rivals)}
    draws: dict[str, list[NeuronSet]] = {
        kind: [NeuronSet("own", kind, none, none, none)] * settings.draws for kind in settings.controls
    }
    swept = settings.sweep_pictures or held_out
    pictures: list[Any] = [  # as much of a `perturb.Picture` as a trial asks for
        SimpleNamespace(concept="own", held_out=False, chooses_dose=i < settings.choosing, swept=False)
        for i in range(select)
    ]
    pictures += [
        SimpleNamespace(concept="own", held_out=True, chooses_dose=False, swept=i < swept) for i in range(held_out)
    ]
    pictures += [SimpleNamespace(concept="other", held_out=True, chooses_dose=False, swept=False)] * others
    for trial in protocol.trials(settings, budget, found, draws):
        yield trial.setting.intervention, sum(trial.shows(picture) for picture in pictures)


# What


Passes = list[tuple[float, Load]]  # how often, and what


def caption(model: Captioner) -> Passes:
    """A caption, as one of a batch: the prompt, then token by token."""
    rows, decoder = model.batch, model.decoder
    steps = model.written - 1
    middle = model.prompt + steps / 2
    return [
        (1 / rows, model.look(rows)),
        (1 / rows, decoder.forward(model.prompt, read=1, rows=rows)),
        (steps / rows, decoder.forward(1, read=1, past=middle, rows=rows)),
    ]


def identification(model: Captioner) -> Passes:
    """All scores of a pair but Dai et al.'s (`neurons.capture`): two forward passes, one backward."""
    decoder, said = model.decoder, model.written - 1
    return [
        (1, model.look(2)),
        (1, decoder.forward(model.prompt, read=1)),
        (1, decoder.forward(model.prompt + said, read=1 + said)),
        (1, decoder.backward(model.prompt + said, read=1 + said)),
    ]


def integrated_gradients(model: Captioner) -> Passes:
    """Dai et al.'s scores of a pair: for every layer one token in `STEPS` rows, whose caches are copies."""
    decoder, past = model.decoder, model.prompt
    copies = Load(0, 2 * STEPS * past * decoder.cached)
    forward = decoder.forward(1, read=1, past=past, rows=STEPS)
    upwards = [decoder.backward(1, read=1, past=past, lowest=i, rows=STEPS) for i in range(decoder.layers)]
    passes = [(1.0, decoder.forward(past, read=1)), (float(decoder.layers), copies), (float(decoder.layers), forward)]
    return [(1.0, model.look(1)), *passes, *((1.0, each) for each in upwards)]


def answer(model: Captioner) -> Passes:
    """An answer under an intervention, as one of a batch: a caption, the clean one's tokens, and its perplexity."""
    rows, decoder, said = model.batch, model.decoder, model.written - 1
    return [
        *caption(model)[1:],
        (1 / rows, decoder.forward(said, read=1 + said, past=model.prompt, rows=rows)),
        (1 / rows, decoder.forward(model.text_tokens + said, read=1 + said, rows=rows)),
    ]


def stages(model: Captioner, size: Size) -> dict[str, Passes]:
    """All passes of one concept, by stage."""
    rows, decoder = model.batch, model.decoder
    looks = 2 * size.answered / rows
    tried = [(looks, model.look(rows)), *_times(size.answers + size.answered, answer(model))]
    return {
        "inpainting": [(size.inpainted, INPAINTER)] if model.diffusion else [],
        "filtering": _times(size.captions, caption(model)),
        "scores": _times(size.select, identification(model)),
        "scores of Dai et al.": _times(size.dai, integrated_gradients(model)),
        "perturbation": [*tried, (size.patched / rows, decoder.forward(model.prompt, read=1, rows=rows))],
    }


def _times(n: float, passes: Passes) -> Passes:
    return [(n * times, load) for times, load in passes]
