"""What a call accepts: prefixes, captions, pictures and numbers. Everything else is a `ValueError` that names it."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from .lora import AdaptedUNets
from .story import Frame, Story


MAX_CAPTION = 2000  # characters
MAX_SIDE = 4096  # pixels
MAX_SEED = 2**63 - 1  # of a frame's noise
# emoji and other symbols, control characters, invisible marks that join or turn letters, and what is no character
REFUSED = ("So", "Me", "Cc", "Cf", "Cn", "Co", "Cs")
Prefix = str | list[str] | Story | list[Story] | None


@dataclass(frozen=True)
class Request:
    """The arguments of one call, checked, with the model's own defaults filled in; steps and guidance, None where the
    caller leaves them to the adapter."""

    alphas: list[float]
    num_inference_steps: int | None
    guidance_scale: float | None
    negative_prompt: str
    height: int
    width: int
    output_type: str
    temperature: float
    callback: Callable | None
    callback_inputs: list[str]
    unets: AdaptedUNets | None
    model: str | None


def as_stories(prefix: Prefix) -> list[Story]:
    """A prefix in any accepted form, as a list of stories."""
    if prefix is None or (isinstance(prefix, list) and not prefix):
        return [Story()]
    if isinstance(prefix, str):
        return [Story.from_captions([prefix])]
    if isinstance(prefix, Story):
        return [prefix]
    if isinstance(prefix, (list, tuple)):
        if all(isinstance(caption, str) for caption in prefix):
            return [Story.from_captions(list(prefix))]
        if all(isinstance(story, Story) for story in prefix):
            return list(prefix)
    raise ValueError(
        f"`prefix` is {type(prefix).__name__}, but must be a caption, a list of captions, a `Story` or a list of them."
    )


def checked_story(story: Story) -> Story:
    """The story with its captions tidied and its frames counted."""
    if not isinstance(story.frames, (list, tuple)) or not all(isinstance(frame, Frame) for frame in story.frames):
        raise ValueError("`prefix`: the frames of a `Story` must be a list of `Frame`.")
    frames = []
    for index, frame in enumerate(story.frames):
        name = f"`prefix`, frame {index + 1}"
        caption = checked_caption(name, frame.caption)
        image = frame.image
        if image is not None and (not isinstance(image, Image.Image) or image.mode != "RGB"):
            given = f"a PIL image of mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
            raise ValueError(f"{name}: the image is {given}, but must be a PIL image of mode RGB.")
        if frame.seed is not None:
            whole(f"{name}: seed", frame.seed, 0, MAX_SEED)
        given = image is not None and (frame.image_given or frame.seed is None)  # one of an earlier call has a seed
        frames.append(replace(frame, caption=caption, image_given=given, index=index))
    return replace(story, frames=frames)


def checked_caption(name: str, caption: Any) -> str:
    """The caption with single spaces. It must hold a word, and no emoji or control character."""
    if not isinstance(caption, str):
        raise ValueError(f"{name}: the caption is {type(caption).__name__}, but must be a string.")
    if len(caption) > MAX_CAPTION:
        raise ValueError(f"{name}: the caption has {len(caption)} characters; at most {MAX_CAPTION} are accepted.")
    text = " ".join(caption.split())
    for c in text:
        if unicodedata.category(c) in REFUSED:
            shown = c if c.isprintable() else f"U+{ord(c):04X}"
            raise ValueError(
                f"{name}: the caption holds {shown!r}; words are accepted, no emoji or control characters."
            )
    if not any(c.isalpha() for c in text):
        raise ValueError(f"{name}: the caption is {caption!r}, but must hold at least one word.")
    return text


def checked_generators(generator: torch.Generator | list[torch.Generator] | None, count: int) -> list[torch.Generator]:
    """A generator for each of `count` stories; without any, one with a random seed."""
    if generator is None:
        generator = torch.Generator().manual_seed(secrets.randbits(62))
    generators = generator if isinstance(generator, list) else [generator] * count
    if len(generators) != count:
        raise ValueError(f"`generator` holds {len(generators)}, but there are {count} stories.")
    for each in generators:
        if not isinstance(each, torch.Generator):
            raise ValueError(f"`generator` is {type(each).__name__}, but must be a `torch.Generator` or a list of.")
    return generators


def checked_alphas(lora_alpha: float | list[float], most: float) -> list[float]:
    """`lora_alpha` as a list of numbers in [0, most]; `most` is 0 where no adapter is loaded."""
    alphas = lora_alpha if isinstance(lora_alpha, (list, tuple)) else [lora_alpha]
    if not alphas:
        raise ValueError("`lora_alpha` is an empty list; give a number or a list of at least one.")
    if not most and any(alphas):
        raise ValueError(f"`lora_alpha` is {lora_alpha}, but no adapter is loaded; only 0 is possible.")
    return [number("lora_alpha", alpha, 0.0, most) for alpha in alphas]


def number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number in [low, high]."""
    wrong = isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating))
    if wrong or not low <= value <= high:  # nan is not
        raise ValueError(f"`{name}` is {value!r}, but must be a number from {low:g} to {high:g}.")
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"`{name}` is {value!r}, but must be a whole number from {low} to {high}.")
    return int(value)


def multiple(name: str, value: Any, unit: int) -> int:
    """A whole number of pixels that the model can paint: a multiple of `unit`."""
    value = whole(name, value, unit, MAX_SIDE)
    if value % unit:
        raise ValueError(f"`{name}` is {value}, but must be a multiple of {unit} for this model.")
    return value
