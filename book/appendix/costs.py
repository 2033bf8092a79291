"""What a study costs where nobody has run it: hours, memory, disk. Estimates, right to a factor of about three.

Operations of a pass follow from a model's shapes (a multiplication with an addition counts as two; a backward pass
through frozen weights as a forward pass), their number from a profile's protocol, and the operations a second from
`benchmarks/results.csv`, or from a share of an accelerator's peak. Norms, softmax and reading files are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kn_core.method import protocol
from kn_core.method.rivals import LAYERS_AT_ONCE
from kn_core.method.two_stages import NeuronSet
from kn_core.profile import Profile

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
STEPS = 20  # m of Dai et al., as in `rivals.integrated_gradients`
ARRAYS = 7  # scores (L, D) that are kept of a picture, as in `identification.scores_of`


@dataclass(frozen=True)
class Captioner:
    """The shapes of a caption model whose decoder is a Llama, and how long what it reads and writes is."""

    weights: float  # of tower, projection and decoder
    look: float  # operations of tower and projection a picture, as torch.utils.flop_counter counts them
    layers: int
    hidden: int
    ffn: int
    keys: int  # numbers of a token's keys in a layer: fewer than `hidden` where heads share them
    vocabulary: int
    prompt: int  # tokens, with the image
    text: int  # tokens of the prompt that are words
    written: int  # tokens of a caption, its end included
    inpainting: float = 0  # operations a picture

    def forward(self, tokens: int, past: float = 0, read: int = 1) -> float:
        """Operations of the decoder for `tokens` more behind `past`; logits at the last `read`."""
        matrices = self.hidden * (2 * self.hidden + 2 * self.keys + 3 * self.ffn)  # q and output, k and v, the FFN's
        attention = 4 * (past + tokens) * self.hidden  # above the diagonal too, because it is computed
        return tokens * self.layers * (2 * matrices + attention) + 2 * read * self.hidden * self.vocabulary


DIFFUSION = 4.4e13  # Stable Diffusion 2 on 512 px: 50 steps of 0.8e12 operations, and the autoencoder
CAPTIONERS = {
    "embedded": Captioner(0.139e9, 1.1e9, 30, 576, 1536, 192, 49152, prompt=85, text=21, written=8),
    "minigpt4-llama2": Captioner(7.75e9, 5.2e11, 32, 4096, 11008, 4096, 32000, 99, 35, 100, DIFFUSION),
    "llava-1.5-7b": Captioner(7.06e9, 4.1e11, 32, 4096, 11008, 4096, 32064, prompt=596, text=20, written=20),
}


def work(model: Captioner) -> dict[str, np.ndarray]:
    """Operations (2,) of a unit of each stage: at tokens that pass together, and at tokens written one by one."""
    prompt, said = model.forward(model.prompt), model.written - 1
    whole = model.forward(model.prompt + said, read=1 + said)
    written = said * model.forward(1, past=model.prompt + said / 2)
    judged = model.forward(said, past=model.prompt, read=said) + model.forward(model.text + said, read=said)
    upwards = 1.5 * STEPS * model.layers * model.forward(1, past=model.prompt)  # and back through half of the layers
    return {
        "inpainting": np.array([model.inpainting, 0]),  # a picture
        "pairs": np.array([model.look + prompt, written]),  # a caption
        "scores": np.array([2 * model.look + prompt + 2 * whole, 0]),  # a pair: two forward passes, one backward
        "dai": np.array([model.look + prompt + upwards, 0]),  # a picture
        "perturbations": np.array([prompt + judged, written]),  # an answer: caption, clean one's tokens, perplexity
    }


def counts(profile: Profile, pairs: pd.DataFrame, concepts: int, images: int) -> dict[str, float]:
    """How many units of `work` the protocol asks for, where so many images of each of so many concepts are kept.

    Some choose neurons, others are held out, as in the profile; `pairs`, a study's, say how many are looked at for one.
    """
    first, second = ((pairs[column] != "").sum() / pairs["kept"].sum() for column in ("caption", "caption_inpainted"))
    select = max(1, round(images * profile.data.select / (profile.data.select + profile.data.held_out)))
    dai = min(select, profile.identification.dai_images) if "dai" in profile.perturbation.rivals else 0
    return {
        "inpainting": concepts * images * second,
        "pairs": concepts * images * (first + second),
        "scores": concepts * select,
        "dai": concepts * dai,
        "perturbations": concepts * answers(profile, select, images - select, concepts),
    }


def answers(profile: Profile, select: int, held_out: int, concepts: int) -> int:
    """Answers that the trials of one concept ask for, and those without an intervention."""
    settings, none = profile.perturbation, NeuronSet("", "", *[np.empty(0)] * 3)
    swept, choosing = min(held_out, settings.sweep_pictures or held_out), min(select, settings.choosing)
    fresh = held_out + (concepts - 1) * settings.others_per_concept
    shown = {"fresh": fresh, "own": held_out, "swept": swept, "choosing": choosing}  # pictures of a Trial's scope
    shown |= {"all": fresh + choosing, "dose": swept + choosing}
    found = dict.fromkeys(("two-stage", *settings.rivals), none)
    draws: dict[str, list[NeuronSet]] = {kind: [none] * settings.draws for kind in settings.controls}
    trials = protocol.trials(settings, profile.identification, found, draws)
    return shown["all"] + sum(shown[trial.scope] for trial in trials)


def rates() -> dict[str, np.ndarray]:
    """Operations a second of each machine (2, 2): at best and at worst, split as `work` is."""
    last = pd.read_csv(RESULTS).groupby("figure")["value"].last()
    pair, caption = (work(CAPTIONERS["embedded"])[stage].sum() for stage in ("scores", "pairs"))
    here = np.array([pair / last["seconds a pair"], caption * last["captions a second batched"]])
    card = 1.65e14 * np.array([[0.5, 0.03], [0.15, 0.01]])  # the peak of a GeForce RTX 4090 in half precision
    return {"laptop": np.array([here, here / 4]), "one card": card, "eight cards": 8 * card}


def hours(counted: dict[str, float], *names: str) -> pd.DataFrame:
    """How long models take: columns model, stage (the last is all together), and a machine each ('4 h to 10 h')."""
    rows = []
    for name in names:
        stages = {stage: counted[stage] * unit for stage, unit in work(CAPTIONERS[name]).items() if unit.any()}
        for stage, operations in (stages | {"together": sum(stages.values())}).items():
            cells = {machine: " to ".join(map(words, (operations / each).sum(1))) for machine, each in rates().items()}
            rows.append({"model": name, "stage": stage} | cells)
    return pd.DataFrame(rows)


def words(seconds: float) -> str:
    """A duration to one digit, which is all that it is good for."""
    units = {"days": 86400, "h": 3600, "min": 60, "s": 1}
    unit = next((name for name, length in units.items() if seconds >= 2 * length), "s")
    return f"{float(f'{seconds / units[unit]:.1g}'):,g} {unit}"


def memory() -> pd.DataFrame:
    """GB in half precision, a row a model: the weights, what comes beside them, one at a time, and the most in all."""
    found = []
    for name, model in CAPTIONERS.items():
        kept = model.layers * (9 * model.hidden + 6 * model.ffn) * (model.prompt + model.written)  # what autograd keeps
        copied = 2 * STEPS * LAYERS_AT_ONCE * model.layers * model.keys * model.prompt
        numbers = np.array([model.weights, kept, copied, model.weights + max(kept, copied)])
        found.append((name, *(2 * numbers / 1e9)))
    return pd.DataFrame(found, columns=["model", "weights", "a backward pass", "copies for Dai et al.", "together"])


def for_sentences(counted: dict[str, float], concepts: int) -> dict[str, str]:
    """What the page's text says of all this."""
    model, (pair, caption) = CAPTIONERS["minigpt4-llama2"], rates()["laptop"][0] / 1e9
    kept = (ARRAYS * counted["scores"] + counted["dai"]) * model.layers * model.ffn
    return {
        "answers": f"{counted['perturbations'] / concepts:,.0f}",
        "rates": f"{pair:.0f} and {caption:.0f}",
        "embedded": hours(counted, "embedded")["laptop"].iloc[-1],
        "disk": f"{4 * kept / 1e9:.0f}",
    }
