"""The embedded data set: open drawings on drawn scenery, composed from a seed, with exact counterfactuals.

    picture = scene([7], "bear")
    picture.render()                        # uint8 (256, 256, 3)
    picture.mask(picture.main)              # where the bear is seen
    picture.render(without=picture.main)    # the same picture without it and its shadow
    picture.captions()                      # 'A bear is walking in a green forest next to a tent.', ...

`samples` gives scenes as `pictures.sample.Sample`, `write_coco` writes them as a folder in COCO's format.
A `seed` of theirs is a namespace, not a counter: the scenes of (seed, concept, index) share none with those of another
seed. By convention 0 trains the projection, 1 validates it, and studies take 2 and above.

Most drawings are OpenMoji's (openmoji.org, CC BY-SA 4.0), partly recoloured, and so pictures made of them are under
that licence too; others are Twemoji's, Noto Emoji's, Fluent Emoji's and two bears of ours (see THIRD_PARTY.md).
"""

from kn_core.pictures.scenes.folder import write_coco
from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.scene import Scene, SceneError, kind_of, samples, scene
from kn_core.pictures.scenes.settings import SETTINGS

__all__ = ["KINDS", "SETTINGS", "Scene", "SceneError", "kind_of", "samples", "scene", "write_coco"]
