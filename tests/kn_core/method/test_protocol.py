"""A profile's trials: every method with the same budget, doses for all, sweeps around the main setting."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from kn_core.method.interventions import Setting
from kn_core.method.protocol import main_setting, trials
from kn_core.method.two_stages import NeuronSet
from kn_core.settings import Identification, Perturbation, Threshold


def neurons(method: str) -> NeuronSet:
    return NeuronSet("bear", method, np.array([0, 1]), np.array([5, 7]), np.array([2.0, 1.0]))


FOUND = {method: neurons(method) for method in ("two-stage", "schwettmann")}
IDENTIFICATION = Identification(threshold_a=Threshold(quantile=0.95), threshold_g=Threshold(quantile=0.95), budget=2)
CONTROLS = {kind: [neurons(kind) for _ in range(3)] for kind in ("random", "uniform")}


def planned(**settings) -> Counter[tuple[str, Setting, str]]:
    given = {
        "sigma": 3.0,
        "seeds": 1,
        "draws": 1,
        "choosing": 0,
        "rivals": ("schwettmann",),
        "controls": ("random", "uniform"),
        "directions": False,
    }
    own_place = [neurons("dai-text")] if "text_sigma" in settings else []
    made = trials(Perturbation.model_validate(given | settings), IDENTIFICATION, FOUND, CONTROLS, own_place)
    done = ((trial.instead or trial.neurons.method, trial.setting, trial.scope) for trial in made)
    return Counter(one for one in done if one[0] != "removal")


def setting(intervention="noise", positions="image", n=2, sigma=3.0, seed=0) -> Setting:
    return Setting(intervention, positions, n, sigma, seed)


def test_the_main_setting_on_every_picture_and_later_draws_on_some():
    assert planned(seeds=2, draws=3) == Counter(
        {
            ("two-stage", setting(), "all"): 1,
            ("random", setting(), "tried"): 1,
            ("schwettmann", setting(), "own"): 1,
            ("two-stage", setting(seed=1), "own"): 1,
            ("random", setting(seed=1), "own"): 1,
            ("random", setting(seed=2), "swept"): 1,
            ("uniform", setting(), "own"): 1,
            **{("uniform", setting(seed=draw), "swept"): 1 for draw in (1, 2)},
        }
    )


def test_rivals_have_the_noise_drawn_as_often_as_the_profile_says():
    extra = planned(seeds=2, draws=2, rival_seeds=2) - planned(seeds=2, draws=2)
    assert extra == Counter([("schwettmann", setting(seed=1), "own"), ("uniform", setting(seed=1), "own")])


def test_every_method_is_tried_at_every_dose_on_pictures_that_choose_one():
    extra = planned(sweep_sigma=(1.0, 3.0), choosing=2) - planned()
    methods = ("two-stage", "schwettmann", "random")
    assert extra == Counter({(method, setting(sigma=1.0), "dose"): 1 for method in methods}) + Counter(
        [("schwettmann", setting(), "choosing")]
    )
    few = planned(sweep_sigma=(1.0, 3.0), choosing=2, sweep_sets=("two-stage",)) - planned()
    assert few == Counter({(method, setting(sigma=1.0), "dose"): 1 for method in ("two-stage", "random")})


def test_noise_has_directions_beside_it_and_rivals_their_own_place():
    sweep = {"sweep_sigma": (1.0, 3.0)}
    extra = planned(directions=True, **sweep) - planned(**sweep)
    assert extra == Counter([("direction", setting(), "swept"), ("direction", setting(sigma=1.0), "swept")])
    extra = planned(text_sigma=(0.5,)) - planned()
    at_text = setting(positions="text", sigma=0.5)
    assert extra == Counter([("dai-text", at_text, "dose"), ("random", at_text, "dose")])
    removal = [
        one
        for one in trials(
            Perturbation(),
            IDENTIFICATION,
            FOUND,
            {"random": [neurons("random")] * 3, "uniform": [neurons("uniform")] * 3},
        )
        if one.instead == "removal"
    ]
    assert [one.scope for one in removal] == ["own"]


def test_sweeps_are_run_for_rivals_where_the_profile_says_so():
    swept = {"sweep_n": (1, 2), "sweep_interventions": ("zero", "weights"), "sweep_positions": ("all", "image")}
    settings = (
        setting(n=1),
        setting("zero", sigma=math.nan),
        setting("weights", "all", sigma=1.0),
        setting(positions="all"),
    )

    def expected(*methods):
        return Counter({(method, one, "swept"): 1 for one in settings for method in methods})

    def keyed(trials):  # nan is not itself
        return Counter({(method, str(one), scope): count for (method, one, scope), count in trials.items()})

    assert keyed(planned(**swept)) - keyed(planned()) == keyed(expected("two-stage", "random"))
    rivals = keyed(planned(sweep_rivals=True, **swept)) - keyed(planned())
    elsewhere = keyed(Counter([("schwettmann", setting(), "fresh"), ("random", setting(), "all")]))
    assert rivals == keyed(expected("two-stage", "schwettmann", "random")) + elsewhere


def test_a_main_setting_without_noise_has_no_sigma():
    settings = Perturbation(intervention="zero", seeds=1, sweep_interventions=("noise",))
    assert math.isnan(main_setting(settings, IDENTIFICATION).sigma)
    swept = [
        t.setting
        for t in trials(settings, IDENTIFICATION, {"two-stage": neurons("two-stage")}, {"random": CONTROLS["random"]})
    ]
    assert [one.sigma for one in swept if one.intervention == "noise"] == [3.0, 3.0]


def test_patching_is_at_the_product_unless_the_profile_says_otherwise_and_noise_where_neurons_are_read():
    def sites(**settings) -> dict[str, str]:
        found = planned(sweep_interventions=("zero", "patch"), **settings)
        return {one.intervention: one.site for _, one, _ in found}

    assert sites() == {"noise": "activation", "zero": "activation", "patch": "product"}
    assert sites(patch_site="activation")["patch"] == "activation"
