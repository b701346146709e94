import pytest

from train.metrics.captions import distinct, is_complete, keeps_a_character, named, share


NAMES = ["Gus", "Mabel", "Mr Flagg"]


@pytest.mark.parametrize("caption", ["Gus walks.", "Gus walks. ", "Why?", 'He says "no!"', "Gus (the tall one.)"])
def test_complete(caption):
    assert is_complete(caption)


@pytest.mark.parametrize("caption", ["", " ", "Gus walks", "Gus. And", "Gus,", "Gus is talking to Mab"])
def test_incomplete(caption):
    assert not is_complete(caption)


def test_named_takes_whole_words():
    assert named("gus's hat is on MR FLAGG.", NAMES) == {"Gus", "Mr Flagg"}
    assert named("In August a mabelle sings.", NAMES) == set()


def test_keeps_a_character():
    prefix = ["Gus is in the kitchen.", "He talks to Mabel."]
    assert keeps_a_character(prefix, "Mabel laughs.", NAMES) is True
    assert keeps_a_character(prefix, "Mr Flagg laughs.", NAMES) is False
    assert keeps_a_character(["A man laughs."], "Gus laughs.", NAMES) is None
    assert keeps_a_character([], "Gus laughs.", NAMES) is None


def test_share_leaves_out_what_has_no_answer():
    assert share([True, False, None, True]) == (2 / 3, 3)
    assert share([None]) == (0.0, 0)


def test_distinct_by_hand():
    # gus is, is in | gus is, is out: 3 different of 4
    assert distinct(["Gus is in.", "gus is out"]) == 0.75
    assert distinct(["Gus is in.", "gus is out"], n=1) == 4 / 6
    assert distinct(["Gus."]) == 0.0
    with pytest.raises(ValueError, match="n"):
        distinct([], n=0)
