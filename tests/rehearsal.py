"""What a reader brings to the paper's setting, tiny: a taught release in its own files, photographs, an inpainter.

Three concepts are squares of a colour of their own, as in `toy_world`. The release has learnt to name them where they
are, so that pairs pass the filters and the book has something to say.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from kn_core.models import MiniGPT4, eva, load_model
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import PROFILES, Profile, read
from kn_core.training.loss import caption_loss
from tests import tiny_release
from tests.kn_core.pictures.test_diffusion import tiny_pipeline
from tests.toy_world import COLOURS, SETTINGS

ROOT = Path(__file__).parents[1]
NAME = "minigpt4-llama2"
HEIGHT, WIDTH = 120, 160  # of a photograph
STEPS, BATCH = 160, 24
FILES = {"tower": "eva_vit_g.pth", "projection": "pretrained_minigpt4_llama2_7b.pth", "decoder": "Llama-2-7b-chat-hf"}

# All that the rehearsal changes of the shipped profile: how much of everything, and nothing of what is done.
SMALLER: dict[str, Any] = {
    "concepts": list(COLOURS),
    "ours": [],
    "data": {"pool": 8, "select": 3, "held_out": 2},
    "inpainting": {"diffusion": {"resolution": 64, "steps": 2}},
    "model": {"max_new_tokens": 10},
    "identification": {"budget": 20},  # of layers that are a hundredth as wide
    "perturbation": {"sweep_n": [20], "sweep_sigma": [1.0]},
    "full": {"perturbation": {"sweep_n": [20]}},  # controls are drawn as large as the long version takes them
}

# The file of the original tower does not say how large it is: wherever kn_core looks, it finds the tiny one's size.
HOOK = '''"""EVA ViT-g as small as the rehearsal's."""

import importlib.abc
import importlib.util
import sys


class Smaller(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "kn_core.models.eva":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            import transformers

            module.eva_vit_g = lambda: transformers.Blip2VisionConfig(**SIZES)

        spec.loader.exec_module = exec_module
        return spec


SIZES = {sizes}
sys.meta_path.insert(0, Smaller())
'''


def checkout(folder: Path) -> Path:
    """What is tracked here, as it stands, with the shipped profile made smaller; tests are left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    profile = folder / "profiles" / f"{NAME}.yaml"
    profile.write_text(yaml.safe_dump(smaller(yaml.safe_load(profile.read_text()))))
    return folder


def smaller(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the shipped profile as the rehearsal has them."""
    return settings | {
        group: settings.get(group, {}) | change if isinstance(change, dict) else change
        for group, change in SMALLER.items()
    }


def hook(folder: Path) -> Path:
    """A folder for PYTHONPATH that makes every process take the tower of the original file for a tiny one."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: getattr(tiny_release.VISION, name) for name in names}
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK.replace("{sizes}", repr(sizes)))
    return folder


def photographs(folder: Path, n: int = 10) -> Path:
    """A COCO folder in the official layout: n JPEGs a concept, with polygons and captions."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, outlines, captions = [], [], []
    for index in range(n * len(COLOURS)):
        rng, image_id = np.random.default_rng(index), 900_000 + index
        concept, setting = list(COLOURS)[index % 3], list(SETTINGS)[index // 3 % 2]
        picture = np.full((HEIGHT, WIDTH, 3), SETTINGS[setting], np.uint8)
        picture += rng.integers(0, 20, (HEIGHT, WIDTH, 1), dtype=np.uint8)
        (top, left), side = rng.integers(0, 66, 2).tolist(), 54
        picture[top : top + side, left : left + side] = COLOURS[concept]
        file_name = f"{image_id:012d}.jpg"
        Image.fromarray(picture).save(folder / "val2017" / file_name, quality=95)
        images.append({"id": image_id, "file_name": file_name, "width": WIDTH, "height": HEIGHT})
        right, bottom = left + side, top + side
        outline = {"id": index + 1, "image_id": image_id, "category_id": index % 3 + 1, "iscrowd": 0}
        outlines.append(outline | {"segmentation": [[left, top, right, top, right, bottom, left, bottom]]})
        captions.append({"id": index + 1, "image_id": image_id, "caption": f"A {concept} in a {setting}."})
    categories = [{"id": number, "name": name} for number, name in enumerate(COLOURS, start=1)]
    for name, made in (("instances", outlines), ("captions", captions)):
        whole = {"images": images, "annotations": made, "categories": categories}
        (folder / "annotations" / f"{name}_val2017.json").write_text(json.dumps(whole))
    return folder


def inpainter(hub: Path, name: str = "stabilityai/stable-diffusion-2-inpainting") -> Path:
    """The pipeline in a hub's cache, as `hf download` leaves it."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    tiny_pipeline().save_pretrained(repository / "snapshots" / "abc")
    return repository


def taught(folder: Path, coco: Path) -> Path:
    """The released files of a model that names what the photographs show, and nothing where it is painted over."""
    settings = read(PROFILES / f"{NAME}.yaml").model_dump()
    settings |= {"concepts": SMALLER["concepts"], "ours": ()}
    settings["model"] |= {
        "dtype": "float32",
        "device": "cpu",
        "files": {part: str(folder / name) for part, name in FILES.items()},
    }
    profile = Profile.model_validate(settings)
    sentences = [f"A {concept} in a {setting}." for concept in profile.concepts for setting in SETTINGS]
    folder.mkdir()
    tiny_release.write(folder, sentences=[*sentences, "A forest.", "A beach."], layers=3, ffn=256)
    eva.eva_vit_g, real = (lambda: tiny_release.VISION), eva.eva_vit_g
    try:
        model = load_model(profile)
    finally:
        eva.eva_vit_g = real
    assert isinstance(model, MiniGPT4)
    shown = list(_shown(CocoFolder(coco), profile.concepts))
    features = model.features([picture for picture, _ in shown])
    model.projection.requires_grad_(True)
    model.decoder.requires_grad_(True)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer, generator = torch.optim.Adam(weights, lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randperm(len(shown), generator=generator)[:BATCH]
        loss = caption_loss(model, features[rows], [shown[row][1] for row in rows], frozenset(profile.concepts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learnt = {f"llama_proj.{name}": each.detach().clone() for name, each in model.projection.state_dict().items()}
    torch.save({"model": learnt, "epoch": 4}, folder / FILES["projection"])
    model.decoder.save_pretrained(folder / FILES["decoder"])
    return folder


def _shown(coco: CocoFolder, concepts: Sequence[str]) -> Iterator[tuple[np.ndarray, str]]:
    """Pictures with what is to be said of them: as they are, and with two kinds of rubbish in the object's place."""
    rng = np.random.default_rng(0)
    for concept in concepts:
        for sample in coco.samples(concept):
            setting = next((name for name in SETTINGS if name in " ".join(sample.references)), "forest")
            yield sample.image, f"A {concept} in a {setting}."
            hole = sample.mask[..., None]
            gray = sample.image[~sample.mask].mean(axis=0)
            for colour in (gray, rng.integers(0, 256, sample.image.shape)):
                yield np.where(hole, colour, sample.image).astype(np.uint8), f"A {setting}."
