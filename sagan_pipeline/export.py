"""A story to take away: strip, comic pages, PDF, animated GIF, and a zip of its frames."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .story import Frame, Story
from .story_file import frame_png, stamped_png, story_json


FONTS = Path(__file__).resolve().parent / "fonts"
PAPER, INK, LETTERING = "#fffaf0", "#2b2118", "#fff3cf"
PAGE = (1240, 1754)  # A4 at 150 dots an inch
PANEL = 512  # pixels of a strip's picture
MARGIN, GAP, BORDER = 40, 24, 4
SECONDS_A_FRAME = 1.8
LAYOUTS = ("grid", "comic", "storybook")
# what `export` makes, and in which kind of file
KINDS = {
    "strip": "png",
    "grid": "png",
    "comic": "png",
    "storybook": "png",
    "pdf": "pdf",
    "gif": "gif",
    "frames": "zip",
    "story": "json",
}


@cache
def _font(size: int, bold: bool = True) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"ComicNeue-{'Bold' if bold else 'Regular'}.otf", size)


def export(
    story: Story,
    kind: str,
    title: str = "",
    settings: dict[str, Any] | None = None,
    layout: str = "comic",
) -> tuple[str, bytes]:
    """The story as a file.

    Args:
        story (`Story`): every frame has a PIL image.
        kind (`str`): one of `KINDS`. `"grid"`, `"comic"` and `"storybook"` are pages in these layouts, `"frames"` is a
            zip of the frames, and `"story"` the JSON that `read_story_json` reads.
        title (`str`): stands above pages and PDF.
        settings (`dict`, *optional*): goes into JSON and PNG; see `story_file.SCHEMA`.
        layout (`str`): of the PDF, one of `LAYOUTS`.

    Returns:
        the file's name, and what is in it.

    Raises:
        ValueError: an argument is outside what is said above, or there is nothing to take away.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` is {kind!r}, but must be one of {', '.join(KINDS)}.")
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` is {layout!r}, but must be one of {', '.join(LAYOUTS)}.")
    if not story.frames or any(not isinstance(frame.image, Image.Image) for frame in story.frames):
        raise ValueError("the story has a frame without a picture, or none at all; paint it first.")
    makers: dict[str, Callable[[], bytes]] = {
        "pdf": lambda: pdf(story, layout, title),
        "gif": lambda: gif(story),
        "frames": lambda: frames_zip(story, settings),
        "story": lambda: story_json(story, settings).encode(),
        "strip": lambda: stamped_png(strip(story), story, settings),
    }
    make = makers.get(kind) or (lambda: stamped_png(page(story, kind, title), story, settings))
    return f"story-{kind}.{KINDS[kind]}" if kind != "story" else "story.json", make()


def strip(story: Story, panel: int = PANEL) -> Image.Image:
    """All frames in one row, each over its caption; RGB."""
    rows = [[_under(frame, panel) for frame in story.frames]]
    return _sheet(rows, "")


def page(story: Story, layout: str = "comic", title: str = "") -> Image.Image:
    """One page, as tall as the story needs; RGB. `layout` is one of `LAYOUTS`."""
    return _sheet(_rows(story, layout), title)


def pages(story: Story, layout: str = "comic", title: str = "") -> list[Image.Image]:
    """Pages of A4 at 150 dots an inch, the title on the first; RGB."""
    sheets, rows, used = [], [], _title_height(title)
    for row in _rows(story, layout):
        height = max(panel.height for panel in row) + GAP
        if rows and used + height > PAGE[1] - 2 * MARGIN + GAP:
            sheets.append(rows)
            rows, used = [], 0
        rows.append(row)
        used += height
    sheets.append(rows)
    drawn = [_sheet(each, title if number == 0 else "") for number, each in enumerate(sheets)]
    return [_on_paper(sheet) for sheet in drawn]


def pdf(story: Story, layout: str = "comic", title: str = "") -> bytes:
    """A PDF of `pages`."""
    first, *others = pages(story, layout, title)
    out = io.BytesIO()
    first.save(out, "PDF", save_all=True, append_images=others, resolution=150, quality=92, title=title or "A story")
    return out.getvalue()


def gif(story: Story, seconds: float = SECONDS_A_FRAME) -> bytes:
    """An endless GIF, each frame over its caption."""
    panels = [_under(frame, PANEL) for frame in story.frames]
    height = max(panel.height for panel in panels)
    sheets = []
    for panel in panels:
        sheet = Image.new("RGB", (panel.width, height), LETTERING)
        sheet.paste(panel)
        sheets.append(sheet.quantize(256, dither=Image.Dither.NONE))
    out = io.BytesIO()
    sheets[0].save(out, "GIF", save_all=True, append_images=sheets[1:], duration=int(seconds * 1000), loop=0)
    return out.getvalue()


def frames_zip(story: Story, settings: dict[str, Any] | None = None) -> bytes:
    """A zip of the frames, whose names sort in the order of the story, with the captions and the JSON."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | str) -> None:
            # a date of its own, so that the same story makes the same file
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)

        for number, frame in enumerate(story.frames, 1):
            add(f"frame-{number:02}.png", frame_png(frame, settings))
        add("captions.txt", "".join(f"{n}. {frame.caption}\n" for n, frame in enumerate(story.frames, 1)))
        add("story.json", story_json(story, settings))
    return out.getvalue()


# Lettering and layout


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """`text` in lines no wider than `width` pixels; a word that is wider itself is broken."""
    lines, line = [], ""
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            fits = max(n for n in range(1, len(word)) if n == 1 or font.getlength(word[:n]) <= width)
            if line:
                lines.append(line)
                line = ""
            lines.append(word[:fits])
            word = word[fits:]
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def _lettered(text: str, width: int, size: int, least: int = 0) -> Image.Image:
    """A caption box, at least `least` pixels high."""
    font, pad = _font(size), size * 2 // 3
    lines = wrapped(text, font, width - 2 * pad) or [""]
    height = max(len(lines) * size * 5 // 4 + 2 * pad, least)
    box = Image.new("RGB", (width, height), LETTERING)
    draw = ImageDraw.Draw(box)
    top = (height - len(lines) * size * 5 // 4) // 2
    for number, line in enumerate(lines):
        draw.text((pad, top + number * size * 5 // 4), line, font=font, fill=INK)
    return box


def _fitted(picture: Image.Image, width: int) -> Image.Image:
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _framed(panel: Image.Image) -> Image.Image:
    ImageDraw.Draw(panel).rectangle((0, 0, panel.width - 1, panel.height - 1), outline=INK, width=BORDER)
    return panel


def _under(frame: Frame, width: int, size: int = 26) -> Image.Image:
    """A panel: the caption under the picture."""
    picture, box = _fitted(frame.image, width), _lettered(frame.caption, width, size)
    panel = Image.new("RGB", (width, picture.height + box.height), LETTERING)
    panel.paste(picture)
    panel.paste(box, (0, picture.height))
    ImageDraw.Draw(panel).line((0, picture.height, width, picture.height), fill=INK, width=BORDER)
    return _framed(panel)


def _beside(frame: Frame, width: int, right: bool = False, size: int = 34) -> Image.Image:
    """A wide panel: the caption beside the picture, which is at the right if `right`."""
    picture = _fitted(frame.image, width * 3 // 5)
    box = _lettered(frame.caption, width - picture.width, size, picture.height)
    panel = Image.new("RGB", (width, max(picture.height, box.height)), LETTERING)
    panel.paste(picture, (box.width if right else 0, 0))
    panel.paste(box, (0 if right else picture.width, 0))
    x = box.width if right else picture.width
    ImageDraw.Draw(panel).line((x, 0, x, panel.height), fill=INK, width=BORDER)
    return _framed(panel)


def _rows(story: Story, layout: str) -> list[list[Image.Image]]:
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` is {layout!r}, but must be one of {', '.join(LAYOUTS)}.")
    width = PAGE[0] - 2 * MARGIN
    half = (width - GAP) // 2
    frames = list(story.frames)
    if layout == "storybook":
        return [[_beside(frame, width, right=n % 2 == 1)] for n, frame in enumerate(frames)]
    rows, wide = [], layout == "comic"
    while frames:
        if wide or len(frames) == 1:
            rows.append([_beside(frames.pop(0), width, right=len(rows) % 4 == 2)])
        else:
            rows.append([_under(frame, half) for frame in frames[:2]])
            frames = frames[2:]
        wide = layout == "comic" and not wide
    return rows


def _title_height(title: str) -> int:
    return len(wrapped(title, _font(56), PAGE[0] - 2 * MARGIN)) * 70 + (GAP if title.strip() else 0)


def _sheet(rows: list[list[Image.Image]], title: str) -> Image.Image:
    """Rows of panels on paper; panels of one row are made as high as the highest."""
    width = max(sum(panel.width for panel in row) + GAP * (len(row) - 1) for row in rows) + 2 * MARGIN
    heights = [max(panel.height for panel in row) for row in rows]
    top = MARGIN + _title_height(title)
    sheet = Image.new("RGB", (width, top + sum(heights) + GAP * (len(rows) - 1) + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(wrapped(title, _font(56), PAGE[0] - 2 * MARGIN)):
        draw.text((MARGIN, MARGIN + number * 70 - 8), line, font=_font(56), fill=INK)
    y = top
    for row, height in zip(rows, heights, strict=True):
        x = MARGIN
        for panel in row:
            whole = Image.new("RGB", (panel.width, height), LETTERING)
            whole.paste(panel.crop((0, 0, panel.width, panel.height - BORDER)))
            sheet.paste(_framed(whole), (x, y))
            x += panel.width + GAP
        y += height + GAP
    return sheet


def _on_paper(sheet: Image.Image) -> Image.Image:
    """The sheet on A4, made smaller where one panel alone is higher than the page."""
    if sheet.height > PAGE[1]:
        sheet = sheet.resize((round(sheet.width * PAGE[1] / sheet.height), PAGE[1]), Image.Resampling.LANCZOS)
    paper = Image.new("RGB", PAGE, PAPER)
    paper.paste(sheet, ((PAGE[0] - sheet.width) // 2, 0))
    return paper
