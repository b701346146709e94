"""The figures by hand; and models that are broken on purpose, each caught by the figure that should catch it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from train.base import clip_config, train_tokenizers
from train.data.flintstones import FlintstonesRelease
from train.evaluation.painting import NearestFrames, shuffled, shuffled_rows
from train.evaluation.scoring import (
    Halves,
    Whole,
    alike,
    decibels,
    figures_of,
    figures_of_row,
    look,
    neighbour_sums,
    weights,
    with_intervals,
)
from train.evaluation.stories import place_of, place_words, test_stories
from train.metrics.clip import Scorer
from train.metrics.inception import InceptionV3, PublishedJudge
from train.metrics.judge import Judge
from train.metrics.judge import main as train_judge


CLASSES, PLACES = ("Gus", "Mabel", "Otto"), ("kitchen", "yard")
SHADES = {"gus": (220, 40, 40), "mabel": (40, 200, 40), "otto": (40, 40, 220)}


def picture(name: str, place: str, draw: np.random.Generator, size: int = 32) -> np.ndarray:
    """A colour says who, its brightness where, and a light grain makes every picture another one."""
    shade = np.array(SHADES[name.lower()]) // (3 if place == "yard" else 1)
    return np.clip(shade + draw.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def world(make_release, tmp_path_factory):
    """A show that can be told apart by colour, a judge that has learnt to, and the stories of its test split."""
    root = tmp_path_factory.mktemp("scoring")
    release = FlintstonesRelease(make_release(root / "show", size=32, clips=24))
    draw = np.random.default_rng(0)
    for id in sum(release.splits.values(), []):
        clip = release.clip(id)
        frames = np.stack([picture(clip.characters[0], clip.setting, draw) for _ in range(3)])
        np.save(release.layout.folder / f"{id}.npy", frames)
    train_judge(["--data", str(release.root), "--out", str(root / "judge"), "--steps", "100", "--batch_size", "8"])
    judge = Judge.load(root / "judge")
    return release, judge, test_stories(release, judge.classes, "test", 4, "visualisation", None)


@pytest.fixture(scope="module")
def painter(world):
    """A perfect painter: who and where the captions say, with a grain of its own."""
    _, _, stories = world

    def paint(story: int) -> np.ndarray:
        draw = np.random.default_rng([7, story])
        return np.stack(
            [
                picture(stories.release.clip(id).characters[0], stories.settings[story][f], draw)
                for f, id in enumerate(stories.ids[story])
            ]
        )

    return paint


@pytest.fixture(scope="module")
def scored(world):
    """A function that gives the figures of what a painter paints."""
    _, judge, stories = world
    halves = {"fjd": Halves(stories, look(judge, stories, stories.real).features)}

    def figures(paint) -> dict:
        return figures_of_row([look(judge, stories, paint)], halves, judge.classes, seed=0)

    return figures, halves["fjd"].floor()


def test_a_good_model_passes(scored, painter):
    figures, floor = scored
    good = figures(painter)
    assert good["char_f1_micro"] > 0.95 and good["frame_acc"] > 0.95 and good["bg_acc"] > 0.95
    assert good["fjd"] < 2 * max(floor, 0.1)


def test_shuffled_captions_are_caught_by_who_and_where(world, scored, painter):
    """Frames of other stories are as good to look at: FJD alone would not notice."""
    figures, _ = scored
    good, broken = figures(painter), figures(shuffled(painter, len(world[2]), seed=0))
    assert broken["char_f1_micro"] < 0.7 < good["char_f1_micro"]
    assert broken["intervals"]["char_f1_micro"][1] < good["intervals"]["char_f1_micro"][0]
    assert broken["bg_acc"] < good["bg_acc"] - 0.2


def test_a_swapped_cast_is_caught_by_who_and_not_by_where(world, scored, painter):
    """Gus painted as Mabel, she as Otto, he as Gus: red, green and blue change places."""
    figures, _ = scored
    good, broken = figures(painter), figures(lambda story: np.roll(painter(story), 1, axis=-1))
    assert broken["char_f1_micro"] < 0.1 and broken["frame_acc"] < 0.1
    assert broken["bg_acc"] > good["bg_acc"] - 0.1


def test_noise_is_caught_by_the_distance(scored, painter):
    figures, floor = scored

    def noise(story: int) -> np.ndarray:
        return np.random.default_rng(story).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)

    broken, good = figures(noise), figures(painter)
    assert broken["fjd"] > 3 * max(good["fjd"], floor)
    assert broken["intervals"]["fjd"][0] > good["intervals"]["fjd"][1]


def test_a_cast_that_changes_clothes_is_caught_by_consistency(world, painter):
    """Everybody looks like somebody else in every other frame of a story in which he stays."""
    release, judge, stories = world
    stay = replace(stories, labels=np.ones_like(stories.labels))  # who is asked for is not the question here
    same = look(judge, stay, lambda story: np.repeat(painter(story)[:1], 4, axis=0))
    changing = look(judge, stay, lambda story: np.stack([np.roll(painter(story)[0], f, axis=-1) for f in range(4)]))
    figures = [figures_of({n: v.sum(axis=0) for n, v in s.stats.items()}, judge.classes) for s in (same, changing)]
    assert figures[0]["consistency"] == pytest.approx(1, abs=1e-4)
    assert figures[1]["consistency"] < 0.95


def test_figures_of_counts_by_hand():
    sums = {
        "hits": np.array([3, 1]),
        "seen": np.array([4, 1]),
        "there": np.array([3, 3]),
        "right": np.array([1, 2, 0, 0]),
        "frames": np.array([1, 4, 1, 0]),
        "placed": np.array(5),
        "annotated": np.array(6),
        "alike": np.array(1.5),
        "alike_pairs": np.array(2),
        "apart": np.array(0.9),
        "apart_pairs": np.array(3),
    }
    found = figures_of(sums, ["Gus", "Mabel"])
    assert found["char_f1_micro"] == pytest.approx(2 * 4 / (5 + 6))
    assert found["char_f1_macro"] == pytest.approx((6 / 7 + 2 / 4) / 2)
    assert (found["frame_acc"], found["frame_acc_1"], found["frame_acc_2_and_3"]) == (0.5, 0.5, 0.0)
    assert np.isnan(found["frame_acc_3"]) and found["consistency"] == 0.75 and "clip_t" not in found
    assert found["bg_acc"] == pytest.approx(5 / 6) and found["neighbour_distance"] == pytest.approx(0.3)


def test_neighbours_by_hand():
    shades = np.array([0, 255, 255, 0, 51])  # in [-1, 1]: -1, 1, 1, -1, -0.6
    pictures = np.broadcast_to(shades[:, None, None, None], (5, 80, 80, 3)).astype(np.uint8)
    labels = np.array([[True, False], [True, True], [False, True], [False, False], [True, False]])
    settings = ["yard", "cave", "", "", "cave"]
    # frames 1 and 2 share Gus, 2 and 3 Mabel; the empty settings of 3 and 4 are none, and 4 and 5 share nothing
    assert neighbour_sums(pictures, labels, settings, range(5)) == (pytest.approx(4.0), 2)
    alone = np.zeros_like(labels)
    assert neighbour_sums(pictures, alone, ["yard", "yard", "", "cave", "cave"], range(5)) == (
        pytest.approx(4.0 + 0.4**2),
        2,
    )
    assert neighbour_sums(pictures, alone, ["yard", "yard", "", "cave", "cave"], [2, 3]) == (0, 0)


def test_decibels_by_hand():
    originals = np.full((2, 4, 4, 3), 100, dtype=np.uint8)
    pictures = originals + np.array([10, 20], dtype=np.uint8)[:, None, None, None]
    assert decibels(pictures, originals) == pytest.approx(20 * np.log10([255 / 10, 255 / 20]), rel=1e-5)


def test_alike_by_hand():
    regions = np.zeros((3, 2, 2))
    regions[:, 0] = [[1, 0], [2, 0], [0, 5]]  # the first character: twice the same, then another
    labels = np.array([[True, True], [True, False], [True, False]])
    assert alike(regions, labels) == (pytest.approx(1.0), 3)  # cosines 1, 0 and 0; the second is in one frame only


def test_the_interval_holds_the_figure_and_narrows_with_more_stories():
    draw = np.random.default_rng(0)
    there = draw.random((400, 4, 3)) < 0.4
    seen = there ^ (draw.random((400, 4, 3)) < 0.2)
    counts = {"hits": (there & seen).sum(1), "seen": seen.sum(1), "there": there.sum(1)}
    others = {"placed": np.ones(400), "annotated": np.ones(400), "alike": np.ones(400), "alike_pairs": np.ones(400)}
    others |= {"apart": np.ones(400), "apart_pairs": np.ones(400)}
    stats = {**counts, **others, "right": np.ones((400, 4)), "frames": np.ones((400, 4))}
    names = list(CLASSES)
    figures, intervals = with_intervals(stats, lambda sums: figures_of(sums, names), seed=0)
    low, high = intervals["char_f1_micro"]
    assert low < figures["char_f1_micro"] < high and high - low < 0.06
    few = with_intervals({n: v[:40] for n, v in stats.items()}, lambda sums: figures_of(sums, names), seed=0)[1]
    assert few["char_f1_micro"][1] - few["char_f1_micro"][0] > high - low
    assert intervals["bg_acc"] == [1, 1]
    assert with_intervals(stats, lambda sums: figures_of(sums, names), seed=0)[1] == intervals
    assert (weights(40, 10, seed=1).sum(axis=1) == 40).all()


def test_halves_share_no_clip_and_compare_equal_counts(world):
    _, judge, stories = world
    sides = stories.halves()
    clips = [{stories.ids[s][f] for s, f in np.argwhere(sides == half)} for half in (0, 1)]
    assert clips[0] and clips[1] and not clips[0] & clips[1]
    features = look(judge, stories, stories.real).features
    halves = Halves(stories, features)
    assert halves.distance([features]) == pytest.approx(halves.floor(), rel=1e-6)  # real frames are at the floor
    low, high = halves.interval(halves.floor, seed=0)
    assert low <= halves.floor() <= high


def test_the_distance_of_all_to_all(world):
    _, judge, stories = world
    real = look(judge, stories, stories.real).features
    whole = Whole(stories, real)
    assert whole.count == 4 * len(stories) and whole.distance([real]) == pytest.approx(0, abs=1e-3)
    moved = real + 1
    assert whole.distance([moved, real]) == pytest.approx(real.shape[-1] / 2, rel=1e-3)  # mean of two seeds
    low, high = whole.interval(lambda drawn: whole.distance([moved], drawn), seed=0)
    assert low == pytest.approx(real.shape[-1], rel=1e-3) and high == pytest.approx(real.shape[-1], rel=1e-3)


def test_a_published_judge_scores_who_and_leaves_out_where(world):
    """Random weights of the real network; without a classifier of settings there is no BG-Acc, and no wrong place."""
    _, _, stories = world
    few = replace(stories, ids=stories.ids[:2], labels=stories.labels[:2], settings=stories.settings[:2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = PublishedJudge(InceptionV3(len(few.classes)).eval().requires_grad_(False), few.classes)
    deep = lambda pictures: np.full((len(pictures), 5), pictures.mean(), dtype=np.float32)  # noqa: E731
    seen = look(judge, few, few.real, inception=deep)
    assert seen.features.shape == (2, 4, 2048) and seen.inception.shape == (2, 4, 5)
    figures = figures_of({name: value.sum(axis=0) for name, value in seen.stats.items()}, judge.classes)
    assert np.isnan(figures["bg_acc"]) and 0 <= figures["frame_acc"] <= 1
    assert (seen.mistakes(few) == (seen.characters != few.labels).sum(axis=-1)).all()


def test_continuation_scores_the_later_frames_alone(world, painter):
    """A first frame of noise costs nothing there, since it is given."""
    release, judge, _ = world
    stories = test_stories(release, judge.classes, "test", 5, "continuation", 6)
    assert stories.scored == [1, 2, 3, 4] and len(stories) == 6

    def paint(story: int) -> np.ndarray:
        real = stories.real(story).copy()
        real[0] = 255 - real[0]
        return real

    whole = [look(judge, stories, pictures) for pictures in (stories.real, paint)]
    figures = [figures_of({n: v.sum(axis=0) for n, v in s.stats.items()}, judge.classes) for s in whole]
    assert figures[0]["char_f1_micro"] == figures[1]["char_f1_micro"]
    assert whole[0].stats["frames"].sum() == 24


def test_several_seeds_are_pooled_and_told_apart(world, painter):
    _, judge, stories = world
    good, bad = look(judge, stories, painter), look(judge, stories, shuffled(painter, len(stories), 0))
    row = figures_of_row([good, bad], {}, judge.classes, seed=0)
    each = [one["frame_acc"] for one in row["per_seed"]]
    assert each[0] > each[1] and row["frame_acc"] == pytest.approx(np.mean(each))
    assert row["cases"]["frames"] == 2 * 4 * len(stories)


def test_captions_say_who_and_where(world):
    _, _, stories = world
    agreement = stories.caption_agreement()
    assert agreement == {"characters": 1.0, "setting": 1.0}
    told = [["Gus and Otto are in the yard.", "He waves.", "Otto cooks in the kitchen.", "A man is in the yard."]]
    other = replace(stories, ids=stories.ids[:1]).with_captions(told)
    assert other.labels[0].astype(int).sum(axis=1).tolist() == [2, 0, 1, 0]
    assert other.settings == [["yard", "", "kitchen", "yard"]]


def test_a_place_is_its_longest_word():
    places = place_words(["living room", "dining room", "street", "car"])
    assert place_of("Gus sits in the dining room.", places) == "dining room"
    assert place_of("Gus sits in the room.", places) == "living room"
    assert place_of("A car drives down the road.", places) == ""  # either
    assert place_of("Gus sits.", places) == ""


def test_the_nearest_frame_is_of_the_most_similar_caption(world):
    _, judge, stories = world
    nearest = NearestFrames(stories)
    ids = nearest.nearest(["Mabel is in the yard. He is talking."])
    clip = stories.release.clip(ids[0])
    assert list(clip.characters) == ["mabel"] and clip.setting == "yard"
    assert ids[0] in stories.release.splits["train"]
    assert nearest(0).shape == (4, 32, 32, 3)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_nothing_stays_where_it_was(count):
    moved = shuffled_rows(count, seed=3)
    assert sorted(moved) == list(range(count)) and (moved != np.arange(count)).all()


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    captions = [f"{name} is in the {place}." for name in CLASSES for place in PLACES]
    tokenizer, _ = train_tokenizers(captions, tmp_path_factory.mktemp("tokenizers"))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Scorer(CLIPModel(clip_config(tokenizer)), tokenizer)


def test_clip_scores_are_cosines(world, scorer, painter):
    _, judge, stories = world
    seen = look(judge, stories, painter, scorer)
    frames = painter(2)
    images, texts = scorer.pictures(frames), scorer.captions(stories.captions[2])
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    assert seen.stats["clip_t"][2] == pytest.approx((images * texts).sum(), abs=1e-4)
    assert seen.stats["clip_t_frames"][2] == 4
    shared = [f for f in (1, 2, 3) if (stories.labels[2, f] & stories.labels[2, f - 1]).any()]
    assert seen.stats["clip_i_pairs"][2] == len(shared)


def test_a_model_is_not_scored_by_its_own_clip(scorer, text_parts, tmp_path):
    from train.base import text_encoder_of

    with pytest.raises(ValueError, match="own|paints"):
        scorer.refuse_own(text_encoder_of(scorer.model))
    scorer.refuse_own(text_parts[0])
    with pytest.raises(ValueError, match="holds no CLIP"):
        Scorer.load(tmp_path)
    scorer.model.save_pretrained(tmp_path)
    scorer.tokenizer.save_pretrained(tmp_path)
    again = Scorer.load(tmp_path)
    assert isinstance(again.tokenizer, CLIPTokenizer)
    assert np.allclose(again.captions(["Gus is in the yard."]), scorer.captions(["Gus is in the yard."]), atol=1e-6)
