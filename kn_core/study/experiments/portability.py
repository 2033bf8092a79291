"""What an edit does where it was not made: under other words, asked 'Is there ...?', and in sentences alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from kn_core.measures.metrics import repetition, retention
from kn_core.method.editing import token_of
from kn_core.method.edits import Edit
from kn_core.models.base import CaptionModel
from kn_core.study.experiments.polling import yes_and_no
from kn_core.study.study import Study

# What a sentence says of each concept without naming it: the word that follows is the concept's.
TEXTS: dict[str, str] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))["texts"]


def asked(study: Study, edit: Edit) -> Iterator[dict[str, Any]]:
    """Rows 'asked', 'polled' and 'text' of `editing.edits`, for an edit that is not in the model yet."""
    settings, old, new = study.effort.editing, edit.made_from["old"], edit.made_from["new"]
    rows = study.pairs(old).query("role == 'held_out'")["image_id"].head(settings.ported)
    samples = [study.sample(old, image_id) for image_id in rows]
    images = [one.image for one in samples]
    for wording in settings.phrasings if images else ():
        model = study.model.asking(wording)
        clean = model.caption(images, study.profile.model.max_new_tokens)
        with edit:
            after = model.caption(images, study.profile.model.max_new_tokens)
        for one, before, caption in zip(samples, clean, after, strict=True):
            told: dict[str, Any] = {"what": "asked", "image_id": one.image_id, "image_concept": old, "wording": wording}
            told |= {"caption": caption, "clean_caption": before, "retained": retention(before, caption, old)}
            yield told | {"repetition": repetition(caption)}
    for word in (old, new) if settings.poll and images else ():
        model = study.model.asking(settings.poll.replace("{word}", word))
        said_yes = _twice(partial(_chances, model, model.prompts(images), yes_and_no(model)[::-1]), edit)
        for one, *both in zip(samples, *(each.tolist() for each in said_yes), strict=True):
            told = {"what": "polled", "image_id": one.image_id, "image_concept": old, "wording": word}
            yield told | _four(*both)
    ids = [token_of(study.model, word) for word in (old, new)]
    for concept in (each for each in study.studied() if each in TEXTS and settings.texts):
        alone, under = _twice(partial(_after_text, study.model, TEXTS[concept]), edit)
        told = {"what": "text", "image_id": f"text-{concept}", "image_concept": concept, "wording": concept}
        told |= _four(alone[ids].exp().tolist(), under[ids].exp().tolist())
        said = token_of(study.model, concept)
        told |= {"kept": float(alone.argmax() == under.argmax()), "named": float(alone.argmax() == said)}
        yield told | {"divergence": float((alone.exp() * (alone - under)).sum().clamp(min=0))}


def _four(before: list[float], after: list[float]) -> dict[str, float]:
    both = (("clean_", before), ("", after))
    return {f"{when}{word}_probability": each[i] for when, each in both for i, word in enumerate(("old", "new"))}


def _twice(read: Callable[[], Tensor], edit: Edit) -> tuple[Tensor, Tensor]:
    """What is read of the model as it is, and under an edit."""
    before = read()
    with edit:
        return before, read()


def _chances(model: CaptionModel, prompts: Tensor, ids: list[int]) -> Tensor:
    """Probabilities of the tokens as the answer's first, (B, len(ids))."""
    with torch.no_grad():
        return model.logits(prompts)[:, 0].float().softmax(-1)[:, ids].cpu()


def _after_text(model: CaptionModel, text: str) -> Tensor:
    """Log probabilities (V,) of what follows a text that stands alone, without a picture or a prompt."""
    begin = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
    ids = torch.tensor([*begin, *model.tokenizer(text, add_special_tokens=False).input_ids], device=model.before.device)
    with torch.no_grad():
        hidden = model.extend(model.embed_tokens(ids)[None], picture=False)[0, -1]
        logits: Tensor = model.score(hidden).float()
    return logits.log_softmax(-1).cpu()
