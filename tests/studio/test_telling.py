"""The handlers of the page as plain functions, over a real pipeline of tiny random networks."""

import gradio as gr
import numpy as np
import pytest
import torch

from studio import build_demo
from studio.telling import MAX_SEED, Teller, Told


OPENING = "Gus is in the kitchen.\n\nHe is talking to Mabel.\n"
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def teller(tiny_pipe):
    return Teller(tiny_pipe)


@pytest.fixture(scope="module")
def telling(teller):
    """Every update of the page while a story of 3 frames is told."""
    return list(teller.tell_story(OPENING, 3, 7, 32))


def same(a, b) -> bool:
    """The same captions and pictures; frames painted alone and in a batch may differ in the last bit."""
    return [caption for _, caption in a] == [caption for _, caption in b] and all(
        np.allclose(np.asarray(x, dtype=int), np.asarray(y, dtype=int), atol=1)
        for (x, _), (y, _) in zip(a, b, strict=True)
    )


def test_frames_appear_one_by_one(telling):
    assert [len(pictures) for pictures, _, _ in telling] == [1, 2, 3]
    assert same(telling[0][0], telling[2][0][:1])
    assert [status.split(",")[0] for _, status, _ in telling[:2]] == ["Frame 1 of 3 painted", "Frame 2 of 3 painted"]
    assert telling[2][1].startswith("3 frames at alpha 32, seed 7, ")
    captions = [caption for _, caption in telling[2][0]]
    assert captions[:2] == ["Gus is in the kitchen.", "He is talking to Mabel."] and captions[2]
    assert telling[2][2] == Told(tuple(captions), 7, 32.0)


def test_the_story_is_the_pipelines_own(telling, tiny_pipe):
    out = tiny_pipe(
        ["Gus is in the kitchen.", "He is talking to Mabel."],
        num_frames=3,
        lora_alpha=32,
        generator=torch.Generator().manual_seed(7),
    )
    assert same(telling[2][0], [(frame.image, frame.caption) for frame in out.stories[0].frames])


def test_an_empty_box_lets_the_captioner_open(teller):
    *_, (pictures, status, told) = teller.tell_story(" \n", 1, 0, 10)
    assert len(pictures) == 1 and pictures[0][1] and status.startswith("1 frame at alpha 10, seed 0")


def test_repainting_keeps_captions_and_noise(teller, telling):
    told = telling[2][2]
    pictures, status, repainted = teller.repaint(0, told)
    assert status.startswith("3 frames repainted at alpha 0, seed 7") and repainted == Told(told.captions, 7, 0.0)
    assert not same(pictures, telling[2][0])
    back, _, again = teller.repaint(32, repainted)
    assert same(back, telling[2][0]) and again == told


@pytest.mark.parametrize("told", [None, Told(("Gus is in the kitchen.",), 7, 10.0)])
def test_nothing_to_repaint(teller, told):
    assert teller.repaint(10, told) == (gr.skip(), gr.skip(), gr.skip())


def test_comparing_puts_the_alphas_side_by_side(teller, telling):
    told = telling[2][2]
    update, status = teller.compare(told, (0, 32))
    pairs = update["value"]
    assert status.startswith("Compared in ") and len(pairs) == 6
    assert [caption for _, caption in pairs[:2]] == [f"alpha {a} \u2013 {told.captions[0]}" for a in (0, 32)]
    assert [image.size for image, _ in pairs] == [(16, 16)] * 6
    assert update["visible"]
    with pytest.raises(gr.Error, match="Tell a story first"):
        teller.compare(None, (0, 32))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": -3}, "num_frames"),
        ({"num_frames": 2.5}, "num_frames"),
        ({"num_frames": None}, "num_frames"),
        ({"num_frames": INFINITE}, "num_frames"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": NAN}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"alpha": NAN}, "alpha"),
        ({"alpha": INFINITE}, "alpha"),
        ({"alpha": None}, "alpha"),
        ({"opening": "Gus is in the kitchen. " * 500}, "caption"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_inputs_become_messages(teller, arguments, named):
    good = {"opening": OPENING, "num_frames": 2, "seed": 7, "alpha": 32}
    with pytest.raises(gr.Error, match=named):
        list(teller.tell_story(**{**good, **arguments}))


def test_the_page_has_its_controls(tiny_pipe):
    demo = build_demo(tiny_pipe)
    blocks = {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}
    assert {"opening", "tell", "stop", "alpha", "strength", "frames", "seed", "dice", "story"} <= set(blocks)
    assert (blocks["alpha"].minimum, blocks["alpha"].maximum) == (0, 64)
    assert blocks["alpha"].value == tiny_pipe.trained_lora_alpha  # no default of its own
    named = {function.api_name for function in demo.fns.values() if function.api_visibility == "public"}
    assert named == {"tell_story", "repaint"}
