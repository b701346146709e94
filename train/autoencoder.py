"""The autoencoder of the embedded base: pictures of 256 px to 32 x 16 x 16 and back, two of `train.base`'s stages."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from torchmetrics.functional.image import peak_signal_noise_ratio
from transformers import CLIPTokenizer

from train.data.flintstones import FlintstonesRelease
from train.loop import Run
from train.net2net import grown
from train.painter import picture_grid, to_pictures


VAE_CONFIG = {
    "latent_channels": 32,
    "encoder_block_out_channels": (32, 32, 64, 128, 256),
    "decoder_block_out_channels": (32, 32, 64, 128, 256),
    "encoder_layers_per_block": (0, 2, 2, 3, 4),  # decoding costs its users time, encoding hardly ever
    "decoder_layers_per_block": (0, 1, 1, 1, 2),
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_qkv_multiscales": ((), (), (), (), ()),
    "decoder_qkv_multiscales": ((), (), (), (), ()),
    "upsample_block_type": "interpolate",
    "downsample_block_type": "pixel_unshuffle",
}


class Pictures:
    """Frames of several releases, drawn at random; memory-mapped, so that nothing is held.

    Args:
        releases (`list[FlintstonesRelease]`): read from their training split.
    """

    def __init__(self, releases: list[FlintstonesRelease]):
        self.clips = [(release, id) for release in releases for id in release.splits["train"]]

    def frame(self, index: int, generator: torch.Generator) -> np.ndarray:
        """A random frame of clip `index`: uint8 (H, W, 3)."""
        release, id = self.clips[index]
        frames = release.frames(id)
        return frames[int(torch.randint(len(frames), (1,), generator=generator))]

    def caption(self, index: int) -> str:
        release, id = self.clips[index]
        return release.clip(id).caption

    def crops(self, batch: int, size: int, generator: torch.Generator) -> torch.Tensor:
        """(batch, 3, size, size) float32 in [-1, 1]: random crops of random frames, half of them mirrored."""
        crops = np.empty((batch, size, size, 3), dtype=np.uint8)
        for i, index in enumerate(torch.randint(len(self.clips), (batch,), generator=generator).tolist()):
            frame = self.frame(index, generator)
            top = int(torch.randint(frame.shape[0] - size + 1, (1,), generator=generator))
            left = int(torch.randint(frame.shape[1] - size + 1, (1,), generator=generator))
            crop = frame[top : top + size, left : left + size]
            crops[i] = crop[:, ::-1] if torch.rand((), generator=generator) < 0.5 else crop
        return to_tensor(crops)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors in [-1, 1]."""
    return float(peak_signal_noise_ratio(a, b, data_range=2.0))


def first_vae(args: argparse.Namespace) -> tuple[AutoencoderDC, AutoencoderDC | None]:
    """A new autoencoder and None; or one that begins as `--init`'s, grown where that is smaller, and that."""
    vae = AutoencoderDC(**VAE_CONFIG)
    if args.init is None:
        return vae, None
    trained = AutoencoderDC.from_pretrained(args.init / "vae", torch_dtype=torch.float32).requires_grad_(False)
    vae.load_state_dict(grown(trained, vae))
    return vae, trained


def train_vae(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """AutoencoderDC on 128 px crops, a little noise on the latents. One that goes on from `--init` keeps its latents
    near where they were, and only adds to them, so that a UNet can go on from there as well."""
    torch.manual_seed(args.seed)
    vae, trained = first_vae(args)
    vae = vae.to(memory_format=torch.channels_last)  # 1.3 times faster on a CPU
    rate = 1e-3 if trained is None else 7e-4
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed)
    run = Run(args.out / "vae", {"vae": vae}, optimizer, args.steps or 8300, generator, sample_steps=500)
    pictures = Pictures([town, gulch])

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        x = pictures.crops(8, 128, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = vae.encode(x).latent.float()
            known = z.detach() if trained is None else trained.encode(x).latent.float()
            noise, spread = torch.randn(z.shape, generator=generator), known.std().clamp(min=1e-3)
            y = vae.decode(z + 0.05 * spread * noise).sample.float()
        losses = reconstruction_loss(y, x)
        # a sampler starts from noise of mean 0: keep the channels' means there
        losses["loss"] = losses["loss"] + 0.01 * z.mean(dim=(0, 2, 3)).square().mean() / spread.square()
        if trained is not None:
            losses["moved"] = (z[:, : known.shape[1]] - known).square().mean() / spread.square()
            losses["loss"] = losses["loss"] + 0.2 * losses["moved"]
        return losses

    sample = reconstructions(vae, town, gulch, args.out / "vae")
    run.train(loss_of_step, sample, description="autoencoder", max_seconds=args.max_seconds)


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """L1, half of the L1 between gradients and twice the squared error, of pictures (B, 3, H, W)."""

    def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]

    l1 = torch.nn.functional.l1_loss(y, x)
    edges = sum(torch.nn.functional.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x), strict=True))
    squares = torch.nn.functional.mse_loss(y, x)
    return {"loss": l1 + 0.5 * edges + 2 * squares, "l1": l1, "edges": edges, "squares": squares}


def reconstructions(vae: AutoencoderDC, town: FlintstonesRelease, gulch: FlintstonesRelease, folder: Path):
    """A function of the step that writes test frames above their reconstructions, and their PSNR."""
    held_out = [release.frames(id)[2] for release in (gulch, town) for id in release.splits["test"][:40:10]]
    held_out = to_tensor(np.stack(held_out))

    @torch.no_grad()
    def sample(step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(vae.encode(held_out).latent).sample.float().clamp(-1, 1)
        rows = to_pictures(torch.cat([held_out, y]))
        picture_grid(rows, columns=len(held_out)).save(folder / "samples" / f"{step:06d}.png")
        with open(folder / "psnr.jsonl", "a") as log:
            log.write(json.dumps({"step": step, "psnr_db": round(psnr(y, held_out), 3)}) + "\n")

    return sample


def outdated(folder: Path, checkpoint: Path) -> bool:
    """Whether `folder` does not hold what `checkpoint` does."""
    return not folder.exists() or folder.stat().st_mtime < checkpoint.stat().st_mtime


def save_whole(folder: Path, *parts: torch.nn.Module | CLIPTokenizer) -> None:
    """`save_pretrained` of each, written aside and renamed, so that a kill leaves no half folder."""
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for part in parts:
        part.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def load_vae(args: argparse.Namespace, releases: list[FlintstonesRelease]) -> AutoencoderDC:
    """The trained autoencoder, written once as a folder, with its `scaling_factor`: 1 / deviation of the latents, or
    `--init`'s, at whose scale a UNet that goes on knows them."""
    folder, checkpoint = args.out / "vae" / "model", args.out / "vae" / "checkpoint.pt"
    if args.init is not None and not checkpoint.exists():
        return AutoencoderDC.from_pretrained(args.init / "vae").float().eval().requires_grad_(False)
    if outdated(folder, checkpoint):
        vae = AutoencoderDC(**VAE_CONFIG)
        vae.load_state_dict(torch.load(checkpoint, weights_only=True)["modules"]["vae"])
        if args.init is not None:
            scale = AutoencoderDC.load_config(args.init / "vae")["scaling_factor"]
        else:
            generator = torch.Generator().manual_seed(args.seed)
            with torch.no_grad():
                z = vae.encode(Pictures(releases).crops(64, 256, generator)).latent
            scale = round(1 / float(z.std()), 5)
        vae.register_to_config(scaling_factor=scale)
        save_whole(folder, vae)
    return AutoencoderDC.from_pretrained(folder).eval().requires_grad_(False)


def train_decoder(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """The decoder alone goes on learning, on latents roughened as a sampler's are. The encoder, and with it every
    latent, stays as it is, so that the UNet and its adapters stay good."""
    vae = load_vae(args, [town, gulch]).to(memory_format=torch.channels_last)
    decoder = vae.decoder.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-4, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed + 1)
    steps = args.steps or 6000
    run = Run(args.out / "decoder", {"decoder": decoder}, optimizer, steps, generator, sample_steps=1000)
    pictures = Pictures([town, gulch])

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        x = pictures.crops(8, 128, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                z = vae.encode(x).latent.float()
            rough = 0.15 * torch.rand((len(x), 1, 1, 1), generator=generator) / vae.config.scaling_factor
            y = vae.decode(z + rough * torch.randn(z.shape, generator=generator)).sample.float()
        return reconstruction_loss(y, x)

    sample = reconstructions(vae, town, gulch, args.out / "decoder")
    run.train(loss_of_step, sample, description="decoder", max_seconds=args.max_seconds)
