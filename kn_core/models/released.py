"""MiniGPT-4 with Llama-2-7B-chat as its authors released it: which files it is made of, and its projection.

Its parts come from three places (`sources`), none of which may be passed on with this repository. The profile names
them; what is missing is listed at once.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kn_core.models import eva
from kn_core.settings import Model
from kn_core.weights import files, local
from kn_core.weights.files import WeightsError

# Text before and after the image tokens. Training put one beginning of sequence before everything; the demo's system
# sentence gets one from the tokenizer, and the template's own spelt out '<s>' becomes a second.
TRAINING_PROMPT = ("<s>[INST] <Img>", "</Img> Describe this image in detail. [/INST] ")
DEMO_PROMPT = (
    "<s>Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. "
    "Please answer my questions.<s>[INST] <Img>",
    TRAINING_PROMPT[1],
)


def sources(parts: Model) -> list[local.Source]:
    """The parts that a reader brings. Raises WeightsError for a model that is made of packaged ones."""
    if parts.files is None:
        raise WeightsError(f"'{parts.tower}' and '{parts.decoder}' come from packages; there is nothing to bring.")
    return [
        local.Source(
            setting="model.files.tower",
            name=parts.files.tower,
            what="EVA ViT-g/14, the vision tower",
            gigabytes=2,
            get="storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth, or set it to a "
            "BLIP-2 checkpoint that holds the same tower (15 GB): `hf download Salesforce/blip2-opt-2.7b`",
            licence="MIT (EVA); BSD-3-Clause (LAVIS, BLIP-2); OPT's own for the OPT in blip2-opt-2.7b, not used here",
            needs=eva.files_of,
        ),
        local.Source(
            setting="model.files.projection",
            name=parts.files.projection,
            what="MiniGPT-4's trained projection",
            gigabytes=0.3,
            get="github.com/Vision-CAIR/MiniGPT-4, README: the checkpoint 'MiniGPT-4 (LLaMA-2 Chat 7B)'",
            licence="BSD-3-Clause (MiniGPT-4)",
            needs=lambda path: [path],
        ),
        local.Source(
            setting="model.files.decoder",
            name=parts.files.decoder,
            what="Llama-2-7B-chat in transformers' format",
            gigabytes=13.5,
            get="accept the licence at huggingface.co/meta-llama/Llama-2-7b-chat-hf, then `hf download "
            'meta-llama/Llama-2-7b-chat-hf --exclude "*.bin"`',
            licence="Llama 2 Community License (Meta); not open source, and to be accepted by you",
            needs=decoder_files,
        ),
    ]


def names(parts: Model) -> list[str]:
    """What the profile calls these weights, in the order of `sources`."""
    return [source.name for source in sources(parts)]


def decoder_files(folder: Path) -> list[Path]:
    """What a decoder is loaded from; they need not exist."""
    return [folder / "config.json", folder / "tokenizer.json", *local.shards(folder)]


def digests(parts: Model) -> dict[str, str]:
    """What tells these weights from others, by setting: `files.digest`. Raises WeightsError where they are missing."""
    wanted = sources(parts)
    found = local.find(wanted)
    return {source.setting: files.digest(source.needs(found[source.setting]), tensors=True) for source in wanted}


def load_projection(path: Path, width: int, hidden: int) -> nn.Linear:
    """The linear layer of a released checkpoint: its `model` holds `llama_proj.weight` (H, width) and `.bias` (H,).

    The file is read as weights only, so that no code in it runs. What is beside `model`, the state of its training, is
    not used; another name in `model` would be a part of another MiniGPT-4, and is an error.
    """
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{path} cannot be read as weights ({error}). Is it the whole file?") from None
    state = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    expected = {"llama_proj.weight": (hidden, width), "llama_proj.bias": (hidden,)}
    if not isinstance(state, dict):
        raise WeightsError(f"{path} must hold 'model' with {', '.join(expected)}. Got {type(checkpoint).__name__}.")
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != expected:
        names = {
            "unknown": sorted(shapes.keys() - expected.keys()),
            "missing": sorted(expected.keys() - shapes.keys()),
            "of another shape": [f"{n} {s}" for n, s in shapes.items() if s != expected.get(n, s)],
        }
        told = "; ".join(f"{what}: {', '.join(which)}" for what, which in names.items() if which)
        wanted = " and ".join(f"{name} {shape}" for name, shape in expected.items())
        raise WeightsError(
            f"{path}: 'model' must hold {wanted} and nothing else, as that of pretrained_minigpt4_llama2_7b.pth. Got "
            f"{told}."
        )
    layer = nn.Linear(width, hidden)
    layer.load_state_dict({name.removeprefix("llama_proj."): tensor.float() for name, tensor in state.items()})
    return layer
