"""What the paper's setting costs where nobody has run it: hours, memory, disk.

Hours are how many captions, pairs and answers a profile's protocol asks for, times what `benchmarks/accelerator.py`
measured of each on an accelerator (`benchmarks/results.csv`). Memory follows from a model's shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kn_core.method import protocol
from kn_core.method.identification import AT_TEXT
from kn_core.method.rivals import LAYERS_AT_ONCE
from kn_core.method.two_stages import NeuronSet
from kn_core.profile import Profile

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
STEPS = 20  # m of Dai et al., as in `rivals.integrated_gradients`
ARRAYS = 7  # scores (L, D) that are kept of a picture, as in `identification.scores_of`
SIZES = {"9 × 16": (9, 16), "80 × 50": (80, 50)}  # concepts, kept images of each: the paper's, and all of COCO's
UNITS = {  # what the script calls a unit of each stage; inpainting by diffusion is not among what it measures
    "pairs": "seconds a caption, batch 8",
    "scores": "seconds of a pair's scores, all methods but Dai's",
    "dai": "seconds of Dai's scores, a picture",
    "perturbations": "seconds a perturbed caption",
}
UNKNOWN = "not measured"
WORKERS = (1, 8, 64)


@dataclass(frozen=True)
class Captioner:
    """The shapes of a caption model whose decoder is a Llama, and how long what it reads and writes is."""

    weights: float  # of tower, projection and decoder
    layers: int
    hidden: int
    ffn: int
    keys: int  # numbers of a token's keys in a layer: fewer than `hidden` where heads share them
    prompt: int  # tokens, with the image
    written: int  # tokens of a caption, its end included


CAPTIONERS = {
    "embedded": Captioner(0.139e9, 30, 576, 1536, 192, prompt=85, written=8),
    "minigpt4-llama2": Captioner(7.75e9, 32, 4096, 11008, 4096, prompt=99, written=100),
    "llava-1.5-7b": Captioner(7.06e9, 32, 4096, 11008, 4096, prompt=596, written=20),
}


def counts(profile: Profile, pairs: pd.DataFrame, concepts: int, images: int) -> dict[str, float]:
    """How many units the protocol asks for, where so many images of each of so many concepts are kept.

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
    settings, nothing = profile.perturbation, [np.empty(0)] * 3
    swept, choosing = min(held_out, settings.sweep_pictures or held_out), min(select, settings.choosing)
    fresh = held_out + (concepts - 1) * settings.others_per_concept
    shown = {"fresh": fresh, "own": held_out, "swept": swept, "choosing": choosing}  # pictures of a Trial's scope
    shown |= {"all": fresh + choosing, "tried": held_out + choosing, "dose": swept + choosing}
    found = {method: NeuronSet("", method, *nothing) for method in ("two-stage", *settings.rivals)}
    draws: dict[str, list[NeuronSet]]
    draws = {kind: [NeuronSet("", kind, *nothing) for _ in range(settings.draws)] for kind in settings.controls}
    in_place = [NeuronSet("", method, *nothing) for method in AT_TEXT if method in found and settings.text_sigma]
    trials = protocol.trials(settings, profile.identification, found, draws, in_place)
    return shown["all"] + sum(shown[trial.scope] for trial in trials)


def measured() -> pd.DataFrame:
    """What the script has measured: a row a figure, a column a machine; of the same twice, the last."""
    found = pd.read_csv(RESULTS)
    found = found[found["benchmark"] == "accelerator"]
    return found.pivot_table("value", "figure", "machine", aggfunc="last")


def distributed() -> pd.Series:
    """What `benchmarks/workers.py` has found of a local cluster, by figure; the last where there are several."""
    found = pd.read_csv(RESULTS)
    return found[found["benchmark"] == "workers"].groupby("figure")["value"].last()


def _figure(found: pd.Series, name: str) -> str:
    return f"{found[name]:.2f}" if name in found else UNKNOWN


def hours(profile: Profile, pairs: pd.DataFrame) -> pd.DataFrame:
    """A row a stage, then all together: how many units in each of `SIZES`, and how long they take on each machine.

    Without a machine, or a figure of it, 'not measured'; together, inpainting is left out.
    """
    units = pd.DataFrame({size: counts(profile, pairs, *counted) for size, counted in SIZES.items()})
    seconds, last = measured(), "together, but inpainting"
    found = units.reindex([*units.index, last])
    for machine in seconds.columns:
        each = pd.Series({stage: seconds[machine].get(figure, np.nan) for stage, figure in UNITS.items()})
        for size in SIZES:
            took = units[size] * each
            took[last] = took[list(UNITS)].sum(skipna=False)
            found[f"{machine}: {size}"] = took.map(words)
    if seconds.columns.empty:
        found[[f"hours of {size}" for size in SIZES]] = UNKNOWN
    return found.rename_axis("stage").reset_index()


def own_rates(profile: Profile, pairs: pd.DataFrame, spent: pd.DataFrame) -> pd.Series:
    """Seconds a unit of each stage in a study's own run, from its pairs and `provenance.seconds_a_stage`."""
    concepts = pairs.loc[pairs["kept"], "concept"].nunique()
    counted = counts(profile, pairs, concepts, round(pairs["kept"].sum() / concepts))
    return spent.set_index("stage")["seconds"].reindex(list(UNITS)) / pd.Series(counted).reindex(list(UNITS))


def on_workers(profile: Profile, pairs: pd.DataFrame, own: pd.Series) -> pd.DataFrame:
    """How long `WORKERS` take for COCO's 80 concepts, each concept a task: columns workers, and one a measured rate.

    `own` are `own_rates`; the others are of machines that the script has measured.
    """
    concepts, images = SIZES["80 × 50"]
    each, seconds = pd.Series(counts(profile, pairs, concepts, images))[list(UNITS)] / concepts, measured()
    rates = {"at this run's rates": own}
    rates |= {str(machine): seconds[machine].reindex(list(UNITS.values())).set_axis(list(UNITS)) for machine in seconds}
    rates |= {} if len(seconds.columns) else {"the paper's model, on a card": own * np.nan}
    rounds = pd.Series([-(-concepts // workers) for workers in WORKERS])
    found = {name: (rounds * (each * rate).sum(skipna=False)).map(words) for name, rate in rates.items()}
    return pd.DataFrame({"workers": WORKERS, "concepts one after the other": rounds, **found})


def words(seconds: float) -> str:
    """A duration to two digits."""
    if np.isnan(seconds):
        return UNKNOWN
    units = {"days": 86400, "h": 3600, "min": 60, "s": 1}
    unit = next((name for name, length in units.items() if seconds >= 2 * length), "s")
    return f"{float(f'{seconds / units[unit]:.2g}'):,g} {unit}"


def memory() -> pd.DataFrame:
    """GB in half precision, a row a model: the weights, what comes beside them, one at a time, and the most in all."""
    found = []
    for name, model in CAPTIONERS.items():
        kept = model.layers * (9 * model.hidden + 6 * model.ffn) * (model.prompt + model.written)  # what autograd keeps
        copied = 2 * STEPS * LAYERS_AT_ONCE * model.layers * model.keys * model.prompt
        numbers = np.array([model.weights, kept, copied, model.weights + max(kept, copied)])
        found.append((name, *(2 * numbers / 1e9)))
    return pd.DataFrame(found, columns=["model", "weights", "a backward pass", "copies for Dai et al.", "together"])


def for_sentences(profile: Profile, pairs: pd.DataFrame) -> dict[str, str]:
    """What the page's text says of all this: of each figure, what every machine gave."""
    model, found, (concepts, images) = CAPTIONERS["minigpt4-llama2"], measured(), SIZES["80 × 50"]
    counted = counts(profile, pairs, concepts, images)
    kept = (ARRAYS * counted["scores"] + counted["dai"]) * model.layers * model.ffn

    def told(*figures: str) -> str:
        cells = found.reindex(list(figures))
        return (
            "; ".join(
                ", ".join(UNKNOWN if np.isnan(value) else f"{value:.3g}" for value in cells[machine])
                for machine in found
            )
            or UNKNOWN
        )

    spread = distributed()
    batches, kinds, tiny = (1, 8, 32), ("float32", "bfloat16", "float16"), "a tiny model there against float32"
    return {
        "answers": f"{counted['perturbations'] / concepts:,.0f}",
        "disk": f"{4 * kept / 1e9:.0f}",
        "machines": "; ".join(found.columns) or "none",
        "ratio": told("over three bare forwards"),
        "captions": told(*(f"captions a second, batch {batch}" for batch in batches)),
        "shares": told(*(f"share of the matrix rate, captions, batch {batch}" for batch in batches)),
        "digits": told(*(f"largest error in {kind}, {tiny} on the processor" for kind in kinds)),
        "peak": told("GB at the peak, perturbed captions"),
        "cluster-cost": _figure(spread, "processor seconds, two workers over two plain processes"),
        "cluster-rate": _figure(spread, "rate of two workers over twice one"),
    }
