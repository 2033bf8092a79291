import pytest

from kn_core.concepts import content_words, mention, names, noun, without_concept, words


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        ("bus", ("bus", "buses", "busses", "minibus", "minibuses")),
        ("dog", ("dog", "dogs", "puppy", "puppies", "pup", "pups", "doggy", "doggies", "doggie")),
        ("mouse", ("mouse", "mice")),
        ("sheep", ("sheep", "lamb", "lambs", "ewe", "ewes")),
        ("knife", ("knife", "knives")),
        ("wine glass", ("wine glass", "wine glasses", "wineglass", "wineglasses")),
        ("broccoli", ("broccoli",)),
        ("scissors", ("scissors", "shears")),
        # Names that the table does not know get the regular plural.
        ("wombat", ("wombat", "wombats")),
        ("box", ("box", "boxes")),
        ("berry", ("berry", "berries")),
        ("toy", ("toy", "toys")),
        ("snowman", ("snowman", "snowmen")),
        ("watch tower", ("watch tower", "watch towers")),
        ("  Bench ", ("bench", "benches")),
    ],
)
def test_words_start_with_the_name_its_plural_and_its_synonyms(concept: str, expected: tuple[str, ...]) -> None:
    assert words(concept)[: len(expected)] == expected


def test_words_of_common_synonyms() -> None:
    assert {"man", "men", "woman", "women", "people", "children"} <= set(words("person"))
    assert "sofa" in words("couch") and "table" in words("dining table") and "television" in words("tv")
    assert {"kitten", "kittens", "kitty"} <= set(words("cat")) and "locomotive" in words("train")


def test_words_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="concept must be a word"):
        words("  ")


@pytest.mark.parametrize(
    ("caption", "concept", "word"),
    [
        ("A red bus on a street.", "bus", "bus"),
        ("Two BUSES, parked", "bus", "BUSES"),
        ("the dog's bowl", "dog", "dog"),
        ("a polar bear", "bear", "bear"),
        ("a bear hugs a teddy bear", "bear", "bear"),
        ("a teddy bear", "teddy bear", "teddy bear"),
        ("a hot-dog on a plate", "hot dog", "hot-dog"),
        ("a dinner on a dining  table", "dining table", "dining  table"),
        ("train tracks with a train on them", "train", "train"),
        ("an orange lying on a table", "orange", "orange"),
        ("an orange cat eats oranges", "orange", "oranges"),
        ("a laptop computer", "laptop", "laptop computer"),
        ("a bus stops at a bus stop", "bus", "bus"),
        ("a train crossing a bridge", "train", "train"),
        ("a train stopped at a train stop", "train", "train"),
        ("a zebra crossing a road", "zebra", "zebra"),
    ],
)
def test_mention_is_the_first_word_of_the_concept_as_written(caption: str, concept: str, word: str) -> None:
    found = mention(caption, concept)
    assert found is not None and found.group() == word == caption[found.start() : found.end()]


def test_mention_passes_over_other_things_to_the_first_real_one() -> None:
    found = mention("train tracks with a train", "train")
    assert found is not None and found.start() == len("train tracks with a ")


@pytest.mark.parametrize(
    ("caption", "concept"),
    [
        ("a marble bust", "bus"),
        ("a bus stop near the bus-station", "bus"),
        ("a teddy bear", "bear"),
        ("two teddy bears", "bear"),
        ("a bearded man", "bear"),
        ("a hot dog with mustard", "dog"),
        ("hot-dogs", "dog"),
        ("people on train tracks at a train station", "train"),
        ("a flower bed", "bed"),
        ("a roll of toilet paper", "toilet"),
        ("an orange bus", "orange"),
        ("a red and orange train", "orange"),
        ("a catcher", "cat"),
        ("", "cat"),
    ],
)
def test_other_things_do_not_name_the_concept(caption: str, concept: str) -> None:
    assert not names(caption, concept)


def test_a_concept_may_hold_characters_that_mean_something_in_a_regular_expression() -> None:
    assert names("a c++ (book) here", "c++ (book)")
    assert not names("a cc book", "c++ (book)")


def test_content_words_leave_out_stop_words_and_the_concept() -> None:
    caption = "A man's big dog and two hot dogs are on the table, in front of a t-shirt."
    assert content_words(caption) == ("man", "big", "dog", "hot", "dogs", "table", "shirt")
    assert content_words(caption, without="dog") == ("man", "big", "hot", "dogs", "table", "shirt")
    assert content_words("A dog and a DOG", without="dog") == ()
    assert content_words("") == ()


@pytest.mark.parametrize(
    ("caption", "concept", "rest"),
    [
        ("A big brown bear on a log.", "bear", "on a log."),
        ("Two large bears and a man walk.", "bear", "and a man walk."),
        ("A man walks his dog, and a cat.", "dog", "A man walks, and a cat."),
        ("a man eating pizza", "pizza", "a man eating"),
        ("the two big bears walk", "bear", "walk"),
        ("a bear looks at another bear", "bear", "looks at"),
        ("a teddy bear", "bear", "a teddy bear"),
        ("The bear's paw", "bear", "paw"),
    ],
)
def test_without_concept_takes_the_noun_phrase_out(caption: str, concept: str, rest: str) -> None:
    assert without_concept(caption, concept) == rest


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("a dog", "dog"),
        ("The  hot\tdog", "hot dog"),
        ("an Orange", "Orange"),
        ("some of my dogs", "of my dogs"),
        ("one another's two bears", "another's two bears"),
    ],
)
def test_determiners_come_off_a_word(phrase: str, expected: str) -> None:
    assert noun(phrase) == expected
    assert words(phrase) == words(expected)


@pytest.mark.parametrize("phrase", ["", "the", "a The"])
def test_determiners_alone_are_no_word(phrase: str) -> None:
    with pytest.raises(ValueError, match=f"concept must be a word such as 'dog'. Got '{phrase}'"):
        words(phrase)
