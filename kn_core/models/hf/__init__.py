"""Vision-language models of transformers whose image tokens map onto patches: one adapter a family, and what it reads.

Each module is a room of families; `ADAPTERS` says which reads a checkpoint, by its config's model_type.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

import transformers

from kn_core.models import blip2, checkpoints
from kn_core.models.base import CaptionModel
from kn_core.models.checkpoints import CheckpointError, Found
from kn_core.models.hf import gemma, many_views, one_view, qwen
from kn_core.models.hf.vision_language import VisionLanguageModel, gated_blocks
from kn_core.settings import Checkpoint
from kn_core.weights import files

__all__ = ["ADAPTERS", "VisionLanguageModel", "adopt", "gated_blocks", "load_checkpoint"]

Adapter = Callable[[Found, Checkpoint], CaptionModel]

ADAPTERS: dict[str, Adapter] = {
    **one_view.ADAPTERS,
    **many_views.ADAPTERS,
    **qwen.ADAPTERS,
    **gemma.ADAPTERS,
    **blip2.ADAPTERS,
}
"""config.json's model_type -> what makes a caption model of such a checkpoint. Other packages' are entry points."""


def load_checkpoint(settings: Checkpoint) -> CaptionModel:
    """The checkpoint that a profile names, by the adapter of its model_type.

    Raises FileNotFoundError where files are missing, WeightsError where they hold something else, CheckpointError where
    no adapter is right for it.
    """
    folder = checkpoints.find(settings.checkpoint)
    adapt = adapter(str(files.read_json(folder / "config.json").get("model_type")), settings.checkpoint)
    with files.reading(f"The checkpoint {folder}"):
        return adapt(checkpoints.load(folder, settings), settings)


def adopt(model: transformers.PreTrainedModel, processor: Any, settings: Checkpoint) -> CaptionModel:
    """A model in memory with its processor: itself, not a copy, frozen and in evaluation mode from now on."""
    adapt = adapter(model.config.model_type, type(model).__name__)
    return adapt(checkpoints.hold(model, processor), settings)


def adapter(kind: str, name: str) -> Adapter:
    """Of a model_type. Raises CheckpointError where there is none, with those that there are."""
    for found in entry_points(group="kn_core.adapters", name=kind):
        return cast("Adapter", found.load())
    if kind not in ADAPTERS:
        raise CheckpointError(
            f"No adapter for the model_type '{kind}' of {name}: `model_type` in its config.json is looked for among "
            f"{', '.join(sorted(ADAPTERS))}. The book's page 'Add a model' shows how to write one."
        )
    return ADAPTERS[kind]
