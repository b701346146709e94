"""The handlers between Gradio and a desk: what comes in from outside, what is refused, and what a browser keeps."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sagan_pipeline.story_file import frame_png, read_png, read_story_json, story_json
from studio import build_demo, painting
from studio.api import Endpoints
from studio.desk import Desk
from studio.editing import Settings
from studio.handlers import Handlers, kept_text
from studio.judging import known


SETTINGS = Settings(7, 32.0, 3, 4.0, 0.5, "own")
CONTROLS = (7, 32, 3, 4, 0.5, "own")
OPENING = "Gus is in the kitchen. He is talking.\n\nMabel is in the yard.\n"
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def handlers(tiny_pipe, tiny_adapter) -> Handlers:
    model = painting.register(tiny_pipe, tiny_adapter.parent, "own")
    return Handlers(model, SETTINGS, list(painting.MODELS[model]))


@pytest.fixture
def desk(handlers) -> Desk:
    desk, *_ = handlers.open("")
    return desk


def told(handlers: Handlers, desk: Desk, count: int = 2) -> Desk:
    handlers.tell(desk, OPENING, count, True, *CONTROLS)
    *_, (_, view, kept) = handlers.work(desk)
    assert all(frame["src"] for frame in view["frames"]) and kept
    return desk


def event(**data) -> gr.EventData:
    return gr.EventData(None, data)


def pixels(desk: Desk) -> list[np.ndarray]:
    return [np.asarray(panel.frame.image, dtype=int) for panel in desk.board.panels]


def test_a_fresh_page_has_the_models_defaults(handlers):
    desk, view, *controls = handlers.open("")
    assert view["frames"] == [] and tuple(controls) == CONTROLS and desk.board.settings == SETTINGS


def test_lines_are_captions(handlers, desk):
    told(handlers, desk, 3)
    assert desk.board.captions[:2] == ["Gus is in the kitchen. He is talking.", "Mabel is in the yard."]
    assert desk.board.captions[2] and desk.board.settings.seed == 7


def test_a_surprise_has_a_seed_and_an_opening_of_its_own(handlers, desk):
    _, view, seed = handlers.surprise(desk, 1, *CONTROLS)
    list(handlers.work(desk))
    assert seed != 7 and seed == desk.board.settings.seed and desk.board.captions[0]
    assert view["busy"] and not desk.view()["busy"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"count": 0}, "num_frames"),
        ({"count": 17}, "num_frames"),
        ({"count": 2.5}, "num_frames"),
        ({"count": None}, "num_frames"),
        ({"count": INFINITE}, "num_frames"),
        ({"seed": -1}, "seed"),
        ({"seed": NAN}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"alpha": NAN}, "lora_alpha"),
        ({"alpha": 65}, "lora_alpha"),
        ({"alpha": None}, "lora_alpha"),
        ({"alpha": "32"}, "lora_alpha"),
        ({"steps": 51}, "num_inference_steps"),
        ({"guidance": -1}, "guidance_scale"),
        ({"temperature": 3}, "temperature"),
        ({"adapter": "../secret"}, "adapter"),
        ({"adapter": None}, "adapter"),
        ({"opening": "Gus is in the kitchen. " * 500}, "caption 1"),
        ({"opening": "Gus.\n\U0001f995"}, "caption 2"),
        ({"opening": "\n".join(["Gus."] * 17)}, "16 frames at most"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_inputs_become_messages_and_the_story_stays(handlers, desk, arguments, named):
    good = {"opening": OPENING, "count": 2, "keep": True, "seed": 7, "alpha": 32, "steps": 3, "guidance": 4}
    good |= {"temperature": 0.5, "adapter": "own"}
    board = desk.board
    with pytest.raises(gr.Error, match=named):
        handlers.tell(desk, *{**good, **arguments}.values())
    assert desk.board == board


def test_a_page_that_rested_too_long_says_so(handlers):
    for touched in (
        lambda: handlers.act(None, event(action="more")),
        lambda: handlers.tell(None, OPENING, 2, True, *CONTROLS),
        lambda: list(handlers.work(None)),
        lambda: handlers.take(None, "", "pdf"),
    ):
        with pytest.raises(gr.Error, match="Reload the page"):
            touched()


@pytest.mark.parametrize(
    "data",
    [{}, {"action": "fly"}, {"action": "redraw", "id": "0"}, {"action": "redraw", "id": True}, {"action": None}],
)
def test_events_of_no_board_of_ours_are_refused(handlers, desk, data):
    with pytest.raises(gr.Error):
        handlers.act(desk, event(**data))


def test_an_event_that_is_none(handlers, desk):
    with pytest.raises(gr.Error):
        handlers.act(desk, gr.EventData(None, "redraw"))


def test_undo_brings_the_sliders_back(handlers, desk):
    told(handlers, desk)
    handlers.settle(desk, 9, 10, 3, 4, 0.5, "own")
    list(handlers.work(desk))
    assert desk.board.settings.lora_alpha == 10 and desk.board.settings.seed == 7  # a seed is for the next story
    _, view, *controls = handlers.act(desk, event(action="undo", id=None, value=None))
    assert tuple(controls) == CONTROLS and view["can_redo"]


def test_a_browser_keeps_the_story_without_its_pictures(handlers, desk):
    told(handlers, desk)
    handlers.act(desk, event(action="redraw", id=1))
    handlers.act(desk, event(action="pin", id=0))
    list(handlers.work(desk))
    kept = kept_text(desk)
    assert len(kept) < 4000 and read_story_json(kept).story.images == [None, None]
    again, view, *controls = handlers.open(kept)
    list(handlers.work(again))
    assert tuple(controls) == CONTROLS and again.board.captions == desk.board.captions
    assert [panel.frame.pinned for panel in again.board.panels] == [True, False] and not view["can_undo"]
    for a, b in zip(pixels(again), pixels(desk), strict=True):
        assert abs(a - b).max() <= 1


def test_a_browser_keeps_given_pictures_as_far_as_there_is_room(handlers, desk):
    small = Image.new("RGB", (8, 8), "red")
    desk.given.append(small)
    told(handlers, desk)
    assert read_story_json(kept_text(desk)).story.images[0] is not None
    desk.given[:] = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8))]
    told(handlers, desk)
    assert len(kept_text(desk)) < 4000


@pytest.mark.parametrize("kept", ["no", "{}", 3, None, '{"format": "saganets-story"}'])
def test_a_browser_that_keeps_something_else_gets_a_fresh_page(handlers, kept):
    assert handlers.open(kept)[1]["frames"] == []


def test_dropped_pictures_open_the_next_story(handlers, desk, tmp_path):
    Image.new("RGB", (3000, 1500), "teal").save(tmp_path / "mine.jpg")
    _, _, note, *_ = handlers.drop(desk, [str(tmp_path / "mine.jpg")])
    assert note.startswith("Your picture opens") and desk.given[0].size == (1024, 512)
    told(handlers, desk)
    assert desk.board.panels[0].frame.image_given and not desk.board.panels[1].frame.image_given
    handlers.drop(desk, None)
    assert desk.given == []


def test_a_dropped_file_of_ours_brings_its_story(handlers, desk, tmp_path):
    told(handlers, desk, 3)
    before = pixels(desk)
    (tmp_path / "story.json").write_text(story_json(desk.story(), desk.board.facts()))
    (tmp_path / "frame.png").write_bytes(frame_png(desk.board.panels[2].frame))
    other, *_ = handlers.open("")
    handlers.drop(other, [str(tmp_path / "story.json")])
    assert all((a == b).all() for a, b in zip(pixels(other), before, strict=True)) and not other.board.to_paint()
    handlers.drop(other, [str(tmp_path / "frame.png")])
    assert (pixels(other)[0] == before[2]).all() and not other.board.to_paint()
    handlers.act(other, event(action="undo"))
    assert len(other.board.panels) == 3


@pytest.mark.parametrize(("name", "data"), [("a.json", b"{}"), ("a.png", b"no"), ("a.jpg", b""), ("a.txt", b"Gus.")])
def test_files_that_are_neither_are_refused_by_name(handlers, desk, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(gr.Error, match=re.escape(name)):
        handlers.drop(desk, [str(tmp_path / name)])
    assert desk.given == [] and not desk.board.panels


def test_a_comparison_names_its_columns_and_escapes_its_captions(handlers, desk):
    handlers.tell(desk, "Gus & <b>Mabel</b>.", 1, True, *CONTROLS)
    list(handlers.work(desk))
    *_, (_, table, rows, left, right) = handlers.compare(desk, ["0 (base)", "10", 32.0], [])
    assert table.count("<td><img") == 3 and "alpha 0 (base)" in table and "alpha 32" in table
    assert "Gus &amp; &lt;b&gt;Mabel&lt;/b&gt;." in table and "<b>" not in table
    pair = handlers.pair(desk, rows.value, left.value, right.value)
    assert len(set(pair)) == 2
    assert handlers.pair(desk, "Frame 1", "alpha 1", "alpha 2") is None


@pytest.mark.parametrize(
    ("strengths", "adapters", "why"),
    [
        ([], [], "0 columns"),
        (["much"], [], "'much' is no alpha"),
        ([""], [], "no alpha"),
        (["65"], [], "lora_alpha"),
        (["nan"], [], "lora_alpha"),
        (list("1234567"), [], "7 columns"),
        (["1"], ["../secret"], "the adapters here"),
    ],
)
def test_comparisons_that_cannot_be(handlers, desk, strengths, adapters, why):
    told(handlers, desk)
    with pytest.raises(gr.Error, match=why):
        list(handlers.compare(desk, strengths, adapters))


def test_nothing_to_compare_and_nothing_to_take_away(handlers, desk):
    with pytest.raises(gr.Error, match="Tell a story first"):
        list(handlers.compare(desk, ["0"], []))
    with pytest.raises(gr.Error, match="paint it first"):
        handlers.take(desk, "", "strip")


def test_the_sweep_fills_strength_by_strength_and_then_rests(handlers, desk):
    told(handlers, desk, 1)
    ready = []
    for _ in range(12):
        _, view, timer = handlers.sweep(desk)
        ready.append(sum(all(column) for column in view["columns"]))
        if not timer.active:
            break
    assert ready == sorted(ready) and ready[0] < ready[-1] == len(view["alphas"]) and not timer.active
    assert view["alphas"][0] == "0" and "32" in view["alphas"] and "1.50" in view["strengths"]


def test_a_failing_model_is_told_and_the_story_is_kept(handlers, desk, tiny_pipe, monkeypatch):
    told(handlers, desk)
    handlers.settle(desk, 7, 5, 3, 4, 0.5, "own")

    def out_of_memory(*args, **kwargs):
        raise RuntimeError("out of memory")

    # the one failure that no input brings about
    monkeypatch.setattr(tiny_pipe.vae, "decode", out_of_memory)
    with pytest.raises(gr.Error, match="Your story is kept"):
        list(handlers.work(desk))
    view = desk.view()
    assert all(frame["src"] for frame in view["frames"]) and view["unfinished"] and "Continue" in view["message"]
    monkeypatch.undo()
    handlers.act(desk, event(action="continue"))
    list(handlers.work(desk))
    assert not desk.board.to_paint()


def test_the_page_has_its_controls_and_its_public_names(tiny_pipe):
    demo = build_demo(tiny_pipe, adapters=None)
    blocks = {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}
    assert {"opening", "tell", "surprise", "alpha", "strength", "frames", "seed", "dice", "board"} <= set(blocks)
    assert (blocks["alpha"].minimum, blocks["alpha"].maximum) == (0, 64)
    assert blocks["alpha"].value == tiny_pipe.trained_lora_alpha  # no default of its own
    named = {function.api_name for function in demo.fns.values() if function.api_visibility == "public"}
    assert named == {"tell_story", "next_caption", "paint_frame", "compare_alpha", "export_story"}
    painters = [function for function in demo.fns.values() if function.concurrency_id == "painter"]
    assert {function.concurrency_limit for function in painters} == {1}


def test_an_adapter_of_few_steps_is_painted_in_its_own(tiny_pipe, tiny_adapter, tmp_path):
    with safe_open(tiny_adapter, framework="pt") as file:
        header = {**file.metadata(), "objective": "gan", "num_inference_steps": "2", "guidance_scale": "1.0"}
    save_file(load_file(tiny_adapter), tmp_path / "few.safetensors", metadata=header)
    model = painting.register(tiny_pipe, tmp_path, "own")
    handlers = Handlers(model, SETTINGS, ["own", "few"])
    desk = told(handlers, handlers.open("")[0])
    usual = painting.own_sampling(model, "own", 32)
    compared = {
        name: {(r.num_inference_steps, r.guidance_scale) for _, r in desk.under(32, name)} for name in ("own", "few")
    }
    assert compared == {"own": {(3, 4.0)}, "few": {(2, 1.0)}}  # what the visitor set, and what it was made for
    *_, steps, guidance = handlers.choose(desk, *CONTROLS[:-1], "few")
    assert (steps, guidance) == (2, 1.0)
    list(handlers.work(desk))
    made = {(p.frame.adapter, p.frame.num_inference_steps, p.frame.guidance_scale) for p in desk.board.panels}
    assert made == {("few", 2, 1.0)}
    assert {(r.num_inference_steps, r.guidance_scale) for _, r in desk.under(0)} == {usual}  # the base is no generator

    # so it is on the board, and back again; also when the page's own numbers are still on their way
    seed, _, _, _, temperature, _ = CONTROLS
    for alpha, sampling in ((0, usual), (0, usual), (10, (2, 1.0)), (0, usual)):
        *_, steps, guidance = handlers.choose(desk, seed, alpha, 2, 1.0, temperature, "few")
        assert (steps, guidance) == sampling
        list(handlers.work(desk))
        made = {
            (p.painted.lora_alpha, p.painted.num_inference_steps, p.painted.guidance_scale) for p in desk.board.panels
        }
        assert made == {(alpha, *sampling)}
    assert {(r.num_inference_steps, r.guidance_scale) for _, r in desk.under(32)} == {(2, 1.0)}

    # side by side, in the sweep, and for programs
    list(handlers.compare(desk, ["0", "10"], ["few"]))
    _, view, _ = handlers.sweep(desk)
    assert view["columns"][0] == desk.column(0, "few", paint=False) and all(view["columns"][0])
    api = Endpoints(handlers)
    for alpha, steps in ((0, usual[0]), (10, 2)):
        frame = read_png(Path(api.paint_frame("Gus.", 7, alpha, adapter="few")).read_bytes()).story.frames[0]
        assert (frame.num_inference_steps, frame.adapter) == (steps, "few")
    for given in (None, 2):
        pictures = api.compare_alpha("Gus.", "0, 10", 7, given, 1.0 if given else None, "few")
        frames = [read_png(Path(path).read_bytes()).story.frames[0] for path, _ in pictures]
        assert [(f.num_inference_steps, f.guidance_scale) for f in frames] == [usual, (2, 1.0)]
    _, text = api.tell_story("Gus.", 1, 7, 10, adapter="few")
    assert read_story_json(text).settings["num_inference_steps"] == 2


@pytest.fixture
def judged(tiny_pipe, tiny_adapter) -> Handlers:
    """Over a pipeline that says it knows the judge's cast, whatever it paints."""
    cast, places = known()
    pipe = type(tiny_pipe)(**tiny_pipe.components, default_num_inference_steps=3, cast=cast, places=places)
    pipe.load_adapter(tiny_adapter)
    return Handlers(painting.register(pipe, None, "own"), SETTINGS, ["own"])


def test_scores_come_when_the_frames_are_there(judged):
    desk = told(judged, judged.open("")[0], 3)
    assert not any("scores" in frame for frame in desk.view()["frames"]) and not desk.seen
    _, view = judged.score(desk, True)
    assert view["scoring"] and all(frame["scores"] == [] for frame in view["frames"])
    assert all(frame["scores"] for frame in list(judged.work(desk))[-1][1]["frames"])

    desk.act("redraw", desk.board.panels[1].id)
    seen, before = dict(desk.seen), desk.view()["frames"][1]["src"]
    views = [view for _, view, _ in judged.work(desk)]
    painted = next(view for view in views if view["frames"][1]["src"] != before)
    assert not painted["frames"][1]["scores"] and painted["frames"][0]["scores"]  # the picture first
    frames = views[-1]["frames"]
    words = [[text for _, text in frame["scores"]] for frame in frames]
    assert any("named are seen" in text for text in words[0])
    assert [any("like the frame before" in text for text in each) for each in words] == [False, True, True]
    assert len(desk.seen) == len(seen) + 1  # the judge looks at a picture once

    _, view = judged.score(desk, False)
    assert not view["scoring"] and not any("scores" in frame for frame in view["frames"])


def test_no_scores_of_what_was_given(judged):
    desk = judged.open("")[0]
    desk.given = [Image.new("RGB", (32, 32), "teal")]
    told(judged, desk, 3)
    judged.score(desk, True)
    frames = list(judged.work(desk))[-1][1]["frames"]
    assert [bool(frame["scores"]) for frame in frames] == [False, True, True]
    assert not any("frame before" in text for _, text in frames[1]["scores"])


def test_columns_have_scores_once_all_are_painted(judged):
    desk = told(judged, judged.open("")[0])
    tables = [table for _, table, *_ in judged.compare(desk, ["0", "32"], ["own"], True)]
    assert [table.count('<ul class="scores"') for table in tables] == [0, 0, 4]
    assert tables[-1].count("like the frame before") == 2 and tables[-1].count("named are seen") > 0
    assert "scores" not in list(judged.compare(desk, ["0", "32"], ["own"], False))[-1][1]


def test_a_story_from_a_file_is_scored(judged):
    desk = told(judged, judged.open("")[0])
    other = judged.open("")[0]
    other.open(read_story_json(story_json(desk.story(), desk.board.facts())), ["own"])
    judged.score(other, True)
    assert all(frame["scores"] for frame in list(judged.work(other))[-1][1]["frames"])


def test_a_model_of_another_cast_has_no_scores_whoever_asks(handlers):
    desk = told(handlers, handlers.open("")[0])
    assert not handlers.judged and not handlers.score(desk, True)[1]["scoring"]
    assert "scores" not in list(handlers.compare(desk, ["0"], ["own"], True))[-1][1]
    list(handlers.work(desk))
    assert not desk.seen
