"""Whether painting in few steps costs anything: Char-F1 of stock `StableDiffusionPipeline` against ours.

    python -m benchmarks.quality --data DATA/gulch --judge runs/judge [--captions 100] [--json results.json]

Both sides are those of `benchmarks.story`: the same weights, adapter and captions, of test episodes, each side with
its own solver, steps, guidance and precision.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from benchmarks.story import SEED, STOCK_STEPS, decode, stock_latents, stock_pipeline
from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from sagan_pipeline.loading import EMBEDDED_ADAPTER
from train.data.flintstones import FlintstonesRelease
from train.evaluation.single import micro_f1_interval, paint
from train.metrics.characters import character_scores
from train.metrics.judge import THRESHOLD, Judge
from train.painter import to_pictures
from train.study import captions_of


@torch.no_grad()
def stock_pictures(
    pipe: SAGANetsPipeline, stock: StableDiffusionPipeline, captions: list[str], steps: int = STOCK_STEPS
) -> np.ndarray:
    """Captions painted by the stock side: uint8 (N, H, W, 3)."""
    pictures = []
    for index, caption in enumerate(tqdm(captions, desc="stock")):
        pictures.append(to_pictures(decode(pipe, stock_latents(stock, caption, index, steps)).float()))
    return np.concatenate(pictures)


def quality(
    pipe: SAGANetsPipeline,
    adapter: Path,
    judge: Judge,
    release: FlintstonesRelease,
    count: int,
    stock_steps: int = STOCK_STEPS,
) -> dict[str, Any]:
    """Char-F1 of `count` captions of test episodes, painted once by each side, as the judge sees it."""
    what = captions_of(release, judge, "test", count, SEED)
    stock = stock_pipeline(pipe, adapter, strength=1.0)
    with tqdm(total=len(what.captions), desc="ours") as bar:
        ours, _ = paint(pipe, what.captions, SEED, bar, lora_alpha=pipe.trained_lora_alpha)
    found: dict[str, Any] = {"captions": len(what.captions)}
    for name, pictures in {"stock": stock_pictures(pipe, stock, what.captions, stock_steps), "ours": ours}.items():
        predicted, actual = judge(pictures)[0].numpy() > THRESHOLD, what.labels.astype(bool)
        found[name] = {
            "char_f1_micro": character_scores(predicted, actual, list(judge.classes))["char_f1_micro"],
            "char_f1_micro_95": micro_f1_interval(predicted, actual, SEED),
        }
    return found


def as_text(figures: dict[str, Any]) -> str:
    lines = [f"Char-F1 micro (95%) on {figures['captions']} captions of test episodes"]
    for side in ("stock", "ours"):
        score, (low, high) = figures[side]["char_f1_micro"], figures[side]["char_f1_micro_95"]
        lines.append(f"  {side:5}  {100 * score:.1f}% ({100 * low:.1f} to {100 * high:.1f})")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--judge", type=Path, required=True, help="folder of a judge: python -m train.metrics.judge")
    parser.add_argument("--adapter", type=Path, default=EMBEDDED_ADAPTER, help="LoRA file for the stock side")
    parser.add_argument("--captions", type=int, default=100, help="captions of test episodes, one frame each")
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file as well")
    args = parser.parse_args(argv)
    if args.captions < 1:
        parser.error("--captions must be at least 1")
    pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    pipe.set_progress_bar_config(disable=True)
    figures = quality(pipe, args.adapter, Judge.load(args.judge), FlintstonesRelease(args.data), args.captions)
    print(as_text(figures))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
