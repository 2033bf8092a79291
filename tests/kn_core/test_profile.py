"""A profile is checked before anything is computed, and a mistake is named by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from book.claims.evidence import PAPER_A, PAPER_G
from kn_core.profile import PROFILES, Profile, ProfileError, load_profile, profile_file, read, results


@pytest.fixture
def write(tmp_path: Path):
    """write("data.pool", 0): a copy of the embedded profile with one setting changed."""

    def changed(key: str, value: Any) -> Path:
        settings = yaml.safe_load((PROFILES / "embedded.yaml").read_text())
        *groups, name = key.split(".")
        group = settings
        for step in groups:
            group = group[step]
        group[name] = value
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return changed


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_of_the_repository_is_valid_and_bears_the_name_of_its_file(path):
    assert load_profile(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("budget", 80, "budget: Extra inputs are not permitted"),
        ("identification.budgett", 80, "identification.budgett: Extra inputs are not permitted"),
        ("identification.threshold_a.quantil", 0.9, "identification.threshold_a.quantil: Extra inputs"),
        ("identification.threshold_a", {"quantile": 1.2}, "identification.threshold_a.quantile: Input should be less"),
        (
            "identification.threshold_g",
            {"quantile": 0.9, "by_hand": {"beer": 1e-4}},
            "threshold_g.by_hand: beer must be",
        ),
        ("perturbation.rival_seeds", 3, "rival_seeds, seeds, draws: each at most the next one. Got 3, 1, 1"),
        ("identification.budget", 0, "identification.budget: Input should be greater than or equal to 1. Got 0."),
        ("identification.pooling", "median", "identification.pooling: Input should be 'mean', 'max' or 'min'"),
        ("concepts", [], "concepts: Tuple should have at least 1 item"),
        ("concepts", ["bear", "bear"], "concepts: Value error, a list holds everything once"),
        ("concepts", ["hot dog", "Hot-dog"], "concepts: every concept must be named once, whatever its case"),
        ("concepts", ["tv/monitor"], "concepts: 'tv/monitor' cannot name files"),
        ("concepts", [".."], "concepts: '..' cannot name files"),
        ("ours", ["zebra"], "ours: zebra must be among concepts"),
        ("data.seed", 1, "data.seed: Input should be greater than or equal to 2"),
        ("data.pool", "many", "data.pool: Input should be a valid integer"),
        ("data.source", "coco", "inpainting.method: 'exact' needs data.source 'scenes'"),
        ("inpainting.dilation", -1, "inpainting.dilation: Input should be greater than or equal to 0"),
        ("inpainting.dilation", 100_000, "inpainting.dilation: Input should be less than or equal to 1024"),
        ("filtering.constraints", ["area", "neat"], "filtering.constraints.1: Input should be 'unsquashed'"),
        ("filtering.area", [0.6, 0.05], "filtering.area: the lower bound must be below the upper. Got (0.6, 0.05)"),
        ("filtering.area", [5, 60], "filtering.area.0: Input should be less than or equal to 1. Got 5."),
        ("perturbation.sigma", 0, "perturbation.sigma: Input should be greater than 0"),
        ("perturbation.positions", "text", "positions: mean and patch are defined at positions 'image' only"),
        ("perturbation.intervention", "zero", "sweep_sigma, text_sigma: only the intervention 'noise' has a sigma"),
        (
            "perturbation",
            {"intervention": "patch", "sweep_positions": ["all"]},
            "sweep_positions: 'patch' is defined at positions 'image' only",
        ),
        ("sensitivity", {"pictures": 0}, "sensitivity.pictures: Input should be greater than or equal to 1. Got 0."),
        (
            "sensitivity",
            {"quantiles_a": [0.5, 1.0]},
            "sensitivity.quantiles_a.1: Input should be less than 1. Got 1.0.",
        ),
        ("sensitivity", {"raw_g": [0.0, 1e-4]}, "sensitivity.raw_g.0: Input should be greater than 0. Got 0.0."),
        ("sensitivity", {"raw_a": [2.5, 0.8]}, "raw_a: two steps or more, each above the one before. Got (2.5, 0.8)"),
        ("sensitivity", {"raw_a": [0.8]}, "raw_a: two steps or more, each above the one before. Got (0.8,)"),
        (
            "sensitivity",
            {"quantiles_g": [0.9, 0.9]},
            "sensitivity.quantiles_g: Value error, a list holds everything once",
        ),
        ("perturbation.rivals", ["dai", "dai"], "perturbation.rivals: Value error, a list holds everything once"),
        ("perturbation.sigma", float("inf"), "perturbation.sigma: Input should be a finite number. Got inf."),
        ("identification.threshold_a.by_hand", {"bear": float("nan")}, "by_hand.bear: Input should be a finite number"),
        ("data.pool", True, "data.pool: Value error, true and false are neither numbers nor names. Got True."),
        ("editing.poll", "Is there a {wrod}?", "editing.poll: String should match pattern"),
        ("concepts", ["bear", "the cat"], "concepts: 'the cat' is more than the word, 'cat'"),
        ("full.sensitivity.pictures", 0, "sensitivity.pictures"),
        (
            "full.data",
            {"pool": 80},
            "full: only ceiling, choices, editing, faithfulness, ownership, perturbation, rules, sensitivity",
        ),
    ],
)
def test_an_unknown_key_or_an_impossible_value_is_named(write, key, value, named):
    path = write(key, value)
    with pytest.raises(ProfileError) as raised:
        load_profile(path)
    assert str(raised.value).startswith(f"{path} is no valid profile:\n")
    assert named in str(raised.value)


def test_the_long_version_has_finer_grids_on_more_pictures_that_hold_the_short_ones_and_the_papers_ends():
    short, long = (profile.sensitivity for profile in (load_profile("embedded"), load_profile("embedded").long))
    assert long.pictures > short.pictures
    for name in ("quantiles_a", "quantiles_g", "raw_a", "raw_g"):
        assert set(getattr(short, name)) < set(getattr(long, name))
    assert (min(short.raw_a), max(short.raw_a)) == PAPER_A
    assert set(PAPER_G) <= set(short.raw_g)


def test_one_concept_alone_has_no_mean_of_other_concepts(write):
    settings = yaml.safe_load(write("ours", []).read_text()) | {"concepts": ["bear"], "name": "one"}
    with pytest.raises(ValidationError, match="'mean' is that of other concepts' pictures, and there is only one"):
        Profile.model_validate(settings)
    settings["full"]["perturbation"]["sweep_interventions"] = ["zero", "patch"]
    assert Profile.model_validate(settings).concepts == ("bear",)


def test_every_mistake_is_listed_at_once(write, tmp_path):
    settings = yaml.safe_load(write("data.pool", 0).read_text())
    settings["model"]["tower"] = "vgg"
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ProfileError) as raised:
        load_profile(tmp_path / "two.yaml")
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["model.tower", "data.pool"]


def test_a_missing_profile_suggests_the_nearest_name():
    with pytest.raises(ProfileError, match=r"No profile 'embeded' .* Did you mean 'embedded'\? Known: .*embedded"):
        load_profile("embeded")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not YAML"),
        (b"", "is no valid profile"),
        (b"- 1", "Got [1]"),
        (b"data: 2020-13-45", "is not YAML"),
        ("concepts: [glacé]".encode("latin-1"), "is not YAML in UTF-8 or UTF-16"),
        ("concepts: [bear]".encode("utf-16-le"), "is not YAML in UTF-8 or UTF-16"),  # without its mark
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path, content, message):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as raised:
        load_profile(path)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_a_key_stands_once_and_whole_numbers_are_decimal(write):
    path = write("data.pool", 0)
    path.write_text(path.read_text().replace("pool: 0", "pool: 010"))
    assert load_profile(path).data.pool == 10
    path.write_text(path.read_text().replace("pool: 010", "pool: 200\n  pool: 20"))
    with pytest.raises(ProfileError, match="holds 'pool' twice"):
        load_profile(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_profile_is_read_whatever_the_terminals_encoding(write, encoding, monkeypatch):
    path = write("model.after", "Was ist das für ein Bild?")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    monkeypatch.setenv("LC_ALL", "C")
    assert load_profile(path).parts.after == "Was ist das für ein Bild?"


def test_a_profiles_name_is_its_files(write, tmp_path, monkeypatch):
    path = write("identification.budget", 7)
    assert load_profile(path).name == "changed"
    assert load_profile(write("name", "changed")).name == "changed"
    with pytest.raises(ProfileError, match=r"names itself 'embedded'. A profile's name is its file's, 'changed'"):
        load_profile(write("name", "embedded"))
    for name in ("..", "a/b", "", "-x"):
        with pytest.raises(ValidationError, match="cannot name files"):
            Profile.model_validate(load_profile("embedded").model_dump() | {"name": name})
    (tmp_path / "...yaml").write_text("")
    for absent in ("..", "../embedded", "profiles/embedded", "", str(tmp_path)):
        with pytest.raises(ProfileError):
            load_profile(absent)
    path.unlink()
    (tmp_path / "embedded.yaml").write_bytes((PROFILES / "embedded.yaml").read_bytes())
    with pytest.raises(ProfileError, match="have one name, so one folder of results"):
        load_profile(tmp_path / "embedded.yaml")


def test_a_path_is_a_profile_from_wherever_the_reader_stands(write, tmp_path, monkeypatch):
    path = write("identification.budget", 7).rename(tmp_path / "my own.yaml")
    monkeypatch.chdir(tmp_path)
    for given in (path, str(path), "my own.yaml", "../" + str(path.relative_to(tmp_path.parent))):
        found = load_profile(given)
        assert (found.name, found.said, found.identification.budget) == ("my own", str(path), 7)
    assert profile_file("my own.yaml", tmp_path) == path
    for given in ("embedded", "embedded.yaml", PROFILES / "embedded.yaml"):
        assert load_profile(given).said == "embedded"
    monkeypatch.setenv("KN_PROFILES", str(tmp_path))
    assert load_profile("my own").said == str(path)


def test_a_tilde_is_home_where_no_shell_has_looked_at_it(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(write("identification.budget", 7).parent))
    for variable in ("KN_RESULTS", "KN_PROFILES"):
        monkeypatch.setenv(variable, "~")
    assert results("changed") == tmp_path / "changed"
    assert load_profile("changed") == load_profile("~/changed.yaml")
    with pytest.raises(ProfileError, match="No profile '~nobody.here/x.yaml'"):
        load_profile("~nobody.here/x.yaml")


def test_profiles_of_another_folder_stand_before_the_shipped_ones(monkeypatch, write, tmp_path):
    write("identification.budget", 7)
    monkeypatch.setenv("KN_PROFILES", str(tmp_path))
    assert load_profile("changed").identification.budget == 7
    assert load_profile("embedded") == read(PROFILES / "embedded.yaml")  # as pages name it
    with pytest.raises(ProfileError, match="Known: .*changed, embedded"):
        load_profile("nothing like it")


def test_a_fingerprint_follows_the_parts_that_it_is_of(write):
    before, after = load_profile("embedded"), load_profile(write("identification.budget", 81))
    assert before.fingerprint() != after.fingerprint()
    assert before.fingerprint("identification") != after.fingerprint("identification")
    for part in set(Profile.model_fields) - {"identification", "name"}:
        assert before.fingerprint(part) == after.fingerprint(part)
    assert load_profile("embedded").fingerprint() == before.fingerprint()


def test_profiles_are_equal_where_their_settings_are(write):
    for name in ("embedded", "embedded-vit"):  # with a long version, and without
        one, other = load_profile(name), load_profile(name)
        assert one == other and one.long == other.long and one != object()
    assert load_profile("embedded") != load_profile(write("identification.budget", 81))


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("embedded").identification.budget = 1


def test_a_shipped_profile_can_be_looked_at_beside_a_readers_own_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "embedded.yaml").write_text((PROFILES / "embedded.yaml").read_text() + "\nownership: {pictures: 9}\n")
    monkeypatch.setenv("KN_PROFILES", str(tmp_path))
    assert load_profile("embedded").ownership.pictures == 9 != read(PROFILES / "embedded.yaml").ownership.pictures
