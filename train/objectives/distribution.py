"""Distribution matching distillation (DMD, arXiv 2311.18828, and DMD2, arXiv 2405.14867) of the plain adapter.

The generator's latents are moved where the plain adapter with guidance (the teacher) finds them more likely and a
model of the generator's own latents (the fake score) less. The fake score is a second LoRA on the same UNet, learning
by plain diffusion on what the generator makes; the teacher, a third one, is the adapter of `--init_lora`. DMD2 has an
adversarial term beside it, as we do; its discriminator reads the fake score's features, ours is the paper's CNN.
"""

from __future__ import annotations

import torch
from diffusers.training_utils import cast_training_params

from sagan_pipeline.pose_noise import pose_numbers
from train.adapter import load_lora, lora_config, under_adapter
from train.data.poses import couple
from train.objectives.diffusion import predicted_latents, prediction_loss
from train.objectives.interface import Batch, Found, Learner, Term


SPAN = (0.02, 0.98)  # of the timesteps at which the two scores are compared, as in DMD
FAKE_BETAS = (0.9, 0.99)


def distribution_loss(latents: torch.Tensor, of_fake: torch.Tensor, of_teacher: torch.Tensor) -> torch.Tensor:
    """A scalar whose gradient in `latents` is DMD's: the difference of the two predictions of x0, in shares of how far
    the teacher's is from the latents, divided by the number of latents' numbers.

    Args:
        latents (`torch.Tensor`): (B, C, h, w), the generator's.
        of_fake (`torch.Tensor`), of_teacher (`torch.Tensor`): (B, C, h, w), x0 as each predicts it of the latents
            noised.
    """
    with torch.no_grad():
        scale = (latents - of_teacher).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
        direction = (of_fake - of_teacher) / scale
        target = latents - direction
    return 0.5 * torch.nn.functional.mse_loss(latents, target)


class DistributionTerm(Term):
    """l_dmd."""

    def __init__(self, config, painter):
        super().__init__(config, painter)
        unet = painter.unet
        adapter = painter.init_lora
        if adapter is None:
            raise ValueError("`l_dmd` needs `init_lora`: the adapter that is distilled.")
        with torch.random.fork_rng():
            torch.manual_seed(config.seed + 1)
            for name, targets in (("teacher", sorted(adapter.matrices)), ("fake", painter.targets)):
                unet.add_adapter(lora_config(config.rank, config.alpha, config.lora_init, targets), name)
        for name in ("teacher", "fake"):
            load_lora(unet, adapter, name)
        # adding made the last one the active one, and the others frozen
        unet.set_adapter("default")
        own = [parameter for name, parameter in unet.named_parameters() if ".fake." in name]
        for parameter in own:
            parameter.requires_grad_(True)
        unet.to(painter.device)
        cast_training_params(unet, torch.float32)
        learner = Learner(torch.nn.ParameterList(own), painter.accelerator, config.dmd_learning_rate, FAKE_BETAS)
        self.learners["fake_score"] = learner

    def __call__(self, found: Found) -> torch.Tensor:
        config, unet, scheduler = self.config, self.painter.unet, self.painter.scheduler
        states = found.batch.states
        latents = found.latents.detach()
        count = scheduler.config.num_train_timesteps
        learner = self.learners["fake_score"]
        with under_adapter(unet, "fake"):
            for _ in range(config.dmd_fake_steps):
                noise, t = self._draw(found.batch, latents, 0, count)
                prediction = self._predict(scheduler.add_noise(latents, noise, t), t, states)
                loss = prediction_loss(prediction, scheduler, latents, noise, t)
                learner.step(loss)
        with torch.no_grad():
            noise, t = self._draw(found.batch, latents, round(SPAN[0] * count), round(SPAN[1] * count))
            noisy = scheduler.add_noise(latents, noise, t)
            with under_adapter(unet, "fake"):
                of_fake = predicted_latents(scheduler, self._predict(noisy, t, states), noisy, t)
            with under_adapter(unet, "teacher"):
                empty = self.painter.empty_states(found.batch.noise)
                both = self._predict(torch.cat([noisy] * 2), torch.cat([t] * 2), torch.cat([empty, states]))
            unconditional, conditional = both.chunk(2)
            guided = unconditional + config.dmd_guidance * (conditional - unconditional)
            of_teacher = predicted_latents(scheduler, guided, noisy, t)
        torch.clear_autocast_cache()
        self.logs = {
            "fake_score_loss": float(loss.detach()),
            "dmd_distance": float((of_fake - of_teacher).abs().mean()),
        }
        return distribution_loss(found.latents, of_fake, of_teacher)

    def _predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        unet = self.painter.unet  # not the wrapped one: its gradients are none of the run's
        return unet(noisy, timesteps, encoder_hidden_states=states, return_dict=False)[0].float()

    def _draw(self, batch: Batch, latents: torch.Tensor, first: int, last: int):
        noise = torch.randn(latents.shape, generator=batch.generator).to(latents.device)
        if self.config.pose_noise:  # of the pose that the states tell
            noise = couple(noise, pose_numbers(batch.noise))
        timesteps = torch.randint(first, last, latents.shape[:1], generator=batch.generator)
        return noise, timesteps.to(latents.device)
