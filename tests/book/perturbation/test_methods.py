"""Methods beside each other, on captions few enough to count by hand (see `perturbed`)."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from book import tables
from book.perturbation import figures, methods, plane, readings
from kn_core.drawing import theme
from kn_core.measures import text
from kn_core.study.experiments import texts
from kn_core.study.store import Store
from tests.perturbed import perturbations, profile, row

IMAGES = ("bear-1", "bear-2", "bus-1", "bus-2")


def rows(method: str, gone: tuple[str, ...], **changes) -> list[dict[str, object]]:
    """The main setting of one method on the four held-out pictures."""
    return [row(image.split("-")[0], method, image, image in gone, **changes) for image in IMAGES]


@pytest.fixture
def main() -> pd.DataFrame:
    """Suppression: two-stage 3 of 4, Pan et al. all, random none in two draws and one in a third."""
    made = [*rows("two-stage", IMAGES[:3]), *rows("pan-gated", IMAGES), *rows("uniform", IMAGES[3:], seed=0)]
    for draw, gone in enumerate([(), (), ("bus-1",)]):
        made += rows("random", gone, seed=draw)
    return pd.DataFrame(made)


@pytest.fixture
def table(main: pd.DataFrame) -> pd.DataFrame:
    return methods.compare(main, limit=50.0)


def test_a_comparison_is_paired_and_marks_the_best_and_what_equals_it(table: pd.DataFrame) -> None:
    found = table[table["metric"] == "suppression"].set_index("method")
    assert found["value"].to_dict() == pytest.approx(
        {"two-stage": 3 / 4, "pan-gated": 1.0, "random": 1 / 12, "uniform": 1 / 4}
    )
    assert found.loc["pan-gated", "difference"] == pytest.approx(-1 / 4)  # two-stage minus the method
    assert found.loc["random", "difference"] == pytest.approx(3 / 4 - 1 / 12)
    assert found["best"].to_dict() == {"two-stage": False, "pan-gated": True, "random": False, "uniform": False}
    assert found.loc["two-stage", "tie"]  # four pictures tell nothing apart
    assert found.loc["random", "p_holm"] >= found.loc["random", "p"] > 0
    assert pd.isna(found.loc["two-stage", "p"])


def test_there_is_no_comparison_without_the_one_that_is_compared(main: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"ours must be one of the methods \['two-stage'.*Got 'dai'"):
        methods.compare(main, limit=50.0, ours="dai")


def test_texts_are_scored_once_whoever_asks(main: pd.DataFrame, tmp_path: Path, monkeypatch) -> None:
    scored = []

    def score(captions: list[str], references: list[str]) -> list[float]:
        scored.append(len(captions))
        return [float(said == wanted) for said, wanted in zip(captions, references, strict=True)]

    for name in ("bleu", "rouge_l", "bertscore"):
        monkeypatch.setattr(text, name, score)
    pairs = pd.DataFrame([(image.split("-")[0], image, "A man on green grass.") for image in IMAGES])
    pairs.columns = ["concept", "image_id", "caption_inpainted"]
    study: Any = SimpleNamespace(pairs=lambda: pairs, store=Store(tmp_path))
    for asked in (main[main["method"] == "random"], main) * 2:  # by one page, another, and both again
        found = texts.with_text(study, asked)
        assert found["caption"].tolist() == asked["caption"].tolist()
    assert len(scored) == 2 * 3
    gone = found[found["method"] == "pan-gated"]
    assert gone["bleu_suppression"].tolist() == [1.0, 0.0, 1.0, 0.0]  # 'A man on green grass.' twice


def test_what_grows_worse_is_best_where_it_is_smallest(main: pd.DataFrame) -> None:
    main.loc[main["method"] == "random", "repetition"] = 0.5
    found = methods.compare(main, limit=50.0).query("metric == 'repetition'").set_index("method")
    assert not found.loc["random", "best"]
    assert found.loc["two-stage", "best"]


def test_two_stage_neurons_among_the_draws(main: pd.DataFrame) -> None:
    draws = methods.control_draws(main, limit=50.0, kept="retention")
    suppression = draws.query("control == 'random' and metric == 'suppression'")
    assert suppression["value"].tolist() == pytest.approx([0, 0, 1 / 4])
    among = methods.among_controls(main, draws, limit=50.0)
    found = among.set_index(["control", "metric"]).loc[("random", "suppression")]
    assert found[["value", "draws", "low", "high"]].tolist() == pytest.approx([3 / 4, 3, 0, 1 / 4])
    assert among["percentile"].isna().all()  # of three draws it says nothing
    shown = methods.controls_for_readers(among)
    assert shown.loc[0, "suppression of the draws"] == "0.00 to 0.25" and "suppression, percentile" not in shown


def test_draws_are_counted_a_control_at_a_time(main: pd.DataFrame) -> None:
    fewer = main[(main["method"] == "random") & (main["image_id"].isin(["bear-1", "bus-1"]))]
    both = pd.concat([main, fewer.assign(method="same-norm", seed=fewer["seed"] + 7)])  # on two pictures, as many draws
    draws = methods.control_draws(both, limit=50.0, kept="retention")
    among = methods.among_controls(both, draws, limit=50.0).set_index(["control", "metric"])["value"]
    assert among["random", "suppression"] == 3 / 4  # all four pictures
    assert among["same-norm", "suppression"] == 1.0  # bear-1 and bus-1


@pytest.fixture
def swept() -> pd.DataFrame:
    """Pictures that chose neurons, at two noises: the stronger one takes all of the caption along."""
    settings = [("two-stage", 1.0, 0), ("two-stage", 3.0, 1), ("dai", 1.0, 1), ("dai", 3.0, 1)]
    made = []
    for method, sigma, count in settings:
        kept = 0.5 if (method, sigma) != ("dai", 3.0) else 0.0  # of what is true, which leads
        rest = {"heldout": False, "retained": 1.0, "retained_truth": kept, "sigma": sigma}
        made += [row("bear", method, image, index < count, **rest) for index, image in enumerate(IMAGES[:2])]
    made.append(row("bear", "two-stage", "bear-1", True, heldout=False) | {"image_id": "bear-0"})  # at one noise only
    return pd.DataFrame([*made, *(one | {"sigma": 1.0} for one in rows("dai", ()))])


def test_a_dose_is_chosen_on_pictures_that_chose_neurons(swept: pd.DataFrame, monkeypatch) -> None:
    settings = profile()
    noise = settings.perturbation.model_copy(update={"sweep_sigma": (1.0, 3.0)})
    settings = settings.model_copy(update={"perturbation": noise})
    found = methods.doses(swept, settings)
    doses = found.set_index(["method", "sigma"])
    assert doses.loc[("two-stage", 3.0), ["suppression", "retention", "score"]].tolist() == [0.5, 0.5, 0.5]
    assert doses.loc[("two-stage", 1.0), "score"] == 0.0
    assert doses["chosen"].to_dict() == {
        ("dai", 1.0): True,
        ("dai", 3.0): False,
        ("two-stage", 1.0): False,
        ("two-stage", 3.0): True,
    }
    monkeypatch.setattr(methods, "with_text", lambda study, rows: rows)
    study: Any = SimpleNamespace(profile=settings)
    chosen = methods.at_own_dose(study, swept, found)
    assert chosen["image_id"].tolist() == list(IMAGES)
    assert chosen["heldout"].all()


def test_at_text_too_a_dose_is_chosen_on_pictures_that_chose_neurons(swept: pd.DataFrame) -> None:
    settings = profile()
    noise = settings.perturbation.model_copy(update={"sweep_sigma": (1.0, 3.0), "text_sigma": (2.0, 4.0)})
    there = {"heldout": False, "positions": "text", "retained_truth": 0.5}
    tried = [
        row("bear", method, image, sigma == 4.0 and method == "dai-text", sigma=sigma, **there)
        for method in ("dai-text", "random")
        for sigma in (2.0, 4.0)
        for image in IMAGES[:2]
    ]
    whole = pd.concat([swept, pd.DataFrame(tried)])
    found = methods.doses(whole, settings.model_copy(update={"perturbation": noise})).set_index(["method", "sigma"])
    assert found.loc["dai-text", "chosen"].to_dict() == {2.0: False, 4.0: True}
    assert "random" not in found.index.get_level_values("method")  # at text alone, it is no method of the main place
    assert methods.swept(found.reset_index()) == ["two-stage", "dai"]


def test_the_only_noise_that_was_tried_is_nobodys_own(swept: pd.DataFrame, table: pd.DataFrame) -> None:
    settings = profile()
    noise = settings.perturbation.model_copy(update={"sweep_sigma": (1.0, 3.0)})
    found = methods.doses(swept, settings.model_copy(update={"perturbation": noise}))
    assert methods.swept(found) == ["two-stage", "dai"]
    one = found[found["sigma"] == 3.0].assign(chosen=True)
    study: Any = SimpleNamespace(profile=settings)
    own = methods.compare_own(methods.at_own_dose(study, swept, one), limit=50.0)
    assert methods.swept(one) == [] and own.empty
    assert methods.in_words(table, own, one, "retention")["own-noise"].startswith("Here one noise alone was tried")
    assert methods.in_words(table, own, one.assign(score=math.nan), "retention")["own-noise"].startswith("Nothing was")


def test_where_no_picture_chooses_a_dose_all_keep_the_main_noise(main: pd.DataFrame) -> None:
    settings = profile()
    none = settings.model_copy(update={"perturbation": settings.perturbation.model_copy(update={"choosing": 0})})
    found = methods.doses(main, none)
    assert set(found["sigma"]) == {settings.perturbation.sigma}
    assert found["chosen"].all() and found["score"].isna().all()


def test_words_and_cells_come_from_the_numbers(table: pd.DataFrame) -> None:
    doses = pd.DataFrame({"method": "two-stage", "sigma": [3.0, 5.0], "score": [0.5, 0.2], "chosen": [True, False]})
    own = table[table["method"] == "two-stage"]
    words = methods.in_words(table, own, doses, "retention")
    assert words["own-noise"].startswith(
        "Several noises were tried for these: both stages. Under one alone, so without a diamond: Pan et al. (gated); "
        "random, same layers; random, any layer. For the two-stage neurons σ = 3 was chosen; with it the harmonic mean "
    )
    assert words["better"] == "they differ clearly from none in either number"
    assert words["ranking"].startswith(
        "Of the methods that choose neurons, most is suppressed by those of Pan et al. (gated) (1.00; two-stage 0.75, "
        "place 2 of 2, not to be told apart; random neurons "
    )
    table.loc[(table["method"] == "pan-gated") & (table["metric"] == "suppression"), "p_holm"] = 0.01
    assert methods.in_words(table, table, doses, "retention")["better"] == (
        "in suppression they do worse than Pan et al. (gated)"
    )
    html = tables.methods(table, methods.SUPPRESSION, "A table").to_html()
    assert "<caption>A table; n\u00a0=\u00a04 pictures</caption>" in html
    assert "<strong>1.00</strong>†<small>" in html
    table.loc[(table["method"] == "pan-gated") & (table["metric"] == "suppression"), "p_concepts_holm"] = 0.01
    assert "<strong>1.00</strong>‡<small>" in tables.methods(table, methods.SUPPRESSION, "A table").to_html()
    assert "0.75 =<small>" in html


def test_figures_state_what_they_show(main: pd.DataFrame, table: pd.DataFrame) -> None:
    with theme():
        figure = figures.methods(table, table, readings.printed(), "retention")
        said = " ".join(figure.get_suptitle().split())
        assert said.startswith("Suppressed and retained under one noise: two-stage neurons 75% and ")
        named = [text.get_text() for text in figure.legends[0].get_texts()]
        assert named == ["the same noise", "its own dose", "the paper's method"]
        alone = figures.methods(table, table.iloc[:0], readings.printed(), "retention")
        assert [text.get_text() for text in alone.legends[0].get_texts()] == ["the same noise", "the paper's method"]
        draws = methods.control_draws(main, limit=50.0, kept="retention")
        figure = figures.among_controls(draws, methods.among_controls(main, draws, limit=50.0), "retention")
        assert figure.get_suptitle() == "Two-stage neurons suppress more than 4 of 4 random draws"
        curve = readings.curve(perturbations(), profile(), "sigma", ["two-stage", "random"])
        values = curve.query("sigma == 3").pivot_table("value", "method", "metric")
        balance = [f"{2 / (1 / row.suppression + 1 / row.retention):.2f}" for row in values.itertuples()]
        own = dict.fromkeys(values.index, 3.0)
        found = " ".join(plane.frontier(curve, "retention", own).get_title(loc="left").split())
        assert found.startswith("Harmonic mean of both, each under its own noise: ")
        assert all(f" {number}" in found for number in balance)  # not under the noise that suits these pictures best
    plt.close("all")
