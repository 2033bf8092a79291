"""A MiniGPT-4 small enough for exact tests, and one that has learnt a toy world of three coloured squares."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kn_core.models import MiniGPT4
from kn_core.profile import Profile
from tests.toy_world import COLOURS, SAID, ToyTower, toy_samples

torch.set_num_threads(1)  # of a small model, threads cost more than they bring, and much more where cores are busy


@pytest.fixture(scope="session")
def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as SmolLM2's: ' bear' is one token, 'giraffe' is several."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    end = AddedToken("<end>", special=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[end], initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(sorted(SAID), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", clean_up_tokenization_spaces=False)


@pytest.fixture(scope="session")
def make_model(toy_tokenizer: PreTrainedTokenizerFast) -> Callable[..., MiniGPT4]:
    """make_model(cells=4, cells_per_token=1, batch_size=16): a new model, the same random weights every time."""

    def make(cells: int = 4, cells_per_token: int = 1, batch_size: int = 16) -> MiniGPT4:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(toy_tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=toy_tokenizer.eos_token_id,
        )
        projection = nn.Linear(ToyTower.width * cells_per_token, 32)
        decoder = LlamaForCausalLM(config)
        return MiniGPT4(
            ToyTower(cells), projection, decoder, toy_tokenizer, "See ", " say: ", cells_per_token, batch_size
        )

    return make


@pytest.fixture
def tiny_model(make_model: Callable[..., MiniGPT4]) -> MiniGPT4:
    """Random weights: for all that needs no meaning."""
    return make_model()


@pytest.fixture(scope="session")
def taught_model(make_model: Callable[..., MiniGPT4]) -> MiniGPT4:
    """The tiny model after a few seconds of training: it names the square and the setting, or the setting alone."""
    model = make_model()
    pairs = []
    for concept in COLOURS:
        for sample in toy_samples(concept, 40, seed=0):
            assert sample.without is not None
            setting = sample.references[0].split()[-1]
            pairs += [(sample.image, sample.references[0]), (sample.without, f"A {setting}")]
    features = model.features([image for image, _ in pairs])
    ids = [[*model.encode(caption)[0], model.end] for _, caption in pairs]
    length = max(map(len, ids))
    targets = torch.tensor([row + [-100] * (length - len(row)) for row in ids])
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        rows = torch.randperm(len(pairs), generator=generator)[:32]
        embeds = model.teacher_forced(model.prompts_from_features(features[rows]), [pairs[row][1] for row in rows])
        logits = model.decoder(inputs_embeds=embeds).logits[:, model.prompt_length - 1 :]
        wanted = targets[rows, : logits.shape[1]]
        loss = F.cross_entropy(logits[:, : wanted.shape[1]].flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def toy_profile() -> Profile:
    """A profile of the toy world, for the taught model."""
    return Profile.model_validate(
        {
            "name": "toy",
            "concepts": list(COLOURS),
            "model": {
                "tower": "efficientnet-lite0",  # no toy tower among the names: tests pass the model itself
                "decoder": "smollm2-135m",
                "projection": "toy",
                "before": "See ",
                "after": " say: ",
                "max_new_tokens": 12,
            },
            "data": {"source": "scenes", "pool": 8, "select": 3, "held_out": 2},
            "inpainting": {"method": "exact"},
            "filtering": {"constraints": ["area", "one_region", "named", "not_named_after"]},
            "identification": {"threshold_a": {"quantile": 0.5}, "threshold_g": {"quantile": 0.5}, "budget": 8},
            "perturbation": {
                "seeds": 2,
                "rivals": ["schwettmann", "dai"],
                "controls": ["random", "uniform"],
                "choosing": 1,
                "sweep_n": [4, 8, 12],
                "sweep_sigma": [1.0, 3.0],
                "sweep_interventions": ["zero", "mean", "patch"],
                "sweep_positions": ["all"],
            },
        }
    )
