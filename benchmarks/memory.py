"""How much memory training the painter takes, and painting with it, from the sizes of tensors; nothing is computed.

    python -m benchmarks.memory --configs SD15 [--resolution 512] [--batch_sizes 1 4 8] [--json results.json]
    python -m benchmarks.memory --painting [--resolution 512] [--json results.json]

The UNet of SD15/unet/config.json is built of fake tensors (PyTorch's `FakeTensorMode`), and one step of the painter is
taken on them: what autograd keeps for the backward pass is added up, each storage once, and every matrix product and
convolution is counted. With `--painting` one frame is painted so by parts of Stable Diffusion 1.5's shapes in fp16,
and what is alive at once is added up. Left out are the GPU's own context, its kernels' workspaces and the allocator's
slack.
"""

from __future__ import annotations

import argparse
import json
import weakref
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.training_utils import cast_training_params
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from train.adapter import LORA_TARGETS, add_lora, lora_parameters
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


def sd15_parts() -> dict[str, torch.nn.Module]:
    """The networks of Stable Diffusion 1.5 by its published shapes, without weights, in fp16."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    blocks = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    with torch.device("meta"):
        parts = {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text, vocab_size=49408, max_position_embeddings=77)),
            "unet": UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=blocks[0],
                up_block_types=blocks[1],
                layers_per_block=2,
            ),
            "safety_checker": StableDiffusionSafetyChecker(
                CLIPConfig(vision_config=vision | {"patch_size": 14, "image_size": 224}, projection_dim=768)
            ),
        }
    return {name: part.half().eval() for name, part in parts.items()}


class LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all tensors that are made under it and alive at once, the weights of `module` apart."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for weight in (*module.parameters(), *module.buffers()):
            self._known[weight.untyped_storage()] = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage] = True
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._free, storage.nbytes())
        return result

    def _free(self, size: int) -> None:
        self.live -= size


def measure_painting(
    parts: dict[str, torch.nn.Module], resolution: int = 512, frames: int = 1, guided: bool = True
) -> dict[str, int]:
    """Sizes in bytes while `frames` frames are painted at once in fp16.

    Args:
        parts (`dict[str, torch.nn.Module]`): `text_encoder`, `unet`, `vae` and perhaps `safety_checker`, on the meta
            device.

    Returns:
        of each part `<part>` (weights) and `<part>_peak` (what is alive at once beside its weights); `adapted`, the
        attention weights under one alpha; `offloaded`, the most that is there at once with `enable_model_cpu_offload`;
        `together`, with all parts there.
    """
    found: dict[str, int] = {}
    unet, text, vae = (parts[name] for name in ("unet", "text_encoder", "vae"))
    rows = frames * (2 if guided else 1)
    side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    tokens, width = text.config.max_position_embeddings, text.config.hidden_size
    half = {"dtype": torch.float16}
    with FakeTensorMode(), torch.no_grad():
        for part in parts.values():
            materialise(part)
        latents, states = (
            torch.empty(frames, unet.config.in_channels, side, side),
            torch.empty(rows, tokens, width, **half),
        )
        noisy, steps = (
            torch.empty(rows, unet.config.in_channels, side, side, **half),
            torch.zeros((), dtype=torch.long),
        )
        runs = {
            "text_encoder": lambda: text(torch.zeros(frames + 1, tokens, dtype=torch.long))[0],
            "unet": lambda: unet(noisy, steps, encoder_hidden_states=states, return_dict=False),
            "vae": lambda: vae.decode(latents.half(), return_dict=False)[0].float(),
        }
        if "safety_checker" in parts:
            vision = parts["safety_checker"].vision_model
            seen = torch.empty(frames, 3, vision.config.image_size, vision.config.image_size, **half)
            runs["safety_checker"] = lambda: vision(seen)
        for name, run in runs.items():
            with LiveBytes(parts[name]) as alive:
                run()
            found[name] = sum(p.numel() * p.element_size() for p in parts[name].parameters())
            found[f"{name}_peak"] = alive.peak
    targets = [m for n, m in unet.named_modules() if n.rpartition(".")[2] in LORA_TARGETS]
    found["adapted"] = sum(module.weight.numel() * 2 for module in targets)
    beside = 4 * latents.numel() * 3 + 2 * states.numel()  # latents, noise and the solver's last output, text states
    needs = {name: found[name] + found[f"{name}_peak"] + beside for name in runs}
    needs["unet"] += found["adapted"]
    weights = sum(found[name] for name in runs) + found["adapted"]
    found["offloaded"] = max(needs.values())
    found["together"] = weights + beside + max(found[f"{name}_peak"] for name in runs)
    return found


def painting_as_text(found: dict[str, int]) -> str:
    lines = ["| part | weights | alive beside them |", "|---|---|---|"]
    for name in ("text_encoder", "unet", "vae", "safety_checker"):
        if name in found:
            lines.append(f"| {name} | {found[name] / 2**30:.2f} GiB | {found[f'{name}_peak'] / 2**30:.2f} GiB |")
    lines.append(f"| attention under one alpha | {found['adapted'] / 2**30:.2f} GiB | |")
    for name in ("offloaded", "together"):
        lines.append(f"| {name}, at most | {found[name] / 2**30:.2f} GiB | |")
    return "\n".join(lines)


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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--configs", type=Path, help="of training: model folder with unet/config.json")
    what.add_argument("--painting", action="store_true", help="of one frame by Stable Diffusion 1.5 in fp16")
    parser.add_argument("--resolution", type=int, default=512, help="side of the pictures in pixels")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file as well")
    args = parser.parse_args(argv)
    if args.painting:
        found = {"resolution": args.resolution, **measure_painting(sd15_parts(), args.resolution)}
        print(painting_as_text(found))
        _write(args.json, found)
        return
    config = UNet2DConditionModel.load_config(args.configs / "unet")
    rows = []
    for batch_size in args.batch_sizes:
        for checkpointing in (False, True):
            found = measure(config, args.resolution, batch_size, args.rank, checkpointing=checkpointing)
            rows.append(
                {"resolution": args.resolution, "batch_size": batch_size, "checkpointing": checkpointing, **found}
            )
    print(as_text(rows))
    _write(args.json, rows)


def _write(path: Path | None, results: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
