"""A story: frames, each a caption, a picture, and how both were made."""

from __future__ import annotations

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
        seed (`int`, *optional*): of this frame's noise; `None` if the image was given.
        lora_alpha, num_inference_steps, guidance_scale: what the image was painted with; `None` if it was given.
        caption_given (`bool`): the caption came from the user, not from the captioner.
        image_given (`bool`): the image came from the user, not from the painter.
    """

    caption: str
    image: Picture | None = None
    seed: int | None = None
    lora_alpha: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    caption_given: bool = True
    image_given: bool = False

    def facts(self) -> dict[str, Any]:
        """Everything but the picture, ready for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "image"}


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
        return cls([Frame(c, i, image_given=i is not None) for c, i in zip(captions, pictures, strict=True)])

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
