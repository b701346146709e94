"""Stories as files: what was saved comes back, and what is no story or no picture is refused before it is decoded."""

from __future__ import annotations

import io
import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from sagan_pipeline import Frame, Story
from sagan_pipeline.story_file import (
    MAX_BYTES,
    frame_png,
    open_picture,
    read_png,
    read_story_json,
    stamped_png,
    story_json,
)


SETTINGS = {"seed": 7, "lora_alpha": 10.0, "temperature": 0.5, "adapter": "strong"}


@pytest.fixture(scope="module")
def story(pipe) -> Story:
    generator = torch.Generator().manual_seed(7)
    told = pipe(["Gus is in the kitchen."], num_frames=3, lora_alpha=10, generator=generator).stories[0]
    given = Image.effect_noise((20, 12), 60).convert("RGB")
    told = told.with_frame(0, image=given, image_given=True, seed=None, lora_alpha=None)
    return told.with_frame(2, pinned=True, adapter="strong", flagged=True)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode == "RGB" and np.array_equal(np.asarray(a), np.asarray(b))


def test_everything_comes_back(story):
    file = read_story_json(story_json(story, SETTINGS))
    assert file.story.facts() == story.facts() and file.settings == SETTINGS
    assert all(same(a, b) for a, b in zip(file.story.images, story.images, strict=True))
    assert file.story.frames[1].written_from == (story.captions[0],)


def test_pictures_that_can_be_painted_again_may_stay_out(story):
    given = read_story_json(story_json(story, pictures="given")).story
    assert [image is not None for image in given.images] == [True, False, False]
    assert read_story_json(story_json(story, pictures="none")).story.images == [None] * 3
    assert given.facts() == story.facts()
    with pytest.raises(ValueError, match="pictures"):
        story_json(story, pictures="some")


def test_a_story_is_made_again_from_its_file(pipe, story):
    """Each frame from its own seed, wherever it stands now."""
    frames = read_story_json(story_json(story, pictures="none")).story.frames
    again = pipe.paint(Story([frames[2], frames[1]]), lora_alpha=10).stories[0]
    alone = [next(pipe.stream(Story([frame]), num_frames=1, lora_alpha=10)) for frame in (frames[2], frames[1])]
    for painted, single, number in zip(again.frames, alone, (2, 1), strict=True):
        assert painted.seed == single.seed == story.frames[number].seed
        for image in (painted.image, single.image):
            difference = np.asarray(image, dtype=int) - np.asarray(story.frames[number].image, dtype=int)
            assert abs(difference).max() <= 1


def test_a_frames_png_is_the_frame(story):
    frame = story.frames[2]
    file = read_png(frame_png(frame, SETTINGS))
    (back,) = file.story.frames
    assert same(back.image, frame.image) and file.settings == SETTINGS
    assert back.facts() == frame.facts() | {"index": 0}


def test_a_sheets_png_holds_the_story(story):
    file = read_png(stamped_png(Image.new("RGB", (30, 10)), story, SETTINGS))
    assert file.story.facts() == story.facts() and same(file.story.images[0], story.images[0])


def test_a_large_given_picture_stays_out_of_a_sheet():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8))
    file = read_png(stamped_png(noise, Story([Frame("Gus.", noise, image_given=True)], 3)))
    assert file.story.captions == ["Gus."] and file.story.images == [None]


def test_other_pictures_have_no_story():
    picture = Image.new("RGB", (8, 8), "red")
    assert [read_png(encoded(picture, kind)) for kind in ("PNG", "JPEG", "WEBP")] == [None] * 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"more": 1}, "more"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"frames": {}}, "frames"),
        ({"frames": [{}]}, "caption"),
        ({"frames": [{"caption": 3}]}, "caption"),
        ({"frames": [{"caption": "a" * 2001}]}, "caption"),
        ({"frames": [{"caption": "Gus.", "seed": 2**63}]}, "seed"),
        ({"frames": [{"caption": "Gus.", "adapter": "a" * 201}]}, "adapter"),
        ({"frames": [{"caption": "Gus.", "path": "/etc/passwd"}]}, "path"),
        ({"frames": [{"caption": "Gus.", "picture": "/etc/passwd"}]}, "picture"),
        ({"frames": [{"caption": "Gus.", "picture": "data:image/png;base64,AAAA"}]}, "frame 1"),
        ({"frames": [{"caption": "Gus."}] * 65}, "frames"),
        ({"settings": {"lora_alpha": "10"}}, "lora_alpha"),
        ({"settings": {"model": "user/repository"}}, "model"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_json_that_is_no_story_is_refused(change, named):
    good = {"format": "saganets-story", "version": 1, "seed": 7, "frames": [{"caption": "Gus."}]}
    read_story_json(json.dumps(good))
    with pytest.raises(ValueError, match=named):
        read_story_json(json.dumps(good | change))


@pytest.mark.parametrize("text", ["", "no", "[]", "3", '{"seed": NaN}', "[" * 100_000, b"\xff\xfe\x00"])
def test_text_that_is_no_json_of_ours_is_refused(text):
    with pytest.raises(ValueError, match="no story file"):
        read_story_json(text)


def test_orientation_is_applied_and_metadata_is_gone():
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[274], exif[315] = 6, "somebody"  # turned by a quarter; the artist
    opened = open_picture(encoded(picture, "JPEG", exif=exif, quality=95))
    assert opened.size == (20, 40) and opened.getpixel((10, 5))[0] > 200 and opened.getpixel((10, 35))[2] > 200
    assert not opened.info and not opened.getexif()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_lies_on_white(kind):
    opened = open_picture(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), kind))
    assert opened.mode == "RGB" and opened.getpixel((0, 0)) == (255, 255, 255)


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 30,000 pixels wide and high."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no picture"),
        (b"GIF89a" + b"\0" * 50, "no picture"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "no picture"),
        (b"<svg/>", "no picture"),
        (bomb(), "megapixels"),
        (encoded(Image.effect_noise((64, 64), 90), "PNG")[:900], "broken"),
        (b"\x89PNG" + b"\0" * MAX_BYTES, "10 MB"),
    ],
    ids=["nothing", "not a gif", "gif", "svg", "bomb", "cut off", "too many bytes"],
)
def test_untrusted_pictures(data, why):
    for read in (open_picture, read_png) if why != "broken" else (open_picture,):
        with pytest.raises(ValueError, match=why):
            read(data)


def test_a_png_with_a_false_story_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("saganets", '{"frames": "many"}')
    with pytest.raises(ValueError, match="no story file"):
        read_png(encoded(Image.new("RGB", (4, 4)), "PNG", pnginfo=info))
