"""The safety checker of Stable Diffusion 1.5: what it finds is withheld frame by frame, and the story goes on."""

from __future__ import annotations

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import ImageProcessingMixin


def flagged_pictures(
    pictures: torch.Tensor,
    checker: StableDiffusionSafetyChecker,
    extractor: ImageProcessingMixin,
    processor: VaeImageProcessor,
    device: torch.device,
) -> list[bool]:
    """The checker's verdict on each of the pictures (B, 3, H, W) in [-1, 1]."""
    seen = extractor(processor.postprocess(pictures, output_type="pil"), return_tensors="pt").pixel_values
    # a copy of the pictures, since the checker blackens what it flags
    _, verdicts = checker(clip_input=seen.to(device, checker.dtype), images=pictures.clone())
    return [bool(verdict) for verdict in verdicts]


def blank_picture(picture: torch.Tensor) -> torch.Tensor:
    """A grey picture of the same shape (3, H, W) with a dark bar across its middle, in [-1, 1]: something was here."""
    blank = torch.zeros_like(picture)
    height = picture.shape[-2]
    blank[..., height * 7 // 16 : height * 9 // 16, :] = -0.5
    return blank
