"""Which neurons are disturbed, how, on which pictures: a profile's list of trials (method.md 4 of the design).

Every method has the same budget. The main setting is tried with several seeds of the noise, controls with several
draws; sweeps change one thing of it, on some of the pictures; the noise is swept for every method, on these and on
pictures that choose its dose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kn_core.method.interventions import Setting
from kn_core.method.perturbation import Scope, Trial
from kn_core.method.two_stages import NeuronSet
from kn_core.settings import Identification, Intervention, Perturbation


def main_setting(settings: Perturbation, found: Identification) -> Setting:
    """The profile's main setting, with the first seed."""
    return _setting(settings, found, settings.intervention)


def patch_setting(settings: Perturbation, found: Identification) -> Setting:
    """The profile's budget patched, at image tokens."""
    return replace(_setting(settings, found, "patch"), positions="image")


def trials(
    settings: Perturbation,
    identification: Identification,
    found: Mapping[str, NeuronSet],
    controls: Mapping[str, Sequence[NeuronSet]],
    at_text: Sequence[NeuronSet] = (),
) -> Iterator[Trial]:
    """The trials of one concept. `found` has the two-stage neurons first, then rivals; `controls` draws by kind.

    `at_text` are the neurons of rivals that score where words are predicted, disturbed in their own place.

    Seed s disturbs found neurons with noise s, and a control's draw s with the same seed; draws beyond the rivals'
    seeds, which only say where the found neurons stand among many, are tried on the pictures of sweeps.
    """
    main = main_setting(settings, identification)
    two_stage, random = found["two-stage"], controls["random"]
    for seed in range(settings.seeds):
        elsewhere: Scope = "all" if settings.sweep_rivals else "tried"  # whether on other concepts' pictures
        yield Trial(two_stage, replace(main, seed=seed), "own" if seed else "all")
        yield Trial(random[seed], replace(main, seed=seed), "own" if seed else elsewhere)
        for rival in list(found.values())[1:] if seed < settings.rival_seeds else ():
            yield Trial(rival, replace(main, seed=seed), "fresh" if settings.sweep_rivals and not seed else "own")
    for kind, draws in controls.items():
        for draw in range(settings.seeds if kind == "random" else 0, settings.draws):
            yield Trial(draws[draw], replace(main, seed=draw), "own" if draw < settings.rival_seeds else "swept")

    pair, everyone = (two_stage, random[0]), (*found.values(), random[0])
    dosed = [one for one in everyone if not settings.sweep_sets or one.method in (*settings.sweep_sets, "random")]
    for neurons in dosed:
        if settings.choosing and neurons not in pair:
            yield Trial(neurons, main, "choosing")  # the pair's are tried there anyway
    for sigma in settings.sweep_sigma:
        if sigma != main.sigma:
            for neurons in dosed:
                yield Trial(neurons, replace(main, sigma=sigma), "dose")
    sweep = [replace(main, n=n) for n in settings.sweep_n]
    sweep += [_setting(settings, identification, intervention) for intervention in settings.sweep_interventions]
    sweep += [replace(main, positions=where) for where in settings.sweep_positions]
    for setting in sweep:
        if setting != main:
            for neurons in everyone if settings.sweep_rivals else pair:
                yield Trial(neurons, setting, "swept")
    for sigma in settings.text_sigma:
        for neurons in (*at_text, random[0]):
            yield Trial(neurons, replace(main, positions="text", sigma=sigma), "dose")
    if settings.directions and main.intervention == "noise" and main.positions == "image":
        for sigma in dict.fromkeys((main.sigma, *settings.sweep_sigma)):
            yield Trial(two_stage, replace(main, sigma=sigma), "swept", "direction")
    if settings.removal:
        yield Trial(two_stage, main, "own", "removal")


def _setting(settings: Perturbation, found: Identification, intervention: Intervention) -> Setting:
    sigma = {"noise": settings.sigma, "weights": settings.weight_sigma}.get(intervention, math.nan)
    where = "all" if intervention == "weights" else settings.positions
    site = settings.patch_site if intervention == "patch" else found.site
    return Setting(intervention, where, found.budget, sigma, 0, site)
