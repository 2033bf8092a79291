"""What found neurons say, whose else they are, and how much of their maps lies on the object."""

from __future__ import annotations

import pandas as pd
import pytest

from book.stages import figures
from book.stages.neurons import on_object, own_words, rank_table, shared, tokens


def test_tokens_are_read_back_as_they_were_written():
    written = [" bear", "it's", 'say "so"', "\n", "', '"]
    assert tokens(" ".join(map(repr, written))) == written


@pytest.mark.parametrize(
    ("token", "counts_as_own"),
    [(" bear", True), ("Bears", True), (" beard", False), (" gira", False), ("ear", False)],
)
def test_own_words_are_the_concepts(token: str, counts_as_own: bool):
    assert bool(own_words(repr(token), "bear")) is counts_as_own
    assert own_words(repr(" gira"), "giraffe") == [" gira"]


def test_shared_neurons_are_counted_by_concept():
    rows = [("bear", 0, 1), ("bear", 0, 2), ("bus", 0, 1), ("bus", 1, 2), ("cat", 0, 1), ("cat", 1, 2)]
    neurons = pd.DataFrame(rows, columns=["concept", "layer", "unit"]).assign(method="two-stage", rank=[0, 1] * 3)
    common = shared(neurons, 2, 100).set_index("concept")
    assert common["of another concept"].to_dict() == {"bear": 1, "bus": 2, "cat": 2}
    assert common["of every concept"].tolist() == [1, 1, 1]
    assert common["by chance"].tolist() == pytest.approx([2 * (1 - 0.98**2)] * 3)


def test_a_neuron_of_several_lists_stands_once_with_its_rank_in_each():
    rows = [("bear", 0, 1, 0), ("bear", 0, 2, 1), ("bus", 1, 2, 0), ("bus", 0, 1, 1)]
    best = pd.DataFrame(rows, columns=["concept", "layer", "unit", "rank"]).assign(top_tokens="' a' 'b'")
    shown = rank_table(best, 1, "Ranks").data
    assert shown[["neuron", "bear", "bus"]].fillna(0).to_numpy().tolist() == [["L0/1", 1, 2], ["L1/2", 0, 1]]
    assert shown["promotes"].iloc[0] == "<code>␣a</code> <code>b</code>"


def test_maps_on_the_object_are_averaged_within_concepts_first():
    rows = [("bear", "0", 0.2), ("bear", "1", 0.4), ("bus", "2", 0.9)]
    places = pd.DataFrame(
        [(*row, name) for row in rows for name in ("kept", "random")], columns=["concept", "image_id", "inside", "map"]
    )
    found = on_object(places)
    assert found["value"].tolist() == pytest.approx([0.6, 0.6])
    ax = figures.on_object(found, {"kept": "after both stages", "random": "random neurons"}, area=0.25)
    assert ax.collections[1].get_offsets()[:, 0].tolist() == pytest.approx([60, 60])
    assert ax.lines[0].get_xdata()[0] == 25
    assert "60% of what kept neurons answer" in ax.get_title(loc="left").replace("\n", " ")
