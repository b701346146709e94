"""A story: frames, each a caption, a picture, and how both were made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image


Picture = Image.Image | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Frame:
    """One frame of a story.

    Args:
        caption (`str`): what the frame shows.
        image (`PIL.Image.Image`, *optional*): RGB, of any size. Of a painted frame it is what `output_type` asked for:
            a PIL image, `np.ndarray` (H, W, 3) in [0, 1], `torch.Tensor` (3, H, W) in [0, 1], or latents (C, h, w).
        seed (`int`, *optional*): of this frame's noise; `None` if the image was given. A frame without an image is
            painted from its seed if it has one, and else from one that follows from the story's.
        lora_alpha, num_inference_steps, guidance_scale: what the image was painted with; `None` if it was given.
        caption_given (`bool`): the caption came from the user, not from the captioner.
        image_given (`bool`): the image came from the user, not from the painter.
        index (`int`, *optional*): place in the story, from 0.
        model (`str`, *optional*): folder's name or Hub id of the pipeline that painted it, if it has one.
        flagged (`bool`): the safety checker withheld the picture, and `image` is a blank one.
        written_from (`tuple[str, ...]`, *optional*): the captions that the captioner wrote this one from.
        adapter (`str`, *optional*): name of the adapter that the image was painted with, where somebody keeps it.
        pinned (`bool`): whoever repaints the story leaves this frame alone.
    """

    caption: str
    image: Picture | None = None
    seed: int | None = None
    lora_alpha: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    caption_given: bool = True
    image_given: bool = False
    index: int | None = None
    model: str | None = None
    flagged: bool = False
    written_from: tuple[str, ...] | None = None
    adapter: str | None = None
    pinned: bool = False

    def facts(self) -> dict[str, Any]:
        """Everything but the picture, ready for JSON."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "image"}
        return facts | {"written_from": None if self.written_from is None else list(self.written_from)}

    @classmethod
    def from_facts(cls, facts: dict[str, Any], image: Picture | None = None) -> Frame:
        """The frame whose `facts()` these are. Raises `TypeError` for others."""
        written_from = facts.get("written_from")
        return cls(**{**facts, "image": image, "written_from": None if written_from is None else tuple(written_from)})


@dataclass(frozen=True)
class Story:
    """An ordered list of frames.

    Args:
        frames (`list[Frame]`): may be empty: then the captioner opens the story.
        seed (`int`, *optional*): what all captions and noise of the story were derived from.
    """

    frames: list[Frame] = field(default_factory=list)
    seed: int | None = None

    @classmethod
    def from_captions(cls, captions: list[str], images: list[Image.Image | None] | None = None) -> Story:
        """A story of given captions, with or without given images.

        Raises:
            ValueError: there are not as many images as captions.
        """
        if images is not None and len(images) != len(captions):
            raise ValueError(f"`images` holds {len(images)}, but there are {len(captions)} captions.")
        pictures = images if images is not None else [None] * len(captions)
        pairs = zip(captions, pictures, strict=True)
        return cls([Frame(c, i, image_given=i is not None, index=n) for n, (c, i) in enumerate(pairs)])

    @classmethod
    def from_facts(cls, facts: dict[str, Any], images: list[Picture | None] | None = None) -> Story:
        """The story whose `facts()` these are, with its pictures if they are given.

        Raises:
            ValueError: these are no such facts, or there are not as many images as frames.
        """
        try:
            frames = [Frame.from_facts(frame) for frame in facts["frames"]]
            story = cls(frames, facts["seed"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"`facts` are not those of a story ({error!r}).") from None
        if images is None:
            return story
        if len(images) != len(frames):
            raise ValueError(f"`images` holds {len(images)}, but there are {len(frames)} frames.")
        return replace(story, frames=[replace(frame, image=i) for frame, i in zip(frames, images, strict=True)])

    @property
    def captions(self) -> list[str]:
        return [frame.caption for frame in self.frames]

    @property
    def images(self) -> list[Picture | None]:
        return [frame.image for frame in self.frames]

    def facts(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {"seed": self.seed, "frames": [frame.facts() for frame in self.frames]}

    def with_frame(self, index: int, **changes: Any) -> Story:
        """The same story with one frame changed."""
        frames = list(self.frames)
        frames[index] = replace(frames[index], **changes)
        return replace(self, frames=frames)


def draw_seed(generator: torch.Generator) -> int:
    """The seed of one story, drawn from the user's generator."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))


def seed_for(seed: int, purpose: str, index: int) -> int:
    """A seed of its own for one thing of one frame of the story with `seed`."""
    digest = hashlib.blake2b(f"{seed} {purpose} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
