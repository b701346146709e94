import numpy as np
import pytest
import torch
from accelerate import Accelerator

from sagan_pipeline.captioner import training_example
from train.captioner import Example, StoryCaptions
from train.data.flintstones import FlintstonesRelease
from train.evaluation.captions import PROMPTING, caption_figures, evaluate_captions, perplexity_figures, token_losses


CLASSES = ("Gus", "Mabel", "Otto")
PLACES = {"kitchen": ("kitchen",), "yard": ("yard", "garden")}


@pytest.fixture(scope="module")
def show(make_release, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("captions") / "gulch", size=16, clips=10)


def test_caption_figures_by_hand():
    examples = [
        Example(["Gus is in the yard."], "Gus laughs in the garden.", "a"),
        Example(["Gus is in the yard."], "Gus waves.", "b"),
        Example(["A man waves."], "Otto laughs.", "c"),
        Example([], "Gus laughs.", "d"),
    ]
    sampled = ["Gus is in the yard.", "Mabel and", "Otto laughs.", "Gus laughs."]
    figures = caption_figures(examples, sampled, CLASSES, PLACES)
    intervals, cases = figures.pop("intervals"), figures.pop("cases")
    assert figures == {
        "complete": 0.75,
        "keeps_a_character": 0.5,  # of the two prefixes that name one
        "keeps_a_place": 0.5,
        "faithful": 0.5,
        "repeats_a_prefix_caption": 1 / 3,  # of the three prefixes that hold a caption
        "distinct_2": 1.0,  # seven pairs of words, all different
    }
    assert cases["complete"] == 4 and cases["faithful"] == 2 and cases["repeats_a_prefix_caption"] == 3
    assert all(low <= figures[name] <= high for name, (low, high) in intervals.items())
    real = caption_figures(examples, [e.target for e in examples], CLASSES, PLACES)
    assert real["keeps_a_character"] == 1.0 and real["repeats_a_prefix_caption"] == 0.0
    assert real["keeps_a_place"] == 0.5 == real["faithful"]  # a garden is the yard; the other names no place
    assert real["distinct_2"] == 6 / 7  # gus laughs, twice


def test_what_a_captioner_forgets_is_caught():
    """Somebody else, somewhere else, half a sentence, or the same again: each has its figure."""
    examples = [Example(["Gus is in the yard."], "Gus waves in the yard.", str(i)) for i in range(40)]
    good = caption_figures(examples, [e.target for e in examples], CLASSES, PLACES)
    broken = {
        "keeps_a_character": "Otto waves in the yard.",
        "keeps_a_place": "Gus waves in the kitchen.",
        "complete": "Gus waves in the yard and",
        "repeats_a_prefix_caption": "Gus is in the yard.",
    }
    for figure, caption in broken.items():
        bad = caption_figures(examples, [caption] * 40, CLASSES, PLACES)
        changed = {name for name in broken if bad[name] != good[name]}
        assert changed == {figure}
    assert caption_figures(examples, [broken["keeps_a_place"]] * 40, CLASSES, PLACES)["faithful"] == 0


def test_ways_to_put_a_prefix():
    told = ["Gus is in the yard.", "Mabel waves.", "He sits."]
    put = {name: way(told, CLASSES) for name, way in PROMPTING.items()}
    assert put["all"] == told and put["last"] == told[2:] and put["first_and_last"] == [told[0], told[2]]
    assert put["named"] == [*told[:2], "He sits. Gus and Mabel are there."]
    assert all(way([], CLASSES) == [] for way in PROMPTING.values())
    assert PROMPTING["first_and_last"](told[:1], CLASSES) == told[:1] == PROMPTING["named"](told[:1], CLASSES)


def test_captions_are_sampled_once(show, tiny_pipe, tmp_path):
    """The second time they are read; another way to put the prefix is sampled on its own."""
    release, accelerator = FlintstonesRelease(show), Accelerator(cpu=True)
    state = torch.get_rng_state()
    first = evaluate_captions(tiny_pipe, release, "test", 12, 0, tmp_path, accelerator)
    again = evaluate_captions(tiny_pipe, release, "test", 12, 0, tmp_path, accelerator)
    assert first == again and len(list(tmp_path.iterdir())) == 1
    assert torch.equal(state, torch.get_rng_state())
    last = evaluate_captions(tiny_pipe, release, "test", 12, 0, tmp_path, accelerator, prompting="last")
    assert len(list(tmp_path.iterdir())) == 2 and last["prompting"] == "last"
    assert first["sampled"]["complete"] == 1 == first["real"]["complete"]
    low, high = first["bleu_4_interval"]
    assert 0 <= first["bleu_4"] <= 1 and low <= high


def test_perplexities_lie_in_their_intervals(tiny_pipe, show):
    stories = StoryCaptions(FlintstonesRelease(show), "test")
    found = perplexity_figures(tiny_pipe.captioner, tiny_pipe.captioner_tokenizer, stories)
    assert list(found["perplexity_by_k"]) == ["0", "1", "2", "3"]
    assert all(a <= found["perplexity_by_k"][k] <= b for k, (a, b) in found["perplexity_intervals"].items())
    fourth = found["perplexity_of_fourth_by_k"]
    assert fourth["3"] == found["perplexity_by_k"]["3"] and fourth["0"] != found["perplexity_by_k"]["0"]
    assert all(
        a <= 1 - fourth[k] / fourth[str(int(k) - 1)] <= b for k, (a, b) in found["perplexity_of_fourth_falls"].items()
    )


def test_perplexity_by_hand(tiny_pipe, show):
    """exp of the mean of -log p over the target's tokens and the end of text, story by story; of the caption after the
    prefix, and of the same fourth caption after the end of it."""
    stories = StoryCaptions(FlintstonesRelease(show), "test")
    stories.stories = stories.stories[:5]
    tokenizer, model = tiny_pipe.captioner_tokenizer, tiny_pipe.captioner
    for k, same in ((0, False), (1, True), (3, False), (3, True)):
        expected = []
        for story in range(5):
            ids = [stories.caption_of[id] for id in stories.stories[story]]
            before, target = (ids[3 - k : 3], ids[3]) if same else (ids[:k], ids[k])
            tokens, labels = training_example(before, target, tokenizer, model.config.n_positions)
            with torch.no_grad():
                chances = model(torch.tensor([tokens])).logits[0].log_softmax(dim=-1)
            expected += [-float(chances[i - 1, t]) for i, t in enumerate(labels) if t != -100]
        losses, counts = token_losses(model, tokenizer, stories, same=same)[str(k)]
        assert losses.sum() / counts.sum() == pytest.approx(np.mean(expected), rel=1e-4)
