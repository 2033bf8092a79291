import numpy as np
import pytest

from kn_core.pictures.image_files import PictureError
from kn_core.pictures.inpaint import dilated, inpaint
from kn_core.pictures.sample import Sample

OPENCV = ["telea", "navier-stokes"]


def _sample(without: bool = False) -> Sample:
    """A white square in gray noise."""
    background = np.random.default_rng(0).integers(90, 110, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 30:45] = True
    image = np.where(mask[:, :, None], np.uint8(255), background)
    return Sample("7", "square", image, mask, without=background if without else None)


def test_exact_is_the_counterfactual_and_a_copy_of_it() -> None:
    sample = _sample(without=True)
    assert sample.without is not None
    painted = inpaint(sample, "exact", dilation=0)
    assert (painted == sample.without).all()
    painted[:] = 0
    assert sample.without.any()


def test_exact_is_an_error_for_photographs() -> None:
    with pytest.raises(ValueError, match="image 7 has no exact counterfactual.*telea, navier-stokes"):
        inpaint(_sample(), "exact", dilation=0)


@pytest.mark.parametrize("method", OPENCV)
@pytest.mark.parametrize("dilation", [0, 3])
def test_opencv_fills_the_hole_from_around_and_touches_nothing_else(method: str, dilation: int) -> None:
    sample = _sample()
    before = sample.image.copy()
    painted = inpaint(sample, method, dilation)
    hole = dilated(sample.mask, dilation)
    assert painted.dtype == np.uint8 and painted.shape == sample.image.shape
    assert (painted[~hole] == sample.image[~hole]).all()
    assert (sample.image == before).all()
    assert painted[hole].max() <= 114 and painted[hole].min() >= 86  # the background's levels, give or take 4


@pytest.mark.parametrize(("method", "levels"), [("navier-stokes", 0), ("telea", 4)])  # OpenCV's Telea drifts a little
def test_a_flat_background_is_restored(method: str, levels: int) -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[0:6, 0:6] = True  # at the picture's corner
    image = np.full((20, 20, 3), (10, 120, 230), dtype=np.uint8)
    image[mask] = 0
    painted = inpaint(Sample("1", "square", image, mask), method, dilation=1)
    assert np.abs(painted.astype(int) - (10, 120, 230)).max() <= levels


def test_dilation_grows_the_mask_by_an_ellipse() -> None:
    mask = np.zeros((7, 7), dtype=bool)
    mask[3, 3] = True
    assert (dilated(mask, 0) == mask).all()
    assert dilated(mask, 1).astype(int).tolist()[2:5] == [
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
    ]
    assert dilated(mask, 2).sum() == 17 and dilated(mask, 2)[3, 1:6].all()
    with pytest.raises(PictureError, match="dilation must be 0 pixels or more. Got -1"):
        dilated(mask, -1)
    assert dilated(mask, 6).all() and not dilated(np.zeros_like(mask), 10**9).any()


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one of exact, telea, navier-stokes, diffusion. Got 'magic'"):
        inpaint(_sample(), "magic", dilation=0)


def test_nothing_left_to_fill_from_is_an_error() -> None:
    for dilation in (59, 60, 10**9):  # a kernel of this size would take all memory
        with pytest.raises(PictureError, match="covers the whole picture"):
            inpaint(_sample(), "telea", dilation)
