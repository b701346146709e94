"""Draws a clip's frames: SVG from `Clip`, pixels by resvg. Deterministic: the same clip and frame, the same pixels."""

from __future__ import annotations

import io
import random

import numpy as np
import resvg_py
from PIL import Image

from train.data.gravel_gulch.figures import body_of, box_of, figure
from train.data.gravel_gulch.scenery import backdrop, foreground
from train.data.gravel_gulch.shapes import group, prop
from train.data.gravel_gulch.world import Clip


SIDE = 256  # the drawing's own units
FRAMES = 75  # of a clip
SCALES = {1: 1.12, 2: 1.0, 3: 0.86}  # of the figures, by how many there are
GROUND = 246  # y of the feet
ROOM = {1: 220, 2: 132, 3: 92}  # pixels that somebody who lies down may take
BED = 206  # y of a sleeper's back in the bedroom
IN_CAR = 0.92  # of the figures, so that what they wear is seen above its side
TALLEST = 234  # pixels that a figure may take
HAIR_ABOVE = {"bun": 0.7, "topknot": 0.95, "curly": 0.35, "short": 0.3}  # of the head's radius


def draw(clip: Clip, frame: int) -> tuple[str, list[list[int]]]:
    """One frame as SVG source, and each actor's box.

    Args:
        clip (`Clip`): at most three actors.
        frame (`int`): 0 to 74.

    Returns:
        The SVG (256 x 256 units), and for each actor `[x1, y1, x2, y2]` in pixels of the show's 640 x 480 original.

    Raises:
        ValueError: there are too many actors, or no such frame.
    """
    if len(clip.actors) not in (0, *SCALES):
        raise ValueError(f"`clip` has {len(clip.actors)} actors, but at most {max(SCALES)} fit in a frame.")
    if not 0 <= frame < FRAMES:
        raise ValueError(f"`frame` is {frame}, but a clip has frames 0 to {FRAMES - 1}.")
    rng = random.Random(clip.seed)
    t = frame / FRAMES
    parts = [backdrop(clip.setting, rng)]
    for i, name in enumerate(clip.objects):
        parts.append(group(prop(name), (36, 222, 128)[i % 3] + rng.uniform(-8, 8), 226, 1.15))
    scale = SCALES.get(len(clip.actors), 1.0) * rng.uniform(0.97, 1.03)
    boxes = []
    room = ROOM.get(len(clip.actors), SIDE)
    for i, actor in enumerate(clip.actors):
        body, in_car = body_of(actor.look), clip.setting == "car"
        lies = actor.action == "sleeping" and not in_car
        left, top, right, bottom = box_of(actor)
        pace = {"walking": 14, "running": 22}.get(actor.action, 3) * (t - 0.5) * actor.facing
        x, y = SIDE * actor.x + pace + rng.uniform(-3, 3), GROUND + rng.uniform(-3, 3)
        size = min(scale, TALLEST / (HAIR_ABOVE.get(actor.look.hair_style, 0.0) * body.head - min(top, -body.height)))
        if actor.look.kind == "dinosaur" and not lies:
            x -= 14 * actor.facing  # the long muzzle stays out of others' faces
        if lies:
            size = min(scale, room / (right - left))
        if in_car:  # whose side hides what is below the shoulders
            left, top, right, bottom = -1.3 * body.half, -body.height, 1.3 * body.half, 0
            size = min(size, IN_CAR)
            y = 52 + 0.12 * (200 - body.height) + body.height * size + rng.uniform(-3, 3)
        elif lies:
            y -= 6
            x = min(max(x, room / 2), SIDE - room / 2)
            if clip.setting == "bedroom":
                y = BED
        parts.append(group(figure(actor, t, clip.seed + i, f"{i}", in_car), x, y, size))
        corners = (x + left * size, y + top * size, x + right * size, min(y + bottom * size, SIDE))
        boxes.append(
            [
                int(min(max(value, 0), SIDE) * limit / SIDE)
                for value, limit in zip(corners, (640, 480, 640, 480), strict=True)
            ]
        )
    parts.append(foreground(clip.setting))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}">{"".join(parts)}</svg>'
    return svg, boxes


def render(svg: str, size: int) -> np.ndarray:
    """SVG source to pixels: uint8 (size, size, 3), RGB."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
