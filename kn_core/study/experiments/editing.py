"""From one name to another with a concept's neurons: edits made on selection pictures, judged on held-out ones.

A row of `edits` is one question put to an edited model. `what` says which:

    learnt    a selection picture that the edit was made of
    own       a held-out picture of the concept (image generality)
    other     a held-out picture of another concept without this one: its caption is to stay (image locality)
    without   a held-out picture of the concept without the object: it must not say the new word (portability)
    asked     a held-out picture of the concept asked about in other words; `wording` is what (text generality)
    polled    'Is there a ... in this picture?', of the old word and of the new; `wording` is the word (portability)
    text      a sentence without a picture that describes a concept, `wording` (text generality, text locality)

Generation is in caption and clean_caption. Teacher-forced are the probabilities of the old and the new word, as
old_probability and new_probability, and before the edit clean_..., where the clean caption names the concept, behind
the text, or, polled, those of 'no' and 'yes'; and over the whole clean caption `kept`, the share of its tokens that the
edited model still foretells, and `divergence`, the mean KL divergence from what the clean model foretells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.concepts import names
from kn_core.fingerprint import code, fingerprint
from kn_core.measures.metrics import repetition, retention
from kn_core.method import controls, editing, editors
from kn_core.method.editing import Recorder, Seen, token_of
from kn_core.method.editors import Other
from kn_core.method.edits import Edit, EditError
from kn_core.method.recipes import Recipe
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.pictures.token_grid import tokens_inside
from kn_core.profile import Editing
from kn_core.settings import Editor
from kn_core.study.experiments import ladder, portability
from kn_core.study.study import Study, StudyError

SWAPS = ("driven", "swap")
THIRD = ("third stage", "early layers", "late layers")  # its neurons of either half of the layers alone
RANDOM = "random"  # as many neurons of the same layers as the third stage's


@dataclass(frozen=True, eq=False)
class Question:
    """One prompt, what the unedited model answers to it, and where that names the concept (-1: nowhere)."""

    what: str
    image_id: str
    image_concept: str
    prompt: Tensor  # (T, H)
    clean: str
    position: int
    wording: str = ""


def new_name(study: Study, concept: str, step: int = 1) -> str:
    """What a concept is called instead: the profile's next studied concept, or the one `step` further on."""
    every = study.studied()
    if len(every) < 2:
        raise StudyError(f"'{concept}' has no other concept whose name it could take: study two or more.")
    return every[(every.index(concept) + step) % len(every)]


def neurons(study: Study, concept: str, which: str, n: int) -> NeuronSet:
    """The best n of a method's: `THIRD`, 'attribution' without contrasts, a method of the study, or `RANDOM`."""
    if which in (*THIRD, RANDOM, "attribution"):
        recipe, how = ladder.choice(study) if which != "attribution" else (Recipe(), "patch")
        halved = which in THIRD[1:]
        found = ladder.neurons(study, concept, recipe, how, study.n_layers * study.model.ffn_width if halved else None)
        if halved:
            found = found.where((found.layers < study.n_layers // 2) == (which == THIRD[1]))
        found = found.top(n)
        if which != RANDOM:
            return found
        try:
            generator = controls.generator(concept, study.profile.data.seed)
            return controls.same_layers(found, study.model.ffn_width, generator)
        except controls.ControlError as error:
            told = f"'{concept}': an edit of {n} neurons takes more than half of some layer"
            raise StudyError(f"{told}, so that as many others cannot be drawn at random.") from error
    if which == "all":
        return NeuronSet.of_layers(
            concept, "all", np.arange(study.profile.long.editing.layer + 1), study.model.ffn_width
        )
    return study.neuron_set(concept, which).top(n)


def seen(study: Study, concept: str, role: str, first: int, without: str = "") -> list[Seen]:
    """A concept's first pairs of one role as an edit learns from them; none that shows or names `without`."""
    pairs = study.pairs(concept)
    rows = pairs[pairs["role"] == role].set_index("image_id", drop=False)
    every = (study.sample(concept, image_id) for image_id in rows.index)
    fit = (
        one for one in every if not without or not (without in one.things or names(rows.caption[one.image_id], without))
    )
    samples = list(islice(fit, first))
    if not samples:
        return []
    rows = rows.loc[[one.image_id for one in samples]]
    prompts, maps = (made([one.image for one in samples]) for made in (study.model.prompts, study.model.token_maps))
    inside = [tokens_inside(one.mask, study.model.grid, of) for one, of in zip(samples, maps.numpy(), strict=True)]
    each = zip(rows["image_id"], prompts, rows["caption"], rows["target_position"], inside, strict=True)
    return [Seen(image, prompt, said, int(at), torch.from_numpy(shows)) for image, prompt, said, at, shows in each]


def edits(study: Study, concept: str) -> pd.DataFrame:
    """Every edit of the profile that takes a concept's name from it, and what the edited model answers.

    Columns concept, new, editor, neurons, dose ('chosen', or a strength that was set), strength, n (of neurons), main
    (whether it is the first editor's with the first set, at the chosen dose), then those of `judged`.
    """
    settings, _ = study.effort.editing, new_name(study, concept)  # first: with one concept there is nothing to do
    inputs = fingerprint(ladder.upstream(study), settings.model_dump(), ladder.choice(study), code(__name__))

    def compute() -> pd.DataFrame:
        rows: list[dict[str, Any]] = []
        asked, clean, best = questions(study, concept), Clean(study.model), (settings.editors[0], settings.sets[0])
        for step in range(1, len(study.studied()) if settings.all_pairs else 2):
            compared = study.studied().index(concept) < (settings.compared or len(study.studied()))
            new = new_name(study, concept, step)
            for editor, which in planned(settings) if step == 1 and compared else [best]:
                try:
                    edit = made(study, concept, new, editor, which)
                except (EditError, StudyError):  # a method without neurons where the editor can use them
                    continue
                tried = settings.strengths.get(editor, (1.0,))
                fitting = fitted(study, edit, tried)
                whole = settings.all_doses and step == 1 and which == best[1] and len(tried) > 1
                every = tried if whole else ()
                doses = {"chosen": fitting} | {f"{strength:g}": strength for strength in every}
                for dose, strength in doses.items():
                    main = (editor, which) == best and dose == "chosen"
                    some = asked if main and step == 1 else first(asked, settings.light)
                    told = {"concept": concept, "new": new, "editor": editor, "neurons": which, "dose": dose}
                    more = {"strength": strength, "n": len(edit.tensors["unit"]), "main": main}
                    found = [*judged(study, edit.scaled(strength), some, clean)]
                    if main and step == 1 and compared:
                        found += portability.asked(study, edit.scaled(strength))
                    rows += [told | more | row for row in found]
        frame = pd.DataFrame(rows)
        named = frame["what"].isin(["learnt", "own"])
        frame["wanted_caption"] = [
            editors.renamed(*each) if own else None
            for own, *each in zip(named, frame["clean_caption"], frame["concept"], frame["new"], strict=True)
        ]
        of = {name: frame[f"{name}caption"] for name in ("", "clean_", "wanted_")}
        written = pd.concat(of.values()).dropna().unique()
        perplexity = dict(zip(written, study.model.perplexity(list(written)), strict=True))
        return frame.assign(**{f"{name}perplexity": captions.map(perplexity) for name, captions in of.items()})

    name = f"edits-{concept}" + ("" if settings == study.profile.editing else "-full")
    return study.store.table(name, inputs, compute)


def planned(settings: Editing) -> list[tuple[Editor, str]]:
    """Editors and sets that the main pair is tried with: every set for the best editor, or, where asked, for all.

    Halves of the layers are for the best alone.
    """
    rest = [which for which in settings.sets if which not in THIRD[1:]] if settings.all_sets else settings.sets[:1]
    pairs = [(one, which) for i, one in enumerate(settings.editors) for which in (rest if i else settings.sets)]
    every: list[tuple[Editor, str]] = [("ridge", "all")]
    return pairs + (every if "ridge" in settings.editors else [])


def made(study: Study, concept: str, new: str, editor: Editor, which: str) -> Edit:
    """An edit at strength 1, from selection pictures alone."""
    settings = study.effort.editing
    n = settings.budget // 2 if editor in SWAPS else settings.budget  # a swap has the other word's neurons too
    rest = [other for other in study.studied() if other != concept]
    others = [one for other in rest for one in seen(study, other, "select", settings.others, without=concept)]
    towards = None
    if editor in SWAPS:
        towards = Other(neurons(study, new, which, n), seen(study, new, "select", settings.towards))
    pictures = seen(study, concept, "select", settings.pictures)
    found = neurons(study, concept, which, n)
    how: dict[str, Any] = {"layer": settings.layer, "recorded": recorder(study.model), "optimised": settings.optimised}
    how |= {"push": push(study, concept, new)} if editor == "ridge" else {}
    return editors.make(study.model, concept, new, found, pictures, others, editor, 1.0, towards, **how)


def fitted(study: Study, edit: Edit, strengths: Sequence[float]) -> float:
    """The strength that least surprises selection pictures: the word's by the new name, others' by what they say.

    The sum of `editors.surprise` of both; of the edit's own pictures those that come last, on which it was optimised
    only where there are no more.
    """
    if len(strengths) == 1:
        return strengths[0]
    settings, old, new = study.effort.editing, edit.made_from["old"], edit.made_from["new"]
    shown = seen(study, old, "select", settings.pictures)[-settings.optimised :]
    rest = [other for other in study.studied() if other != old][: settings.optimised]
    stay = [replace(one, position=-1) for other in rest for one in seen(study, other, "select", 1, without=old)]
    asked = [(shown, [editors.renamed(one.caption, old, new) for one in shown]), (stay, [one.caption for one in stay])]
    lost = {}
    for strength in strengths:
        with edit.scaled(strength), torch.no_grad():
            lost[strength] = sum(float(editors.surprise(study.model, *each)) for each in asked if each[0])
    return min(lost, key=lambda strength: lost[strength])


recorder = cache(Recorder)  # of a model: selection pictures serve many edits


@lru_cache(1)
def push(study: Study, concept: str, new: str) -> Tensor:
    """What 'ridge' writes, whatever set it is restricted to."""
    settings = study.effort.editing
    few = seen(study, concept, "select", settings.optimised)
    return editing.wanted(study.model, few, token_of(study.model, new), settings.layer)


def first(asked: Sequence[Question], n: int) -> list[Question]:
    """The first n held-out pictures of the concept, and of others."""
    return [one for what in ("own", "other") for one in [each for each in asked if each.what == what][:n]]


def questions(study: Study, concept: str) -> list[Question]:
    """What an edit of a concept's name is judged by."""
    settings, found = study.effort.editing, []
    for role, what, n in (("select", "learnt", settings.learnt), ("held_out", "own", settings.judged)):
        found += [
            Question(what, one.image_id, concept, one.prompt, one.caption, one.position)
            for one in seen(study, concept, role, n)
        ]
    every = study.studied()
    for place in range(settings.judged_others):  # the first of each other concept, then the second ...
        nth, step = divmod(place, len(every) - 1)
        other = every[(every.index(concept) + 1 + step) % len(every)]
        found += [
            Question("other", one.image_id, other, one.prompt, one.caption, one.position)
            for one in seen(study, other, "held_out", nth + 1, without=concept)[nth:]
        ]
    rows = study.pairs(concept).query("role == 'held_out'").head(settings.without)
    samples = [study.sample(concept, image_id) for image_id in rows["image_id"]]
    if samples:
        prompts = study.model.prompts([study.inpainted(one) for one in samples])
        told = zip(rows["image_id"], prompts, rows["caption_inpainted"], strict=True)
        found += [Question("without", image, concept, prompt, said, -1) for image, prompt, said in told]
    return found


class Clean:
    """What the unedited model foretells, once a question."""

    def __init__(self, model: CaptionModel) -> None:
        self.model, self._known = model, cache(self._foretold)
        self._prompts: dict[tuple[str, str], Question] = {}

    def of(self, question: Question) -> Tensor:
        """Log probabilities (1 + C, V) along the clean caption, in half precision."""
        key = question.what, question.image_id
        self._prompts[key] = question
        return self._known(key)

    def _foretold(self, key: tuple[str, str]) -> Tensor:
        question = self._prompts[key]
        with torch.no_grad():
            logits = self.model.logits(question.prompt[None], [question.clean])[0]
        return logits.float().log_softmax(-1).half().cpu()


def judged(study: Study, edit: Edit, asked: Sequence[Question], clean: Clean) -> Iterator[dict[str, Any]]:
    """A row a question, of an edit that is not in the model yet."""
    model, old, new = study.model, edit.made_from["old"], edit.made_from["new"]
    said, instead = token_of(model, old), token_of(model, new)
    before = [clean.of(one) for one in asked]
    with edit:
        captions, logits = model.respond(
            torch.stack([one.prompt for one in asked]), [one.clean for one in asked], study.profile.model.max_new_tokens
        )
    for one, caption, row, base in zip(asked, captions, logits, before, strict=True):
        base, after = base.float(), row.float().log_softmax(-1).cpu()[: len(base)]
        found: dict[str, Any] = {
            "what": one.what,
            "image_id": one.image_id,
            "image_concept": one.image_concept,
            "wording": one.wording,
        }
        found |= {"caption": caption, "clean_caption": one.clean, "retained": retention(one.clean, caption, old)}
        found |= {"repetition": repetition(caption)}
        found |= {
            "kept": float((base.argmax(-1) == after.argmax(-1)).float().mean()),
            "divergence": float((base.exp() * (base - after)).sum(-1).mean().clamp(min=0)),
        }
        for name, chances in (("", after), ("clean_", base)):
            for word, token in (("old", said), ("new", instead)):
                at = chances[one.position, token].exp() if one.position >= 0 else torch.tensor(torch.nan)
                found[f"{name}{word}_probability"] = float(at)
        yield found
