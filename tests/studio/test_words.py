import pytest

from studio.words import captions_of, listed, strength_of, unknown_words, warning_about


VOCABULARY = ["gus", "is", "in", "the", "kitchen", "don't", "caf\u00e9"]


def test_captions_are_lines():
    assert captions_of(" Gus is in. \n\n\t\nThe kitchen.\r\n") == ["Gus is in.", "The kitchen."]
    assert captions_of("") == captions_of(" \n ") == []


def test_unknown_words_are_named_once_and_as_written():
    assert unknown_words("Gus is in the Helicopter. The HELICOPTER waves.", VOCABULARY) == ["Helicopter", "waves"]


@pytest.mark.parametrize(
    "text", ["GUS is in the kitchen!", "Gus's kitchen", "Gus\u2019s kitchen", "don\u2019t", "Caf\u00e9.", "42, 7!", ""]
)
def test_known_words_in_any_dress(text):
    assert unknown_words(text, VOCABULARY) == []


def test_words_of_any_script_are_seen():
    assert unknown_words("\u6f22\u5b57 na\u00efve \U0001f995 x2", VOCABULARY) == ["\u6f22\u5b57", "na\u00efve", "x"]


def test_listed():
    assert [listed(list("abc"[:n])) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_warning_names_the_words():
    warning = warning_about("Gus rides a bus in the kitchen.", VOCABULARY)
    assert (
        "\u201c<u>rides</u>\u201d, \u201c<u>a</u>\u201d and \u201c<u>bus</u>\u201d" in warning
        and "kitchen" not in warning
    )
    assert warning_about("Gus is in the kitchen.", VOCABULARY) == ""
    assert warning_about("Whatever.", None) == warning_about("Whatever.", []) == ""


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (0, ["alpha 0 = 0.00", "base model"]),
        (10, ["alpha 10 = 0.31", "between"]),
        (32, ["alpha 32 = 1.00", "as trained"]),
        (48.5, ["alpha 48.5 = 1.52", "beyond"]),
        (None, ["Choose", "32"]),
    ],
)
def test_strength_in_words(alpha, words):
    line = strength_of(alpha, rank=32, trained_alpha=32.0)
    assert "r = 32" in line and all(word in line for word in words)


def test_strength_is_a_share_of_the_trained_alpha():
    assert "alpha 8 = 0.50" in strength_of(8, rank=4, trained_alpha=16.0)
