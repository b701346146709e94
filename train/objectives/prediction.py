"""Objectives that add terms to plain diffusion: L2, and what they ask of the prediction of the latents without noise.

Where noise hides nearly everything, that prediction is a blurred mean of all pictures that fit the caption, and terms
on pictures have little to say of it. `timestep_weighting: signal` counts each frame by alpha_bar of its timestep, the
share of the variance that is the picture's; `uniform` counts all alike.
"""

from __future__ import annotations

import torch

from train.objectives.diffusion import kept_signal, predicted_latents, prediction_loss
from train.objectives.interface import Batch, Found, Objective


class OnPrediction(Objective):
    """L2 and weighted terms on x0."""

    on_timesteps = True
    prediction: torch.Tensor  # of the last batch, through which all terms pass

    def find(self, batch: Batch) -> tuple[Found, dict[str, torch.Tensor]]:
        config, scheduler = self.config, self.painter.scheduler
        noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        prediction = self.painter.predict(noisy, batch.timesteps, batch.states)
        self.prediction = prediction
        latents = predicted_latents(scheduler, prediction, noisy, batch.timesteps)
        if config.l2_on == "noise":  # as plain diffusion has it
            snr_gamma = config.snr_gamma or None
            l2 = prediction_loss(prediction, scheduler, batch.latents, batch.noise, batch.timesteps, snr_gamma)
        else:
            l2 = torch.nn.functional.mse_loss(latents, batch.latents)
        keep = kept_signal(scheduler, batch.timesteps)
        weights = keep if config.timestep_weighting == "signal" else torch.ones_like(keep)
        decoded = min(config.decoded or len(batch), len(batch))
        return Found(batch, latents, weights, self.painter.decode, decoded), {"l2": l2}
