"""A visitor's desk over a real pipeline of tiny random networks: what the board asks for gets done, and only that."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from studio import painting
from studio.desk import Desk, story_seed
from studio.editing import Board, Settings
from studio.painting import Painted, Step


OPENING = ["Gus is in the kitchen. He is talking."]


@pytest.fixture(scope="module")
def model(tiny_pipe, tiny_adapter):
    """With its adapter twice: its own, and the same file out of the folder."""
    return painting.register(tiny_pipe, tiny_adapter.parent, "own")


@pytest.fixture
def desk(model):
    return Desk(model, Settings(7, 32.0, 3, 4.0, 0.5, "own"))


def tell(desk: Desk, count: int = 3, images: list | None = None) -> list[dict]:
    """Tell a story; every view of the page meanwhile."""
    settings = desk.board.settings
    desk.do(lambda _: Board.of_captions(settings, story_seed(settings.seed), OPENING, images, count))
    return finish(desk)


def finish(desk: Desk) -> list[dict]:
    return [desk.view() for _ in desk.work()]


def pixels(desk: Desk) -> list[np.ndarray]:
    return [np.asarray(panel.frame.image, dtype=int) for panel in desk.board.panels]


def alike(a: list, b: list) -> bool:
    """One frame or several in a batch may round otherwise in the last bit."""
    return len(a) == len(b) and all(abs(x - y).max() <= 1 for x, y in zip(a, b, strict=True))


def test_captions_come_first_then_frames_sharpen_one_by_one(desk):
    views = tell(desk)
    first_picture = next(n for n, view in enumerate(views) if view["frames"][0]["preview"])
    assert all(frame["caption"] for frame in views[first_picture]["frames"])
    assert not any(frame["preview"] for view in views[:first_picture] for frame in view["frames"])
    done = [sum(bool(frame["src"]) for frame in view["frames"]) for view in views]
    assert done == sorted(done) and set(done) == {0, 1, 2, 3}
    previews = {frame["preview"] for view in views for frame in view["frames"]} - {""}
    assert len(previews) >= 3 and all(preview.startswith("data:image/png;base64,") for preview in previews)
    assert any("left" in view["message"] or "nearly" in view["message"] for view in views)
    assert views[-1]["message"].startswith("3 frames in ") and not views[-1]["busy"] and not views[-1]["unfinished"]
    assert [view["version"] for view in views] == sorted({view["version"] for view in views})


def test_the_story_is_the_pipelines_own(desk, tiny_pipe):
    tell(desk)
    out = tiny_pipe(OPENING, num_frames=3, lora_alpha=32, guidance_scale=4.0, generator=seeded(7), temperature=0.5)
    assert desk.board.captions == out.captions[0]
    assert alike(pixels(desk), [np.asarray(image, dtype=int) for image in out.images[0]])
    assert [frame.seed for frame in desk.story().frames] == [frame.seed for frame in out.stories[0].frames]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_another_alpha_repaints_in_one_batch_and_the_old_pictures_stay_meanwhile(desk, tiny_pipe):
    tell(desk)
    desk.act("pin", 1)
    before = pixels(desk)
    desk.do(lambda board: board.set(lora_alpha=0.0))
    views = finish(desk)
    assert all(frame["src"] for view in views for frame in view["frames"])
    base = tiny_pipe.paint(desk.board.captions, lora_alpha=0, guidance_scale=4.0, generator=seeded(7)).images[0]
    wanted = [np.asarray(image, dtype=int) for image in base]
    assert alike(pixels(desk), [wanted[0], before[1], wanted[2]])
    desk.act("undo")
    assert alike(pixels(desk), before) and not desk.board.to_paint()  # they were kept: nothing is painted again
    assert desk.board.settings.lora_alpha == 32


def test_one_redrawn_frame_leaves_the_others(desk):
    tell(desk)
    before = pixels(desk)
    desk.act("redraw", 1)
    finish(desk)
    after = pixels(desk)
    assert (after[0] == before[0]).all() and (after[2] == before[2]).all() and (after[1] != before[1]).any()


def test_an_edited_caption_is_painted_and_later_ones_are_marked(desk):
    tell(desk)
    desk.act("caption", 0, "Mabel is in the yard.")
    view = finish(desk)[-1]
    assert [frame["stale"] for frame in view["frames"]] == [False, True, True] and view["stale"] == 2
    desk.act("rewrite", 1)
    desk.act("keep", 2)
    view = finish(desk)[-1]
    assert view["stale"] == 1  # the last was kept as it followed the old second one
    desk.act("rewrite")
    assert finish(desk)[-1]["stale"] == 0
    frame = desk.board.panels[2].frame
    assert frame.written_from == tuple(desk.board.captions[:2]) and not desk.board.to_paint()


def test_stop_keeps_what_is_there_and_continue_goes_on(desk):
    settings = desk.board.settings
    desk.do(lambda _: Board.of_captions(settings, story_seed(7), OPENING, None, 3))
    for _ in desk.work():
        if sum(panel.frame.image is not None for panel in desk.board.panels) == 1:
            desk.act("stop")
    view = desk.view()
    assert [bool(frame["src"]) for frame in view["frames"]] == [True, False, False]
    assert view["unfinished"] and not view["busy"] and "Stopped" in view["message"]
    kept = pixels_of_first(desk)
    assert finish(desk)[-1]["unfinished"]  # a later event alone does not go on
    desk.act("continue")
    assert not finish(desk)[-1]["unfinished"] and (pixels_of_first(desk) == kept).all()


def pixels_of_first(desk: Desk) -> np.ndarray:
    return np.asarray(desk.board.panels[0].frame.image)


def test_what_the_visitor_does_while_it_is_painted_is_not_lost(desk):
    settings = desk.board.settings
    desk.do(lambda _: Board.of_captions(settings, story_seed(7), OPENING, None, 3))
    for number, _ in enumerate(desk.work()):
        if number == 4:
            desk.act("caption", 0, "Otto is in the yard.")
            desk.act("more")
    assert desk.board.captions[0] == "Otto is in the yard." and len(desk.board.panels) == 4
    assert not desk.board.to_paint() and desk.board.panels[0].painted.caption == "Otto is in the yard."


def test_three_suggestions_and_one_is_chosen(desk):
    tell(desk, 2)
    before = desk.board.captions[1]
    desk.act("reroll", 1)
    view = finish(desk)[-1]
    assert view["asking"] == 1 and len(view["options"]) == 3
    assert view["frames"][1]["caption"] == before  # nothing changes before one is chosen
    desk.act("choose", value=1)
    finish(desk)
    assert desk.board.captions[1] == view["options"][1] and desk.view()["asking"] is None
    assert desk.board.panels[1].frame.written_from == tuple(OPENING) and not desk.board.to_paint()
    with pytest.raises(ValueError, match="suggestion is gone"):
        desk.act("choose", value=0)


def test_a_frame_between_two_is_written_from_those_before_it(desk):
    tell(desk, 2)
    desk.act("insert", 0)
    finish(desk)
    assert desk.board.panels[1].frame.written_from == tuple(OPENING) and len(desk.board.panels) == 3
    assert len({panel.frame.seed for panel in desk.board.panels}) == 3


def test_a_given_picture_stays(desk):
    own = Image.new("RGB", (30, 20), "red")
    view = tell(desk, 2, [own])[-1]
    assert desk.board.panels[0].frame.image is own and view["frames"][0]["given"] and view["frames"][0]["src"]
    desk.do(lambda board: board.set(lora_alpha=0.0))
    finish(desk)
    assert desk.board.panels[0].frame.image is own


def test_columns_under_other_strengths_and_adapters(desk, tiny_adapter):
    tell(desk, 2)
    assert None in desk.column(10.0, paint=False)
    columns = {alpha: desk.column(alpha) for alpha in (0.0, 10.0, 32.0)}
    assert len({path for column in columns.values() for path in column}) == 6
    assert columns[32.0] == [frame["src"].removeprefix("gradio_api/file=") for frame in desk.view()["frames"]]
    assert desk.column(10.0, paint=False) == columns[10.0]
    other = desk.column(10.0, tiny_adapter.stem)
    for mine, theirs in zip(columns[10.0], other, strict=True):  # the same adapter under another name
        assert np.array_equal(np.asarray(Image.open(mine)), np.asarray(Image.open(theirs)))
    assert len(desk.history.past) == 1  # looking is no step


@pytest.mark.parametrize(
    ("action", "panel_id", "value"),
    [("fly", None, None), ("redraw", 9, None), ("caption", 0, ""), ("caption", 0, "a" * 2001), ("choose", None, "1")],
)
def test_what_cannot_be_is_refused_and_changes_nothing(desk, action, panel_id, value):
    tell(desk, 1)
    board = desk.board
    with pytest.raises(ValueError):
        desk.act(action, panel_id, value)
    assert desk.board == board


def test_closing_stops_the_painter(desk):
    tell(desk, 1)
    (_, recipe) = desk.under(5.0)[0]
    steps = painting.paint(desk.model, (recipe,))
    assert isinstance(next(steps), Step)
    steps.close()
    done = list(painting.paint(desk.model, (recipe,)))  # and the next one is not in its way
    assert isinstance(done[-1], Painted) and [step.number for step in done[:-1]] == [0, 1, 2, 3]


def test_previews_have_the_pictures_colours():
    """Of finished latents the linear preview is much nearer to the picture than the picture's mean colour is."""
    pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    pipe.set_progress_bar_config(disable=True)
    kind = {"num_inference_steps": 4, "generator": seeded(3)}
    latents = pipe.paint(["Otto is in the yard."], output_type="latent", **kind).images[0][0]
    picture = pipe.paint(["Otto is in the yard."], output_type="pt", **kind | {"generator": seeded(3)}).images[0][0]
    (uri,) = painting._previews(latents[None], painting._colours(pipe))
    data = base64.b64decode(uri.partition(",")[2])
    preview = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data))) / 255).permute(2, 0, 1)
    small = torch.nn.functional.adaptive_avg_pool2d(picture, latents.shape[-2:])
    error = (preview - small).square().mean()
    spread = (small - small.mean(dim=(1, 2), keepdim=True)).square().mean()
    assert error < 0.3 * spread
