"""Greedy decoding with a cache, for batches whose captions end at different lengths; how likely a caption is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import Tensor, nn

if TYPE_CHECKING:  # the model writes by these functions
    from kn_core.models.base import CaptionModel


def continue_drafts(
    model: CaptionModel,
    drafts: Sequence[str],
    likeliest: Tensor,
    cache: transformers.DynamicCache,
    max_new_tokens: int,
) -> list[str]:
    """Greedy captions, decoding from where the first caption of the batch leaves its draft, so often from nowhere.

    The cache holds the prompts and the drafts; `likeliest` (B, 1 + C) are the tokens that the model would have
    written at each step of its draft. As long as they are the draft's own, the draft is the greedy caption.
    """
    likeliest = torch.where(torch.isin(likeliest, model.ends.to(likeliest.device)), model.end, likeliest)
    padded = model.padded(drafts).to(likeliest.device)  # (B, C)
    wanted = nn.functional.pad(padded, (0, 1), value=model.end)  # (B, 1 + C)
    agreed = (likeliest == wanted).cumprod(1)  # 1 as long as the greedy caption is the draft
    lengths = torch.tensor([len(model.encode(draft)[0]) for draft in drafts], device=likeliest.device)
    ended = agreed.gather(1, lengths[:, None])[:, 0].bool()  # the end token was agreed on, too
    steps = int(agreed.sum(1)[~ended].min()) if not ended.all() else max_new_tokens
    as_drafted = _text(model, padded[:, :max_new_tokens])
    if steps >= max_new_tokens:
        return as_drafted
    cache.crop(model.prompt_length + steps - cache.get_seq_length())
    ids = torch.where(ended, model.end, likeliest[:, steps])
    written = write(model, [*padded[:, :steps].unbind(1), ids], cache, max_new_tokens)
    return [draft if done else new for draft, new, done in zip(as_drafted, written, ended.tolist(), strict=True)]


def write(
    model: CaptionModel, written: list[Tensor], cache: transformers.DynamicCache, max_new_tokens: int
) -> list[str]:
    """Go on with captions of which these tokens, a (B,) a step, are written, the last not yet read.

    Captions that end leave the batch, and the cache; their rows are padded.
    """
    rows = torch.arange(len(written[-1]))  # on the processor, where tensors of any device take their indices from
    while True:
        last = written[-1][rows]
        going = ~torch.isin(last, model.ends.to(last.device)).cpu()
        if len(written) == max_new_tokens or not going.any():
            return _text(model, torch.stack(written, dim=1))
        if not going.all():
            cache.batch_select_indices(going.nonzero()[:, 0])
            rows, last = rows[going], last[going]
        hidden = model.extend(model.embed_tokens(last[:, None]), cache, (rows, len(written[-1])))  # (b, 1, H)
        ids = torch.full_like(written[-1], model.end)
        ids[rows] = model.score(hidden[:, -1].contiguous()).argmax(-1).to(ids.device)
        written.append(ids)


def perplexity(model: CaptionModel, captions: Sequence[str]) -> np.ndarray:
    """How much each caption surprises the decoder when it sees no picture, (N,); NaN for an empty caption."""
    surprise = np.empty(len(captions))
    ids = [torch.tensor(model.encode(caption)[0], dtype=torch.long) for caption in captions]
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # batches of one length hold little padding
    prompt = model.embed_tokens(torch.cat([model.before, model.after]))[None]
    for start in range(0, len(ids), model.batch_size):
        rows = by_length[start : start + model.batch_size]
        with torch.no_grad():
            cache = transformers.DynamicCache(config=model.backbone.config)
            asked = model.extend(prompt, cache, picture=False)[:, -1:].expand(
                len(rows), -1, -1
            )  # once: it is the same for all
            cache.batch_repeat_interleave(len(rows))
            said = model.extend(model.embed_tokens(model.padded([captions[i] for i in rows])), cache, picture=False)
            logits = model.score(torch.cat([asked, said], dim=1))
        for i, row in zip(rows, logits, strict=True):
            chances = row[: len(ids[i])].float().log_softmax(-1).gather(1, ids[i][:, None].to(row.device)).cpu()
            surprise[i] = -chances.mean()  # NaN without tokens
    return np.exp(surprise)


def _text(model: CaptionModel, ids: Tensor) -> list[str]:
    return [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
