"""A generator of one to a few steps: noise to latents at the last timestep, then noised again less and predicted anew,
as consistency models are sampled (arXiv 2303.01469), and the pipeline paints (`sagan_pipeline/few_steps.py`)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from train.objectives.diffusion import predicted_latents


def generate(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scheduler,
    noise: torch.Tensor,
    timesteps: list[int],
    generator: torch.Generator,
) -> torch.Tensor:
    """The generator's latents (B, C, h, w).

    Args:
        predict (`Callable`): noised latents and timesteps (B,) to the UNet's prediction. Only the last step's keeps
            its gradient.
        noise (`torch.Tensor`): (B, C, h, w), the input of the first step.
        timesteps (`list[int]`): of the steps, falling.
        generator (`torch.Generator`): draws the noise of the later steps, on the CPU.
    """
    latents = noise
    for step, timestep in enumerate(timesteps):
        t = torch.full((len(noise),), timestep, device=noise.device)
        if step:
            fresh = torch.randn(noise.shape, generator=generator).to(noise.device)
            latents = scheduler.add_noise(latents, fresh, t)
        with torch.set_grad_enabled(torch.is_grad_enabled() and step == len(timesteps) - 1):
            latents = predicted_latents(scheduler, predict(latents, t), latents, t)
        torch.clear_autocast_cache()  # weights that were cast without a gradient would stay without
    return latents
