"""Tells real frames from painted ones: a CNN under spectral normalisation (arXiv 1802.05957) that is told the caption
by projection (arXiv 1802.05637), and its losses.

At the embedded size it sees decoded pictures: the decoder is a fraction of the UNet there, and what looks wrong looks
wrong in pixels. At the size of Stable Diffusion 1.5 it sees latents: decoding 512 pixels with gradients costs more
time and memory than the UNet's own step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from train.objectives.interface import STORY_FRAMES, Found, Learner, Term


R1_EVERY = 4  # steps between two penalties, each counted as many times
MAX_WIDTH = 256
ADAM_BETAS = (0.0, 0.99)


class Discriminator(nn.Module):
    """Pictures or latents (B, C, H, W) and what their captions say (B, D) to logits (B,); high is real.

    Args:
        channels (`int`): C.
        side (`int`): H and W; halved until it is at most 16, at least twice.
        text_width (`int`): D.
        width (`int`): channels of the first layer, doubled with every halving up to `MAX_WIDTH`.
    """

    def __init__(self, channels: int, side: int, text_width: int, width: int = 32):
        super().__init__()
        stages = max(2, math.ceil(math.log2(side / 16))) if side > 16 else 2
        widths = [min(width * 2**i, MAX_WIDTH) for i in range(stages)]
        layers = []
        for before, after in zip([channels, *widths], widths, strict=False):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, padding=1)), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.score = spectral_norm(nn.Linear(widths[-1], 1))
        self.caption = spectral_norm(nn.Linear(text_width, widths[-1], bias=False))

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        features = self.features(x).mean(dim=(2, 3))  # [B, F]
        return self.score(features)[:, 0] + (self.caption(text) * features).sum(dim=1)


def discriminator_loss(
    real: torch.Tensor, fake: torch.Tensor, kind: str, weights: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """Of logits (B,): half of each side's, so that of "minmax" and "non-saturating" is log 2 where it cannot tell."""
    if kind == "hinge":
        return 0.5 * (weights * (F.relu(1 - real) + F.relu(1 + fake))).mean()
    return 0.5 * (weights * (F.softplus(-real) + F.softplus(fake))).mean()


def generator_loss(fake: torch.Tensor, kind: str, weights: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Of logits (B,): log(1 - D) ("minmax", the paper's), -log D ("non-saturating") or -D ("hinge").

    Raises:
        ValueError: another `kind`.
    """
    if kind == "minmax":
        return -(weights * F.softplus(fake)).mean()
    if kind == "non-saturating":
        return (weights * F.softplus(-fake)).mean()
    if kind == "hinge":
        return -(weights * fake).mean()
    raise ValueError(f"`gan_loss` is {kind!r}, but must be 'minmax', 'non-saturating' or 'hinge'.")


def r1_penalty(discriminator: nn.Module, real: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Half of the squared norm of the logits' gradient at real frames (arXiv 1801.04406), mean over them: a scalar."""
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real, text).sum(), [real], create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(dim=1).mean()


class AdversarialTerm(Term):
    """l_adv. The discriminator takes its step first, on the very frames that the generator is then told about."""

    name = "discriminator"

    def __init__(self, config, painter):
        super().__init__(config, painter)
        _, _, channels, side, _ = painter.latents.latents.shape
        if config.gan_space == "pictures":
            vae = painter.vae.config
            blocks = vae.get("block_out_channels") or vae.decoder_block_out_channels
            channels, side = 3, side * 2 ** (len(blocks) - 1)
        self._build(channels, side, painter.text.all_states.shape[-1])

    def _build(self, channels: int, side: int, text_width: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            network = Discriminator(channels, side, text_width).to(self.painter.device)
        rate = self.config.discriminator_learning_rate
        self.learners[self.name] = Learner(network, self.painter.accelerator, rate, ADAM_BETAS)

    def inputs(self, found: Found) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Real and painted frames, what the captions say, and how much each counts."""
        text = found.batch.states.float().mean(dim=1)  # [B, D]
        if self.config.gan_space == "latents":
            return found.batch.latents, found.latents, text, found.weights
        n = found.decoded
        return found.real, found.pictures, text[:n], found.weights[:n]

    def _precision(self) -> torch.autocast:
        """bfloat16 where the painter has it; no float16, for nothing scales the discriminator's own loss."""
        return torch.autocast(self.painter.device.type, torch.bfloat16, self.config.mixed_precision == "bf16")

    def __call__(self, found: Found) -> torch.Tensor:
        learner, kind = self.learners[self.name], self.config.gan_loss
        discriminator, device = learner.module, self.painter.device.type
        real, fake, text, weights = self.inputs(found)
        discriminator.train()
        with self._precision():
            scores = discriminator(torch.cat([real, fake.detach()]), torch.cat([text, text])).float()
        of_real, of_fake = scores.chunk(2)
        loss = own = discriminator_loss(of_real, of_fake, kind, weights)
        gamma = self.config.r1_gamma
        if gamma and found.batch.step % R1_EVERY == 0:
            with torch.autocast(device, enabled=False):  # a gradient's gradient
                penalty = r1_penalty(discriminator, real, text)
            self.logs["r1"] = float(penalty.detach())
            loss = loss + gamma * R1_EVERY * penalty
        learner.step(loss)
        # the generator's side: nothing of the discriminator moves, its power iteration included
        discriminator.eval().requires_grad_(False)
        with self._precision():
            adversarial = generator_loss(discriminator(fake, text).float(), kind, weights)
        discriminator.requires_grad_(True)
        right = torch.cat([of_real > 0, of_fake < 0]).float()
        self.logs |= {
            f"{self.name}_loss": float(own.detach()),
            f"{self.name}_accuracy": float(right.mean()),
            f"{self.name}_real": float(of_real.detach().mean()),
            f"{self.name}_fake": float(of_fake.detach().mean()),
        }
        return adversarial


class StoryTerm(AdversarialTerm):
    """l_story: a discriminator over a story's frames in their order, with all of its captions, as StoryGAN's (arXiv
    1812.02784). It sees latents whatever the other sees: a story's pictures are several."""

    name = "story_discriminator"
    needs_stories = True

    def __init__(self, config, painter):
        Term.__init__(self, config, painter)
        _, _, channels, side, _ = painter.latents.latents.shape
        self._build(STORY_FRAMES * channels, side, STORY_FRAMES * painter.text.all_states.shape[-1])

    def inputs(self, found: Found) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, stories = found.batch, len(found.batch) // STORY_FRAMES
        text = batch.states.float().mean(dim=1).view(stories, -1)  # [S, 4D]
        weights = found.weights.view(stories, STORY_FRAMES)[:, 0]
        return (*(x.view(stories, -1, *x.shape[2:]) for x in (batch.latents, found.latents)), text, weights)


class ImageTerm(Term):
    """l_img: L1 between a painted frame and the real one of its caption, in the discriminator's space."""

    def __call__(self, found: Found) -> torch.Tensor:
        if self.config.gan_space == "latents":
            return image_loss(found.latents, found.batch.latents, found.weights)
        return image_loss(found.pictures, found.real, found.weights[: found.decoded])


def image_loss(painted: torch.Tensor, real: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted L1 of (B, C, H, W), mean over their numbers: a scalar."""
    return (weights * (painted - real).abs().mean(dim=(1, 2, 3))).mean()
