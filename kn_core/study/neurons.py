"""A profile's neurons: every method's scores of the selection pairs, and the sets that are chosen by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.fingerprint import code, fingerprint
from kn_core.method import identification, thresholds
from kn_core.method.capture import Capture, capture
from kn_core.method.identification import score_pair
from kn_core.method.interventions import inpainted_activations
from kn_core.method.rivals import directly, integrated_gradients
from kn_core.method.two_stages import NeuronSet, reduce_positions
from kn_core.pictures.decoys import Removal, changed, decoy
from kn_core.pictures.token_grid import tokens_inside
from kn_core.study.pairs import PairStudy, StudyError


class NeuronStudy(PairStudy):
    """The part of a `Study` that finds neurons and does nothing to them."""

    @property
    def n_layers(self) -> int:
        """L, read from the scores on disk, so that no model need be loaded for it."""
        return int(self.scores(self.studied()[0])["delta"].shape[1])

    def inputs(self, concept: str) -> str:
        """Digest of all that a concept's neurons follow from, for artefacts that are made of them."""
        return self._neuron_inputs(concept)

    def decoy_inputs(self, concept: str) -> str:
        """The same of its decoys alone."""
        return fingerprint(self._score_inputs(concept), code("kn_core.pictures.decoys"))

    def scores(self, concept: str) -> dict[str, np.ndarray]:
        """What neurons are chosen by: `measured`; with automatic thresholds, `delta` is what W is the mean of."""
        found = self.measured(concept)
        if self.profile.identification.thresholds == "auto":
            d, e = self.against_decoys(concept)
            w = thresholds.standardised(d - e)
            kept = self.decoys(concept)["there"]  # a picture without a decoy has what the others have
            found["delta"] = np.broadcast_to(w.mean(axis=0), found["delta"].shape).astype(np.float32)
            found["delta"][kept] = w
        return found

    def measured(self, concept: str) -> dict[str, np.ndarray]:
        """Every method's scores of each selection pair (`identification.scores_of`), reduced over positions: (N, L, D).

        Those of Dai et al., the slow ones, are of the first `identification.dai_images` pairs, and are there where the
        profile asks for this rival.
        """
        found = self.store.arrays(f"scores-{concept}", self._score_inputs(concept), lambda: self._scores(concept))
        if "dai" in self.profile.perturbation.rivals:
            found["dai"] = self.store.arrays(f"dai-{concept}", self._dai_inputs(concept), lambda: self._dai(concept))[
                "dai"
            ]
        return found

    def decoys(self, concept: str) -> dict[str, np.ndarray]:
        """Stage 1's score of each selection picture's decoy (`pictures.decoys`), as that of its object in `measured`.

        `score` (M, L, D) of those that have one, `there` (N,) bool says which, `changed` (N, 2) how much a pixel
        changes without the object and without the decoy (NaN where there is none). Raises StudyError where M < 2.
        """
        found = self.store.arrays(f"decoys-{concept}", self.decoy_inputs(concept), lambda: self._decoys(concept))
        if found["there"].sum() < 2:
            raise StudyError(f"'{concept}': fewer than two pictures have room for a decoy, of {len(found['there'])}.")
        return found

    def against_decoys(self, concept: str) -> tuple[np.ndarray, np.ndarray]:
        """Stage 1's scores of object and decoy (`thresholds.matched`) on the M pictures that have both: (M, L, D)."""
        decoys = self.decoys(concept)
        d = self.measured(concept)["delta"][decoys["there"]]
        return d, thresholds.matched(d, decoys["score"])

    def stability(self, concept: str) -> np.ndarray:
        """How often each neuron is among the best of a half of the pictures (`thresholds.stability`), (L, D).

        NaN where the profile tries no rules from a null, and so has no decoys, or too few pictures have one.
        """
        settings, scores = self.profile.rules, self.measured(concept)["delta"]
        if settings.tried and len(scores) >= 4:  # or a half has no spread
            with suppress(StudyError):
                d, e = self.against_decoys(concept)
                return thresholds.stability(d - e, settings.best, settings.halves, self.profile.data.seed)
        return np.full(scores.shape[1:], np.nan)

    def thresholds(self, concept: str) -> dict[str, float]:
        """The concept's threshold of `delta` and of `gradcam`: set by hand, else a quantile of the pooled score.

        That of `delta` is automatic where the profile says so (`thresholds.automatic`).
        """
        pooled = self.pooled(concept)
        settings = self.profile.identification
        by_stage = {"delta": settings.threshold_a, "gradcam": settings.threshold_g}
        found = {name: identification.threshold(rule, concept, pooled[name]) for name, rule in by_stage.items()}
        if settings.thresholds == "auto":
            d, e = self.against_decoys(concept)
            found["delta"] = thresholds.automatic(d - e, self.profile.rules, self.profile.data.seed)
        return found

    def pooled(self, concept: str) -> dict[str, np.ndarray]:
        """Every method's scores of a concept, pooled over its selection pictures: (L, D) each."""
        return identification.pooled(self.scores(concept), self.profile.identification)

    def neurons(self, concept: str | None = None) -> pd.DataFrame:
        """A concept's neurons by every method, and the draws of its controls, one row a neuron, the best first.

        Column `stability` is in how many halves of the selection pictures a neuron is among those that answer most.
        """
        return self._concepts("neurons", concept, self._neurons)

    def neuron_set(self, concept: str, method: str = "two-stage", draw: int = 0) -> NeuronSet:
        """One neuron set of a concept. Raises StudyError where there are no such neurons."""
        neurons = self.neurons(concept)
        chosen = neurons[(neurons["method"] == method) & (neurons["draw"] == draw)]
        if chosen.empty:
            raise StudyError(
                f"No {method} neurons of '{concept}' (draw {draw}): none passed thresholds {self.thresholds(concept)}. "
                "Lower identification.threshold_a or threshold_g in the profile."
            )
        return NeuronSet.from_frame(chosen)

    def mean_activation(self, without: str) -> Tensor:
        """Mean of O' over image tokens and selection pictures of the other concepts, (L, D): what 'mean' puts in."""
        others = [concept for concept in self.studied() if concept != without]
        if not others:
            raise StudyError(
                f"'mean' needs pictures of concepts other than '{without}', and none has two kept pairs. "
                "Take 'mean' out of the profile's perturbation.sweep_interventions."
            )
        for concept in others:
            if concept not in self._means:
                self._means[concept] = self.scores(concept)["activation"].mean(axis=0)
        means = [self._means[concept] for concept in others]
        return torch.from_numpy(np.mean(means, axis=0))

    def capture(self, concept: str, image_id: str) -> Capture:
        """All activations and gradients of one kept pair: what a heatmap needs. Not kept on disk (some 35 MB)."""
        row, sample = self._kept(concept, image_id), self.sample(concept, image_id)
        target, site = self.target(concept, image_id), self.profile.identification.site
        return capture(self.model, sample.image, self.inpainted(sample), row["caption"], target, site)

    def token_maps(self, concept: str, image_id: str) -> Tensor:
        """Where each image token looks in a picture, (P, rows * columns) of the model's grid."""
        return self.model.token_maps([self.sample(concept, image_id).image])[0]

    def _score_inputs(self, concept: str) -> str:
        settings = self.profile.identification
        return fingerprint(self._pair_inputs(concept), settings.site, settings.over_positions, code(__name__))

    def _dai_inputs(self, concept: str) -> str:
        return fingerprint(self._score_inputs(concept), self.profile.identification.dai_images)

    def _neuron_inputs(self, concept: str) -> str:
        protocol, auto = self.profile.long.perturbation, self.profile.identification.thresholds == "auto"
        rules = self.profile.rules
        return fingerprint(
            *([self.profile.fingerprint("rules")] if auto else []),
            *([self.decoy_inputs(concept), rules.best, rules.halves] if auto or rules.tried else []),
            self._score_inputs(concept),
            self.profile.fingerprint("identification"),
            (protocol.rivals, protocol.controls, protocol.draws, protocol.sweep_n, bool(protocol.text_sigma)),
        )

    def _scores(self, concept: str) -> Mapping[str, np.ndarray]:
        settings = self.profile.identification
        chosen = self.pairs(concept).query("role == 'select'")
        if chosen.empty:
            raise StudyError(
                f"No pair of '{concept}' passed the filters; see {self.folder / 'pairs.parquet'}, column reason."
            )
        found, direct = [], directly(self.model)
        for image_id, caption in zip(chosen["image_id"], chosen["caption"], strict=True):
            sample, target = self.sample(concept, image_id), self.target(concept, image_id)
            pictures, maps = (sample.image, self.inpainted(sample)), self.token_maps(concept, image_id)
            pair, stages = score_pair(self.model, *pictures, caption, target, sample.mask, maps, settings)
            found.append(identification.scores_of(self.model, pair, target, stages, direct))
        return {name: np.stack([scores[name] for scores in found]) for name in found[0]}

    def _decoys(self, concept: str) -> Mapping[str, np.ndarray]:
        ids = self.pairs(concept).query("role == 'select'")["image_id"]
        samples = [self.sample(concept, image_id) for image_id in ids]
        without = [self.inpainted(sample) for sample in samples]
        found = [decoy(*pair, self.profile.inpainting) for pair in zip(samples, without, strict=True)]
        there = [each for each in found if each is not None]
        scores = [score for start in range(0, len(there), 4) for score in self.answers(there[start : start + 4])]
        by_object = [changed(sample.image, gone) for sample, gone in zip(samples, without, strict=True)]
        by_decoy = [np.nan if each is None else each.changed for each in found]
        shape = (0, self.model.n_layers, self.model.ffn_width)
        return {
            "score": np.stack(scores) if scores else np.zeros(shape, np.float32),
            "there": np.array([each is not None for each in found]),
            "changed": np.array([by_object, by_decoy]).T,
        }

    def answers(self, removals: Sequence[Removal]) -> list[np.ndarray]:
        """Stage 1's score (L, D) of what a few removals take out of their pictures, in one forward pass."""
        settings, model = self.profile.identification, self.model
        shown = {id(each.image): each.image for each in removals}  # several may be of one picture
        of = [list(shown).index(id(each.image)) for each in removals]
        prompts = model.prompts([*shown.values(), *(each.without for each in removals)])
        present, gone = inpainted_activations(model, prompts, settings.site).split([len(shown), len(removals)])
        maps = model.token_maps(list(shown.values())).numpy()[of]
        inside = [tokens_inside(each.mask, model.grid, looks) for each, looks in zip(removals, maps, strict=True)]
        pairs = zip(present[of] - gone, inside, strict=True)
        return [reduce_positions(delta, settings.over_positions, tokens).numpy() for delta, tokens in pairs]

    def _dai(self, concept: str) -> Mapping[str, np.ndarray]:
        chosen = self.pairs(concept).query("role == 'select'").head(self.profile.identification.dai_images)
        found = [
            integrated_gradients(
                self.model, self.sample(concept, image_id).image, caption, self.target(concept, image_id)
            )
            for image_id, caption in zip(chosen["image_id"], chosen["caption"], strict=True)
        ]
        return {"dai": np.stack(found)}

    def _neurons(self, concept: str) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            scores, thresholds, protocol = (
                self.scores(concept),
                self.thresholds(concept),
                self.profile.long.perturbation,
            )
            settings, seed = self.profile.identification, self.profile.data.seed
            found = identification.neurons(concept, self.model, scores, thresholds, settings, protocol, seed)
            return found.assign(stability=self.stability(concept)[found["layer"], found["unit"]])

        return self.store.table(f"neurons-{concept}", self._neuron_inputs(concept), compute)
