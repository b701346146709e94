"""The show: its script, its drawings, and the release that they make."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.__main__ import main
from train.data.gravel_gulch.drawing import draw, render
from train.data.gravel_gulch.release import write_release
from train.data.gravel_gulch.script import MAX_WORDS, WORLDS, _alike, episode
from train.data.gravel_gulch.statistics import FLINTSTONES, statistics
from train.data.gravel_gulch.world import ACTIONS, CAST, MOODS, PROPS, REGULARS, SETTINGS, Actor, Clip, Look
from train.metrics.captions import is_complete, named


ARGUMENTS = {"episodes": 3, "clips": 5, "seed": 4, "size": 32, "workers": 1}


@pytest.fixture(scope="module")
def shows() -> dict[str, list[Clip]]:
    return {world: [clip for seed in range(40) for clip in episode(world, seed, 30)] for world in WORLDS}


def test_an_episode_is_the_same_for_the_same_seed():
    assert episode("gulch", 3, 20) == episode("gulch", 3, 20)
    assert episode("gulch", 3, 20) != episode("gulch", 4, 20)


@pytest.mark.parametrize("arguments", [{"world": "city"}, {"clips": 0}])
def test_bad_arguments_of_an_episode(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        episode(**{"world": "gulch", "seed": 0, "clips": 5} | arguments)


def test_captions_name_who_is_there_and_nobody_else(shows):
    for clip in shows["gulch"]:
        assert named(clip.caption, REGULARS) == {actor.look.name for actor in clip.actors} - {None}, clip.caption


def test_no_regular_and_no_double_of_one_lives_in_town(shows):
    for clip in shows["town"]:
        assert not named(clip.caption, REGULARS)
        for actor in clip.actors:
            assert actor.look.name is None
            assert not any(_alike(actor.look, regular) for regular in CAST)
            assert (actor.look.kind, actor.look.garment_color) != ("dinosaur", "purple")


def test_captions_are_whole_sentences_and_say_where(shows):
    for clip in shows["gulch"] + shows["town"]:
        assert is_complete(clip.caption) and len(clip.caption.split()) <= MAX_WORDS
        assert any(word in clip.caption for word in SETTINGS[clip.setting]), clip.caption


def test_characters_stay_through_a_scene(shows):
    clips = shows["gulch"]
    pairs = [(a, b) for a, b in zip(clips, clips[1:], strict=False) if a.setting == b.setting and b.actors]
    kept = [{x.look for x in a.actors} & {x.look for x in b.actors} for a, b in pairs]
    assert sum(map(bool, kept)) / len(kept) > 0.6


def test_statistics_are_near_those_of_flintstones(shows):
    ours = statistics(shows["gulch"])
    assert ours.keys() == FLINTSTONES.keys()
    for name in ("one sentence", "two sentences", "with a pronoun", "no regular", "one regular", "two regulars"):
        assert ours[name] == pytest.approx(FLINTSTONES[name], abs=0.13), name
    assert abs(ours["words, median"] - FLINTSTONES["words, median"]) <= 4


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_drawn_and_looks_like_no_other(setting):
    pictures = {name: render(draw(Clip(name, (), "", 1), 0)[0], 32).astype(int) for name in SETTINGS}
    assert pictures[setting].shape == (32, 32, 3)
    others = [np.abs(pictures[setting] - picture).mean() for name, picture in pictures.items() if name != setting]
    assert min(others) > 12


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("look", [CAST[0], CAST[4], CAST[5], CAST[6]], ids=lambda look: look.name)
def test_every_action_of_every_kind_is_drawn(look: Look, action: str):
    standing = Clip("park", (Actor(look, "standing", 0.5, 1),), "", 1)
    doing = replace(standing, actors=(Actor(look, action, 0.5, 1),))
    a, b = (render(draw(clip, 20)[0], 64).astype(int) for clip in (standing, doing))
    assert action in ("standing", "holding") or np.abs(a - b).mean() > 0.3


@pytest.mark.parametrize("mood", MOODS)
def test_moods_and_props_are_drawn(mood):
    def picture(mood: str, prop: str | None = None) -> np.ndarray:
        actor = Actor(CAST[1], "holding", 0.5, 1, mood, prop)
        return render(draw(Clip("yard", (actor,), "", 1), 20)[0], 64).astype(int)

    assert all(np.abs(picture(mood) - picture(other)).any() for other in MOODS if other != mood)
    assert all(np.abs(picture(mood) - picture(mood, prop)).any() for prop in PROPS)


def test_drawings_repeat_move_and_have_boxes():
    clip = next(clip for clip in episode("gulch", 1, 30) if len(clip.actors) == 2)
    svg, boxes = draw(clip, 39)
    assert (svg, boxes) == draw(clip, 39) and svg != draw(clip, 9)[0]
    assert len(boxes) == 2
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= 640 and 0 <= y1 < y2 <= 480 and y2 - y1 > 240


def test_frames_and_crowds_that_cannot_be():
    clip = Clip("park", (Actor(CAST[0], "standing", 0.5, 1),) * 4, "", 1)
    with pytest.raises(ValueError, match="actors"):
        draw(clip, 0)
    with pytest.raises(ValueError, match="frame"):
        draw(replace(clip, actors=()), 75)


def test_a_release_opens_and_holds_all_keys(tmp_path):
    write_release(tmp_path, **ARGUMENTS)
    release = FlintstonesRelease(tmp_path)
    assert {name: len(ids) for name, ids in release.splits.items()} == {"test": 5, "train": 5, "val": 5}
    assert release.cast == REGULARS and release.frames(release.splits["val"][0]).shape == (5, 32, 32, 3)
    assert len(release.stories("test", 5)) == 1
    records = json.loads((tmp_path / "flintstones_annotations_v1-0.json").read_text())
    keys = {"globalID", "keyFrames", "setting", "description", "characters", "objects", "parse"}
    assert all(record.keys() == keys for record in records)
    character = records[0]["characters"][0]
    assert character.keys() == {"globalID", "entityLabel", "entitySpan", "labelNPC", "rectangles"}
    assert len(character["rectangles"]) == 3


def test_a_release_is_finished_after_a_kill_and_equal(tmp_path):
    write_release(tmp_path / "a", **ARGUMENTS)
    write_release(tmp_path / "b", **ARGUMENTS)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    frames = tmp_path / "b" / "video_frames_sampled"
    lost = sorted(frames.iterdir())[2]
    lost.rename(lost.with_name(lost.name + ".tmp"))  # as a kill in the middle of writing leaves it
    write_release(tmp_path / "b", **ARGUMENTS)
    assert sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.*")) == files
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_two_releases_do_not_mix(tmp_path):
    write_release(tmp_path, **ARGUMENTS)
    with pytest.raises(ValueError, match="another folder"):
        write_release(tmp_path, **ARGUMENTS | {"seed": 5})


@pytest.mark.parametrize("arguments", [{"episodes": 2}, {"clips": 4}, {"size": 8}])
def test_bad_arguments_of_a_release(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        write_release(tmp_path, **ARGUMENTS | arguments)


def test_the_command_writes_a_sheet_and_prints_both_columns(tmp_path, capsys):
    main(["--sheet", str(tmp_path / "sheet.png"), "--statistics"])
    assert (tmp_path / "sheet.png").stat().st_size > 50_000
    assert "FlintstonesSV" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([])
