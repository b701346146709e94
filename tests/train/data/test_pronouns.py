import pytest

from train.data.pronouns import with_pronouns


def second(caption, people, before=None):
    """The caption after pronouns, of the second frame of two."""
    return with_pronouns(["First.", caption], [people if before is None else before, people])[1]


@pytest.mark.parametrize(
    "people, caption, expected",
    [
        (["fred"], "Fred is in a car.", "He is in a car."),
        (["wilma"], "Wilma is in a car.", "She is in a car."),
        (["mr slate"], "Mr Slate is in a car.", "He is in a car."),
        (["pip"], "Pip is in the yard.", "She is in the yard."),
        (["rumble"], "Rumble is in the yard.", "He is in the yard."),
        (["fred", "barney"], "Barney and Fred are in a car.", "They are in a car."),
        (["fred", "barney"], "Fred and Barney are in a car.", "They are in a car."),
    ],
)
def test_names_become_he_she_and_they(people, caption, expected):
    assert second(caption, people) == expected


@pytest.mark.parametrize(
    "people, caption, expected",
    [
        (["fred"], "Fred's car is red.", "His car is red."),
        (["fred"], "A dog sits in Fred’s car.", "A dog sits in his car."),
        (["betty"], "Betty's car is red.", "Her car is red."),
        (["wilma", "betty"], "A dog sits in Wilma and Betty's car.", "A dog sits in their car."),
    ],
)
def test_possessives_keep_their_owner(people, caption, expected):
    assert second(caption, people) == expected


@pytest.mark.parametrize(
    "people, caption, expected",
    [
        (["fred"], "A dog runs to Fred.", "A dog runs to him."),
        (["wilma"], "There is a lamp behind  Wilma.", "There is a lamp behind  her."),
        (["fred", "barney"], "A dog looks at Fred and Barney.", "A dog looks at them."),
        (["fred"], "The car stops and Fred gets out.", "The car stops and he gets out."),
        (["fred"], "A lamp is into Fredland.", "A lamp is into Fredland."),
    ],
)
def test_objects_have_their_form(people, caption, expected):
    assert second(caption, people) == expected


def test_only_a_sentence_begins_with_a_capital():
    assert second("fred sits. Fred eats! FRED sleeps, then Fred talks.", ["Fred"]) == (
        "He sits. He eats! He sleeps, then he talks."
    )


@pytest.mark.parametrize(
    "before, now",
    [
        (["wilma"], ["fred"]),
        (["fred", "barney"], ["fred"]),
        (["fred"], ["fred", "barney"]),
        ([], ["fred"]),
        ([], []),
    ],
)
def test_captions_stay_when_the_people_differ(before, now):
    caption = "Fred and Barney are in a car. Fred talks."
    assert second(caption, now, before) == caption


def test_the_people_may_come_in_any_order_and_case():
    assert second("Fred and Barney talk.", [" Barney", "FRED"], ["fred", "barney", "fred"]) == "They talk."


def test_a_name_alone_among_two_stays():
    assert second("Fred and Barney sit. Fred talks.", ["fred", "barney"]) == "They sit. Fred talks."


def test_three_people_stay():
    caption = "Fred and Barney talk to Wilma."
    assert second(caption, ["fred", "barney", "wilma"]) == caption


@pytest.mark.parametrize("people", [["man"], ["park ranger"], ["man", "woman"], [""], ["a.*"], ["fred", "man"]])
def test_labels_that_are_no_names_stay(people):
    caption = "A man and woman talk to a park ranger. Fred and man."
    assert second(caption, people) == caption


def test_a_blank_label_counts_as_nobody():
    assert second("Fred talks.", ["fred", " "], ["", "fred"]) == "He talks."


def test_the_first_caption_and_the_number_of_captions_stay():
    assert with_pronouns([], []) == []
    assert with_pronouns(["Fred sits."], [["fred"]]) == ["Fred sits."]
    assert with_pronouns(["Fred sits."] * 3, [["fred"]] * 3) == ["Fred sits.", "He sits.", "He sits."]
    with pytest.raises(ValueError, match="1 entries for 2"):
        with_pronouns(["Fred sits."] * 2, [["fred"]])
