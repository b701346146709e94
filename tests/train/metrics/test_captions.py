import pytest

from train.metrics.captions import bleu_4, distinct, is_complete, keeps_one, named, share


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


def test_keeps_one():
    prefix = ["Gus is in the kitchen.", "He talks to Mabel."]
    assert keeps_one(prefix, "Mabel laughs.", NAMES) is True
    assert keeps_one(prefix, "Mr Flagg laughs.", NAMES) is False
    assert keeps_one(["A man laughs."], "Gus laughs.", NAMES) is None
    assert keeps_one([], "Gus laughs.", NAMES) is None


def test_bleu_by_hand():
    assert bleu_4(["Gus is in the kitchen."], ["gus is in the kitchen."]) == pytest.approx(1)
    # gus is in the yard . | gus is in the kitchen . : 5/6 words, 3/5 pairs, 2/4, 1/3; equal lengths
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu_4(["Gus is in the yard."], ["Gus is in the kitchen."]) == pytest.approx(expected)
    assert bleu_4(["Mabel laughs."], ["Gus is in the kitchen."]) < 0.1


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
