"""What the painter's training needs: latents and text states computed once, and samples to look at."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from train.data.flintstones import FlintstonesRelease


CLIPS_AT_ONCE = 16


def weights_hash(module: torch.nn.Module) -> str:
    """Short hash of a model's weights: a cache is only good for the model that made it."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class LatentCache:
    """Latents of chosen frames of clips, every other one mirrored (no caption says left or right).

    Args:
        latents (`torch.Tensor`): (N, F, C, h, w) float16, scaled to unit deviation; N clips, F frames.
        ids (`list[str]`): the N clips.
    """

    def __init__(self, latents: torch.Tensor, ids: list[str]):
        self.latents = latents
        self.ids = ids
        self.index_of = {id: index for index, id in enumerate(ids)}

    @classmethod
    @torch.no_grad()
    def build(
        cls, vae, release: FlintstonesRelease, ids: list[str], folder: Path, frames: tuple[int, ...] = (1, 3)
    ) -> LatentCache:
        """Open the cache of these clips under this encoder, or compute it (a few minutes) and write it."""
        made_of = [
            weights_hash(vae.encoder),
            str(vae.config.scaling_factor),
            str(frames),
            *map(release.fingerprint, ids),
        ]
        key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
        path = folder / f"latents-{key}.safetensors"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            rows = []
            for start in tqdm(range(0, len(ids), CLIPS_AT_ONCE), desc="latents", mininterval=5.0):
                clips = ids[start : start + CLIPS_AT_ONCE]
                x = np.stack([_alternately_mirrored(release.frames(id), frames) for id in clips])  # [n, F, H, W, 3]
                x = torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1  # [nF, 3, H, W]
                with torch.autocast("cpu", torch.bfloat16):
                    z = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent.float()  # [nF, C, h, w]
                rows.append((z * vae.config.scaling_factor).unflatten(0, (len(clips), len(frames))).half())
            aside = path.with_suffix(".tmp")
            save_file({"latents": torch.cat(rows).contiguous()}, aside)
            os.replace(aside, path)
        with safe_open(path, framework="pt") as file:
            return cls(file.get_tensor("latents"), ids)

    def batch(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch: latents (size, C, h, w) float32 and the clips' indices (size,)."""
        index = torch.randint(len(self.latents), (size,), generator=generator)
        return self.take(index, generator), index

    def take(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (B, C, h, w) float32 of the given clips: a random one of each."""
        frame = torch.randint(self.latents.shape[1], index.shape, generator=generator)
        return self.latents[index, frame].float()


def _alternately_mirrored(clip: np.ndarray, frames: tuple[int, ...]) -> np.ndarray:
    return np.stack([clip[frame][:, ::-1] if i % 2 else clip[frame] for i, frame in enumerate(frames)])


class TextCache:
    """The text encoder's last hidden states of a list of captions, and of the empty caption.

    Args:
        all_states (`torch.Tensor`): (N + 1, L, D) float16; the last one belongs to the empty caption.
    """

    def __init__(self, all_states: torch.Tensor):
        self.all_states = all_states

    @classmethod
    @torch.no_grad()
    def build(cls, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> TextCache:
        states = []
        texts = [*captions, ""]
        for start in range(0, len(texts), 64):
            tokens = tokenizer(
                texts[start : start + 64],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            states.append(text_encoder(tokens.input_ids)[0].half())
        return cls(torch.cat(states))

    def __len__(self) -> int:
        return len(self.all_states) - 1

    def states(self, index: torch.Tensor, generator: torch.Generator, dropout: float = 0.0) -> torch.Tensor:
        """(B, L, D) float32; with probability `dropout` the empty caption's, for classifier-free guidance."""
        dropped = torch.rand(index.shape, generator=generator) < dropout
        return self.all_states[torch.where(dropped, len(self), index)].float()


@torch.no_grad()
def paint_samples(
    unet: UNet2DConditionModel,
    vae,
    text: TextCache,
    noise_scheduler,
    seed: int,
    num_inference_steps: int = 16,
    guidance_scale: float = 4.0,
) -> np.ndarray:
    """Paint every caption of `text` once: uint8 (N, H, W, 3). For looking at a training, not for users."""
    unet.eval()
    scheduler = DPMSolverMultistepScheduler.from_config(
        noise_scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(seed)
    size = unet.config.sample_size
    latents = torch.randn((len(text), unet.config.in_channels, size, size), generator=generator)
    states = torch.cat([text.all_states[-1:].expand(len(text), -1, -1), text.all_states[:-1]]).float()
    with torch.autocast("cpu", torch.bfloat16):
        for timestep in scheduler.timesteps:
            noise = unet(torch.cat([latents] * 2), timestep, states, return_dict=False)[0].float()
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + guidance_scale * (conditional - unconditional)
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
        pictures = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0].float()
    unet.train()
    return to_pictures(pictures)


def to_pictures(x: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def picture_grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures (uint8, (B, H, W, 3)) side by side, row by row, on white."""
    batch, height, width, _ = pictures.shape
    rows = math.ceil(batch / columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        grid.paste(Image.fromarray(picture), ((i % columns) * width, (i // columns) * height))
    return grid
