import numpy as np
import pytest

from train.metrics.characters import accuracy, character_scores, f1


def test_scores_by_hand():
    # A: 1 hit, 1 false alarm; B: 1 hit, 1 miss; C: never there, never seen
    actual = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    predicted = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    scores = character_scores(np.array(predicted), np.array(actual), ["A", "B", "C"])
    assert scores["char_f1"] == pytest.approx({"A": 2 / 3, "B": 2 / 3, "C": 0.0})
    assert scores["char_f1_macro"] == pytest.approx(4 / 9)
    assert scores["char_f1_micro"] == pytest.approx(2 * 2 / (3 + 3))
    assert scores["frame_acc"] == 0.75 and scores["frame_acc_by_cast"] == {"0": 1.0, "1": 0.0, "2": 1.0}


def test_perfect_and_empty():
    one = np.eye(3)
    assert character_scores(one, one, list("ABC"))["char_f1_micro"] == 1.0
    assert character_scores(np.zeros((2, 1)), np.zeros((2, 1)), ["A"])["char_f1_micro"] == 0.0
    assert f1(0, 0, 0) == 0.0


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 2), (2, 2)), ((3,), (3,)), ((0, 3), (0, 3))])
def test_bad_shapes(shapes):
    with pytest.raises(ValueError, match="actual"):
        character_scores(np.zeros(shapes[0]), np.zeros(shapes[1]), ["A", "B", "C"])


def test_accuracy_skips_what_is_not_annotated():
    assert accuracy(["yard", "yard", "car"], ["yard", "car", ""]) == 0.5
    with pytest.raises(ValueError, match="annotated"):
        accuracy(["yard"], [""])
    with pytest.raises(ValueError, match="2"):
        accuracy(["yard", "car"], ["yard"])
