"""Plain diffusion (paper 4.2): mean squared error on the noise, or on the velocity if the scheduler predicts that."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import compute_snr


def min_snr_weights(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR-gamma weights (Hang et al. 2023), shape (B,): min(snr, gamma) / snr for noise prediction,
    min(snr, gamma) / (snr + 1) for velocity prediction."""
    snr = compute_snr(scheduler, timesteps)
    weights = torch.clamp(snr, max=gamma)
    if scheduler.config.prediction_type == "v_prediction":
        return weights / (snr + 1)
    return weights / snr


def draw_noise(
    scheduler, shape: tuple[int, ...], generator: torch.Generator, offset: float = 0.0, power: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The draws of one batch.

    Args:
        shape (`tuple[int, ...]`): (B, C, h, w).
        generator (`torch.Generator`): draws on its own device.
        offset (`float`): deviation of noise that is one value a channel of a picture, added to the noise; it lets a
            model learn pictures that are bright or dark as a whole.
        power (`float`): density of the timesteps, which is that of t^(power - 1): at 1 all alike, above it noisy
            ones oftener.

    Returns:
        Noise of `shape`, float32, and timesteps (B,), int64, on the generator's device.
    """
    device = generator.device
    noise = torch.randn(shape, generator=generator, device=device)
    count = scheduler.config.num_train_timesteps
    if power == 1:
        timesteps = torch.randint(0, count, shape[:1], generator=generator, device=device)
    else:
        u = torch.rand(shape[:1], generator=generator, dtype=torch.float64, device=device)
        timesteps = (count * u ** (1 / power)).long().clamp(max=count - 1)
    if offset:
        noise = noise + offset * torch.randn((*shape[:2], 1, 1), generator=generator, device=device)
    return noise, timesteps


def diffusion_loss(
    unet: UNet2DConditionModel,
    scheduler,
    latents: torch.Tensor,
    text_states: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """The loss of one batch.

    Args:
        scheduler: a DDPM scheduler with `prediction_type` `epsilon` or `v_prediction`.
        latents (`torch.Tensor`): (B, C, h, w), already multiplied by the VAE's scaling factor.
        text_states (`torch.Tensor`): (B, L, D), the text encoder's last hidden states.
        noise (`torch.Tensor`), timesteps (`torch.Tensor`): as `draw_noise` gives them.
        snr_gamma (`float`, *optional*): gamma of min-SNR weighting; `None` weighs all timesteps alike, as the paper.

    Returns:
        `torch.Tensor`: a scalar.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(noisy, timesteps, encoder_hidden_states=text_states, return_dict=False)[0].float()
    return prediction_loss(prediction, scheduler, latents, noise, timesteps, snr_gamma)


def prediction_loss(
    prediction: torch.Tensor,
    scheduler,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """`diffusion_loss` of what the UNet predicted, (B, C, h, w) float32."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target = noise
    elif kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        raise ValueError(f"`prediction_type` is {kind!r}; accepted are 'epsilon' and 'v_prediction'.")
    loss = torch.nn.functional.mse_loss(prediction, target, reduction="none").mean(dim=(1, 2, 3))  # [B]
    if snr_gamma is not None:
        loss = loss * min_snr_weights(scheduler, timesteps, snr_gamma)
    return loss.mean()


def kept_signal(scheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """The share of a noised latent's variance that is the picture's: alpha_bar of each timestep, (B,) in (0, 1)."""
    return scheduler.alphas_cumprod.to(timesteps.device)[timesteps]


def predicted_latents(
    scheduler, prediction: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The latents without noise, x0, that a prediction of the noise or the velocity means: (B, C, h, w) float32."""
    keep = kept_signal(scheduler, timesteps).view(-1, 1, 1, 1)
    if scheduler.config.prediction_type == "epsilon":
        return (noisy - (1 - keep).sqrt() * prediction) / keep.sqrt()
    return keep.sqrt() * noisy - (1 - keep).sqrt() * prediction
