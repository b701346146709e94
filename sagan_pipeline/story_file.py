"""A story as a file: JSON with its pictures inside, and PNGs that say how they were made. Both come back as stories.

What is read here may come from anybody: sizes are bounded before anything is decoded, and JSON has to fit `SCHEMA`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import zlib
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .checks import MAX_CAPTION, MAX_SEED
from .story import Frame, Story


FORMAT, VERSION = "saganets-story", 1
PNG_KEY = "saganets"  # of the text chunk that holds the JSON
MAX_BYTES = 10 * 2**20  # of a picture
MAX_JSON_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MAX_FRAMES = 64
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
DATA_URI = "data:image/png;base64,"


def _or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


_SEED = {"type": "integer", "minimum": 0, "maximum": MAX_SEED}
_ALPHA = {"type": "number", "minimum": 0, "maximum": 1000}
_STEPS = {"type": "integer", "minimum": 1, "maximum": 1000}
_GUIDANCE = {"type": "number", "minimum": 0, "maximum": 100}
_NAME = {"type": "string", "maxLength": 200}
_CAPTION = {"type": "string", "maxLength": MAX_CAPTION}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A story of SAGANets",
    "type": "object",
    "required": ["format", "version", "seed", "frames"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "seed": _or_null(_SEED),
        "settings": {
            "description": "what the next frame of the story would be made with",
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "seed": _SEED,
                "lora_alpha": _ALPHA,
                "num_inference_steps": _STEPS,
                "guidance_scale": _GUIDANCE,
                "temperature": {"type": "number", "minimum": 0, "maximum": 10},
                "adapter": _NAME,
            },
        },
        "frames": {"type": "array", "maxItems": MAX_FRAMES, "items": {"$ref": "#/$defs/frame"}},
    },
    "$defs": {
        "frame": {
            "type": "object",
            "required": ["caption"],
            "additionalProperties": False,
            "properties": {
                "caption": _CAPTION,
                "seed": _or_null(_SEED),
                "lora_alpha": _or_null(_ALPHA),
                "num_inference_steps": _or_null(_STEPS),
                "guidance_scale": _or_null(_GUIDANCE),
                "caption_given": {"type": "boolean"},
                "image_given": {"type": "boolean"},
                "index": _or_null({"type": "integer", "minimum": 0, "maximum": 10_000}),
                "model": _or_null(_NAME),
                "flagged": {"type": "boolean"},
                "written_from": _or_null({"type": "array", "maxItems": MAX_FRAMES, "items": _CAPTION}),
                "adapter": _or_null(_NAME),
                "pinned": {"type": "boolean"},
                "picture": _or_null({"type": "string", "pattern": f"^{DATA_URI}[A-Za-z0-9+/]*=*$"}),
            },
        }
    },
}
_VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@dataclass(frozen=True)
class StoryFile:
    """What a file holds.

    Args:
        story (`Story`): the story; a frame whose picture is not in the file has `image=None`, and its seed.
        settings (`dict`): what its next frame would be made with; may be empty.
    """

    story: Story
    settings: dict[str, Any]


def story_json(story: Story, settings: dict[str, Any] | None = None, pictures: str = "all") -> str:
    """The story as JSON.

    Args:
        story (`Story`): its pictures must be PIL images.
        settings (`dict`, *optional*): as `SCHEMA` has them.
        pictures (`str`): `"all"`; `"given"` leaves out what can be painted again; `"none"`.

    Raises:
        ValueError: `pictures` is something else, or the story does not fit `SCHEMA`.
    """
    if pictures not in ("all", "given", "none"):
        raise ValueError(f"`pictures` is {pictures!r}, but must be 'all', 'given' or 'none'.")
    frames = []
    for frame in story.frames:
        facts = frame.facts()
        if frame.image is not None and (pictures == "all" or (pictures == "given" and frame.image_given)):
            facts["picture"] = DATA_URI + base64.b64encode(_png(frame.image)).decode("ascii")
        frames.append(facts)
    data = {"format": FORMAT, "version": VERSION, "seed": story.seed, "settings": settings or {}, "frames": frames}
    _check(data)
    return json.dumps(data, ensure_ascii=False, indent=1)


def read_story_json(text: str | bytes) -> StoryFile:
    """The story in `story_json`'s text, or in one of anybody's hand that fits `SCHEMA`.

    Raises:
        ValueError: it does not; says where and why.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"the story file has {len(text)} bytes; at most {MAX_JSON_BYTES} are accepted.")
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no story file: it cannot be read as JSON ({str(error)[:200]}).") from None
    _check(data)
    frames = []
    for number, facts in enumerate(data["frames"]):
        picture = facts.pop("picture", None)
        image = None
        if picture:
            try:
                image = open_picture(base64.b64decode(picture[len(DATA_URI) :], validate=True))
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"frame {number + 1} of the story file: {error}") from None
        frames.append(Frame.from_facts({**facts, "index": number}, image))
    return StoryFile(Story(frames, data["seed"]), data.get("settings", {}))


def frame_png(frame: Frame, settings: dict[str, Any] | None = None) -> bytes:
    """The frame's picture as a PNG that holds everything needed to make it again."""
    alone = Story([replace(frame, index=0)])
    return stamped_png(frame.image, alone, settings)


def stamped_png(picture: Image.Image, story: Story, settings: dict[str, Any] | None = None) -> bytes:
    """`picture` as a PNG with `story` in it: without painted pictures, which can be made again."""
    text = story_json(story, settings, pictures="given")
    if len(text) > PngImagePlugin.MAX_TEXT_CHUNK // 2:
        text = story_json(story, settings, pictures="none")
    return _png(picture, text)


def read_png(data: bytes) -> StoryFile | None:
    """The story in a PNG of ours; its picture too, where the PNG is that of one frame. `None` for any other picture.

    Raises:
        ValueError: what the PNG holds is no story.
    """
    check_picture(data)
    with Image.open(io.BytesIO(data), formats=["PNG"] if data[:4] == b"\x89PNG" else PICTURE_FORMATS) as image:
        if image.format != "PNG":
            return None
        try:
            image.load()  # text may come after the pixels
            text = image.text.get(PNG_KEY)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"this PNG is broken ({error}).") from None
    if text is None:
        return None
    file = read_story_json(str(text))
    if len(file.story.frames) == 1 and file.story.seed is None:
        (frame,) = file.story.frames
        return replace(file, story=Story([replace(frame, image=open_picture(data))]))
    return file


def check_picture(data: bytes) -> None:
    """Raises `ValueError` unless `data` is a PNG, JPEG or WebP of a size that is accepted; decodes no pixels."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"the picture has {len(data)} bytes; at most {MAX_BYTES // 2**20} MB are accepted.")
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        width = height = MAX_PIXELS
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise ValueError("this is no picture that can be read; PNG, JPEG and WebP are accepted.") from None
    if width * height > MAX_PIXELS:
        raise ValueError(f"the picture has too many pixels; at most {MAX_PIXELS // 10**6} megapixels are accepted.")


def open_picture(data: bytes) -> Image.Image:
    """An untrusted picture: its orientation applied, its transparency on white, its metadata gone. RGB.

    Raises:
        ValueError: it is no PNG, JPEG or WebP, is broken, or has more than 10 MB or 40 megapixels.
    """
    check_picture(data)
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            image = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture is broken ({str(error)[:200]}).") from None
    return Image.fromarray(np.asarray(image).copy())  # pixels alone


def _png(picture: Image.Image, text: str | None = None) -> bytes:
    info = None
    if text is not None:
        info = PngImagePlugin.PngInfo()
        info.add_itxt(PNG_KEY, text)
    out = io.BytesIO()
    # run lengths, which drawings have: as small as level 4, in half the time
    picture.save(out, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
    return out.getvalue()


def _check(data: Any) -> None:
    error = next(iter(sorted(_VALIDATOR.iter_errors(data), key=lambda each: (len(each.path), str(each.path)))), None)
    if error is None:
        return
    error = jsonschema.exceptions.best_match([error])
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    raise ValueError(f"this is no story file: {where or 'the whole'}: {error.message[:200]}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
