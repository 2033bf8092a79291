"""What `import kn_core as kn` shows, and that its examples are right on the packaged model."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import kn_core as kn
from kn_core.models.linear import Linear

PUBLIC = ["load_model", "open_picture", "find_neurons", "perturb", "Study", "load_profile", "NeuronSet", "Sample"]
PUBLIC += ["record", "intervene", "edit", "Edit"]
PHOTOGRAPH = Path(__file__).parents[2] / "book" / "_static" / "chelsea.jpg"


def test_a_dozen_names_and_no_torch():
    said = "import sys, kn_core as kn; print(sorted(dir(kn)), sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{sorted([*PUBLIC, '__version__'])} []"
    with pytest.raises(AttributeError, match="no attribute 'find_neuron'. There is Edit, NeuronSet, Sample"):
        kn.find_neuron  # noqa: B018


@pytest.fixture(scope="module")
def world() -> dict[str, object]:
    model = kn.load_model("embedded")
    picture = kn.open_picture(PHOTOGRAPH, word="cat", box=(75, 5, 330, 290))
    return {"kn": kn, "np": np, "model": model, "picture": picture}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_an_example_that_runs(name, world):
    found = getattr(kn, name)
    module = import_module(found.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(found, name, module=module, globs=vars(module) | world)
    assert sum(len(test.examples) for test in tests) > 0
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_a_model_that_is_put_together_multiplies_by_onednn(world):
    assert {type(each) for each in world["model"].modules() if isinstance(each, nn.Linear)} == {Linear}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: kn.find_neurons("embedded", w["picture"]), "model must be what load_model gives. Got str."),
        (lambda w: kn.find_neurons(w["model"], "photo.jpg"), "picture must be what open_picture gives"),
        (lambda w: kn.perturb(w["model"], w["picture"], [1]), "neurons must be a NeuronSet, such as"),
        (lambda w: kn.load_model(3), "load_model takes a Profile, the name of one"),
    ],
)
def test_a_wrong_kind_is_one_sentence(call, message, world):
    with pytest.raises(TypeError, match=message) as told:
        call(world)
    assert "\n" not in str(told.value)
