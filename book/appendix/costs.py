"""What a study costs, on which machine: hours, memory, disk. Arithmetic, for settings that nobody here has run.

`workload` counts the passes, `roofline` what each asks of a machine. No machine is used to its peak: how far ours was,
`benchmarks/results.csv` says of the embedded model, and an accelerator is taken to be used as well at best, and `WORSE`
times as badly at worst. Nor does it compute sooner than Python asks it to, layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from book.appendix.roofline import Machine
from book.appendix.workload import (
    CAPTIONERS,
    INPAINTER,
    STEPS,
    Captioner,
    Passes,
    Size,
    caption,
    identification,
    stages,
)
from kn_core.study.study import Study

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
WORSE = 3  # half precision, other shapes, attention in parts: at worst a card is used this much worse than two cores
LAUNCH = 2.7e-4  # seconds of Python a layer, `benchmarks/overhead.py` on one core of ours
ARRAYS = 7  # scores (L, D) that are kept a picture, as in `identification.scores_of`
GB = 1e9

LAPTOP = Machine("laptop, 2 cores", operations=2 * 3.0e9 * 32, bandwidth=40e9, memory=16 * GB, width=4)
CARD = Machine("one card of 24 GB", operations=165e12, bandwidth=1.008e12, memory=24 * GB, width=2, launch=LAUNCH)
MACHINES = (LAPTOP, CARD, replace(CARD, name="eight such cards", cards=8))
MEANT = {  # what the three stand for
    LAPTOP.name: "AVX2: 32 operations a cycle and core at 3 GHz, in float32",
    CARD.name: "a GeForce RTX 4090: tensor cores in half precision, sums in float32",
    MACHINES[2].name: "a concept on each at a time",
}


def seconds(passes: Passes, machine: Machine, share: float = 1.0) -> float:
    """The least time that these passes take on one card of a machine, a share of whose peak is reached."""
    return sum(times * machine.seconds(load, share) for times, load in passes)


# How long


def rates(results: Path = RESULTS) -> dict[str, float]:
    """What was measured last of the embedded model: seconds a pair of `identification`, and a `caption`."""
    frame = pd.read_csv(results)
    figures = {"identification": "seconds a pair", "caption": "captions a second batched"}
    last = {name: float(frame.loc[frame["figure"] == figure, "value"].iloc[-1]) for name, figure in figures.items()}
    return last | {"caption": 1 / last["caption"]}


def efficiencies(measured: Mapping[str, float]) -> dict[str, float]:
    """The share of the laptop's peak that was reached in each of `rates`."""
    model = CAPTIONERS["embedded"]
    passes = {"identification": identification(model), "caption": caption(model)}
    return {name: seconds(each, LAPTOP) / measured[name] for name, each in passes.items()}


def span(found: Mapping[str, float], machine: Machine = CARD) -> tuple[float, float]:
    """The least and the greatest share of a machine's peak that is reckoned with, from `efficiencies` of the laptop."""
    return min(found.values()) / (1 if machine is LAPTOP else WORSE), max(found.values())


def hours(model: Captioner, size: Size, machine: Machine, share: float) -> dict[str, float]:
    """Hours of each stage, of all concepts; a card takes one concept after the other."""
    in_turn = math.ceil(size.concepts / machine.cards)
    by = stages(model, size)
    return {name: in_turn * seconds(passes, machine, share) / 3600 for name, passes in by.items()}


def by_machine(size: Size, reached: Mapping[str, float]) -> pd.DataFrame:
    """Time of everything, at the shares of the peak that `span` makes of `efficiencies`: a row a model."""
    rows = []
    for name, model in CAPTIONERS.items():
        row: dict[str, str] = {"model": name}
        for machine in MACHINES:
            most, least = (sum(hours(model, size, machine, share).values()) for share in span(reached, machine))
            needed = needs(model, machine)
            beyond = f", with {needed / GB:.0f} GB of memory" if needed > machine.memory else ""
            row[machine.name] = f"{between(least, most)}{beyond}"
        rows.append(row)
    return pd.DataFrame(rows)


def by_stage(model: Captioner, size: Size, machine: Machine, reached: Mapping[str, float]) -> pd.DataFrame:
    """Time of each stage on one machine: columns stage, operations (of all concepts), the machine's name."""
    most, least = (hours(model, size, machine, share) for share in span(reached, machine))
    work = {name: sum(times * load.operations for times, load in each) for name, each in stages(model, size).items()}
    rows = [(name, size.concepts * work[name] / 1e15, between(least[name], most[name])) for name in work if work[name]]
    return pd.DataFrame(rows, columns=["stage", "operations (10¹⁵)", machine.name])


def measured(study: Study, size: Size) -> pd.DataFrame:
    """What the study's own artefacts took, and at these rates one of another size: columns stage, made, seconds, each,
    there (in words).

    `each` is seconds a caption, pair or answer; the seconds are those of the process that made an artefact, whatever
    ran beside it.
    """
    pairs, kinds = study.pairs(), study.store.describe()
    chosen = pairs[pairs["role"] == "select"].groupby("concept").size()
    dai = int(chosen.clip(upper=study.profile.identification.dai_images).sum())
    made = {  # kind of artefact -> its stage, units here, units a concept there
        "pairs": (
            "filtering: captions",
            int((pairs[["caption", "caption_inpainted"]] != "").to_numpy().sum()),
            size.captions,
        ),
        "scores": ("scores: pairs", int(chosen.sum()), size.select),
        "dai": ("scores of Dai et al.: pairs", dai, size.dai),
        "perturbations": ("perturbation: answers", len(study.perturbations()), size.answers),
    }
    full = "-full" if study.effort != study.profile else ""
    rows = []
    for kind, (words, units, there) in made.items():
        wanted = [f"{kind}-{concept}{full if kind == 'perturbations' else ''}" for concept in study.profile.concepts]
        took = float(kinds.loc[kinds["artefact"].map(lambda file: Path(file).stem).isin(wanted), "seconds"].sum())
        if units:
            rows.append((words, units, took, took / units, in_words(size.concepts * there * took / units / 3600)))
    return pd.DataFrame(rows, columns=["stage", "made", "seconds", "each", "there"])


def machines() -> pd.DataFrame:
    """The machines for a reader: columns machine, TFLOP/s, GB/s, GB, bytes a number, cards, what it stands for."""
    rows = [
        (each.name, each.operations / 1e12, each.bandwidth / GB, each.memory / GB, each.width, each.cards)
        for each in MACHINES
    ]
    found = pd.DataFrame(rows, columns=["machine", "TFLOP/s a card", "GB/s", "GB", "bytes a number", "cards"])
    return found.assign(meant=found["machine"].map(MEANT)).rename(columns={"meant": "as"})


def for_sentences(size: Size, measured: Mapping[str, float], reached: Mapping[str, float]) -> dict[str, str]:
    """What the page's text says of all this."""
    share, of_card = span(reached), hours(CAPTIONERS["minigpt4-llama2"], size, CARD, max(reached.values()))
    words = {"select": str(size.select), "held_out": str(size.held_out), "answers": f"{size.answers:,}"}
    words |= {"captions": f"{size.captions / size.pairs:.1f}", "least": f"{share[0]:.0%}", "most": f"{share[1]:.0%}"}
    words |= {"most-of-it": f"{of_card['perturbation'] / sum(of_card.values()):.0%}"}
    words |= {"launch": f"{1000 * LAUNCH:.2g}", "faster": f"{CARD.operations / LAPTOP.operations:.0f}"}
    words |= {f"seconds-{name}": f"{value:.2g}" for name, value in measured.items()}
    words |= {f"reached-{name}": f"{value:.0%}" for name, value in reached.items()}
    for whole_name, model in CAPTIONERS.items():
        name = whole_name.partition("-")[0]
        words[f"need-{name}"] = f"{needs(model, CARD) / GB:.1f}"
        words[f"float32-{name}"] = f"{model.weights * LAPTOP.width / GB:.1f}"
        words[f"tokens-{name}"] = str(model.image_tokens)
        words[f"disk-{name}"] = f"{disk(model, size) / GB:.1f}"
    return words


def between(least: float, most: float) -> str:
    """Two durations in hours as '9 to 12 h', '40 min to 2 h', or '9 h' where both are the same in words."""
    first, last = in_words(least), in_words(most)
    if first == last:
        return first
    number, _, unit = first.partition(" ")
    return f"{number if last.endswith(f' {unit}') else first} to {last}"


def in_words(hours: float) -> str:
    """'40 s', '12 min', '3.1 h', '5 days'."""
    for unit, length, from_on in (("days", 24, 48), ("h", 1, 1), ("min", 1 / 60, 1 / 60)):
        if hours >= from_on:
            return f"{hours / length:.2g} {unit}" if hours / length < 100 else f"{hours / length:,.0f} {unit}"
    return f"{hours * 3600:.0f} s"


# How much room


# What the backward pass of a frozen Llama keeps of each token and layer in half precision, in units of H and of D
# (`tests/test_costs.py` counts it); and of D what is recorded beside it: the product, and two gradients.
KEPT = (9, 3)
RECORDED = 3


def memory(model: Captioner, machine: Machine) -> dict[str, float]:
    """Bytes of an accelerator's memory: the weights, and the largest things beside them, which come one at a time."""
    decoder, said = model.decoder, model.written
    cache = decoder.cached * machine.width  # a token
    each = KEPT[0] * decoder.hidden + (KEPT[1] + RECORDED) * decoder.ffn
    return {
        "weights": model.weights * machine.width,
        "captions: keys and values of a batch": model.batch * (model.prompt + said) * cache,
        "identification: one backward pass": (model.prompt + said) * decoder.layers * each * machine.width,
        "Dai et al.: a layer's caches": (STEPS + 2) * model.prompt * cache,
        "neurons' tokens: the unembedding in float32": 4 * decoder.head,
    }


def room(*names: str) -> pd.DataFrame:
    """`memory` of some models on one card, in GB, a row a thing, and what must be there."""
    found = pd.DataFrame({name: memory(CAPTIONERS[name], CARD) for name in names}) / GB
    found.loc["weights and the largest of the others"] = [needs(CAPTIONERS[name], CARD) / GB for name in names]
    return found.rename_axis("what").reset_index()


def needs(model: Captioner, machine: Machine) -> float:
    """Bytes that must be there: the weights and the largest thing beside them."""
    weights, *others = memory(model, machine).values()
    return weights + max(others)


def disk(model: Captioner, size: Size) -> float:
    """Bytes of a study's scores, in float32: all else under `results/` is small."""
    return 4.0 * size.concepts * (ARRAYS * size.select + size.dai) * model.decoder.layers * model.decoder.ffn


# What has to be there


PHOTOGRAPHS = 816e6  # bytes of val2017 in whole; the command takes those that the filters could keep
ANNOTATIONS = 253e6


def files() -> pd.DataFrame:
    """What a reader brings to the paper's setting: columns file, GB, from, licence."""
    model, half = CAPTIONERS["minigpt4-llama2"], CARD.width
    llava = CAPTIONERS["llava-1.5-7b"].weights * half
    rows = [
        (
            "eva_vit_g.pth: the vision tower, EVA ViT-g/14 (or a BLIP-2 checkpoint, which holds the same weights)",
            model.tower.weights * half,
            "LAVIS; or Salesforce/blip2-opt-2.7b on the hub",
            "MIT (EVA), BSD-3-Clause (LAVIS)",
        ),
        (
            "pretrained_minigpt4_llama2_7b.pth: the projection",
            model.projection * 3 * 4,  # in float32, with its optimizer's two moments
            "the README of Vision-CAIR/MiniGPT-4",
            "BSD-3-Clause",
        ),
        (
            "Llama-2-7b-chat-hf: the language model",
            model.decoder.weights * half,
            "meta-llama/Llama-2-7b-chat-hf on the hub, once its licence is accepted",
            "Llama 2 Community License (Meta)",
        ),
        (
            "MS COCO 2017: annotations, and photographs of val2017",
            ANNOTATIONS + PHOTOGRAPHS,
            "python -m kn_core data coco",
            "annotations CC BY 4.0, photographs by their authors' terms",
        ),
        (
            "Stable Diffusion 2 inpainting, where the profile inpaints with it",
            INPAINTER.numbers * half,
            "stabilityai/stable-diffusion-2-inpainting on the hub",
            "OpenRAIL++",
        ),
        (
            "LLaVA-1.5-7B, for its profile",
            llava,
            "llava-hf/llava-1.5-7b-hf on the hub",
            "Llama 2 Community License (Meta)",
        ),
    ]
    found = pd.DataFrame(rows, columns=["file", "GB", "from", "licence"])
    return found.assign(GB=found["GB"] / GB)
