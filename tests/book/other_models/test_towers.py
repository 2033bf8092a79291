"""Two towers before one decoder: numbers worked out by hand, studies of the toy world, and what is said of them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.other_models import figures, towers
from book.other_models.towers import DIFFERENCE, QUANTITIES, compare, compared, in_words, page, verdicts
from book.other_models.two_studies import both, jaccard_by_chance, shared_neurons
from book.words import NotRun
from kn_core import drawing, models
from kn_core.study.study import Study
from tests.kn_core.study.test_study import inhabit
from tests.perturbed import headline_rows, profile

PAGE = Path(__file__).parents[3] / "book" / "appendix" / "towers.md"
CONCEPTS = ["bear", "bus"]
LAYERS, WIDTH = 6, 50


def stand_in(rows: list[dict[str, object]], named: dict[str, bool], neurons: dict[str, list[tuple[int, int]]]):
    """What a comparison asks of a study: `named` is by picture, '' is one that was not captioned."""
    pairs = pd.DataFrame(
        [
            (image_id.split("-")[0], image_id, "" if hit is None else "Said.", "word" if hit else "")
            for image_id, hit in named.items()
        ],
        columns=["concept", "image_id", "caption", "target_word"],
    )
    found = pd.DataFrame(
        [
            (concept, "two-stage", layer, unit, rank)
            for concept, places in neurons.items()
            for rank, (layer, unit) in enumerate(places)
        ],
        columns=["concept", "method", "layer", "unit", "rank"],
    )
    trials = pd.DataFrame(rows)

    def of(frame: pd.DataFrame, concept: str) -> pd.DataFrame:
        return frame[frame["concept"] == concept]

    return SimpleNamespace(
        profile=profile(),
        n_layers=LAYERS,
        studied=lambda: CONCEPTS,
        pairs=lambda concept: of(pairs, concept),
        neurons=lambda concept: of(found, concept),
        perturbations=lambda concept: of(trials, concept),
        scores=lambda concept: {"delta": np.zeros((3, LAYERS, WIDTH))},
    )


@pytest.fixture
def studies():
    """With the first tower the rows of `perturbed`; with the second noise on two-stage neurons takes nothing away."""
    rows = headline_rows()
    harmless = [row | {"target_present": True, "retained": 1.0} for row in rows]
    one = {"bear": [(0, 1), (3, 2), (5, 3), (5, 4)], "bus": [(2, 7), (4, 1)]}
    other = {"bear": [(0, 1), (3, 2), (4, 9), (4, 8)], "bus": [(5, 3), (5, 9)]}
    first = {"bear-1": True, "bear-2": False, "bear-3": True, "bus-1": True, "bus-2": None}
    second = {"bear-1": True, "bear-2": True, "bus-1": False, "bus-2": True, "bus-3": True}
    return {"convolutional": stand_in(rows, first, one), "ViT": stand_in(harmless, second, other)}


def test_every_quantity_is_the_mean_over_concepts_of_their_pictures(studies):
    frame = compare(studies, CONCEPTS)
    assert frame["quantity"].unique().tolist() == list(QUANTITIES)
    value = frame.set_index(["quantity", "tower"])["value"]
    # Captioned with both: bear-1, bear-2 and bus-1.
    assert value["naming"].tolist() == [(0.5 + 1) / 2, (1 + 0) / 2, (-0.5 + 1) / 2]
    assert value["suppression"].tolist() == [(0.75 + 0.5) / 2, 0, (0.75 + 0.5) / 2]
    assert value["suppression-random"].tolist() == [0.125, 0, 0.125]
    assert value["suppression-over-random"].tolist() == [(0.75 + 0.25) / 2, 0, 0.5]
    assert value["retention"].tolist() == [0.5, 1, -0.5]
    assert value["retention-over-random"].tolist() == [-0.5, 0, -0.5]
    assert value["first-third"].tolist() == [0.125, 0.125, 0]
    assert value["middle-third"].tolist() == [(0.25 + 0.5) / 2, 0.125, 0.25]
    assert value["last-third"].tolist() == [0.5, 0.75, -0.25]
    counts = frame.set_index(["quantity", "tower"])[["n_images", "n_concepts"]]
    assert counts.loc["naming"].to_numpy().tolist() == [[3, 2]] * 3
    assert counts.loc["suppression"].to_numpy().tolist() == [[4, 2], [4, 2], [0, 2]]
    assert counts.loc["last-third"].to_numpy().tolist() == [[0, 2]] * 3


def test_intervals_of_differences_between_concepts_span_what_concepts_give(studies):
    frame = compare(studies, CONCEPTS).set_index(["quantity", "tower"])
    low, high = frame.loc[("suppression", DIFFERENCE), ["low", "high"]]
    assert (low, high) == (0.5, 0.75)  # of the bus alone, and of the bear alone
    alone = compare(studies, ["bear"]).set_index(["quantity", "tower"])
    assert math.isnan(alone.loc[("suppression", DIFFERENCE), "low"])
    assert not math.isnan(alone.loc[("naming", DIFFERENCE), "low"])


def test_shared_neurons_stand_beside_chance_and_beside_other_concepts(studies):
    frame = shared_neurons(studies, CONCEPTS).set_index("concept")
    assert frame["shared"].tolist() == [2, 0]
    assert frame["jaccard"].tolist() == [2 / 6, 0]
    # The bear's four against the other tower's bus's two, which hold (5, 3); the other way round none is shared.
    assert frame["jaccard_others"].tolist() == pytest.approx([(1 / 5 + 0) / 2] * 2)
    assert frame["expected_layers"].tolist() == pytest.approx([(1 + 1) / WIDTH, 0])
    total = LAYERS * WIDTH
    assert frame.loc["bear", "p"] == pytest.approx(1 - sum(hypergeometric(k, total, 4, 4) for k in (0, 1)))
    assert frame.loc["bear", "p_holm"] == pytest.approx(2 * frame.loc["bear", "p"])
    assert frame.loc["bus", "jaccard_chance"] == pytest.approx(jaccard_by_chance(2, 2, total))


def hypergeometric(shared: int, total: int, one: int, other: int) -> float:
    return math.comb(one, shared) * math.comb(total - one, other - shared) / math.comb(total, other)


def test_the_jaccard_index_by_chance():
    assert jaccard_by_chance(1, 1, 4) == pytest.approx(1 / 4)  # the same one, or none
    # Of two drawn from four: both with 1/6, one of three with 4/6, none with 1/6.
    assert jaccard_by_chance(2, 2, 4) == pytest.approx(1 / 6 + 4 / 6 / 3)
    assert jaccard_by_chance(0, 3, 9) == 0
    assert math.isnan(jaccard_by_chance(0, 0, 9))


@pytest.fixture(scope="module")
def twins(taught_model, toy_profile, tmp_path_factory):
    """Two whole studies of one model, called two towers: nothing may differ."""
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        inhabit(patch, folder)
        made = {name: Study(toy_profile, folder / name, taught_model) for name in ("one", "other")}
        for study in made.values():
            study.perturbations()
        yield made


def test_a_tower_does_not_differ_from_itself(twins):
    concepts = both(twins)
    assert len(concepts) >= 2
    frame = compare(twins, concepts)
    assert (frame[frame["tower"] == DIFFERENCE][["value", "low", "high"]] == 0).all(axis=None)
    own = frame[frame["tower"] == "one"].drop(columns="tower").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, frame[frame["tower"] == "other"].drop(columns="tower").reset_index(drop=True))
    assert own.set_index("quantity").loc["naming", "value"] > 0.5
    assert (shared_neurons(twins, concepts)["jaccard"] == 1).all()
    judged = verdicts(twins, concepts)
    assert not judged["differ"].any()
    assert set(judged["page"]) == {"thresholds", "layers", "perturbation"}
    assert judged["one"].eq(judged["other"]).all()
    assert judged["one, ours"].equals(judged["other, ours"])


def test_the_page_of_two_studies_shows_all_and_keeps_it(twins):
    shown = page(twins)
    assert set(shown.words) == set(re.findall(r"\{glue:text\}`([^`]+)`", PAGE.read_text()))
    assert shown.words["depends"] == "none of them"
    assert shown.words["jaccard"].startswith("1.00")
    assert re.fullmatch(r"0 of \d+", shown.words["differ"])
    assert "Compared on bear" in shown.notice
    for name, caption in (("compared", "A"), ("shared", "B"), ("verdicts", "C")):
        assert caption in shown.table(name, caption).to_html()
        assert (twins["one"].folder / "tables" / f"towers_{name}.csv").is_file()
    with drawing.theme():
        figure = figures.towers(shown.frames["compared"])
    assert figure.get_suptitle() == f"0 of {len(QUANTITIES)} quantities differ between the towers"
    shown.save_figure(figure, "toy")
    assert (twins["one"].folder / "figures" / "towers_toy.svg").is_file()
    plt.close(figure)


@pytest.mark.parametrize("name", ["embedded", "embedded-vit"])
def test_studies_are_found_from_either_profile(name, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "PROJECTIONS", tmp_path)
    for untrained, tower in (("embedded", "efficientnet-lite0"), ("embedded-vit", "dinov2-small")):
        with pytest.raises(NotRun, match=f"of the profile {untrained} is not trained.*--profile {untrained} --coco"):
            compared(name)
        (tmp_path / f"{tower}_smollm2-135m.safetensors").touch()
    found = compared(name)
    assert list(found) == ["EfficientNet-Lite0", "DINOv2 ViT-S/14"]
    assert [study.profile.name for study in found.values()] == ["embedded", "embedded-vit"]


def test_a_profile_without_a_sibling_is_not_compared():
    with pytest.raises(NotRun, match="there is no pair of profiles embedded-coco and embedded-coco-vit"):
        compared("embedded-coco")


def said(over: dict[str, tuple[float, float, float]], **changes: tuple[float, float, float]) -> dict[str, str]:
    """`in_words` of towers a and b: all alike but the advantage over random neurons and what `changes` says."""
    flat = {"a": (0.5, 0.4, 0.6), "b": (0.5, 0.4, 0.6), DIFFERENCE: (0.0, -0.1, 0.1)}
    rows = [
        {"quantity": name, "tower": tower, "value": row[0], "low": row[1], "high": row[2]}
        for name in QUANTITIES
        for tower, row in (flat | (over if name == "suppression-over-random" else {})).items()
    ]
    for row in rows:
        if row["tower"] == DIFFERENCE and row["quantity"] in changes:
            row |= dict(zip(("value", "low", "high"), changes[row["quantity"]], strict=True))
    shared = pd.DataFrame(
        {
            "shared": [20, 30],
            "jaccard": [0.2, 0.3],
            "jaccard_chance": [0.001, 0.001],
            "jaccard_others": [0.1, 0.1],
            "p_holm": [0.01, 0.5],
        }
    )
    judged = pd.DataFrame(
        {"claim": ["x", "y"], "a": ["reproduced"] * 2, "b": ["reproduced", "not run"], "differ": [False, True]}
    )
    return in_words(pd.DataFrame(rows), shared, judged, ["a", "b"])


def test_the_numbers_decide_what_is_said():
    above, across = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3)
    words = said({"a": above, "b": above, DIFFERENCE: (0.0, -0.1, 0.1)})
    assert words["works"].startswith("With both towers")
    assert words["advantage-told"] == words["naming-told"] == "the towers cannot be told apart"
    assert words["depends"] == "none of them"
    words = said({"a": across, "b": above, DIFFERENCE: (-0.1, -0.2, -0.05)})
    assert words["works"].startswith("Only with b is it clear")
    assert words["advantage-told"] == "is larger with b"
    assert words["depends"] == "Sₛₑ, two-stage minus random"
    words = said({"a": across, "b": across, DIFFERENCE: (0.0, np.nan, np.nan)}, naming=(0.2, 0.1, 0.3))
    assert words["works"].startswith("With neither tower")
    assert words["advantage-told"] == "too few concepts to tell"
    assert words["naming-told"] == "a names more"
    assert words["depends"] == "captions that name the concept"


def test_verdicts_and_overlap_are_counted_in_words():
    words = said({})
    assert words["differ"] == "1 of 2: y (reproduced with a, not run with b)"
    assert words["claims"] == "2"
    assert words["beyond-chance"] == "1 of 2"
    assert words["shared"] == "25"
    assert words["jaccard"] == "0.25 [0.20,\u00a00.30]"
    assert words["same-concept"] == "0.15 [0.10,\u00a00.20], clear of zero"


def test_verdicts_that_differ_come_first_for_readers():
    frame = pd.DataFrame(
        {
            "statement": ["alike", "unlike in S_re"],
            "measured": ["S_se", "a share"],
            "a": ["reproduced", "reproduced"],
            "b": ["reproduced", "not reproduced"],
            "differ": [False, True],
        }
        | {f"{tower}, {name}": [0.5, 0.25] for tower in "ab" for name in ("ours", "low", "high")}
    )
    shown = towers.verdicts_for_readers(frame, ["a", "b"])
    assert shown["the paper says"].tolist() == ["unlike in Sᵣₑ", "alike"]
    assert shown["measured"].tolist() == ["a share", "Sₛₑ"]
    assert shown["b"].tolist() == ["not reproduced: 0.25 [0.25,\u00a00.25]", "reproduced: 0.50 [0.50,\u00a00.50]"]
