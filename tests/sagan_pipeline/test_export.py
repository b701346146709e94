"""What one takes away: files that open, hold every frame in order, and letter captions of any length."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from sagan_pipeline import Frame, Story
from sagan_pipeline.export import KINDS, LAYOUTS, PAGE, _font, export, page, pages, strip, wrapped
from sagan_pipeline.story_file import read_png, read_story_json


COLOURS = [(200, 30, 30), (30, 160, 60), (40, 60, 200), (220, 200, 40), (120, 40, 160)]
LONG = "Gus and Mabel are in the kitchen, and " + "very, " * 60 + "very happy."


@pytest.fixture(scope="module")
def story() -> Story:
    captions = ["Gus is in the kitchen.", LONG, "Otto sleeps.", "The end of the street.", "A" * 300]
    frames = [
        Frame(caption, Image.new("RGB", (64, 64), colour), seed=n, lora_alpha=32.0, index=n)
        for n, (caption, colour) in enumerate(zip(captions, COLOURS, strict=True))
    ]
    return Story(frames, 7)


def places(sheet: Image.Image) -> list[tuple[float, float]]:
    """Where each frame's picture is, (x, y) of its middle."""
    pixels = np.asarray(sheet, dtype=int)
    found = []
    for colour in COLOURS:
        ys, xs = np.nonzero(abs(pixels - colour).sum(axis=-1) < 12)
        assert len(xs) > 1000
        found.append((xs.mean(), ys.mean()))
    return found


def test_a_strip_reads_from_left_to_right(story):
    xs, ys = zip(*places(strip(story)), strict=True)
    assert list(xs) == sorted(xs) and max(ys) - min(ys) < 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_read_line_by_line(story, layout):
    middles = places(page(story, layout, "A title"))
    reading = sorted(range(5), key=lambda n: (round(middles[n][1] / 250), middles[n][0]))
    assert reading == list(range(5))


def test_layouts_differ(story):
    assert len({page(story, layout).size for layout in LAYOUTS}) == len(LAYOUTS)


def test_long_captions_wrap_and_nothing_is_lost():
    lines = wrapped(LONG, _font(26), 400)
    assert " ".join(lines) == LONG and all(_font(26).getlength(line) <= 400 for line in lines)
    assert "".join(wrapped("A" * 300, _font(26), 400)) == "A" * 300
    assert wrapped("", _font(26), 400) == []


def test_a_page_grows_with_its_captions(story):
    short = Story([Frame("Gus.", frame.image) for frame in story.frames])
    assert page(story, "grid").height > page(short, "grid").height


def test_every_kind_is_what_its_name_says(story):
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "gif": b"GIF89a", "zip": b"PK", "json": b"{"}
    for kind, ending in KINDS.items():
        name, data = export(story, kind, "A title", {"seed": 7})
        assert name.endswith(f".{ending}") and data.startswith(starts[ending]), kind
        assert export(story, kind, "A title", {"seed": 7})[1] == data or kind == "pdf"  # a PDF has a date
        if ending == "png":
            assert read_png(data).story.facts() == story.facts()


def test_the_gif_shows_every_frame(story):
    with Image.open(io.BytesIO(export(story, "gif")[1])) as gif:
        assert gif.n_frames == 5 and gif.info["loop"] == 0
        for number, colour in enumerate(COLOURS):
            gif.seek(number)
            assert np.abs(np.subtract(gif.convert("RGB").getpixel((200, 200)), colour)).max() < 12
            assert gif.info["duration"] >= 1000


def test_the_pdf_has_pages_of_a4(story):
    sheets = pages(story, "storybook", "A title")
    assert len(sheets) > 1 and {sheet.size for sheet in sheets} == {PAGE}
    assert export(story, "pdf", layout="storybook")[1].count(b"/Type /Page\n") == len(pages(story, "storybook"))


def test_the_zip_sorts_in_the_order_of_the_story(story):
    with zipfile.ZipFile(io.BytesIO(export(story, "frames")[1])) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        captions = [read_png(archive.read(name)).story.captions[0] for name in names]
        assert captions == story.captions
        assert read_story_json(archive.read("story.json")).story.captions == story.captions


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "mp3"}, "kind"),
        ({"layout": "round"}, "layout"),
        ({"story": Story()}, "without a picture"),
        ({"story": Story([Frame("Gus.")])}, "without a picture"),
    ],
)
def test_refusals(story, arguments, named):
    with pytest.raises(ValueError, match=named):
        export(**{"story": story, "kind": "strip", **arguments})
