import numpy as np
import pytest
import torch
from transformers import ResNetForImageClassification

from train.metrics.distance import JudgeDistance
from train.metrics.judge import Judge, judge_config


@pytest.fixture(scope="module")
def judge():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judge(ResNetForImageClassification(judge_config(["Gus"], ["yard"])), ["Gus"], ["yard"])


def pictures(seed: int, count: int = 12, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (count, 32, 32, 3), dtype=np.uint8)


def test_it_is_the_frechet_distance_of_the_judges_features(judge):
    real, painted = pictures(0, 300), pictures(1, 290, low=60)
    a, b = (judge(each)[2].double().numpy() for each in (real, painted))
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(c @ d).real.clip(min=0)).sum()  # the trace of the product's square root
    by_hand = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(c + d) - 2 * root
    assert JudgeDistance(judge, real)(painted) == pytest.approx(by_hand, rel=1e-2)


def test_the_same_pictures_are_nearest_and_one_call_leaves_nothing_to_the_next(judge):
    distance = JudgeDistance(judge, pictures(0))
    same, other, again = distance(pictures(0)), distance(pictures(1, low=100)), distance(pictures(0))
    assert same == again == pytest.approx(0, abs=1e-3) and other > 10 * max(same, 1e-3)


@pytest.mark.parametrize(("painted", "real"), [(1, 5), (5, 1), (0, 5)])
def test_a_distance_needs_two_of_each(judge, painted, real):
    with pytest.raises(ValueError, match="`pictures`"):
        JudgeDistance(judge, pictures(0, real))(pictures(1, painted))
