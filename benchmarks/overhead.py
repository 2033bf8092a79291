"""Seconds that a decoder's layer takes when there is next to nothing to compute: Python, and torch's dispatch.

Processor time, so that other programs count little. An accelerator computes beside it, but not sooner.
"""

import json
import statistics
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

REPETITIONS, LAYERS = 30, 30

config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=LAYERS, num_attention_heads=2
)
model = LlamaForCausalLM(config).requires_grad_(False)
torch.set_num_threads(1)
prompt, found = torch.zeros(1, 8, dtype=torch.long), []
for _ in range(REPETITIONS + 1):
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(prompt, past_key_values=cache)
        began = time.process_time()
        model(prompt[:, :1], past_key_values=cache)
        found.append(time.process_time() - began)
print(json.dumps({"benchmark": "overhead", "seconds_a_layer": float(f"{statistics.median(found[1:]) / LAYERS:.2g}")}))
