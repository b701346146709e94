"""The story on the page as a value: every operation, what it makes stale, and every step back and forth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sagan_pipeline import Frame, Story
from sagan_pipeline.story import seed_for
from sagan_pipeline.story_file import StoryFile, read_story_json, story_json
from studio.editing import MAX_FRAMES, Board, History, Settings


SETTINGS = Settings(7, 32.0, 12, 4.0, 0.5, "show")
PICTURE = Image.new("RGB", (4, 4))


def written(count: int = 3, given: int = 1) -> Board:
    """A story of `count` painted frames, whose first `given` captions are a visitor's."""
    board = Board.of_captions(SETTINGS, 99, [f"Caption {n}." for n in range(given)], num_frames=count)
    while panel := board.to_write():
        board = board.write(panel.id, f"Caption {board.place(panel.id)}.")
    return painted(board)


def painted(board: Board) -> Board:
    for panel, recipe in board.to_paint():
        board = board.paint(panel.id, recipe, PICTURE.copy(), False, "tiny")
    return board


def stale(board: Board) -> list[int]:
    return [panel.id for panel in board.panels if board.is_stale(panel)]


def to_paint(board: Board) -> list[int]:
    return [panel.id for panel, _ in board.to_paint()]


def test_a_new_story_waits_for_captions_and_pictures():
    board = Board.of_captions(SETTINGS, 99, ["Gus."], [PICTURE], 3)
    assert board.captions == ["Gus.", "", ""] and board.to_write().id == 1
    assert board.panels[0].frame.image_given and to_paint(board) == []
    assert [panel.frame.seed for panel in board.panels] == [seed_for(99, "noise", n) for n in range(3)]
    board = board.write(1, "Mabel.")
    assert to_paint(board) == [1] and board.to_write().id == 2
    assert board.panels[1].frame.written_from == ("Gus.",) and not board.panels[1].frame.caption_given


def test_pictures_without_captions_are_refused():
    with pytest.raises(ValueError, match="2 pictures, but 1 opening caption"):
        Board.of_captions(SETTINGS, 99, ["Gus."], [PICTURE, PICTURE])


def test_an_edited_caption_makes_later_ones_stale_and_its_own_picture_old():
    board = written().edit(0, "  Gus  is away. ")
    assert board.captions[0] == "Gus is away." and stale(board) == [1, 2] and to_paint(board) == [0]
    assert stale(board.keep(1)) == [2] and stale(board.keep()) == []
    again = board.rewrite(1)
    assert again.captions == ["Gus is away.", "", "Caption 2."] and again.to_write().id == 1
    assert board.rewrite().captions == ["Gus is away.", "", ""]


def test_a_caption_of_ones_own_is_never_stale():
    board = written().edit(2, "Mine.").edit(0, "Changed.")
    assert stale(board) == [1]


def test_moving_deleting_and_inserting_make_stale():
    board = written(4)
    assert board.move(3, -1).captions == ["Caption 0.", "Caption 1.", "Caption 3.", "Caption 2."]
    assert stale(board.move(3, -1)) == [3, 2] and to_paint(board.move(3, -1)) == []
    assert board.move(0, -1) == board and board.move(3, 5) == board
    assert stale(board.delete(1)) == [2, 3]
    inserted = board.insert(1)
    assert inserted.to_write().id == 4 and inserted.place(4) == 1
    assert stale(inserted.write(4, "New.")) == [1, 2, 3]
    with pytest.raises(ValueError, match="no longer"):
        board.delete(1).place(1)


def test_a_redrawn_frame_has_a_seed_of_its_own_and_leaves_the_others():
    board = written()
    again = board.redraw(1)
    assert to_paint(again) == [1] and stale(again) == []
    assert again.panel(1).frame.seed != board.panel(1).frame.seed != again.redraw(1).panel(1).frame.seed
    assert again.panels[0] == board.panels[0] and again.panels[2] == board.panels[2]


def test_a_given_picture_gives_way_to_a_redrawn_one():
    board = Board.of_captions(SETTINGS, 99, ["Gus."], [PICTURE])
    assert to_paint(board) == [] and to_paint(board.redraw(0)) == [0]


def test_a_pinned_frame_stays_as_it_is():
    board = written().pin(1)
    assert to_paint(board.set(lora_alpha=10.0)) == [0, 2]
    for refused in (lambda: board.redraw(1), lambda: board.edit(1, "Other."), lambda: board.rewrite(1)):
        with pytest.raises(ValueError, match="pinned"):
            refused()
    assert board.edit(0, "Other.").rewrite().captions == ["Other.", "Caption 1.", ""]
    assert to_paint(board.set(lora_alpha=10.0).pin(1)) == [0, 1, 2]


def test_a_setting_that_changes_pictures_repaints_them():
    board = written()
    for setting in ({"lora_alpha": 0.0}, {"num_inference_steps": 5}, {"guidance_scale": 1.0}, {"adapter": "other"}):
        assert to_paint(board.set(**setting)) == [0, 1, 2]
    assert to_paint(board.set(temperature=1.0, seed=8)) == []


def test_a_picture_that_nobody_wants_any_more_is_not_hung():
    board = written().redraw(1)
    (_, recipe) = board.to_paint()[0]
    for changed in (board.redraw(1), board.edit(1, "Other."), board.set(lora_alpha=1.0), board.delete(1)):
        assert changed.paint(1, recipe, PICTURE, False, None) == changed


@pytest.mark.parametrize(("caption", "why"), [(" ", "needs a word"), ("a" * 2001, "2001 characters")])
def test_captions_that_are_none(caption, why):
    with pytest.raises(ValueError, match=why):
        written().edit(0, caption)


def test_a_story_has_an_end():
    board = written(MAX_FRAMES)
    with pytest.raises(ValueError, match=f"{MAX_FRAMES} frames at most"):
        board.insert(0)


def test_a_file_brings_everything_back():
    board = written(4).redraw(2).pin(1).move(3, -2)
    board = painted(board)
    text = story_json(board.story(), board.facts())
    back = Board.of_file(read_story_json(text), replace(SETTINGS, lora_alpha=1.0), ["show"], 5)
    assert back.settings == board.settings and back.story_seed == 99 and to_paint(back) == []
    assert back.story().facts() == board.story().facts()
    assert [back.is_stale(panel) for panel in back.panels] == [board.is_stale(panel) for panel in board.panels]


def test_a_file_without_its_pictures_is_painted_from_the_same_recipes():
    board = written(3)
    text = story_json(board.story(), board.facts(), pictures="none")
    back = Board.of_file(read_story_json(text), SETTINGS, ["show"], 5)
    assert [recipe for _, recipe in back.to_paint()] == [panel.painted for panel in board.panels]


def test_a_picture_from_elsewhere_comes_back_as_it_was():
    """One of an adapter that is not here, or of an alpha beyond the slider's, would come out otherwise: pinned."""
    frames = [
        Frame("Gus.", PICTURE, seed=1, lora_alpha=32.0, num_inference_steps=12, guidance_scale=4.0, adapter="gone"),
        Frame("Mabel.", PICTURE),
    ]
    board = Board.of_file(StoryFile(Story(frames), {"lora_alpha": 999.0}), SETTINGS, ["show", "more"], 5)
    assert board.settings.adapter == "show" and board.settings.lora_alpha == 64 and board.story_seed == 5
    assert board.panels[0].frame.pinned and to_paint(board) == []
    assert board.panels[1].frame.image_given  # nobody says how it was made


@pytest.mark.parametrize("count", [0, MAX_FRAMES + 1])
def test_files_of_other_lengths_are_refused(count):
    with pytest.raises(ValueError, match=f"has {count} frames"):
        Board.of_file(StoryFile(Story([Frame("Gus.")] * count), {}), SETTINGS, ["show"], 5)


STEPS = {
    "edit": lambda board, n: board.edit(board.panels[n % len(board.panels)].id, f"Edited {n}."),
    "redraw": lambda board, n: board.redraw(board.panels[n % len(board.panels)].id),
    "move": lambda board, n: board.move(board.panels[n % len(board.panels)].id, n % 3 - 1),
    "insert": lambda board, n: painted(board.insert(n % len(board.panels), f"New {n}.")),
    "alpha": lambda board, n: board.set(lora_alpha=float(n)),
    "keep": lambda board, n: board.keep(),
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20)), max_size=12))
def test_every_step_can_be_undone_and_done_again(steps):
    history = History(written())
    seen = [history.present]
    for name, number in steps:
        history = history.do(STEPS[name](history.present, number))
        if history.present != seen[-1]:
            seen.append(history.present)
    for board in reversed(seen):
        assert history.present == board
        history = history.undo()
    assert history.undo() == history and history.present == seen[0]
    for board in seen:
        assert history.present == board
        history = history.redo()


def test_a_new_step_forgets_what_was_undone_and_moves_of_a_slider_are_one():
    first = written()
    history = History(first).do(first.redraw(0)).undo().do(first.set(lora_alpha=1.0))
    assert history.redo() == history
    history = history.do(history.present.set(lora_alpha=2.0), join=True)
    assert history.present.settings.lora_alpha == 2 and history.undo().present == first
