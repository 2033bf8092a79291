"""Training of the projection: what it sees, in what order, and that a stopped run ends as if it had not been."""

import csv
import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils import parametrize

from kn_core.fingerprint import digest
from kn_core.models import held_out_ids
from kn_core.models.minigpt4 import load_projection
from kn_core.pictures.coco import CocoFolder
from kn_core.training import __main__ as training
from kn_core.training import command, data
from kn_core.training import train as trainer
from kn_core.training.data import Bank, Example, all_examples, make_bank, pasted_examples, photo_examples, ridge
from kn_core.training.data import template_captions as templates
from kn_core.training.loss import caption_loss, token_weights
from kn_core.training.train import Recipe, ResumeError, batch, save_projection, train
from kn_core.training.whitening import Whitened, whiten
from tests.full_disk import on_a_full_disk
from tests.toy_world import toy_samples

NOUNS = frozenset({"bear", "giraffe"})
RECIPE = Recipe(steps=5, warm_up=0.4, shares={"scene": 4}, every=2)


def a_bank(sources: list[str], weights: list[float] | None = None, width: int = 3) -> Bank:
    """Feature values are the example's number; every example has two captions."""
    numbers = np.arange(len(sources), dtype=np.float16)
    return Bank(
        features=np.tile(numbers[:, None, None], (1, 16, width)),
        objects=np.full((len(sources), 16), -1, np.int16),
        captions=tuple((f"caption {i}", f"{i} otherwise") for i in range(len(sources))),
        sources=np.array(sources),
        weights=np.array(weights or [1.0] * len(sources)),
        vocabulary=(),
    )


def toy_examples(n: int = 6):
    for sample in toy_samples("bear", n, seed=0):
        yield Example("scene", sample.image, sample.references, (("bear", sample.mask),))


@pytest.fixture
def toy_bank(tiny_model, tmp_path):
    return make_bank(tiny_model, [toy_examples()], tmp_path / "bank")


def test_a_batch_is_a_function_of_seed_and_step():
    bank = a_bank(["photo"] * 9 + ["scene"] * 9)
    drawn = {}
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        features, captions = batch(bank, {"photo": 2, "scene": 3}, seed, step)
        again, same = batch(bank, {"photo": 2, "scene": 3}, seed, step)
        assert torch.equal(features, again)
        assert captions == same
        assert features.dtype == torch.float32
        drawn[seed, step] = features[:, 0, 0].int().tolist()
        assert [number < 9 for number in drawn[seed, step]] == [True, True, False, False, False]
        for number, caption in zip(drawn[seed, step], captions, strict=True):
            assert caption in bank.captions[number]
    assert len({tuple(numbers) for numbers in drawn.values()}) == 3


def test_a_source_that_a_bank_does_not_have_is_left_out_and_weights_are_chances():
    bank = a_bank(["scene"] * 5, [1, 0, 1, 0, 1])
    for step in range(20):
        features, captions = batch(bank, {"photo": 2, "scene": 3}, 0, step)
        assert sorted(features[:, 0, 0].int().tolist()) == [0, 2, 4]
        assert len(captions) == 3


def test_every_token_of_a_noun_weighs_more(tiny_model):
    assert token_weights(tiny_model, "A bear in a forest.", NOUNS) == [1, 3, 1, 1, 1, 1, 1]
    caption = "A giraffe."
    ids, spans = tiny_model.encode(caption)
    assert len(ids) > 5  # a noun of many tokens
    expected = [3.0 if caption[start:end].strip(" A.") or caption[start:end] == " " else 1.0 for start, end in spans]
    assert token_weights(tiny_model, caption, NOUNS) == [*expected, 1.0]
    assert token_weights(tiny_model, "Bear bears", NOUNS)[0] == 3
    assert token_weights(tiny_model, "", NOUNS) == [1.0]


def test_the_loss_is_the_weighted_mean_over_tokens_and_the_end(tiny_model):
    features = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(0))
    captions = ["A bear in a forest.", "A bus."]
    logits = tiny_model.logits(tiny_model.prompts_from_features(features), captions)
    total, weight = 0.0, 0.0
    for row, caption in zip(logits, captions, strict=True):
        ids = [*tiny_model.encode(caption)[0], tiny_model.end]
        losses = F.cross_entropy(row[: len(ids)], torch.tensor(ids), reduction="none")
        weights = torch.tensor(token_weights(tiny_model, caption, NOUNS))
        total, weight = total + float(losses @ weights), weight + float(weights.sum())
    assert float(caption_loss(tiny_model, features, captions, NOUNS)) == pytest.approx(total / weight, rel=1e-4)


def test_ridge_recovers_a_planted_map(tiny_model):
    kinds = ("bear", "bus", "giraffe")
    labels = np.random.default_rng(0).integers(-1, 3, (6, 16)).astype(np.int16)
    labels[:, 0] = 0  # bears are more frequent, and count no more for it
    bank = Bank(
        features=np.eye(4, dtype=np.float16)[labels],  # (6, 16, 4), the background is the last axis
        objects=labels,
        captions=(("x",),) * 6,
        sources=np.array(["scene"] * 6),
        weights=np.ones(6),
        vocabulary=kinds,
    )
    weight, bias = ridge(tiny_model, bank, penalty=1e-3)
    assert (weight.shape, bias.shape) == ((32, 4), (32,))
    embedding = tiny_model.decoder.get_input_embeddings().weight
    for axis, kind in enumerate(kinds):
        expected = embedding[tiny_model.encode(f" {kind}")[0]].mean(0)
        assert torch.allclose(weight[:, axis] + bias, expected, atol=1e-3)
    assert torch.allclose(weight[:, 3] + bias, embedding.mean(0), atol=1e-3)


def test_a_bank_holds_features_captions_and_the_object_of_each_cell(tiny_model, toy_bank, tmp_path):
    samples = list(toy_samples("bear", 6, seed=0))
    features = tiny_model.features([sample.image for sample in samples])
    assert np.array_equal(toy_bank.features, features.half().numpy())
    assert toy_bank.captions == tuple(sample.references for sample in samples)
    assert toy_bank.vocabulary == ("bear",)
    filled = np.stack([sample.mask.reshape(4, 4, 4, 4).mean((1, 3)).ravel() for sample in samples])
    assert np.array_equal(toy_bank.objects, np.where(filled > 0.5, 0, -1))

    def never():
        raise AssertionError("an existing bank is opened, not made again")
        yield

    again = make_bank(tiny_model, [never()], tmp_path / "bank")
    assert np.array_equal(again.features, toy_bank.features)
    (tmp_path / "bank" / "index.json").unlink()  # as after a kill: the other files alone are no bank
    with pytest.raises(AssertionError, match="an existing bank"):
        make_bank(tiny_model, [never()], tmp_path / "bank")


def test_the_largest_object_of_a_cell_is_its_label(tiny_model, tmp_path):
    left, right = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    left[:, :3], right[:, 3:12] = True, True
    picture = Example("photo", np.zeros((16, 16, 3), np.uint8), ("x",), (("cat", left), ("dog", right)))
    bank = make_bank(tiny_model, [iter([picture])], tmp_path / "bank")
    assert bank.vocabulary == ("cat", "dog")
    assert bank.objects.reshape(4, 4).tolist() == [[0, 1, 1, -1]] * 4


def rows(folder: Path) -> list[list[str]]:
    """The log, but for the seconds."""
    with (folder / "log.csv").open() as file:
        return [row[:3] + row[4:] for row in csv.reader(file)]


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("killed_in", ["a step", "a checkpoint"])
def test_a_stopped_run_ends_with_the_numbers_of_an_uninterrupted_one(
    make_model, toy_bank, tmp_path, monkeypatch, killed_in, whitened
):
    recipe = replace(RECIPE, whiten=whitened)
    validate = list(toy_samples("bear", 2, seed=1))
    whole, stopped = make_model(), make_model()
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    start = whole.projection.weight.clone()
    train(whole, toy_bank, tmp_path / "whole", recipe, validate)
    assert sorted(whole.projection.state_dict()) == ["bias", "weight"]  # a plain layer
    assert not torch.equal(whole.projection.weight, start)

    place, name = {"a step": (trainer, "caption_loss"), "a checkpoint": (torch, "save")}[killed_in]
    calls, working, last = [], getattr(place, name), {"a step": 4, "a checkpoint": 2}[killed_in]

    def dies(*arguments, **more):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return working(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, dies)
        with pytest.raises(KeyboardInterrupt):
            train(stopped, toy_bank, tmp_path / "stopped", recipe, validate)
    resumed = make_model()
    train(resumed, toy_bank, tmp_path / "stopped", recipe, validate)
    assert torch.equal(resumed.projection.weight, whole.projection.weight)
    assert torch.equal(resumed.projection.bias, whole.projection.bias)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert [row[0] for row in rows(tmp_path / "whole")] == ["step", "0", "2", "4", "5"]


def test_a_checkpoint_of_another_run_is_refused(make_model, toy_bank, tmp_path):
    begun = replace(RECIPE, until=2)
    train(make_model(), toy_bank, tmp_path, begun, [])
    before = (tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "log.csv").read_bytes()
    smaller = replace(toy_bank, sources=np.array(["scene"] * 5))
    start = tmp_path / "start.safetensors"
    save_projection(make_model(), start)
    for recipe, bank, layer, said in (
        (replace(begun, rate=1e-3, seed=1), toy_bank, None, "seed 0 (asked for: 1), rate 0.0015 (asked for: 0.001)."),
        (begun, smaller, None, "examples {'scene': 6} (asked for: {'scene': 5})."),
        (begun, toy_bank, start, f"start ridge (asked for: {digest(start)})."),
    ):
        with pytest.raises(ResumeError, match=re.escape(f"is of another run: {said} Name another folder with --out")):
            train(make_model(), bank, tmp_path, recipe, [], layer)
    with pytest.raises(ResumeError, match="dtype float32 .asked for: bfloat16."):
        train(make_model().bfloat16(), toy_bank, tmp_path, begun, [])
    assert ((tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "log.csv").read_bytes()) == before


def test_a_checkpoint_that_does_not_say_what_made_it_is_refused(make_model, toy_bank, tmp_path):
    train(make_model(), toy_bank, tmp_path, replace(RECIPE, until=2), [])
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del saved["run"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(ResumeError, match="does not say which recipe made it. Name another folder with --out"):
        train(make_model(), toy_bank, tmp_path, RECIPE, [])


def test_log_rows_past_the_checkpoint_are_dropped(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n0,3\n250,2\n500,1\n")
    assert trainer.log_until(tmp_path / "log.csv", 250) == [["step", "loss"], ["0", "3"], ["250", "2"]]


def test_training_learns_and_changes_the_projection_alone(make_model, toy_bank, tmp_path):
    model = make_model()
    frozen = {name: value.clone() for name, value in model.named_parameters() if not name.startswith("projection")}
    train(model, toy_bank, tmp_path, Recipe(steps=30, shares={"scene": 4}, every=15), [])
    with (tmp_path / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)][1:]
    assert losses[1] < losses[0]
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)


def test_a_run_may_start_from_an_earlier_layer(make_model, toy_bank, tmp_path, monkeypatch):
    earlier, later = make_model(), make_model()
    with torch.no_grad():
        earlier.projection.weight.fill_(0.25)
    save_projection(earlier, tmp_path / "earlier.safetensors")
    monkeypatch.setattr(trainer, "ridge", None)
    one_small_step = Recipe(steps=5, until=1, rate=1e-9, warm_up=0.4, shares={"scene": 4})
    train(later, toy_bank, tmp_path, one_small_step, [], start=tmp_path / "earlier.safetensors")
    assert torch.allclose(later.projection.weight, torch.tensor(0.25), atol=1e-6)
    assert [row[0] for row in rows(tmp_path)] == ["step", "0", "1"]


def test_whitening_makes_inputs_uncorrelated_and_changes_no_output():
    torch.manual_seed(0)
    mixed = torch.randn(4000, 4) @ torch.tensor([[9.0, 0, 0, 0], [8, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 3]]) + 2
    bank = replace(a_bank(["scene"] * 250, width=4), features=mixed.reshape(250, 16, 4).numpy())
    layer = torch.nn.Linear(4, 3)
    before, outputs = layer.weight.detach().clone(), layer(mixed)
    whiten(layer, bank)
    assert torch.allclose(layer(mixed), outputs, atol=1e-4)

    white = Whitened(mixed)
    seen = mixed @ white.inverse_root
    values, vectors = torch.linalg.eigh((mixed.T @ mixed / len(mixed)).double())
    damped = values / (values + Whitened.SHRINKAGE * values.mean())
    expected = (vectors * damped @ vectors.T).float()  # without shrinkage: the identity
    assert torch.allclose(seen.T @ seen / len(seen), expected, atol=1e-3)
    parametrize.remove_parametrizations(layer, "weight")
    assert torch.allclose(layer.weight, before, atol=1e-4)


def test_a_saved_projection_is_the_trained_one_in_half_precision(tiny_model, tmp_path):
    path = tmp_path / "layer.safetensors"
    save_projection(tiny_model, path)
    loaded = load_projection(path, 3, 32)
    assert torch.equal(loaded.weight, tiny_model.projection.weight.half().float())
    assert [found.name for found in tmp_path.iterdir()] == ["layer.safetensors"]


def test_on_a_full_disk_training_stops_and_leaves_no_half_written_file(make_model, toy_bank, tmp_path):
    model = make_model()
    files = sorted(tmp_path.rglob("*"))
    for do in (
        lambda: make_bank(model, [toy_examples()], tmp_path / "other"),
        lambda: train(model, toy_bank, tmp_path, replace(RECIPE, every=1, until=1), []),
        lambda: save_projection(model, tmp_path / "layer.safetensors"),
    ):
        assert on_a_full_disk(do).startswith("OSError: [Errno 27]")
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in ("log.csv", "other")) == files


def test_a_mistake_a_full_disk_and_ctrl_c_are_one_line_each(monkeypatch, tmp_path, capsys):
    for error, code, said in (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "No space left on device. Make room; the same command"),
        (ResumeError("checkpoint.pt is of another run"), 2, "checkpoint.pt is of another run\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on\n"),
    ):
        monkeypatch.setattr(command, "load_model", Mock(side_effect=error))
        assert training.main(["--out", str(tmp_path)]) == code
        told = capsys.readouterr().err
        assert said in told and told.startswith("kn_core.training: ") and told.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        training.main(["--stepps", "3"])


def test_templates_name_the_two_largest_objects_that_nobody_named():
    small, large, larger = (np.arange(100) < n for n in (4, 20, 30))
    masks = [("cat", small), ("umbrella", large), ("dog", larger)]
    assert templates(masks, []) == (
        "A picture of a dog and an umbrella.",
        "There is a dog and an umbrella in this picture.",
        "A dog and an umbrella.",
    )
    assert templates(masks, ["Two dogs."])[2] == "An umbrella."
    assert templates([("cat", small)], []) == ()
    assert templates([("cat", small), ("cat", small)], [])[2] == "A cat."


@pytest.fixture
def folder(tmp_path):
    """Six photographs of cats and dogs, without any red but for the two that are held out; those show a zebra, too."""
    (tmp_path / "images").mkdir()
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 24, "name": "zebra"}]
    images, annotations, captions = [], [], []
    for image_id in range(1, 7):
        held_out = image_id in (2, 5)
        colour = (255, 0, 0) if held_out else (0, 30 * image_id, 255 - 30 * image_id)
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / f"{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 40, "height": 30})
        x, category = 4 * image_id, 17 + image_id % 2
        box = {"segmentation": [[x, 5, x + 8, 5, x + 8, 20, x, 20]], "bbox": [x, 5, 8, 15], "area": 120, "iscrowd": 0}
        for kind in (category, 24) if held_out else (category,):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": kind, **box})
        said = f"A {'zebra' if held_out else 'pet'} on a lawn, number {image_id}."
        captions.append({"id": image_id, "image_id": image_id, "caption": said})
    (tmp_path / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return CocoFolder(tmp_path)


def test_held_out_photographs_are_never_seen_in_training(folder, monkeypatch):
    held_out = frozenset({"2", "5"})
    photos = list(photo_examples(folder, held_out, views=2, seed=0))
    pasted = list(pasted_examples(folder, held_out, 12, seed=0))
    assert (len(photos), len(pasted)) == (4 * 2, 12)
    for example in photos + pasted:
        assert example.image[..., 0].max() == 0
        assert "zebra" not in " ".join([*example.captions, *(name for name, _ in example.masks)])
    everything = list(photo_examples(folder, frozenset(), views=2, seed=0))
    assert sum(example.image[..., 0].max() == 255 for example in everything) == 4

    monkeypatch.setattr(data, "held_out_ids", lambda: held_out)
    for example in (one for source in all_examples(folder, 0, views=5, pasted=12) for one in source):
        assert "zebra" not in " ".join(example.captions)


def test_the_photographs_that_are_held_out_are_fixed_in_the_repository():
    held_out = held_out_ids()
    assert len(held_out) >= 30
    assert all(image_id.isdigit() for image_id in held_out)


def test_views_of_a_photograph(folder):
    first, mirrored, crop, other = list(photo_examples(folder, frozenset(), views=4, seed=0))[:4]
    assert first.image.shape == (30, 40, 3)
    assert first.captions[0] == "A pet on a lawn, number 1."
    assert first.captions[-1] == "A dog."
    assert np.array_equal(mirrored.image, first.image[:, ::-1])
    assert np.array_equal(mirrored.masks[0][1], first.masks[0][1][:, ::-1])
    assert crop.image.shape[:2] == crop.masks[0][1].shape
    assert crop.image.shape[0] >= 18
    assert crop.image.shape[1] >= 24
    assert crop.image.shape != other.image.shape
    again = list(photo_examples(folder, frozenset(), views=4, seed=0))[2]
    assert np.array_equal(again.image, crop.image)


def test_objects_are_pasted_whole_and_large_into_photographs_without_their_kind(folder):
    for example in pasted_examples(folder, frozenset({"2", "5"}), 12, seed=0):
        ((kind, mask),) = example.masks
        rows_, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        longest = max(np.ptp(rows_), np.ptp(columns)) + 1
        assert 0.44 * 256 <= longest <= 0.96 * 256
        assert example.captions[2] == f"A {kind}."
        colours, counts = np.unique(example.image[~mask].reshape(-1, 3), axis=0, return_counts=True)
        background = colours[counts.argmax()][1] // 30  # the photograph's id
        assert kind == ("dog", "cat")[background % 2]
    whole = [example.image for example in pasted_examples(folder, frozenset(), 3, seed=0)]
    again = [example.image for example in pasted_examples(folder, frozenset(), 3, seed=0)]
    assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=True))
