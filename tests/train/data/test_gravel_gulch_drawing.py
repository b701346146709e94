"""The drawings: every setting, action, mood and prop, and that they repeat and move."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from train.data.gravel_gulch.drawing import draw, render
from train.data.gravel_gulch.script import episode
from train.data.gravel_gulch.world import ACTIONS, CAST, MOODS, PROPS, SETTINGS, Actor, Clip, Look


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


@pytest.mark.parametrize("look", [CAST[0], CAST[1], CAST[4], CAST[5]], ids=lambda look: look.name)
def test_a_painter_of_16_by_16_latents_could_tell_every_action_apart(look: Look):
    pictures = {}
    for action in (action for action in ACTIONS if action != "driving"):
        actor = Actor(look, action, 0.5, 1, "happy", "ball" if action == "holding" else None)
        pictures[action] = render(draw(Clip("park", (actor,), "", 1), 20)[0], 16).astype(int)
    for one, other in itertools.combinations(pictures, 2):
        assert np.abs(pictures[one] - pictures[other]).mean() > 1.5, (one, other)


def test_who_sleeps_lies_who_sits_is_low_and_who_jumps_leaves_the_ground():
    def box(action: str, setting: str = "park", look: Look = CAST[0]) -> tuple[int, int, int, int]:
        (x1, y1, x2, y2) = draw(Clip(setting, (Actor(look, action, 0.5, 1),), "", 1), 20)[1][0]
        return x1 * 256 // 640, y1 * 256 // 480, x2 * 256 // 640, y2 * 256 // 480

    for look in (CAST[0], CAST[4], CAST[5]):
        left, top, right, bottom = box("sleeping", look=look)
        assert right - left > 1.2 * (bottom - top)
        assert box("jumping", look=look)[3] < box("standing", look=look)[3] - 20
    assert box("sitting")[1] > box("standing")[1] + 15
    left, top, right, bottom = box("sleeping", "car")  # nobody lies down there
    assert bottom - top > right - left
    assert box("sleeping", "bedroom")[3] < box("sleeping", "cave")[3] - 20  # on the bed, not before it


def test_two_who_sleep_touch_with_their_feet_alone():
    actors = (Actor(CAST[0], "sleeping", 0.28, 1), Actor(CAST[3], "sleeping", 0.72, -1))
    left, right = draw(Clip("cave", actors, "", 1), 20)[1]
    assert left[2] - right[0] < (left[2] - left[0]) / 5


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
