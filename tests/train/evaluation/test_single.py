import numpy as np
from tqdm import tqdm

from train.evaluation.single import micro_f1_interval, paint
from train.metrics.characters import character_scores


CLASSES = ["Gus", "Mabel", "Otto"]


def test_the_interval_holds_the_score_and_narrows_with_more_frames():
    generator = np.random.default_rng(0)
    actual = generator.random((400, 3)) < 0.4
    predicted = actual ^ (generator.random((400, 3)) < 0.2)
    score = character_scores(predicted, actual, CLASSES)["char_f1_micro"]
    low, high = micro_f1_interval(predicted, actual, seed=0)
    assert low < score < high and high - low < 0.12
    assert micro_f1_interval(predicted, actual, seed=0) == [low, high]
    narrow, wide = (np.diff(micro_f1_interval(predicted[:n], actual[:n], seed=0)) for n in (400, 40))
    assert narrow < wide
    assert micro_f1_interval(actual, actual, seed=0) == [1.0, 1.0]


def test_alphas_share_captions_and_noise(tiny_pipe):
    captions = [f"Gus is in the kitchen. He has {n} bones." for n in range(10)]
    with tqdm(disable=True) as bar:
        a, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=0)
        b, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=0)
        c, _ = paint(tiny_pipe, captions, 4, bar, lora_alpha=0)
        d, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=32)
    assert len(a) == 10 and np.array_equal(a, b)
    assert not np.array_equal(a, c) and not np.array_equal(a, d)
