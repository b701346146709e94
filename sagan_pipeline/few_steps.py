"""Painting in one to a few steps, as the generator of a GAN does: noise to a picture at the last timestep, then noise
added again, less each time, and the picture predicted anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import LCMScheduler


def trailing_timesteps(count: int, steps: int) -> list[int]:
    """`steps` of `count` timesteps from the last one down, evenly spaced: those of 2 are among those of 4."""
    return [round(count - i * count / steps) - 1 for i in range(steps)]


def generator_scheduler(config: Mapping[str, Any], steps: int, device: Any) -> LCMScheduler:
    """diffusers' scheduler for it, on the noise schedule of another scheduler's configuration, ready to step."""
    count = config["num_train_timesteps"]
    scheduler = LCMScheduler.from_config(config, original_inference_steps=count, clip_sample=False, thresholding=False)
    scheduler.set_timesteps(timesteps=trailing_timesteps(count, steps), device=device)
    return scheduler
