"""What of a frame's first noise chooses a pose, and how the UNet is told of it.

A caption leaves open which way somebody faces and where they stand. A small UNet that has to read the choice from
under the noise paints both at once: two raised arms, a heap of two sleepers. So the choice is read for it, from the
mean of the noise in the first channels, and added to the text states. `train/data/poses.py` has what it learns by.
"""

from __future__ import annotations

import math

import torch


POSE_NUMBERS = 2  # facing, place: one channel's mean each
STRENGTH = 0.5  # beside text states of about unit deviation


def pose_numbers(noise: torch.Tensor) -> torch.Tensor:
    """The pose that noise chooses: standard normal if the noise is.

    Args:
        noise (`torch.Tensor`): (B, C, h, w), C at least 2, before any scheduler scales it.

    Returns:
        float32 (B, 2).
    """
    return noise[:, :POSE_NUMBERS].float().mean(dim=(2, 3)) * (noise.shape[-2] * noise.shape[-1]) ** 0.5


def tell_pose(states: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Text states that tell the pose too: each number times a cosine of its own over the states' width is added to all
    tokens alike, which all heads of the cross-attention pass on, whatever they look at. Of facing the sign alone is
    told, for nobody faces half to the left.

    Args:
        states (`torch.Tensor`): (B, L, D).
        noise (`torch.Tensor`): (B, C, h, w), as `pose_numbers` takes it.

    Returns:
        (B, L, D), of the states' dtype.
    """
    width = states.shape[-1]
    middles = (torch.arange(width, device=states.device) + 0.5) / width
    waves = torch.stack([torch.cos(math.pi * (k + 1) * middles) for k in range(POSE_NUMBERS)]) * 2**0.5  # [2, D]
    facing, place = pose_numbers(noise).to(states.device).split(1, dim=1)
    told = STRENGTH * torch.cat([facing.sign(), place], dim=1) @ waves
    return (states.float() + told[:, None]).to(states.dtype)
