"""Scenes as a folder in COCO's format, for any program that reads COCO."""

import json
import tempfile
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.scene import kind_of, study_scene


def write_coco(folder: Path | str, concepts: Iterable[str], n: int, seed: int, size: int = 256) -> Path:
    """n scenes a concept: instances.json (every object's mask as run lengths), captions.json and images/*.png.

    They are the scenes of `samples(concept, n, seed)`, but for `Sample.role`, for which COCO has no place: pairs of
    such a folder are shared out in order, as those of photographs. All is written beside `folder` and moved there at
    the end, so a folder of that name is complete. Raises FileExistsError where there is one already.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} must not exist yet. Remove it, or name another folder.")
    names = list(dict.fromkeys(kind_of(concept).name for concept in concepts))
    category = {name: number for number, name in enumerate(KINDS, start=1)}
    images, annotations, captions = (list[dict[str, Any]]() for _ in range(3))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch) / folder.name
        (made / "images").mkdir(parents=True)
        for concept, index in product(names, range(n)):
            drawn = study_scene(seed, concept, index, size)
            image_id, file_name = len(images) + 1, f"scene-{concept}-{index:06d}.png"
            images.append({"id": image_id, "file_name": file_name, "width": size, "height": size})
            Image.fromarray(drawn.render()).save(made / "images" / file_name)
            for k, placed in enumerate(drawn.objects):
                code = run_lengths.encode(np.asfortranarray(drawn.mask(k), dtype=np.uint8))
                outline = {"segmentation": {"size": code["size"], "counts": code["counts"].decode()}, "iscrowd": 0}
                measures = {"area": int(run_lengths.area(code)), "bbox": run_lengths.toBbox(code).tolist()}
                ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category[placed.kind]}
                annotations.append(ids | outline | measures)
            for caption in drawn.captions():
                captions.append({"id": len(captions) + 1, "image_id": image_id, "caption": caption})
        categories = [{"id": number, "name": name} for name, number in category.items()]
        instances = {"images": images, "annotations": annotations, "categories": categories}
        (made / "instances.json").write_text(json.dumps(instances))
        (made / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
        made.replace(folder)
    return folder
