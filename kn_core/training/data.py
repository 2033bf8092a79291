"""What the projection learns from: scenes, photographs, and objects of photographs pasted into others.

Both networks are frozen, so a picture is only ever seen as the tower's features: every picture is drawn, mirrored or
cropped once, its features are kept in half precision, an epoch costs no vision at all. All of it follows from a seed.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from tqdm import tqdm

from kn_core.concepts import names
from kn_core.fingerprint import writing
from kn_core.models import held_out_ids
from kn_core.models.minigpt4 import MiniGPT4
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder, Instance
from kn_core.pictures.image_files import PictureError
from kn_core.pictures.token_grid import cells

log = logging.getLogger(__name__)
PHOTO_CONCEPTS = ("bed", "bear", "bus", "cat", "dog", "giraffe", "pizza", "toilet", "train")
SIDE = 256  # pixels of a picture that objects are pasted into


@dataclass(frozen=True, eq=False)
class Example:
    """A picture, what may be said of it, and the objects whose place in it is known."""

    source: str  # scene, photo or pasted
    image: np.ndarray  # (h, w, 3) uint8
    captions: tuple[str, ...]
    masks: tuple[tuple[str, np.ndarray], ...]  # (object's name, (h, w) bool)
    weight: float = 1.0  # how often it is drawn, against others of its source


def scene_examples(per_kind: int, seed: int) -> Iterator[Example]:
    """Scenes of every kind from one namespace, of all its drawings.

    Absence is learnt too: a third of the scenes come without their main object as well, a third without its company.
    """
    for (number, kind), index in product(enumerate(scenes.KINDS), range(per_kind)):
        scene = scenes.scene((seed, number, index), kind)
        masks = tuple((placed.kind, scene.mask(i)) for i, placed in enumerate(scene.objects))
        yield Example("scene", scene.render(), scene.captions(), masks)
        gone = scene.order[index % 3 : index % 3 + 1] if index % 3 < 2 else ()
        for missing in gone:
            rest = tuple(mask for i, mask in enumerate(masks) if i != missing)
            yield Example("scene", scene.render(without=missing), scene.captions(without=missing), rest)


def photo_examples(folder: CocoFolder, held_out: frozenset[str], views: int, seed: int) -> Iterator[Example]:
    """Every photograph that is not held out, as it is, mirrored, and in `views - 2` random crops with changed light."""
    for image_id, image, instances in _photographs(folder, held_out):
        masks = tuple((instance.concept, instance.mask) for instance in instances if not instance.crowd)
        captions = folder.captions(image_id) + template_captions(masks, folder.captions(image_id))
        if not captions:
            continue
        weight = 3.0 if any(names(" ".join(captions), concept) for concept in PHOTO_CONCEPTS) else 1.0
        rng = np.random.default_rng([seed, 1, int(image_id)])
        for view in range(views):
            seen, places = _view(image, masks, view, rng)
            yield Example("photo", seen, captions, places, weight)


def pasted_examples(folder: CocoFolder, held_out: frozenset[str], count: int, seed: int) -> Iterator[Example]:
    """Objects cut out of photographs along their masks, pasted large into photographs that do not show their kind."""
    cut_outs: dict[str, list[np.ndarray]] = {}
    backgrounds: list[tuple[np.ndarray, frozenset[str]]] = []
    for image_id, image, instances in _photographs(folder, held_out):
        said = " ".join(folder.captions(image_id))
        present = {i.concept for i in instances} | {concept for concept in PHOTO_CONCEPTS if names(said, concept)}
        backgrounds.append((np.asarray(Image.fromarray(image).resize((SIDE, SIDE))), frozenset(present)))
        for instance in instances:
            if not instance.crowd and instance.mask.mean() > 0.02:
                rgba = Image.fromarray(np.dstack([image, instance.mask.astype(np.uint8) * 255]))
                bounds = Image.fromarray(instance.mask).getbbox()
                cut_outs.setdefault(instance.concept, []).append(np.asarray(rgba.crop(bounds)))
    kinds = sorted(cut_outs)
    chances = np.array([4.0 if kind in PHOTO_CONCEPTS else 1.0 for kind in kinds])
    for rng in (np.random.default_rng([seed, 2, index]) for index in range(count)):
        kind = kinds[rng.choice(len(kinds), p=chances / chances.sum())]
        free = [picture for picture, present in backgrounds if kind not in present]
        image, mask = _paste(free[rng.integers(len(free))], cut_outs[kind][rng.integers(len(cut_outs[kind]))], rng)
        if captions := template_captions(((kind, mask),), ()):  # none for what fills too little of the frame
            yield Example("pasted", image, captions, ((kind, mask),))


def _photographs(folder: CocoFolder, held_out: frozenset[str]) -> Iterator[tuple[str, np.ndarray, list[Instance]]]:
    """Id, picture and objects of every photograph that is not held out; broken files are named and left out."""
    folder.tell()
    for image_id in folder.image_ids:
        if image_id in held_out:
            continue
        try:
            yield image_id, folder.picture(image_id), folder.instances(image_id)
        except PictureError as error:
            log.warning("skipped %s: %s", image_id, error)


def all_examples(
    folder: CocoFolder | None, scenes_per_kind: int, views: int, pasted: int, seed: int = 0
) -> list[Iterator[Example]]:
    """The projection's training data: scenes, and with a COCO folder photographs and pasted objects."""
    sources = [scene_examples(scenes_per_kind, seed)]
    if folder is not None:
        held_out = held_out_ids()
        sources += [photo_examples(folder, held_out, views, seed), pasted_examples(folder, held_out, pasted, seed)]
    return sources


def template_captions(masks: Sequence[tuple[str, np.ndarray]], said: Sequence[str]) -> tuple[str, ...]:
    """Plain captions that name the largest objects which no human caption names."""
    area: defaultdict[str, float] = defaultdict(float)
    for name, mask in masks:
        area[name] += float(mask.mean())
    large = sorted((name for name, share in area.items() if share > 0.04), key=area.__getitem__, reverse=True)[:2]
    unnamed = [name for name in large if not names(" ".join(said), name)]
    if not unnamed:
        return ()
    phrase = " and ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in unnamed)
    return (f"A picture of {phrase}.", f"There is {phrase} in this picture.", f"{phrase[0].upper()}{phrase[1:]}.")


def _view(
    image: np.ndarray, masks: Sequence[tuple[str, np.ndarray]], view: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[tuple[str, np.ndarray], ...]]:
    """View 0 is the picture, 1 its mirror image, others random crops of 60-100 % a side, mirrored at random."""
    height, width = image.shape[:2]
    top, left, bottom, right, mirrored = 0, 0, height, width, view == 1
    if view > 1:
        h, w = round(height * rng.uniform(0.6, 1)), round(width * rng.uniform(0.6, 1))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        bottom, right, mirrored = top + h, left + w, bool(rng.random() < 0.5)
    step = -1 if mirrored else 1
    seen = np.ascontiguousarray(image[top:bottom, left:right][:, ::step])
    if view > 1:  # other light
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
            seen = np.asarray(enhance(Image.fromarray(seen)).enhance(rng.uniform(0.75, 1.3)))
    return seen, tuple((name, mask[top:bottom, left:right][:, ::step]) for name, mask in masks)


def _paste(background: np.ndarray, cut_out: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The object (h, w, 4), its longest side 45-95 % of the frame's, mirrored at random, wholly inside the frame."""
    scale = SIDE * rng.uniform(0.45, 0.95) / max(cut_out.shape[:2])
    size = (max(1, round(cut_out.shape[1] * scale)), max(1, round(cut_out.shape[0] * scale)))
    piece = Image.fromarray(cut_out[:, :: rng.choice([-1, 1])]).resize(size)
    place = (int(rng.integers(SIDE - size[0] + 1)), int(rng.integers(SIDE - size[1] + 1)))
    canvas, mask = Image.fromarray(background), Image.new("L", (SIDE, SIDE))
    canvas.paste(piece.convert("RGB"), place, piece.getchannel("A"))
    mask.paste(piece.getchannel("A"), place)
    return np.asarray(canvas), np.asarray(mask) > 127


@dataclass(frozen=True, eq=False)
class Bank:
    """Features of many examples, on disk, with their captions and the objects that fill each cell."""

    features: np.ndarray  # (N, cells, width) float16, memory-mapped
    objects: np.ndarray  # (N, cells) int16: place in `vocabulary` of what fills most of the cell, -1 for none
    captions: tuple[tuple[str, ...], ...]
    sources: np.ndarray  # (N,) str
    weights: np.ndarray  # (N,) float
    vocabulary: tuple[str, ...]


def make_bank(model: MiniGPT4, examples: Sequence[Iterator[Example]], path: Path, batch_size: int = 32) -> Bank:
    """Run the tower once over every example. An existing bank at `path` is opened, never made again."""
    index = path / "index.json"
    if not index.exists():
        path.mkdir(parents=True, exist_ok=True)
        vocabulary: dict[str, int] = {}
        rows: list[dict[str, object]] = []
        objects: list[np.ndarray] = []
        every = chain.from_iterable(examples)
        batches = iter(lambda: list(islice(every, batch_size)), [])
        with writing(path / "features.f16") as temporary, temporary.open("wb") as file:
            for batch in tqdm(batches, desc="features", unit=f"x{batch_size}"):
                file.write(model.features([example.image for example in batch]).half().numpy().tobytes())
                for example in batch:
                    objects.append(_cell_objects(example, model.grid, vocabulary))
                    rows.append({"captions": example.captions, "source": example.source, "weight": example.weight})
        with writing(path / "objects.npy") as temporary, temporary.open("wb") as file:
            np.save(file, np.stack(objects))
        with writing(index) as temporary:  # last: its presence says that the bank is whole
            temporary.write_text(json.dumps({"rows": rows, "vocabulary": list(vocabulary)}))
    described = json.loads(index.read_text(encoding="utf-8"))
    captions, sources, weights = ([row[key] for row in described["rows"]] for key in ("captions", "source", "weight"))
    shape = (len(sources), model.grid[0] * model.grid[1], model.tower.width * model.cells_per_token)
    features = np.memmap(path / "features.f16", np.float16, "r", shape=shape)
    cells_of, said = np.load(path / "objects.npy"), tuple(map(tuple, captions))
    return Bank(features, cells_of, said, np.array(sources), np.array(weights), tuple(described["vocabulary"]))


def _cell_objects(example: Example, grid: tuple[int, int], vocabulary: dict[str, int]) -> np.ndarray:
    best, filled = np.full(grid, -1, np.int16), np.full(grid, 0.5)
    for name, mask in example.masks:
        share = cells(mask, grid)
        here = share > filled
        best[here], filled[here] = vocabulary.setdefault(name, len(vocabulary)), share[here]
    return best.ravel()


def ridge(model: MiniGPT4, bank: Bank, penalty: float = 30.0) -> tuple[Tensor, Tensor]:
    """Closed-form start: an object's cells -> its word's input embedding, the background's -> the mean embedding.

    Kinds weigh alike whatever their number of cells, the background as much as four kinds. Returns (H, width), (H,).
    """
    embedding = model.embed_tokens(torch.arange(model.unembed.shape[0])).float()
    mean = embedding.mean(0)
    words = [torch.tensor(model.encode(f" {name}")[0]) for name in bank.vocabulary]
    targets = torch.stack([*(embedding[ids].mean(0) for ids in words), mean])  # the last one, -1, is the background
    labels = torch.from_numpy(bank.objects.astype(np.int64))
    counts = torch.bincount(labels.ravel() % len(targets), minlength=len(targets)).clamp(min=1)
    weight = (counts.float().mean() / counts.float()).clamp(max=20)
    weight[-1] *= 4
    width = bank.features.shape[2]
    gram, moment = torch.zeros(width + 1, width + 1), torch.zeros(width + 1, targets.shape[1])
    for start in range(0, len(labels), 256):
        x = torch.from_numpy(np.asarray(bank.features[start : start + 256], np.float32)).flatten(0, 1)
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        label = labels[start : start + 256].ravel()
        scaled = x * weight[label, None]
        gram += scaled.T @ x
        moment += scaled.T @ (targets[label] - mean)
    gram.diagonal()[:-1] += penalty * gram.diagonal()[:-1].mean() / 1000
    solved = torch.linalg.solve(gram.double(), moment.double()).float()
    return solved[:-1].T.contiguous(), solved[-1] + mean
