"""The judge that comes with the studio, on drawn frames of the show: the real file, nothing learnt here."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from sagan_pipeline import SAGANetsPipeline
from studio import judging
from studio.judging import JUDGE, Seen, known, look_at, named_in, scores
from train.data.gravel_gulch.drawing import draw, render
from train.data.gravel_gulch.world import CAST, SETTINGS, Actor, Clip
from train.metrics.judge import Judge


def drawn(place: str, *names: str, size: int = 256) -> Image.Image:
    looks = {look.name: look for look in CAST}
    spots = (0.5,) if len(names) == 1 else (0.3, 0.7)
    actors = tuple(Actor(looks[name], "standing", spot, 1) for name, spot in zip(names, spots))
    return Image.fromarray(render(draw(Clip(place, actors, "", 1), 20)[0], size))


@pytest.fixture(scope="module")
def frames() -> list[Seen]:
    return look_at([drawn("kitchen", "Gus", "Mabel"), drawn("beach", "Rumble"), drawn("kitchen", "Gus", size=64)])


def test_it_knows_the_show():
    cast, places = known()
    assert set(cast) == {look.name for look in CAST} and set(places) == set(SETTINGS)
    assert judging.has_judge(SAGANetsPipeline(cast=cast, places=places[:2]))


@pytest.mark.parametrize(("cast", "places"), [(None, None), (["Gus"], ["kitchen"]), (None, ["kitchen"])])
def test_another_cast_has_no_judge(cast, places):
    assert not judging.has_judge(SAGANetsPipeline(cast=cast, places=places))


def test_another_place_has_no_judge_nor_has_an_empty_folder(tmp_path):
    assert not judging.has_judge(SAGANetsPipeline(cast=known()[0], places=["moon"]))
    assert known(tmp_path) == ([], [])


def test_it_sees_who_is_there_and_where(frames):
    assert [(set(seen.cast), seen.place) for seen in frames] == [
        ({"Gus", "Mabel"}, "kitchen"),
        ({"Rumble"}, "beach"),
        ({"Gus"}, "kitchen"),
    ]
    assert all(torch.allclose(seen.features.norm(), torch.tensor(1.0)) for seen in frames)
    assert look_at([]) == []


def test_it_is_the_judge_of_the_evaluation(frames):
    """`python -m train.evaluate --judge studio/judge` sees the same."""
    judge = Judge.load(JUDGE)
    assert (judge.classes, judge.settings) == tuple(map(tuple, known()))
    people, places, features = judge([drawn("beach", "Rumble")])
    assert [name for name, there in zip(judge.classes, people[0] > 0.5) if there] == ["Rumble"]
    assert judge.settings[places[0].argmax()] == "beach"
    assert torch.allclose(torch.nn.functional.normalize(features[0], dim=0), frames[1].features, atol=1e-4)


def test_names_are_whole_words_in_any_case():
    names = ["Gus", "Pip", "Mr Flagg", "car"]
    assert named_in("gus's friend Mr Flagg carries a pipe to August.", names) == ["Gus", "Mr Flagg"]


def texts(caption: str, *seen: Seen) -> list[tuple[str, str]]:
    return [(score.kind, score.text) for score in scores(caption, *seen)]


def test_scores_say_what_was_kept_and_what_was_not(frames):
    both, rumble, _ = frames
    assert texts("Gus is talking to Mabel in the kitchen.", both) == [
        ("kept", "Gus \u2713"),
        ("kept", "Mabel \u2713"),
        ("kept", "kitchen \u2713"),
        ("plain", "3 of 3 named are seen"),
    ]
    assert texts("Gus and Pip are in the cave.", both, rumble)[:-1] == [
        ("kept", "Gus \u2713"),
        ("missing", "Pip is missing"),
        ("extra", "Mabel, not asked for"),
        ("missing", "looks like the kitchen, not the cave"),
        ("plain", "1 of 3 named are seen"),
    ]
    assert texts("He is angry.", rumble) == [("extra", "Rumble, not asked for"), ("plain", "looks like the beach")]


def test_likeness_to_the_frame_before(frames):
    both, rumble, gus = frames
    like, unlike, same = (float(texts("", both, other)[-1][1].rpartition(" ")[2]) for other in (gus, rumble, both))
    assert -1 <= unlike < like < same == 1
