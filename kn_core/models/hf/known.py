"""Checkpoints that are known to load: their kind, tower and decoder have been tried end to end on a tiny random config.

A test holds this table to what is tried. The checkpoints themselves have not been run: they are not in the repository.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    checkpoint: str  # a name on the hub
    model_type: str
    tower: str  # model_type of the part that sees
    decoder: str  # and of the part that writes


KNOWN = (
    Known("llava-hf/llava-1.5-7b-hf", "llava", "clip_vision_model", "llama"),
    Known("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", "clip_vision_model", "mistral"),
    Known("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava_onevision", "siglip_vision_model", "qwen2"),
    Known("OpenGVLab/InternVL3-1B-hf", "internvl", "internvl_vision", "qwen2"),
    Known("OpenGVLab/InternVL3_5-1B-HF", "internvl", "internvl_vision", "qwen3"),
    Known("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3", "idefics3_vision", "llama"),
    Known("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", "smolvlm_vision", "llama"),
    Known("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl", "qwen2_vl_vision", "qwen2_vl_text"),
    Known("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "qwen2_5_vl_vision", "qwen2_5_vl_text"),
    Known("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "qwen3_vl_vision", "qwen3_vl_text"),
    Known("google/gemma-3-4b-it", "gemma3", "siglip_vision_model", "gemma3_text"),
    Known("google/paligemma-3b-mix-224", "paligemma", "siglip_vision_model", "gemma"),
    Known("google/paligemma2-3b-mix-224", "paligemma", "siglip_vision_model", "gemma2"),
    Known("Salesforce/blip2-opt-2.7b", "blip-2", "blip_2_vision_model", "opt"),
    Known("Salesforce/instructblip-vicuna-7b", "instructblip", "instructblip_vision_model", "llama"),
)
