"""Time a training step of the painter: diffusers' own recipe against ours, interleaved, in one process.

    python -m benchmarks.train [--runs 7] [--json results.json]        # the embedded model, 256 px
    python -m benchmarks.train --configs SD15 --resolution 128         # random weights of the configurations in SD15

Theirs is the step of diffusers' `examples/text_to_image/train_text_to_image_lora.py`: every step reads and normalises
the pictures, encodes them by the autoencoder and their captions by the text encoder, all in the training precision,
then predicts, and updates the LoRA matrices. Ours is the step of `train.saganets --modules painter`. Both have the
same base, layers, rank, batch, precision and optimizer. What the autoencoder and the text encoder cost in arithmetic
bounds what leaving them out can gain: the ratio of the operations is printed beside that of the times.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, AutoModel, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train.adapter import add_lora, lora_parameters
from train.config import TrainingConfig
from train.data.cache import encode
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.release import write_release
from train.painter import DTYPES
from train.saganets import Coordinated


EMBEDDED = Path(__file__).parents[1] / "sagan_pipeline" / "embedded"


def write_random_base(configs: Path, base: Path) -> UNet2DConditionModel:
    """Random networks of published shapes, in fp16, laid out as Stable Diffusion 1.5 is.

    Args:
        configs (`Path`): that repository without its weights: `unet/`, `vae/`, `text_encoder/`, `tokenizer/`,
            `scheduler/` and `model_index.json`.
        base (`Path`): the folder to write.

    Returns:
        the UNet.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        text_encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder"))
    for name, module in {"unet": unet, "vae": vae, "text_encoder": text_encoder}.items():
        module.half().save_pretrained(base / name)
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(configs / name, base / name)
    shutil.copy(configs / "model_index.json", base)
    return unet


class Recipe:
    """One step of `train_text_to_image_lora.py`, whose names and order are kept.

    Args:
        config (`TrainingConfig`): base, rank, batch size, rate and precision.
        release (`FlintstonesRelease`): the pictures and captions.
        accelerator (`Accelerator`): in the same precision.
    """

    def __init__(self, config: TrainingConfig, release: FlintstonesRelease, accelerator: Accelerator):
        self.config, self.release, self.accelerator = config, release, accelerator
        self.weight_dtype = DTYPES[config.mixed_precision]
        self.noise_scheduler = DDPMScheduler.from_pretrained(config.base, subfolder="scheduler")
        self.tokenizer = CLIPTokenizer.from_pretrained(config.base, subfolder="tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(config.base, subfolder="text_encoder", dtype=torch.float32)
        self.vae = AutoModel.from_pretrained(config.base, subfolder="vae", torch_dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(config.base, subfolder="unet", torch_dtype=torch.float32)
        add_lora(unet, config.rank, config.alpha, config.seed)
        for frozen in (unet, self.vae, self.text_encoder):
            frozen.to(accelerator.device, self.weight_dtype)
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        cast_training_params(unet, torch.float32)
        self.lora_layers = lora_parameters(unet)
        self.optimizer = torch.optim.AdamW(self.lora_layers, lr=config.learning_rate)
        self.unet = accelerator.prepare(unet.train())
        self.generator = torch.Generator().manual_seed(config.seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, H, W) in [-1, 1], a random half of them mirrored, and the captions' token ids (B, L)."""
        ids = self.release.splits["train"]
        chosen = torch.randint(len(ids), (self.config.batch_size,), generator=self.generator).tolist()
        pictures = np.stack([self.release.frame(ids[i], 1) for i in chosen])
        pixel_values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        size = self.config.resolution
        if size is not None and pixel_values.shape[-1] != size:
            pixel_values = torch.nn.functional.interpolate(pixel_values, (size, size), mode="bilinear", antialias=True)
        mirrored = torch.rand(len(chosen), generator=self.generator) < 0.5
        pixel_values = torch.where(mirrored[:, None, None, None], pixel_values.flip(-1), pixel_values)
        captions = [self.release.clip(ids[i]).caption for i in chosen]
        limit = self.tokenizer.model_max_length
        tokens = self.tokenizer(captions, max_length=limit, padding="max_length", truncation=True, return_tensors="pt")
        return pixel_values, tokens.input_ids

    def encoded(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the frozen encoders make of a batch: scaled latents, and text states."""
        with torch.no_grad():
            latents = encode(self.vae, pixel_values.to(self.weight_dtype)) * self.vae.config.scaling_factor
            return latents, self.text_encoder(input_ids, return_dict=False)[0]

    def loss(
        self, latents: torch.Tensor, states: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        noisy_latents = self.noise_scheduler.add_noise(latents, noise, timesteps)
        if self.noise_scheduler.config.prediction_type == "epsilon":
            target = noise
        else:
            target = self.noise_scheduler.get_velocity(latents, noise, timesteps)
        with self.accelerator.autocast():
            model_pred = self.unet(noisy_latents, timesteps, states, return_dict=False)[0]
        return torch.nn.functional.mse_loss(model_pred.float(), target.float(), reduction="mean")

    def step(self) -> None:
        latents, states = self.encoded(*self.batch())
        noise = torch.randn(latents.shape, generator=self.generator).to(self.weight_dtype)
        steps = self.noise_scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (len(latents),), generator=self.generator)
        self.accelerator.backward(self.loss(latents, states, noise, timesteps))
        torch.nn.utils.clip_grad_norm_(self.lora_layers, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Ours:
    """One step of `train.saganets --modules painter`, as `train.loop` takes it."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator):
        self.trained = Coordinated(config, accelerator)
        self.optimizer = self.trained.optimizer()
        self.parameters = self.trained.painter.parameters
        self.done = 0

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.trained.accelerator.backward(self.trained.loss(self.done)["loss"])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.trained.config.max_grad_norm)
        self.optimizer.step()
        self.trained.after_step()
        self.done += 1


@torch.no_grad()
def losses_on_the_same_draws(recipe: Recipe, ours: Ours) -> tuple[float, float]:
    """Theirs and ours on our first step's latents, noise and timesteps, before either has learnt: theirs encodes the
    captions anew, ours reads the cache."""
    painter = ours.trained.painter
    draws = ours.trained.draws(0).painter
    captions = [recipe.release.clip(id).caption for id in painter.latents.ids]
    captions = [captions[i] for i in draws.captions.tolist()]
    limit = recipe.tokenizer.model_max_length
    tokens = recipe.tokenizer(captions, max_length=limit, padding="max_length", truncation=True, return_tensors="pt")
    states = recipe.text_encoder(tokens.input_ids, return_dict=False)[0]
    latents, noise = (each.to(recipe.weight_dtype) for each in (draws.latents, draws.noise))
    theirs = recipe.loss(latents, states, noise, draws.timesteps)
    return float(theirs), float(painter.loss(draws, slice(None)))


def megabytes(*modules: torch.nn.Module) -> float:
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters()) / 1e6


def floating_point_operations(call: Callable[[], Any]) -> int:
    """Of the matrix products and convolutions, backward included."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # fused kernels are not counted
        call()
    return counter.get_total_flops()


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(config: TrainingConfig, runs: int = 7, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Take steps of both in turn, `runs` each after one to warm up, and return every figure."""
    if runs < 1:
        raise ValueError(f"`runs` has to be at least 1, but is {runs}.")
    accelerator = Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision)
    recipe = Recipe(config, FlintstonesRelease(config.data), accelerator)
    ours = Ours(config, accelerator)
    losses = losses_on_the_same_draws(recipe, ours)
    operations = {"recipe": floating_point_operations(recipe.step), "ours": floating_point_operations(ours.step)}
    times: dict[str, list[float]] = {"recipe": [], "ours": []}
    for run in range(runs + 1):
        taken = {"recipe": seconds(recipe.step), "ours": seconds(ours.step)}
        report(f"step {run} of {runs}: recipe {taken['recipe']:.3f} s, ours {taken['ours']:.3f} s")
        for name, value in taken.items():
            times[name] += [value] if run else []
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "runs": runs,
        "batch_size": config.batch_size,
        "resolution": config.resolution,
        "rank": config.rank,
        "precision": config.mixed_precision,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "seconds": times,
        "medians": medians,
        "pictures_a_second": {name: config.batch_size / value for name, value in medians.items()},
        "ratio": medians["recipe"] / medians["ours"],
        "operations": operations,
        "ratio_of_operations": operations["recipe"] / operations["ours"],
        "loss_on_the_same_draws": dict(zip(("recipe", "ours"), losses, strict=True)),
        "weights_mb": {
            "recipe": megabytes(recipe.unet, recipe.vae, recipe.text_encoder),
            "ours": megabytes(ours.trained.painter.unet),
        },
    }


def as_text(figures: dict[str, Any]) -> str:
    speed, loss, weights = (figures[name] for name in ("pictures_a_second", "loss_on_the_same_draws", "weights_mb"))
    return "\n".join(
        [
            f"batch {figures['batch_size']}, r {figures['rank']}, {figures['precision']}, "
            f"{figures['threads']} threads, medians of {figures['runs']} interleaved steps",
            f"  diffusers' recipe  {speed['recipe']:8.2f} pictures/s, {weights['recipe']:6.0f} MB of weights",
            f"  ours               {speed['ours']:8.2f} pictures/s, {weights['ours']:6.0f} MB of weights",
            f"  ratio              {figures['ratio']:8.2f}, of arithmetic {figures['ratio_of_operations']:.2f}",
            f"  loss on the same draws: {loss['recipe']:.5f} and {loss['ours']:.5f}",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=EMBEDDED, help="base model; default: the embedded one")
    parser.add_argument("--configs", type=Path, default=None, help="configurations for a base of random weights")
    parser.add_argument("--resolution", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--batch_size", type=int, default=24)
    parser.add_argument("--mixed_precision", choices=DTYPES, default="bf16")
    parser.add_argument("--runs", type=int, default=7, help="steps of each; the medians count")
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file as well")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work, base = Path(folder), args.base
        if args.configs is not None:
            base = work / "base"
            write_random_base(args.configs, base)
        write_release(work / "show", episodes=5, clips=12, size=args.resolution)
        config = TrainingConfig(
            data=str(work / "show"),
            base=str(base),
            out=str(work / "run"),
            modules="painter",
            batch_size=args.batch_size,
            resolution=args.resolution,
            mixed_precision=args.mixed_precision,
            cpu=not torch.cuda.is_available(),
        )
        figures = measure(config, args.runs)
    figures["base"] = "random weights" if args.configs is not None else args.base.name
    print(as_text(figures))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
