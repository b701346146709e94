"""GAN-based (paper 4.4): L_adv + l_img L1 + l_clip L_clip + l_char L_char, and distribution matching.

The generator is the UNet with its LoRA: one step from noise at the last timestep, or up to `gan_steps` with noise
added again between them. Which of the steps learns is drawn anew each time; the ones before it are the generator's
own, so that training and painting see the same inputs (DMD2's backward simulation). Its header tells the pipeline how
many steps it was made for. The paper's plain form is `configs/gan-paper.yaml`; ours, `gan.yaml`, adds distillation of
the plain adapter, as adversarial diffusion distillation (arXiv 2311.17042) and DMD2 (arXiv 2405.14867) do.
"""

from __future__ import annotations

import torch

from sagan_pipeline.few_steps import trailing_timesteps
from train.objectives.clip import CharTerm, ClipTerm
from train.objectives.discriminator import AdversarialTerm, ImageTerm, StoryTerm
from train.objectives.distribution import DistributionTerm
from train.objectives.few_step import generate
from train.objectives.interface import Batch, Found, Objective


class Gan(Objective):
    """The terms, on what the generator makes of noise."""

    name = "gan"
    terms_of = {
        "adv": AdversarialTerm,
        "story": StoryTerm,
        "img": ImageTerm,
        "clip": ClipTerm,
        "char": CharTerm,
        "dmd": DistributionTerm,
    }

    def __init__(self, config, painter):
        super().__init__(config, painter)
        self.few_steps = config.gan_steps

    def find(self, batch: Batch) -> tuple[Found, dict[str, torch.Tensor]]:
        painter, config = self.painter, self.config
        timesteps = trailing_timesteps(len(painter.scheduler.alphas_cumprod), config.gan_steps)
        taken = 1 + int(torch.randint(config.gan_steps, (1,), generator=batch.generator))

        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return painter.predict(noisy, t, batch.states)

        latents = generate(predict, painter.scheduler, batch.noise, timesteps[:taken], batch.generator)
        weights = torch.ones(len(batch), device=latents.device)
        decoded = min(config.decoded or len(batch), len(batch))
        return Found(batch, latents, weights, painter.decode, decoded, placed=False), {}
