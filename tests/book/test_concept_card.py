"""What is said of a concept beside the others."""

from __future__ import annotations

from dataclasses import replace

from book.concept_card import Result, card, different, ends, frame
from kn_core.measures.stats import Estimate

OWN = Estimate(0.1, -0.1, 0.3)
BEAR = Result(
    *("bear", 12, 3, Estimate(0.5, 0.2, 0.8), 0.1, Estimate(0.25, 0.1, 0.4), "words", OWN, 12, 16),
    *(("cat", "dog"), ("cat",)),
)
HIGH, LOW = Estimate(0.75, 0.5, 1), Estimate(0.25, 0, 0.5)
CAT = replace(BEAR, concept="cat", suppression=HIGH, own=20, silences=("bear",), silenced_by=("bear", "dog"))
DOG = replace(BEAR, concept="dog", suppression=LOW, own=20, silences=("cat",), silenced_by=("bear",))
FOUND = {"bear": BEAR, "cat": CAT, "dog": DOG}


def test_what_is_different_is_where_it_is_first_or_last_alone() -> None:
    assert different(FOUND, "bear") == (
        "Of all 3 concepts, bear has the fewest neurons of its own and silences the most others"
        " (by its means: their intervals may overlap)"
    )
    assert different(FOUND, "cat").startswith(
        "Of all 3 concepts, cat loses its name most often and is silenced by the most others (by"
    )
    assert different({"bear": BEAR}, "bear") == ("Neither first nor last of the 1 concepts in any of these numbers")


def test_concepts_that_share_a_place_are_both_named() -> None:
    two = {"cat": CAT, "dog": replace(DOG, suppression=HIGH), "bear": BEAR}
    assert ends(two) == {
        "least": "“bear” (50% [20%,\u00a080%])",
        "most": "“cat” (75% [50%,\u00a0100%]) and “dog” (75% [50%,\u00a0100%])",
    }


def test_a_card_has_places_and_names() -> None:
    shown = card(FOUND, "bear")
    assert "50% [20%,\u00a080%]<small>place 2 of 3; random: 10%</small>" in shown
    assert "<dd>+0.10 [-0.10,\u00a0+0.30]<small>place 1 of 3</small>" in shown
    assert "<dt>its noise silences</dt><dd>all others<small>" in shown
    assert "<dt>silenced by noise on those of</dt><dd>cat<small>3 pictures of each" in shown
    assert frame(FOUND).loc[0, "silences"] == "cat, dog"
