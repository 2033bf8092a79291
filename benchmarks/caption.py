"""Captions a second: batched as the study does it, against one picture at a time through transformers' `generate`."""

import json
import statistics
import time

import torch

from kn_core.models import load_model
from kn_core.pictures import scenes
from kn_core.profile import load_profile

REPETITIONS, PICTURES = 5, 32

profile = load_profile("embedded")
model = load_model(profile)
images = [sample.image for concept in ("bear", "pizza") for sample in scenes.samples(concept, PICTURES // 2, 2)]


def one_at_a_time() -> list[str]:
    found = []
    for image in images:
        with torch.no_grad():
            prompt = model.prompts([image])
            ids = model.decoder.generate(
                inputs_embeds=prompt,
                attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
                do_sample=False,
                max_new_tokens=profile.model.max_new_tokens,
                eos_token_id=model.end,
                pad_token_id=model.end,
            )
        found.append(model.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    return found


batched_seconds, single_seconds = [], []
for _ in range(REPETITIONS):
    began = time.perf_counter()
    ours = model.caption(images, profile.model.max_new_tokens)
    between = time.perf_counter()
    theirs = one_at_a_time()
    batched_seconds.append(between - began)
    single_seconds.append(time.perf_counter() - between)
assert ours == theirs, "batched captions must be the same captions"
ratios = [single / batched for single, batched in zip(single_seconds, batched_seconds, strict=True)]
print(
    json.dumps(
        {
            "benchmark": "caption",
            "captions_a_second": round(PICTURES / statistics.median(batched_seconds), 2),
            "one_at_a_time": round(PICTURES / statistics.median(single_seconds), 2),
            "ratio": round(statistics.median(ratios), 2),
            "threads": torch.get_num_threads(),
        }
    )
)
