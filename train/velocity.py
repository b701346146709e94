"""What bases make of real frames under noise, timestep by timestep: the loss that training lowers, on held-out clips.

    python -m train.velocity OLD NEW --data DATA/town [--num_frames 96] [--json velocity.json]

Each model is a folder of components in Stable Diffusion's layout, such as `sagan_pipeline/embedded` or the folder that
`train.base export` writes. All of them see the same frames of the test split under the same noise, without an
adapter; a row of the table is a model, its last column the mean of the others. Losses of models with another
autoencoder or another kind of prediction are of other things and not to be compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from train.autoencoder import to_tensor
from train.data.cache import TextCache, encode
from train.data.flintstones import FlintstonesRelease
from train.objectives.diffusion import diffusion_loss


TIMESTEPS = (50, 100, 200, 350, 500, 650, 800, 950)
BATCH = 24


@torch.no_grad()
def velocity_losses(
    model: Path, pictures: np.ndarray, captions: list[str], timesteps: tuple[int, ...] = TIMESTEPS
) -> list[float]:
    """The unweighted loss at each timestep, mean over the pictures.

    Args:
        model (`Path`): folder with `vae`, `text_encoder`, `tokenizer`, `unet` and `scheduler`.
        pictures (`np.ndarray`): uint8 (N, H, W, 3), at the size that the model paints.
        captions (`list[str]`): N of them.
        timesteps (`tuple[int]`): each in [0, 999]; the noise of one is the same for every model.
    """
    vae = AutoencoderDC.from_pretrained(model / "vae", torch_dtype=torch.float32).eval()
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32).eval()
    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    batches = [slice(first, first + BATCH) for first in range(0, len(captions), BATCH)]
    latents = torch.cat([encode(vae, to_tensor(pictures[b])) for b in batches]) * vae.config.scaling_factor
    states = TextCache.build(text_encoder, tokenizer, captions).all_states[:-1].float()
    losses = []
    for timestep in timesteps:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
        found = []
        for b in batches:
            at = torch.full((len(latents[b]),), timestep)
            found += [diffusion_loss(unet, scheduler, latents[b], states[b], noise[b], at)] * len(at)
        losses.append(float(torch.stack(found).mean()))
    return losses


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="folders of models")
    parser.add_argument("--data", type=Path, required=True, help="release in FlintstonesSV's layout")
    parser.add_argument("--num_frames", type=int, default=96, help="one a clip, the clips evenly from the test split")
    parser.add_argument("--json", type=Path, default=None, help="write the figures to this file as well")
    args = parser.parse_args(argv)
    release = FlintstonesRelease(args.data)
    test = release.splits["test"]
    if not 1 <= args.num_frames <= len(test):
        parser.error(
            f"argument --num_frames: {args.num_frames}, but the test split has 1 to {len(test)} clips to give"
        )
    ids = [test[i * len(test) // args.num_frames] for i in range(args.num_frames)]
    frames = [release.frames(id) for id in ids]
    pictures = np.stack([each[len(each) // 2] for each in frames])
    captions = [release.clip(id).caption for id in ids]
    print(f"| | {' | '.join(map(str, TIMESTEPS))} | mean |\n|{'---|' * (len(TIMESTEPS) + 2)}")
    rows = []
    for model in args.models:
        losses = velocity_losses(model, pictures, captions)
        rows.append({"model": model.as_posix(), "losses": losses, "mean": float(np.mean(losses))})
        print(f"| {model} | {' | '.join(f'{each:.3f}' for each in [*losses, rows[-1]['mean']])} |", flush=True)
    if args.json is not None:
        report = {"timesteps": TIMESTEPS, "num_frames": args.num_frames, "rows": rows}
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
