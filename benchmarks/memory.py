"""How much memory and arithmetic a training of the painter takes, from the sizes of its tensors; nothing is computed.

    python -m benchmarks.memory --configs SD15 [--resolution 512] [--batch_sizes 1 4 8] [--json results.json]

The UNet of SD15/unet/config.json is built of fake tensors (PyTorch's `FakeTensorMode`), and one step of the painter is
taken on them: what autograd keeps for the backward pass is added up, each storage once, and every matrix product and
convolution is counted. Left out are the GPU's own context, its kernels' workspaces and the allocator's slack.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from train.adapter import add_lora, lora_parameters
from train.objectives.diffusion import diffusion_loss


def materialise(module: torch.nn.Module) -> None:
    """Fake tensors in the place of those on the meta device, for which attention has no kernels to choose from."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                fake = torch.empty(value.shape, dtype=value.dtype)
                part._parameters[name] = torch.nn.Parameter(fake, requires_grad=value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else torch.empty(value.shape, dtype=value.dtype)


def kept_bytes(kept: dict[int, int], owned: set[int]) -> int:
    return sum(size for storage, size in kept.items() if storage not in owned)


def measure(
    config: dict[str, Any],
    resolution: int,
    batch_size: int,
    rank: int = 32,
    vae_scale_factor: int = 8,
    tokens: int = 77,
    checkpointing: bool = False,
) -> dict[str, float]:
    """Sizes of one step in bfloat16 with float32 LoRA matrices, in bytes, and its floating-point operations.

    Returns:
        `frozen` (weights), `trained` (LoRA matrices, their gradients and AdamW's two moments), `kept` (what the
        backward pass needs of the forward pass), `total`, `flops` (both passes), `parameters` (trained).
    """
    side = resolution // vae_scale_factor
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    add_lora(unet, rank, rank, seed=0)
    unet.to(torch.bfloat16)
    cast_training_params(unet, torch.float32)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    with FakeTensorMode():
        materialise(unet)
        trained = lora_parameters(unet)
        weights = list(unet.parameters())
        owned = {parameter.untyped_storage()._cdata for parameter in weights}
        latents = torch.empty(batch_size, unet.config.in_channels, side, side)
        states = torch.empty(batch_size, tokens, unet.config.cross_attention_dim, dtype=torch.bfloat16)
        timesteps = torch.zeros(batch_size, dtype=torch.long)
        kept: dict[int, int] = {}
        alive = []  # a storage that is freed may give its address to the next one

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
            return tensor

        scheduler = FakeScheduler()
        with FlopCounterMode(display=False) as counter:
            with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
                noise = torch.empty_like(latents)
                loss = diffusion_loss(unet, scheduler, latents, states, noise, timesteps)
            loss.backward()
    numbers = sum(parameter.numel() for parameter in trained)
    learnt = {id(parameter) for parameter in trained}
    frozen = sum(p.numel() * p.element_size() for p in weights if id(p) not in learnt)
    found = {
        "frozen": frozen,
        "trained": numbers * 4 * 4,  # matrices, gradients, two moments; float32
        "kept": kept_bytes(kept, owned),
        "flops": counter.get_total_flops(),
        "parameters": numbers,
    }
    return {**found, "total": found["frozen"] + found["trained"] + found["kept"]}


class FakeScheduler:
    """Adding noise, without the tables of numbers that a fake tensor cannot be looked up in."""

    config = DDPMScheduler().config

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return latents + noise


def as_text(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| resolution | batch | checkpointed | weights | LoRA, optimizer | kept for backward | total | TFLOP a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = " | ".join(f"{row[name] / 2**30:.2f} GiB" for name in ("frozen", "trained", "kept", "total"))
        lines.append(
            f"| {row['resolution']} | {row['batch_size']} | {'yes' if row['checkpointing'] else 'no'} | {sizes} | "
            f"{row['flops'] / 1e12:.2f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True, help="model folder with unet/config.json")
    parser.add_argument("--resolution", type=int, default=512, help="side of the pictures in pixels")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file as well")
    args = parser.parse_args(argv)
    config = UNet2DConditionModel.load_config(args.configs / "unet")
    rows = []
    for batch_size in args.batch_sizes:
        for checkpointing in (False, True):
            found = measure(config, args.resolution, batch_size, args.rank, checkpointing=checkpointing)
            rows.append(
                {"resolution": args.resolution, "batch_size": batch_size, "checkpointing": checkpointing, **found}
            )
    print(as_text(rows))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
