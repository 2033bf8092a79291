"""What a run was made of: parts with digests and licences, the projection's training, versions, seconds, settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from book.words import listed
from kn_core.fingerprint import digest, writing
from kn_core.models import PROJECTIONS, TOWERS, checkpoints, released
from kn_core.pictures.scenes import drawings
from kn_core.profile import Profile
from kn_core.settings import Checkpoint, Model
from kn_core.study.study import Study
from kn_core.weights import local, wheels


def trained_here(profile: Profile) -> bool:
    """Whether the profile's model has a projection of ours between packaged networks."""
    return isinstance(profile.model, Model) and profile.model.files is None


def digests(profile: Profile) -> dict[str, str]:
    """What the model was made of, by name, and the digest of each part."""
    if trained_here(profile):
        path, used = projection(profile, "safetensors"), (TOWERS[profile.parts.tower].wheel, *wheels.COMMON)
        return {wheel.requirement: wheel.sha256 for wheel in used} | {path.name: digest(path)}
    if isinstance(profile.model, Model):
        brought = dict(zip(released.names(profile.model), released.digests(profile.model).values(), strict=True))
        return brought | {wheels.MINILM_L6.requirement: wheels.MINILM_L6.sha256}
    return {profile.model.checkpoint: checkpoints.identity(profile.model.checkpoint)}


def parts(profile: Profile) -> pd.DataFrame:
    """What the model and its pictures are made of: columns part, file, MB, licence, sha256 (how it begins).

    Of a checkpoint that comes whole: columns part, sha256.
    """
    if isinstance(profile.model, Checkpoint):
        return pd.DataFrame(digests(profile).items(), columns=["part", "sha256"])
    if not trained_here(profile):
        return _brought(profile)
    used = {
        "vision tower": TOWERS[profile.parts.tower].wheel,
        "language model": wheels.SMOLLM2_135M,
        "drawings": wheels.OPENMOJI,
    }
    rows = [(name, each.requirement, float(each.megabytes), each.licence, each.sha256) for name, each in used.items()]
    kept = {
        "more drawings": (Path(drawings.__file__).with_suffix(".json"), "CC BY 4.0, Apache-2.0, MIT"),
        "projection": (projection(profile, "safetensors"), "MIT"),
    }
    rows += [(name, path.name, path.stat().st_size / 1e6, at, digest(path)) for name, (path, at) in kept.items()]
    found = pd.DataFrame(rows, columns=["part", "file", "MB", "licence", "sha256"])
    return found.assign(sha256=found["sha256"].str[:12] + "…")


def _brought(profile: Profile) -> pd.DataFrame:
    sources = released.sources(profile.parts)
    found, digests = local.find(sources), released.digests(profile.parts)
    rows = []
    for source in sources:
        megabytes = sum(path.stat().st_size for path in source.needs(found[source.setting])) / 1e6
        rows.append((source.what, source.name, megabytes, source.licence, digests[source.setting][:12] + "…"))
    return pd.DataFrame(rows, columns=["part", "file", "MB", "licence", "sha256"])


def projection(profile: Profile, suffix: str) -> Path:
    """A file of the profile's projection: 'safetensors', 'json' (evaluation), 'csv' (training log), 'md' (card)."""
    path = PROJECTIONS / f"{profile.parts.projection}.{suffix}"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} must be there. `python -m kn_core.training` writes a projection, its evaluation and its log; put "
            f"them into {path.parent} under the projection's name."
        )
    return path


def evaluation(profile: Profile) -> dict[str, Any]:
    """What `training.card.evaluate` found of the projection; nothing for a model without a projection of ours."""
    if not trained_here(profile):
        return {}
    found: dict[str, Any] = json.loads(projection(profile, "json").read_text(encoding="utf-8"))
    return found


AIMS = {  # of the captioner on scenes, set before it was trained: key of an evaluation -> what, at least how much
    "named": ("the target named in 95 %", 0.95),
    "setting": ("the setting in 90 %", 0.9),
    "companion": ("the largest companion in 70 %", 0.7),
    "true_words": ("four true words beside the target", 4.0),
}


def aims_in_words(scenes: Mapping[str, float]) -> str:
    """Which of `AIMS` an evaluation of scenes misses."""
    missed = [what for key, (what, least) in AIMS.items() if key in scenes and scenes[key] < least]
    return f"It was to do more, and does not: {listed(missed)}" if missed else "It does all that it was to do"


def evaluation_in_words(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """`evaluation` for sentences."""
    scenes, photos = evaluation.get("scenes"), evaluation.get("photos")
    averaged = bool(evaluation) and evaluation["made"]["phases"][-1].get("average")
    last = "that at the end of training"
    return {
        "used": f"the mean of {last} and the one that its last phase started from" if averaged else last,
        "scenes": f"{scenes['n']:,}" if scenes else "no",
        "scenes-named": f"{scenes['named']:.1%}" if scenes else "an unknown share",
        "scenes-without": f"{scenes['named_without']:.1%}" if scenes else "an unknown share",
        "scenes-setting": f"{scenes['setting']:.1%}" if scenes and "setting" in scenes else "an unknown share",
        "scenes-companion": f"{scenes['companion']:.1%}" if scenes and "companion" in scenes else "an unknown share",
        "true-words": f"{scenes['true_words']:.1f}" if scenes and "true_words" in scenes else "an unknown number of",
        "aims": aims_in_words(scenes) if scenes else "What it was to do is not measured",
        "photos": f"{photos['n']}" if photos else "no",
        "training-dtype": evaluation["made"]["phases"][-1].get("dtype", "float32") if evaluation else "unknown",
        "photos-named": f"{photos['named']:.0%}" if photos else "an unknown share",
    }


def training_log(profile: Profile) -> pd.DataFrame:
    """Columns step (anew in every phase), loss, scenes_named, photos_named and more."""
    return pd.read_csv(projection(profile, "csv"))


def targets_named(evaluation: Mapping[str, Any]) -> pd.DataFrame:
    """An evaluation by kind of object, as 'named of all': columns kind, scenes, the same without it, photographs."""
    kinds, photos = evaluation["scenes"]["kinds"], evaluation.get("photos", {}).get("concepts", {})
    rows = []
    for kind in [*photos, *sorted(kinds.keys() - photos.keys())]:
        scene, photo = kinds.get(kind), photos.get(kind)
        drawn = [f"{scene[key]} of {scene['scenes']}" if scene else "–" for key in ("named", "named_without")]
        rows.append((kind, *drawn, f"{photo['named']} of {photo['photos']}" if photo else "–"))
    return pd.DataFrame(rows, columns=["kind", "scenes", "the same without it", "photographs"])


def environment(manifest: Mapping[str, Any]) -> pd.DataFrame:
    """A manifest's machine, seeds and versions: columns what, which."""
    rows = [("profile", manifest["profile"]["name"])]
    rows += [(key, str(manifest[key])) for key in ("fingerprint", "machine", "device", "threads", "python")]
    rows += [(f"seed of {name}", str(seed).strip("[]")) for name, seed in manifest["seeds"].items()]
    return pd.DataFrame([*rows, *manifest["versions"].items()], columns=["what", "which"])


def seconds_a_stage(study: Study) -> pd.DataFrame:
    """What lies in the study's store, by kind of artefact: columns stage, artefacts, seconds, MB."""
    found = study.store.describe()
    found["stage"], found["MB"] = found["artefact"].str.split("-").str[0], found["bytes"] / 1e6
    kinds = found.groupby("stage", as_index=False).agg({"artefact": "size", "seconds": "sum", "MB": "sum"})
    return kinds.rename(columns={"artefact": "artefacts"}).sort_values("seconds", ascending=False)


def as_yaml(profile: Profile) -> str:
    """The profile as YAML, defaults filled in."""
    return yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False)


PACKAGES = ("torch", "transformers", "numpy", "pandas", "scipy", "opencv-python-headless", "pycocotools", "resvg-py")


def manifest(study: Study) -> dict[str, Any]:
    """Everything that a run's numbers follow from; also written to `results/<profile>/manifest.json`."""
    settings = study.profile
    found: dict[str, Any] = {
        "profile": settings.model_dump(mode="json"),
        "fingerprint": settings.fingerprint(),
        "seeds": {
            "data": settings.data.seed,
            "noise": list(range(settings.perturbation.seeds)),
            "noise, EFFORT=full": list(range(settings.long.perturbation.seeds)),
        },
        "device": getattr(settings.model, "device", "cpu"),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "weights": digests(settings),
        "seconds": study.store.describe().set_index("artefact")["seconds"].round(1).to_dict(),
    }
    with writing(study.folder / "manifest.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))
    return found
