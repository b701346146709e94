import numpy as np
import torch
from transformers import ResNetForImageClassification

from benchmarks.quality import as_text, quality, stock_pictures
from benchmarks.story import stock_pipeline
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.release import write_release
from train.data.gravel_gulch.world import REGULARS
from train.metrics.judge import Judge, judge_config


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard. She is talking."]


def test_both_sides_are_judged_on_the_same_captions(tiny_pipe, tiny_adapter, tmp_path):
    """With one scheduler, one guidance and one noise they would be equal; here they are only of the same frames."""
    write_release(tmp_path / "gulch", episodes=3, clips=5, size=16)
    release = FlintstonesRelease(tmp_path / "gulch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNetForImageClassification(judge_config(REGULARS, release.settings))
    judge = Judge(model, REGULARS, release.settings)
    found = quality(tiny_pipe, tiny_adapter, judge, release, count=4, stock_steps=2)
    assert found["captions"] == 4
    for side in ("stock", "ours"):
        low, high = found[side]["char_f1_micro_95"]
        assert 0 <= low <= found[side]["char_f1_micro"] <= high <= 1
    assert as_text(found).count("%") == 3


def test_the_stock_sides_pictures_follow_the_caption(tiny_pipe, tiny_adapter):
    stock = stock_pipeline(tiny_pipe, tiny_adapter, strength=1.0)
    one, two = (stock_pictures(tiny_pipe, stock, [caption], steps=2) for caption in CAPTIONS)
    assert one.shape == (1, 16, 16, 3) and one.dtype == np.uint8
    assert np.array_equal(one, stock_pictures(tiny_pipe, stock, CAPTIONS, steps=2)[:1]) and not np.array_equal(
        one, two
    )
