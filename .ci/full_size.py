"""Trains and tells at the size of Stable Diffusion 1.5 and GPT-2, on random weights: `python .ci/full_size.py DATA`.

DATA holds the published configurations in `sd15/` and GPT-2's vocabulary in `gpt2/`. Nothing of it belongs to this
project. What is painted is noise; that it is trained by every objective, resumed, saved, opened and
painted at all is what is checked.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)

from benchmarks.train import write_random_base
from sagan_pipeline import SAGANetsPipeline
from train.config import parse_config
from train.data.gravel_gulch.release import write_release
from train.objectives import make_objective, needs_stories
from train.saganets import Coordinated


ROOT = Path(__file__).parents[1]
SIDE, RANK = 128, 32
MOST_GIGABYTES, MOST_SECONDS = 16.0, 2 * 360.0  # of processor time: six minutes on two, however busy they are
STARTED = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {what}", flush=True)


def expect(what: str, got: object, wanted: object) -> None:
    say(f"{what}: {got}")
    if got != wanted:
        sys.exit(f"{what} should be {wanted}")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def lora_size(config: dict, rank: int) -> int:
    """How many numbers A and B hold on W_q, W_k and W_v of every attention layer, from the UNet's configuration."""
    widths, layers, context = config["block_out_channels"], config["layers_per_block"], config["cross_attention_dim"]
    sides = ((config["down_block_types"], widths, layers), (config["up_block_types"], widths[::-1], layers + 1))
    blocks = [widths[-1]]  # the middle one
    for types, channels, count in sides:
        blocks += [w for kind, w in zip(types, channels, strict=True) if "CrossAttn" in kind for _ in range(count)]
    of_self, of_cross = (lambda w: 3 * 2 * w), (lambda w: 2 * w + 2 * (context + w))  # (in + out) of q, k and v
    return rank * sum(of_self(w) + of_cross(w) for w in blocks)


def write_gpt2(data: Path, folder: Path) -> None:
    captioner = GPT2LMHeadModel(GPT2Config())
    expect("parameters of GPT-2", parameters(captioner), 124_439_808)
    captioner.save_pretrained(folder)
    GPT2Tokenizer(str(data / "vocab.json"), str(data / "merges.txt")).save_pretrained(folder)


def train(arguments: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "train.saganets", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return done.stdout + done.stderr


# every term of each; the discriminators see latents, as at this size they are to
OBJECTIVES = {
    "gan": {"l_adv": 1, "l_story": 1, "l_img": 1, "l_clip": 1, "l_char": 1, "l_dmd": 1, "gan_steps": 2},
    "clip": {"l_clip": 1, "l_char": 1},
    "temporal": {"l_coher": 1},
    "combined": {"l_adv": 1, "l_clip": 1, "l_char": 1, "l_coher": 1, "balance": "gradients"},
}


def write_scorers(base: Path) -> None:
    """A CLIP pair of ViT-B/32's shape and a network of small DINOv2's."""
    CLIPModel(CLIPConfig()).half().save_pretrained(base / "clip")
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=224)
    Dinov2Model(config).half().save_pretrained(base / "features")


def train_objectives(arguments: list[str], adapter: Path) -> None:
    """Two steps of each objective, all on one UNet."""
    trained = None
    for name, settings in OBJECTIVES.items():
        flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        config = parse_config([*arguments, "--objective", name, "--init_lora", str(adapter), *flags])
        if trained is None:
            trained = Coordinated(config, Accelerator(cpu=True, mixed_precision="bf16"))
        painter = trained.painter
        if painter.config is not config:  # the next objective takes the place of the last one
            trained.config = painter.config = config
            painter.objective, trained.whole_stories = make_objective(config, painter), needs_stories(config)
            trained._drawn = None
        optimizer, before = trained.optimizer(), [each.detach().clone() for each in painter.parameters]
        for step in range(2):
            losses = trained.loss(step)
            losses["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        terms = {f"term_{key.removeprefix('l_')}" for key in settings if key.startswith("l_")}
        expect(f"{name}: each term is there", terms <= losses.keys(), True)
        expect(f"{name}: all finite", all(bool(torch.isfinite(each)) for each in losses.values()), True)
        moved = any(not torch.equal(a, b) for a, b in zip(before, painter.parameters, strict=True))
        expect(f"{name}: the adapter moved", moved, True)


def main(data: Path, work: Path) -> None:
    unet = write_random_base(data / "sd15", work / "base")
    expect("parameters of the UNet", parameters(unet), 859_520_964)
    config = dict(unet.config)
    del unet
    write_gpt2(data / "gpt2", work / "gpt2")
    say("weights written")
    write_release(work / "show", episodes=3, clips=8, size=SIDE, seed=0)

    out, name = work / "run", "full-size"
    arguments = ["--data", str(work / "show"), "--base", str(work / "base"), "--captioner", str(work / "gpt2")]
    arguments += ["--out", str(out), "--name", name, "--base_model", "random weights", "--cpu", "--steps", "2"]
    arguments += ["--batch_size", "2", "--resolution", str(SIDE), "--mixed_precision", "bf16", "--rank", str(RANK)]
    arguments += [
        "--learning_rate",
        "0.01",
        "--captioner_learning_rate",
        "0.01",
        "--validation_stories",
        "2",
        "--validation_inference_steps",
        "1",
    ]
    train([*arguments, "--max_seconds", "0.001"])
    reached = torch.load(out / "run" / "checkpoint.pt", weights_only=True, mmap=True)
    expect("step of the checkpoint", reached["step"], 1)
    del reached
    told = train(arguments)
    expect("resumed", "resumed at step 1" in told, True)
    log = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    say(f"trained: {log[-1]}")

    state = load_file(out / f"{name}.safetensors")
    expect("numbers that the adapter holds", sum(map(torch.Tensor.numel, state.values())), lora_size(config, RANK))
    expect("every B moved", all(bool(value.any()) for key, value in state.items() if ".lora_B." in key), True)
    with safe_open(out / f"{name}.safetensors", framework="pt") as file:
        expect("steps in the adapter's header", file.metadata()["steps"], "2")

    write_scorers(work / "base")
    train_objectives(
        [
            *arguments,
            "--modules",
            "painter",
            "--batch_size",
            "4",
            "--gan_space",
            "latents",
            "--cache",
            str(out / "cache"),
        ],
        out / f"{name}.safetensors",
    )

    pipe = SAGANetsPipeline.from_base(
        work / "base",
        captioner=out / "captioner",
        lora=out / f"{name}.safetensors",
        dtype=torch.bfloat16,
        safety_checker=None,  # of which there are no random weights
    )
    pipe.set_progress_bar_config(disable=True)
    say("pipeline opened")
    stories = pipe(
        "Gus is in the kitchen. He is talking to Mabel.",
        num_frames=4,
        lora_alpha=[10, 32],
        num_inference_steps=2,
        temperature=5.0,  # after two steps its likeliest token is no word
        height=SIDE,
        width=SIDE,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).stories
    expect("frames of the two stories", [len(story.frames) for story in stories], [4, 4])
    pictures = [torch.stack([frame.image for frame in story.frames]) for story in stories]
    expect("shape of the pictures", tuple(pictures[0].shape), (4, 3, SIDE, SIDE))
    expect("all pictures finite", all(bool(each.isfinite().all()) for each in pictures), True)
    expect("the alphas differ", not torch.equal(*pictures), True)
    expect("the captions do not", stories[0].captions == stories[1].captions, True)
    expect("each caption finished", all(caption.endswith((".", "!", "?")) for caption in stories[0].captions), True)

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    kibibytes = [each.ru_maxrss for each in used]
    say(f"peak memory, here and in training: {', '.join(f'{each / 2**20:.1f} GiB' for each in kibibytes)}")
    expect("memory within the limit", max(kibibytes) / 2**20 < MOST_GIGABYTES, True)
    expect("time within the limit", sum(each.ru_utime + each.ru_stime for each in used) < MOST_SECONDS, True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]), Path(folder))
