"""What a projection is trained on: the cross-entropy of captions, in which the names of objects count for more."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kn_core.models import MiniGPT4

NOUN_WEIGHT = 3.0  # loss weight of tokens that name an object, against 1 for every other token


def token_weights(model: MiniGPT4, caption: str, nouns: frozenset[str]) -> list[float]:
    """One weight a caption token and one for the end token: `NOUN_WEIGHT` where a token is of a known noun, else 1."""
    weights = []
    for start, end in model.encode(caption)[1]:
        left, right = start, end
        while left > 0 and caption[left - 1].isalpha() and caption[left].isalpha():
            left -= 1
        while right < len(caption) and caption[right].isalpha():
            right += 1
        weights.append(NOUN_WEIGHT if caption[left:right].strip().lower() in nouns else 1.0)
    return [*weights, 1.0]


def caption_loss(model: MiniGPT4, features: Tensor, captions: Sequence[str], nouns: frozenset[str]) -> Tensor:
    """Weighted mean cross-entropy of the captions' tokens and of the end token."""
    prompts = model.prompts_from_features(features)
    embeds = model.teacher_forced(prompts, captions)  # (B, T + C, H)
    hidden = model.decoder.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    rows, targets, weights = [], [], []
    for i, caption in enumerate(captions):
        ids = [*model.encode(caption)[0], model.end]
        rows.append(hidden[i, model.prompt_length - 1 : model.prompt_length - 1 + len(ids)])
        targets += ids
        weights += token_weights(model, caption, nouns)
    logits = model.decoder.lm_head(torch.cat(rows)).float()  # (all tokens, V)
    losses = F.cross_entropy(logits, torch.tensor(targets), reduction="none")
    weight = torch.tensor(weights)
    return (losses * weight).sum() / weight.sum()
