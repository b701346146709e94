"""What is rare is drawn oftener."""

import pytest

from train.data.rarity import clip_weights, rarest, rarities


CASTS = [["short red man"], ["bald man"], ["long black man", "red man"], ["bald man", "topknot red toddler"]]
NOTHING = [[]] * 4


def test_rarity_by_hand():
    rarity = rarities({"Gus": 8, "Pip": 2})
    assert rarity == {"Gus": 1, "Pip": 4}
    assert rarest(["Gus", "Pip"], rarity) == 4
    assert rarest([], rarity) == rarest(["Nell"], rarity) == 1 and rarities({}) == {}


def test_clips_of_rare_kinds_and_of_many_people_weigh_more():
    assert clip_weights(CASTS, NOTHING, rare=0, rare_told=1) == [1, 1, 2, 2]
    assert clip_weights(CASTS, NOTHING, rare=1, rare_told=1) == [1, 1, 2, 2 * 5]
    assert clip_weights([[], ["bald man"]], [[], []], rare=1, rare_told=1) == [0, 1]  # nobody to learn from
    assert clip_weights(CASTS, NOTHING, rare=0.5, rare_told=1) == pytest.approx([1, 1, 2, 2 * 5**0.5])


def test_clips_of_which_something_rare_is_told_weigh_more():
    told = [{"talking"}, {"talking", "sleeping"}, {"talking"}, set()]
    assert clip_weights(CASTS, told, rare=0, rare_told=0) == [1, 1, 2, 2]
    assert clip_weights(CASTS, told, rare=0, rare_told=1) == [1, 3, 2, 2]
    assert clip_weights(CASTS, iter(told), rare=1, rare_told=0.5) == pytest.approx([1, 3**0.5, 2, 2 * 5])
