"""The picture that benchmarks time the method on: the first scene whose caption names its bear."""

from kn_core.method.capture import Target, find_target
from kn_core.models import CaptionModel
from kn_core.pictures import scenes
from kn_core.pictures.sample import Sample


def subject(model: CaptionModel) -> tuple[Sample, str, Target]:
    """Scene, caption, and where the caption names the bear."""
    for sample in scenes.samples("bear", 20, 2):
        caption = model.caption([sample.image])[0]
        target = find_target(model, caption, "bear")
        if target is not None:
            return sample, caption, target
    raise SystemExit("the model names no bear in 20 scenes of one: nothing to time")
