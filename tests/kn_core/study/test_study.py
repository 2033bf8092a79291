"""A whole study of the toy world, with a model that has learnt it: what is computed, kept, resumed and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from book import claims_table
from book.claims import evidence, verdicts
from book.claims.rules import load_claims, table
from kn_core import models
from kn_core.fingerprint import ROOT
from kn_core.measures import metrics
from kn_core.method import filtering, perturbation
from kn_core.method.perturbation import chances, undisturbed
from kn_core.method.two_stages import identify
from kn_core.pictures import scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import Profile, ProfileError, load_profile
from kn_core.study import neurons, pairs
from kn_core.study.study import Study, StudyError
from tests.toy_world import COLOURS, toy_samples


def inhabit(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put the toy world in the place of scenes, and a projection file for the fingerprints."""
    patch.setattr(scenes, "samples", toy_samples)
    patch.setattr(models, "PROJECTIONS", folder)
    (folder / "toy.safetensors").write_bytes(b"the taught model's")


@pytest.fixture
def start(monkeypatch, tmp_path, taught_model, toy_profile):
    """start(profile=...): a study in one folder; started again, it goes on from what lies there."""
    inhabit(monkeypatch, tmp_path)

    def begin(profile: Profile = toy_profile) -> Study:
        return Study(profile, tmp_path / "results", taught_model)

    return begin


@pytest.fixture(scope="module")
def finished(tmp_path_factory, taught_model, toy_profile) -> Path:
    """The results of a whole study."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        Study(toy_profile, folder / "results", taught_model).perturbations()
    return folder / "results"


@pytest.fixture
def go_on(start, finished, tmp_path):
    """As `start`, from a copy of a whole study's results."""
    shutil.copytree(finished, tmp_path / "results")
    return start


STAGES = {"pairs": (filtering, "make_pairs"), "capture": (neurons, "score_pair"), "perturb": (perturbation, "run")}


@pytest.fixture
def counted(monkeypatch):
    """How often each stage was computed."""
    calls = dict.fromkeys(STAGES, 0)

    def counting(stage, original):
        def count(*arguments, **more):
            calls[stage] += 1
            return original(*arguments, **more)

        return count

    for stage, (place, function) in STAGES.items():
        monkeypatch.setattr(place, function, counting(stage, getattr(place, function)))
    return calls


def changed(profile: Profile, **groups) -> Profile:
    """The profile with some settings of some groups replaced, checked again."""
    settings = profile.model_dump()
    for name, values in groups.items():
        settings[name] = settings[name] | values if isinstance(values, dict) else values
    return Profile.model_validate(settings)


def test_a_study_from_pictures_to_captions_under_noise(start, toy_profile, counted):
    study = start()
    perturbations = study.perturbations()
    pairs, neurons = study.pairs(), study.neurons()
    assert counted == {"pairs": 3, "capture": 9, "perturb": 3}

    assert study.studied() == list(COLOURS)
    assert pairs.groupby("concept", sort=False)["role"].apply(list).tolist() == [["select"] * 3 + ["held_out"] * 2] * 3
    first = pairs.iloc[0]
    assert (first["caption"], first["caption_inpainted"]) == ("A bear in a forest.", "A forest.")
    assert (first["target_word"], first["target_position"], first["area_fraction"]) == ("bear", 1, 0.25)

    two_stage = neurons[neurons["method"] == "two-stage"]
    random = neurons[neurons["method"] == "random"]
    # As many as the largest trial disturbs; later draws are for the main setting alone.
    assert random.groupby(["concept", "draw"]).size().tolist() == [12, 8, 8] * 3
    others = neurons[~neurons["method"].isin(["two-stage", "random"])].groupby(["concept", "method"])
    assert others.size().tolist() == [12, 12, 12 + 8 + 8] * 3  # Dai et al., Schwettmann et al., uniform
    for concept, found in two_stage.groupby("concept"):
        assert found["rank"].tolist() == list(range(len(found)))
        assert found["score"].is_monotonic_decreasing
        assert (found["score"] == found["gradcam"]).all()
        threshold = study.thresholds(concept)
        assert (found["delta"] > threshold["delta"]).all()
        assert (found["gradcam"] > threshold["gradcam"]).all()
        assert found["n_images"].between(0, 3).all()
        assert (found["layer"] < 2).all()  # the last layer's image tokens reach no logit
        for draw, disturbed in ((0, 12), (1, 8)):
            best, control = found[:disturbed], study.neuron_set(concept, "random", draw)
            assert control.layers.tolist() == best["layer"].tolist()
            held = set(zip(best["layer"], best["unit"], strict=True))
            assert not held & set(zip(control.layers, control.units, strict=True))
    assert (neurons[neurons["method"] == "uniform"]["layer"] < 2).all()
    assert two_stage["top_tokens"].str.split("' '").str.len().ge(5).all()
    assert random["top_tokens"].eq("").all()

    assert {"concept", *metrics.SETTINGS, *metrics.EFFECTS, "seed", "image_id", "image_concept", "heldout"} <= set(
        perturbations
    )
    headline = perturbations.query("intervention == 'noise' and n == 8 and sigma == 3 and positions == 'image'")
    per_seed = headline.groupby(["seed", "method", "concept"]).size()
    assert per_seed.loc[0, "two-stage"].tolist() == [1 + 2 + 2] * 3  # with one of each other concept
    assert per_seed.loc[0, "random"].tolist() == [1 + 2] * 3
    for method in ("two-stage", "random"):
        assert per_seed.loc[1, method].tolist() == [2] * 3  # of its own, those that chose no neurons
    for rival in ("schwettmann", "dai"):
        assert per_seed.loc[0, rival].tolist() == [1 + 2] * 3  # one that chooses a dose
        assert rival not in per_seed.loc[1]  # one draw of the noise, unless the profile says otherwise
    assert per_seed.loc[:, "uniform"].tolist() == [2] * 9  # three draws
    assert per_seed.loc[2].tolist() == [2] * 6  # the third draws of both controls
    sweeps = 2 * 2 * (2 + 3 + 1) + 4 * 3 * 1  # methods, pictures; with sigma, those that choose a dose too
    assert len(perturbations) - len(headline) == 3 * (sweeps + 2 + 2)  # directions at another sigma, removal
    assert perturbations.query("image_concept != concept")["heldout"].all()
    for name, frame in (("pairs", pairs), ("neurons", neurons), ("perturbations", perturbations)):
        on_disk = pd.read_parquet(study.folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(on_disk, frame, check_dtype=False)


def test_scores_are_those_of_the_pairs_that_choose(go_on):
    study = go_on()
    scores = study.scores("bear")
    methods = ("delta", "gradcam", "gradcam-sum", "activation", "schwettmann", "pan-released", "pan-gated")
    assert {name: values.shape for name, values in scores.items()} == dict.fromkeys(methods, (3, 3, 48)) | {
        "dai": (1, 3, 48)
    }
    chosen = study.pairs("bear").query("role == 'select'")["image_id"]
    for place, image_id in enumerate(chosen):
        pair = study.capture("bear", image_id)
        assert np.allclose(scores["delta"][place], pair.delta.amax(1), atol=1e-5)
        assert np.allclose(scores["gradcam"][place], pair.gradcam.amax(1), atol=1e-5)
        assert np.allclose(scores["activation"][place], pair.original.mean(1), atol=1e-5)
    pooled, threshold = study.pooled("bear"), study.thresholds("bear")
    assert np.allclose(pooled["delta"], scores["delta"].mean(0))
    assert threshold["delta"] == pytest.approx(np.quantile(pooled["delta"], 0.5))
    expected = identify("bear", pooled["delta"], pooled["gradcam"], threshold["delta"], threshold["gradcam"])
    found = study.neuron_set("bear")
    assert found.layers.tolist() == expected.layers.tolist()
    assert found.units.tolist() == expected.units.tolist()
    other = [study.scores(concept)["activation"].mean(0) for concept in ("pizza", "bus")]
    assert torch.allclose(study.mean_activation(without="bear"), torch.from_numpy(np.mean(other, axis=0)))


def test_a_second_run_computes_nothing_and_loads_no_model(go_on, finished, counted):
    again = go_on()
    again.__dict__["model"] = None  # whoever asks it anything fails
    found = again.perturbations()
    pd.testing.assert_frame_equal(found, pd.read_parquet(finished / "perturbations.parquet"), check_dtype=False)
    assert set(counted.values()) == {0}


@pytest.mark.parametrize("stage", ["pairs", "capture", "perturb"])
def test_a_run_killed_anywhere_goes_on_where_it_stopped(start, counted, monkeypatch, stage):
    place, function = STAGES[stage]
    working = getattr(place, function)

    def killed(*arguments, **more):
        if counted[stage] == 1:
            raise KeyboardInterrupt
        return working(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(place, function, killed)
        with pytest.raises(KeyboardInterrupt):
            start().perturbations()
    start().perturbations()
    expected = {"pairs": 3, "capture": 9, "perturb": 3}
    if stage == "capture":
        expected["capture"] += 1  # the first picture of the concept whose scores were not finished
    assert counted == expected


def test_one_concept_needs_no_other_before_perturbation(start, counted):
    study = start()
    neurons = study.neurons("pizza")
    assert neurons["concept"].unique().tolist() == ["pizza"]
    assert counted == {"pairs": 1, "capture": 3, "perturb": 0}
    assert not (study.folder / "neurons.parquet").exists()
    assert set(study.perturbations("pizza")["image_concept"]) == set(COLOURS)
    assert counted == {"pairs": 3, "capture": 3 + 6, "perturb": 1}  # 'mean' wants other concepts' activations


def test_a_profile_of_one_concept(start, toy_profile, counted):
    alone = changed(toy_profile, concepts=["bear"], perturbation={"sweep_interventions": ["zero", "patch"]})
    study = start(alone)
    assert study.perturbations()["image_concept"].unique().tolist() == ["bear"]
    assert counted == {"pairs": 1, "capture": 3, "perturb": 1}
    with pytest.raises(StudyError, match="'mean' needs pictures of concepts other than 'bear'"):
        study.mean_activation(without="bear")


@pytest.mark.parametrize(
    ("groups", "again"),
    [
        ({"perturbation": {"sigma": 2.0}}, {"pairs": 0, "capture": 0, "perturb": 3}),
        ({"identification": {"budget": 7}}, {"pairs": 0, "capture": 0, "perturb": 3}),
        ({"identification": {"over_positions": "mean"}}, {"pairs": 0, "capture": 9, "perturb": 3}),
        ({"identification": {"over_positions": "mask"}}, {"pairs": 0, "capture": 9, "perturb": 3}),
        ({"filtering": {"area": (0.1, 0.6)}}, {"pairs": 3, "capture": 9, "perturb": 3}),
        ({"name": "renamed"}, {"pairs": 0, "capture": 0, "perturb": 0}),
    ],
)
def test_a_changed_setting_makes_again_what_depends_on_it_and_only_that(go_on, toy_profile, counted, groups, again):
    go_on(changed(toy_profile, **groups)).perturbations()
    assert counted == again


def test_another_projection_is_another_model(start, counted, tmp_path):
    start().neurons("bear")
    (tmp_path / "toy.safetensors").write_bytes(b"trained for longer")
    start().neurons("bear")
    assert counted["pairs"] == 2


def test_thresholds_by_hand(go_on, toy_profile):
    by_hand = changed(toy_profile, identification={"threshold_a": {"quantile": 0.5, "by_hand": {"bear": 0.25}}})
    assert go_on(by_hand).thresholds("bear")["delta"] == 0.25
    assert go_on(by_hand).thresholds("bus")["delta"] != 0.25


def test_what_cannot_be_done_is_said(start, toy_profile):
    with pytest.raises(StudyError, match="'cat' is no concept of the profile 'toy': bear, pizza, bus."):
        start().neurons("cat")
    with pytest.raises(StudyError, match="No picture 'toy-bear-99' among those of 'bear'"):
        start().sample("bear", "toy-bear-99")
    with pytest.raises(StudyError, match="'toy-bear-99' is no kept pair of 'bear'"):
        start().capture("bear", "toy-bear-99")
    too_high = {"threshold_a": {"quantile": 0.5, "by_hand": {"bear": 1e9}}}
    with pytest.raises(StudyError, match="No two-stage neurons of 'bear' .* Lower identification.threshold_a"):
        start(changed(toy_profile, identification=too_high)).perturbations("bear")
    too_small = changed(toy_profile, filtering={"area": (0.5, 0.6)})
    with pytest.raises(StudyError, match="No pair of 'bear' passed the filters; see .*pairs.parquet, column reason"):
        start(too_small).scores("bear")
    with pytest.raises(StudyError, match="No concept has two kept pairs"):
        start(too_small).neurons()
    assert start(too_small).pairs()["reason"].unique().tolist() == ["area"]


def test_photographs_need_a_folder(start, toy_profile, monkeypatch):
    monkeypatch.delenv("KN_COCO", raising=False)
    photographs = changed(toy_profile, data={"source": "coco"}, inpainting={"method": "telea"})
    with pytest.raises(StudyError, match="`make book PROFILE=toy COCO=folder`, or KN_COCO=folder"):
        start(photographs).pairs("bear")


@pytest.fixture
def photographs(start, toy_profile, monkeypatch, tmp_path):
    """photographs(): a study of bears in a COCO folder, whose pictures may come, go and change between two calls."""
    pictures, images, annotations = tmp_path / "coco" / "images", [], []
    pictures.mkdir(parents=True)
    for n, sample in enumerate(toy_samples("bear", 4, 2), start=1):
        Image.fromarray(sample.image).save(pictures / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "width": 16, "height": 16})
        top, left = map(int, np.argwhere(sample.mask)[0])
        ring = [left, top, left + 8, top, left + 8, top + 8, left, top + 8]
        annotations.append({"id": n, "image_id": n, "category_id": 1, "segmentation": [ring]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bear"}]}
    (tmp_path / "coco" / "instances.json").write_text(json.dumps(content))
    monkeypatch.setenv("KN_COCO", str(tmp_path / "coco"))
    alone = {"concepts": ["bear"], "perturbation": {"sweep_interventions": []}}
    profile = changed(toy_profile, data={"source": "coco"}, inpainting={"method": "telea"}, **alone)
    return lambda **groups: start(changed(profile, **groups))


def test_pictures_that_come_go_or_change_are_looked_at_again(photographs, counted, tmp_path):
    pictures, away = tmp_path / "coco" / "images", tmp_path / "away"
    pictures.rename(away)
    pictures.mkdir()
    assert photographs().pairs("bear").empty
    shutil.copytree(away, pictures, dirs_exist_ok=True)
    assert photographs().pairs("bear")["image_id"].tolist() == ["1", "2", "3", "4"]
    (pictures / "2.png").unlink()
    assert photographs().pairs("bear")["image_id"].tolist() == ["1", "3", "4"]
    before = photographs().pairs("bear")["caption"].tolist()
    Image.new("RGB", (16, 16)).save(pictures / "3.png")
    assert photographs().pairs("bear")["caption"].tolist() != before
    assert counted["pairs"] == 4
    for picture in pictures.iterdir():  # a copy is the same
        picture.touch()
    photographs().pairs("bear")
    assert counted["pairs"] == 4


def test_photographs_that_trained_the_projection_come_first_one_at_a_time(photographs, monkeypatch):
    monkeypatch.setattr(pairs, "held_out_ids", lambda: frozenset({"1", "3"}))
    opened = []
    read = CocoFolder.picture
    monkeypatch.setattr(CocoFolder, "picture", lambda folder, n: opened.append(n) or read(folder, n))
    samples = photographs(data={"pool": 3}).samples("bear")
    assert next(samples).image_id == "2" and opened == ["2"]
    assert [sample.image_id for sample in samples] == ["4", "1"] and opened == ["2", "4", "1"]


def test_what_kept_no_pair_is_counted_by_reason(photographs, tmp_path):
    (tmp_path / "coco" / "images" / "2.png").write_bytes(b"no picture")
    (tmp_path / "coco" / "images" / "4.png").unlink()
    with pytest.raises(StudyError) as raised:
        photographs(filtering={"area": (0.5, 0.6)}).neurons()
    pictures = tmp_path / "coco" / "images"
    assert str(raised.value).splitlines() == [
        "No concept has two kept pairs, one to choose neurons on and one to try them on.",
        "  bear: 2 pictures looked at, 0 kept; what the others lack: the object fills 50% to 60% of the frame: 2",
        f"  1 picture left out: no such file, first: {pictures / '4.png'}",
        "  1 picture left out: not a picture in a format that Pillow reads, "
        f"first: {pictures / '2.png'} (PNG, JPEG, TIFF, WebP, GIF, ...), or one with a damaged beginning",
    ]
    assert not photographs(concepts=["cat"], ours=["cat"]).tried()  # of a concept that the folder does not know


def test_results_lie_where_kn_results_says(monkeypatch, toy_profile, tmp_path):
    assert Study(toy_profile).folder == ROOT / "results" / "toy"  # of the checkout, wherever the reader stands
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    assert Study(toy_profile).folder == tmp_path / "toy"


def test_only_the_pictures_that_are_wanted_are_opened_again(start, toy_profile, monkeypatch):
    opened = []

    def opening(concept, n, seed, only):
        for sample in toy_samples(concept, n, seed, only):
            opened.append(sample.image_id)
            yield sample

    monkeypatch.setattr(scenes, "samples", opening)
    study = start(changed(toy_profile, data={"pool": 40}))
    kept = study.pairs("bear").query("kept")["image_id"]
    assert len(opened) == 5  # all of them pass
    opened.clear()
    for _ in range(2):
        assert study.sample("bear", kept.iloc[2]).image_id == kept.iloc[2]
    assert opened == [kept.iloc[2]]
    assert len(study.pictures("bear", "held_out")) == 2
    assert [picture.image_id for picture in study.pictures("bear", "held_out", 1)] == [kept.iloc[3]]


def test_the_tower_sees_a_picture_once_and_the_undisturbed_model_reads_it_once(start, monkeypatch):
    study = start()
    study.pairs("bear")
    model, seen, read = study.model, [], []
    towers, extends = model.image_embeds, model.extend
    monkeypatch.setattr(model, "image_embeds", lambda images: seen.extend(images) or towers(images))
    monkeypatch.setattr(model, "extend", lambda *given, **more: read.append(given) or extends(*given, **more))
    one, other = study.pictures("bear", "held_out")
    assert len(seen) == 4 and not one.chooses_dose  # with and without the object
    (again,) = study.pictures("bear", "held_out", 1)
    assert len(seen) == 4 and again.prompt is one.prompt
    once = len(read)
    found, _ = (undisturbed(model, [each])[one.image_id] for each in (one, again))
    assert len(read) == once
    both = chances(model, torch.stack([one.prompt, other.prompt]), [one.caption, other.caption])
    assert found.chances == pytest.approx(both[0], abs=1e-6)
    assert found.perplexity == pytest.approx(model.perplexity([one.caption])[0], rel=1e-5)
    monkeypatch.setattr("kn_core.study.study.PROMPTS", 0)  # no more than are asked for at once
    study.pictures("bear", "held_out", 1)
    study.pictures("bear", "held_out")
    assert len(seen) == 6
    read.clear()
    later = start()  # another process: what the model makes of the undisturbed is on disk
    monkeypatch.setattr(later, "model", model)
    undisturbed(model, later.pictures("bear", "held_out"))
    assert read == []


def test_a_profile_that_ran_beside_shows_the_verdicts_of_its_main_setting(go_on, toy_profile, tmp_path, monkeypatch):
    """Its own book, if it had one, comes first; what is on record comes last."""
    other = changed(toy_profile, name="toy-other")
    third = changed(toy_profile, name="toy-third")
    unfetched = load_profile("minigpt4-llama2")  # whose weights are not here
    profiles = {profile.name: profile for profile in (toy_profile, other, third, unfetched)}
    monkeypatch.delenv("KN_MODELS", raising=False)

    def load(name: str) -> Profile:
        if name not in profiles:
            raise ProfileError("a neighbour that no one can read")
        return profiles[name]

    monkeypatch.setattr(claims_table, "profile_names", lambda: sorted([*profiles, "broken"]))
    monkeypatch.setattr(claims_table, "load_profile", load)
    on_record = {
        "toy-third": {FLUENT: verdicts.OnRecord(verdict="reproduced")},
        "toy, full": {FLUENT: verdicts.OnRecord(verdict="same direction", ours=0.5, low=0.25, high=0.75, n=9)},
    }
    monkeypatch.setattr(verdicts, "load_verdicts", lambda: on_record)
    monkeypatch.setattr(pairs, "load_model", lambda profile: pytest.fail("no model is needed"))
    go_on()
    study = Study(toy_profile, (tmp_path / "results").rename(tmp_path / "toy"))
    both = [FLUENT, "balance-beats-rivals"]
    claimed = pd.DataFrame(
        {"claim": both, "statement": ["Captions stay fluent.", "S_se and S_re."], "verdict": "not run"}
    )

    def shown() -> dict[str, list[str]]:
        return claims_table.by_profile(study, claimed).drop(columns="claim").to_dict("list")

    assert shown() == {
        "toy": ["not run", "not run"],
        "toy, full, on record": ["same direction", "not run"],
        "broken": ["not run", "not run"],
        "minigpt4-llama2": ["not run", "not run"],
        "toy-other": ["not run", "not run"],
        "toy-third, on record": ["reproduced", "not run"],
    }
    shutil.copytree(tmp_path / "toy", tmp_path / "toy-other")
    assert Study(other, tmp_path / "toy-other").tried()
    (ran,) = evidence_of(Study(other, tmp_path / "toy-other"), FLUENT)
    assert shown()["toy-other"] == [ran, "not run"]
    assert ran != "not run"
    claimed.assign(verdict="same direction").to_csv(tmp_path / "toy-other" / "claims.csv", index=False)
    assert shown()["toy-other"] == ["same direction", "same direction"]


FLUENT = "captions-stay-grammatical"  # what the main setting alone decides


def evidence_of(study: Study, claim: str) -> list[str]:
    found = table(load_claims(), evidence.effects(study.perturbations(), study.profile))
    return found.loc[found["claim"] == claim, "verdict"].tolist()
