"""Multi-modal knowledge neurons: with which neurons a model names what it sees, and what it says without them.

    import kn_core as kn

    model = kn.load_model("embedded")
    picture = kn.open_picture("photo.jpg", word="dog", box=(10, 20, 300, 200))
    found = kn.find_neurons(model, picture)
    found.plot()
    said = kn.perturb(model, picture, found.neurons)
    with kn.edit(model, "dog", "cat", found.neurons, [picture], method="unembedding"):
        print(model.caption([picture.image]))

The import loads nothing; each name is loaded when it is first asked for.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kn_core.locate import find_neurons, perturb
    from kn_core.method.editors import edit
    from kn_core.method.edits import Edit
    from kn_core.method.two_stages import NeuronSet
    from kn_core.models import load_model
    from kn_core.models.hooks import intervene, record
    from kn_core.pictures.sample import Sample, open_picture
    from kn_core.profile import load_profile
    from kn_core.study.study import Study

_WHERE = {
    "Edit": "kn_core.method.edits",
    "NeuronSet": "kn_core.method.two_stages",
    "Sample": "kn_core.pictures.sample",
    "Study": "kn_core.study.study",
    "edit": "kn_core.method.editors",
    "find_neurons": "kn_core.locate",
    "intervene": "kn_core.models.hooks",
    "load_model": "kn_core.models",
    "load_profile": "kn_core.profile",
    "open_picture": "kn_core.pictures.sample",
    "perturb": "kn_core.locate",
    "record": "kn_core.models.hooks",
}

__all__ = [
    "Edit",
    "NeuronSet",
    "Sample",
    "Study",
    "edit",
    "find_neurons",
    "intervene",
    "load_model",
    "load_profile",
    "open_picture",
    "perturb",
    "record",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("kn-core")
    if name not in _WHERE:
        raise AttributeError(f"module 'kn_core' has no attribute {name!r}. There is {', '.join(__all__)}.")
    found = getattr(import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
