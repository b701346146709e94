"""Coordinated training (paper 4.3): GPT-2 and the UNet's LoRA learn from the same sampled stories.

    python -m train.saganets --data DATA/gulch --base runs/base/model --out runs/saganets

For each story a prefix length k ~ U{0, 1, 2, 3} is drawn. The captioner learns caption k+1 from the true captions
1..k; the painter learns frame k+1 from the true caption k+1. No error passes between them. The base stays frozen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models import AutoencoderDC
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline.captioner import next_captions
from train.captioner import StoryCaptions, captioner_loss
from train.data.flintstones import FlintstonesRelease
from train.loop import Run
from train.objectives.diffusion import diffusion_loss
from train.painter import LatentCache, TextCache, paint_samples, picture_grid


MODULES = ("both", "captioner", "painter")
LORA_TARGETS = ("to_q", "to_k", "to_v")  # of every self- and cross-attention layer, paper 4.2


def add_lora(unet: UNet2DConditionModel, rank: int, alpha: float, seed: int) -> LoraConfig:
    """Freeze the UNet and add the trainable matrices A (random) and B (zero)."""
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS), init_lora_weights="gaussian")
    with torch.random.fork_rng():  # peft draws A from the global RNG
        torch.manual_seed(seed)
        unet.add_adapter(config)
    return config


def lora_parameters(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def adapter_header(config: LoraConfig, facts: dict[str, object]) -> dict[str, str]:
    """The header of an adapter file: peft's own metadata for every reader, and what made it, all strings."""
    metadata = config.to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])
    keep = {f"unet.{name}": value for name, value in metadata.items() if is_json(value)}
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(keep, sort_keys=True),
        **{name: str(value) for name, value in facts.items()},
    }


def is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def git_commit() -> str:
    """The commit that this process runs from, or `"unknown"` outside a checkout."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model, diffusers layout")
    parser.add_argument("--out", type=Path, default=Path("runs/saganets"), help="checkpoints, logs, samples, results")
    parser.add_argument("--name", default="gravel-gulch-diffusion", help="the adapter's file name, without suffix")
    parser.add_argument("--modules", choices=MODULES, default="both")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--alpha", type=float, default=32.0, help="alpha = rank is what every LoRA reader agrees on")
    parser.add_argument("--painter_steps", type=int, default=1200)
    parser.add_argument("--captioner_steps", type=int, default=1300)
    parser.add_argument("--batch_size", type=int, default=24, help="stories a step")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="peak rate of the LoRA matrices")
    parser.add_argument("--captioner_learning_rate", type=float, default=5e-4)
    parser.add_argument("--snr_gamma", type=float, default=5.0, help="min-SNR weighting; 0 is the paper's plain loss")
    parser.add_argument("--caption_dropout", type=float, default=0.1, help="for classifier-free guidance")
    parser.add_argument("--ema_decay", type=float, default=0.998, help="of the LoRA matrices")
    parser.add_argument("--max_seconds", type=float, default=float("inf"), help="stop each module after so long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    release = FlintstonesRelease(args.data)
    stories = StoryCaptions(release, "train")
    if args.modules in ("both", "captioner"):
        train_captioner(args, release, stories)
    if args.modules in ("both", "painter"):
        train_painter(args, release, stories)


def train_captioner(args: argparse.Namespace, release: FlintstonesRelease, stories: StoryCaptions) -> None:
    """Fine-tune GPT-2 on serialised prefixes; the result is a plain transformers folder, `out/captioner`."""
    tokenizer = GPT2Tokenizer.from_pretrained(args.base / "captioner_tokenizer")
    captioner = GPT2LMHeadModel.from_pretrained(args.base / "captioner", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=args.captioner_learning_rate, weight_decay=0.1)
    generator = torch.Generator().manual_seed(args.seed)
    folder = args.out / "captioner_run"
    run = Run(folder, {"captioner": captioner}, optimizer, args.captioner_steps, generator, sample_steps=200)
    validation = StoryCaptions(release, "val")

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(args.seed * 1_000_003 + step)  # dropout draws from the global RNG: same after a resume
        with torch.autocast("cpu", torch.bfloat16):
            return {"loss": captioner_loss(captioner, tokenizer, stories.examples(32, generator))}

    def sample(step: int) -> None:
        captioner.eval()
        draw = torch.Generator().manual_seed(args.seed)
        with torch.no_grad():
            loss = captioner_loss(captioner, tokenizer, validation.examples(128, draw))
        prefixes = [validation.example(i * 7 % len(validation.stories), i % 4).captions for i in range(8)]
        generators = [torch.Generator().manual_seed(i) for i in range(8)]
        texts = next_captions(captioner, tokenizer, prefixes, generators)
        lines = [" | ".join(prefix) + "\n   -> " + text for prefix, text in zip(prefixes, texts, strict=True)]
        (folder / "samples" / f"{step:06d}.txt").write_text(f"validation loss {loss:.4f}\n" + "\n".join(lines) + "\n")
        with open(folder / "validation.jsonl", "a") as log:
            log.write(json.dumps({"step": step, "loss": round(float(loss), 4)}) + "\n")
        captioner.train()

    run.train(loss_of_step, sample, description="captioner", max_seconds=args.max_seconds)
    captioner.eval().half().save_pretrained(args.out / "captioner")
    tokenizer.save_pretrained(args.out / "captioner")


def train_painter(args: argparse.Namespace, release: FlintstonesRelease, stories: StoryCaptions) -> None:
    """Train the LoRA matrices; the result is `out/<name>.safetensors`."""
    vae = AutoencoderDC.from_pretrained(args.base / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)
    text_encoder = CLIPTextModel.from_pretrained(args.base / "text_encoder", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(args.base / "tokenizer")
    unet = UNet2DConditionModel.from_pretrained(args.base / "unet", torch_dtype=torch.float32)
    unet.set_attn_processor(AttnProcessor())  # faster to train on a CPU than the fused kernel's backward
    noise_scheduler = DDPMScheduler.from_pretrained(args.base / "scheduler")
    latents = LatentCache.build(vae, release, release.splits["train"], args.out / "cache")
    text = TextCache.build(text_encoder, tokenizer, [release.clip(id).caption for id in latents.ids])
    config = add_lora(unet, args.rank, args.alpha, args.seed)
    parameters = lora_parameters(unet)
    ema = EMAModel(parameters, decay=args.ema_decay)
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed + 1)
    folder = args.out / "painter_run"
    adapter = torch.nn.ParameterList(parameters)
    run = Run(
        folder, {"lora": adapter}, optimizer, args.painter_steps, generator, extra_state={"ema": ema}, sample_steps=400
    )
    validation = [release.clip(id).caption for id in release.splits["val"][:64:8]]
    samples = TextCache.build(text_encoder, tokenizer, validation)

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        index = torch.tensor([latents.index_of[e.clip_id] for e in stories.examples(args.batch_size, generator)])
        z = latents.take(index, generator)
        with torch.autocast("cpu", torch.bfloat16):
            states = text.states(index, generator, dropout=args.caption_dropout)
            loss = diffusion_loss(unet, noise_scheduler, z, states, generator, snr_gamma=args.snr_gamma or None)
        return {"loss": loss}

    def sample(step: int) -> None:
        ema.store(parameters)
        ema.copy_to(parameters)
        pictures = paint_samples(unet, vae, samples, noise_scheduler, seed=args.seed)
        save_adapter(args, unet, config, run.step)
        ema.restore(parameters)
        picture_grid(pictures, columns=4).save(folder / "samples" / f"{step:06d}.png")
        (folder / "samples" / "captions.txt").write_text("\n".join(validation) + "\n")

    run.train(loss_of_step, sample, lambda: ema.step(parameters), description="painter", max_seconds=args.max_seconds)
    ema.copy_to(parameters)
    save_adapter(args, unet, config, run.step)


def save_adapter(args: argparse.Namespace, unet: UNet2DConditionModel, config: LoraConfig, steps: int) -> None:
    """Write the adapter as fp16 safetensors with its header."""
    state = {f"unet.{name}": value.half().contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    facts = {
        "base_model": "saganets-embedded",
        "objective": "diffusion",
        "dataset": args.data.name,
        "r": args.rank,
        "lora_alpha": args.alpha,
        "steps": steps,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "commit": git_commit(),
        "license": "apache-2.0",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "peft")},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    aside = args.out / f"{args.name}.tmp"
    save_file(state, aside, metadata=adapter_header(config, facts))
    os.replace(aside, args.out / f"{args.name}.safetensors")


if __name__ == "__main__":
    main()
