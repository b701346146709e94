"""Time a four-frame story: stock `StableDiffusionPipeline` against ours, interleaved, in one process.

    python -m benchmarks.story [--runs 5] [--few_step ADAPTER] [--json results.json]

Both sides paint the same four captions with the same weights at the same size, and decode with the same decoder.
Stock: 50 steps of PNDM as Stable Diffusion 1.5 ships, the adapter by `load_lora_weights` and `set_adapters`, one
frame a call. Ours: the model's own defaults, all frames in one batch. `AutoencoderDC` does not open in the stock
pipeline, so that one returns latents, which are decoded in the same timed stretch.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from sagan_pipeline.loading import EMBEDDED_ADAPTER


CAPTIONS = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Mabel is standing in the kitchen. She is laughing.",
    "Gus is driving in the car. He is happy.",
    "Gus and Otto are sitting in the bowling alley.",
]
STOCK_STEPS = 50
STOCK_GUIDANCE = 7.5
PLAIN_STEPS = 20  # what a few-step adapter is held against, beside the model's own default
SEED = 7


def stock_pipeline(pipe: SAGANetsPipeline, adapter: Path, strength: float) -> StableDiffusionPipeline:
    """Stable Diffusion's own pipeline over a float32 copy of the base of `pipe`, with `adapter` at `strength`."""
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict(base_weights(pipe.unet))
    noise = pipe.scheduler.config
    scheduler = PNDMScheduler(
        num_train_timesteps=noise.num_train_timesteps,
        beta_start=noise.beta_start,
        beta_end=noise.beta_end,
        beta_schedule=noise.beta_schedule,
        prediction_type=noise.prediction_type,
        skip_prk_steps=True,  # this and the next two as in Stable Diffusion 1.5
        set_alpha_to_one=False,
        steps_offset=1,
    )
    stock = StableDiffusionPipeline(
        vae=None,
        text_encoder=copy.deepcopy(pipe.text_encoder).float(),
        tokenizer=pipe.tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stock.load_lora_weights(str(adapter.parent), weight_name=adapter.name, adapter_name="show")
    stock.set_adapters("show", strength)
    stock.set_progress_bar_config(disable=True)
    return stock


def base_weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The weights of `unet` without its adapter, in float32, under the names of a plain UNet."""
    return {
        name.replace(".base_layer.", "."): value.detach().float().clone()
        for name, value in unet.state_dict().items()
        if ".lora_" not in name
    }


def paint_stock(
    pipe: SAGANetsPipeline, stock: StableDiffusionPipeline, captions: list[str], steps: int = STOCK_STEPS
) -> list[float]:
    """Paint the captions one a call; returns the second, from the start, at which each picture was ready."""
    ready, start = [], time.perf_counter()
    for index, caption in enumerate(captions):
        decode(pipe, stock_latents(stock, caption, index, steps))
        ready.append(time.perf_counter() - start)
    return ready


def stock_latents(stock: StableDiffusionPipeline, caption: str, index: int, steps: int) -> torch.Tensor:
    """One call of the stock side on the caption of that index, which says the noise: latents (1, C, h, w)."""
    # the stock pipeline without a decoder takes 8 pixels a latent
    side = stock.unet.config.sample_size * stock.vae_scale_factor
    return stock(
        caption,
        height=side,
        width=side,
        num_inference_steps=steps,
        guidance_scale=STOCK_GUIDANCE,
        generator=torch.Generator().manual_seed(SEED + index),
        output_type="latent",
    ).images


@torch.no_grad()
def decode(pipe: SAGANetsPipeline, latents: torch.Tensor) -> torch.Tensor:
    vae = pipe.vae
    return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype), return_dict=False)[0]


def paint_ours(pipe: SAGANetsPipeline, captions: list[str], alpha: float, steps: int | None = None) -> float:
    """Paint the captions as one batch with the model's own defaults, or in `steps`; returns the seconds it took."""
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    pipe.paint(captions, lora_alpha=alpha, num_inference_steps=steps, generator=generator)
    return time.perf_counter() - start


def with_adapter(pipe: SAGANetsPipeline, adapter: Path) -> SAGANetsPipeline:
    """Another pipeline over the same modules, with an adapter for few steps.

    Raises:
        ValueError: the adapter's header names no steps.
    """
    other = copy.copy(pipe)
    other.load_adapter(adapter)
    if other._adapted_unets().adapter.num_inference_steps is None:
        raise ValueError(f"`few_step`: the header of {adapter} does not say in how many steps it paints.")
    return other


def first_of_stream(pipe: SAGANetsPipeline, captions: list[str], alpha: float) -> float:
    """Seconds until the first frame of a streamed story is there."""
    start = time.perf_counter()
    stream = pipe.stream(
        captions,
        num_frames=len(captions),
        lora_alpha=alpha,
        generator=torch.Generator().manual_seed(SEED),
    )
    next(stream)
    seconds = time.perf_counter() - start
    stream.close()
    return seconds


def median_seconds(call: Callable[[], Any], runs: int) -> float:
    """Median over `runs` calls, after one to warm up."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.no_grad()
def unet_share(pipe: SAGANetsPipeline, frames: int, runs: int) -> dict[str, Any]:
    """How near one UNet call on a whole story, guidance included, comes to the machine's matrix-multiply rate.

    The rate is that of a 1024 x 1024 x 1024 product in the UNet's own type, measured here and now.
    """
    unet, dtype = pipe.unet, pipe.unet.dtype
    side, rows = unet.config.sample_size, 2 * frames
    latents = torch.zeros(rows, unet.config.in_channels, side, side, dtype=dtype)
    states = torch.zeros(rows, pipe.tokenizer.model_max_length, unet.config.cross_attention_dim, dtype=dtype)
    timestep = torch.tensor(500)
    with FlopCounterMode(display=False) as counter:
        unet(latents, timestep, encoder_hidden_states=states)
    seconds = median_seconds(lambda: unet(latents, timestep, encoder_hidden_states=states), runs)
    a, b = torch.ones(1024, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    matmul_rate = 2 * 1024**3 / median_seconds(lambda: a @ b, 20 * runs)
    unet_rate = counter.get_total_flops() / seconds
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "unet_gflop": counter.get_total_flops() / 1e9,
        "unet_gflop_per_second": unet_rate / 1e9,
        "matmul_gflop_per_second": matmul_rate / 1e9,
        "share_of_matmul_rate": unet_rate / matmul_rate,
    }


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # kilobytes everywhere else


def measure(
    pipe: SAGANetsPipeline,
    adapter: Path,
    runs: int = 5,
    captions: list[str] | None = None,
    stock_steps: int = STOCK_STEPS,
    report: Callable[[str], None] = print,
    few_step: Path | None = None,
) -> dict[str, Any]:
    """Run both sides `runs` times in turn, each after one run to warm up, and return every figure; with `few_step`, an
    adapter whose header names its steps, ours once more with that one, and at `PLAIN_STEPS` without it."""
    if runs < 1:
        raise ValueError(f"`runs` has to be at least 1, but is {runs}.")
    captions = captions or CAPTIONS
    alpha = pipe.trained_lora_alpha
    pipe.set_progress_bar_config(disable=True)
    # ours comes first and alone, so that the peak is its own
    paint_ours(pipe, captions, alpha)
    first_of_stream(pipe, captions, alpha)
    peak = peak_mb()
    stock = stock_pipeline(pipe, adapter, strength=1.0)
    paint_stock(pipe, stock, captions, stock_steps)
    fast = with_adapter(pipe, few_step) if few_step is not None else None
    if fast is not None:
        paint_ours(fast, captions, fast.trained_lora_alpha)
    ours_times, stock_times, ours_first, stock_first, fast_times, plain_times = [], [], [], [], [], []
    for run in range(runs):
        ready = paint_stock(pipe, stock, captions, stock_steps)
        stock_times.append(ready[-1])
        stock_first.append(ready[0])
        ours_times.append(paint_ours(pipe, captions, alpha))
        ours_first.append(first_of_stream(pipe, captions, alpha))
        if fast is not None:
            fast_times.append(paint_ours(fast, captions, fast.trained_lora_alpha))
            plain_times.append(paint_ours(pipe, captions, alpha, PLAIN_STEPS))
        report(f"run {run + 1} of {runs}: stock {stock_times[-1]:.2f} s, ours {ours_times[-1]:.2f} s")
    ours, theirs = statistics.median(ours_times), statistics.median(stock_times)
    quick: dict[str, Any] = {}
    if fast is not None:
        own, plain = statistics.median(fast_times), statistics.median(plain_times)
        steps = fast._adapted_unets().adapter.num_inference_steps
        quick = {"few_step": {"steps": steps, "seconds": fast_times, "median": own, "ratio": theirs / own}}
        quick["few_step"]["ratio_to_ours"] = ours / own
        quick["plain"] = {"steps": PLAIN_STEPS, "seconds": plain_times, "median": plain}
        quick["few_step"]["ratio_to_plain"] = plain / own
    return {
        **quick,
        "frames": len(captions),
        "runs": runs,
        "alpha": alpha,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "stock": {"steps": stock_steps, "seconds": stock_times, "median": theirs},
        "ours": {
            "steps": pipe.config.default_num_inference_steps,
            "seconds": ours_times,
            "median": ours,
            "peak_mb": peak,
        },
        "ratio": theirs / ours,
        "first_frame": {"stock": statistics.median(stock_first), "ours": statistics.median(ours_first)},
        "unet": unet_share(pipe, len(captions), runs),
    }


def as_text(figures: dict[str, Any]) -> str:
    stock, ours, first, unet = (figures[name] for name in ("stock", "ours", "first_frame", "unet"))
    few = figures.get("few_step")
    quick = []
    if few:
        plain = figures["plain"]
        ratios = (
            f"{few['ratio']:.2f} times faster than stock, {few['ratio_to_ours']:.2f} than ours, "
            f"{few['ratio_to_plain']:.2f} than {plain['steps']} steps of ours ({plain['median']:.2f} s)"
        )
        quick.append(f"  ours, few-step adapter, {few['steps']} steps            {few['median']:8.2f} s, {ratios}")
    return "\n".join(
        [
            f"{figures['frames']} frames, medians of {figures['runs']} interleaved runs, {figures['threads']} threads",
            f"  stock StableDiffusionPipeline, {stock['steps']} steps PNDM   {stock['median']:8.2f} s",
            f"  ours, batch mode, {ours['steps']} steps                 {ours['median']:8.2f} s",
            f"  ratio                                        {figures['ratio']:8.2f} times faster",
            *quick,
            f"  first frame: stock {first['stock']:.2f} s, ours (stream) {first['ours']:.2f} s",
            f"  peak memory of ours: {ours['peak_mb']:.0f} MB",
            f"  UNet, {unet['dtype']}: {unet['unet_gflop_per_second']:.0f} GFLOP/s of the "
            f"{unet['matmul_gflop_per_second']:.0f} that a 1024-cube product reaches, "
            f"{100 * unet['share_of_matmul_rate']:.0f}%",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each side; the medians count (default: 5)")
    parser.add_argument("--adapter", type=Path, default=EMBEDDED_ADAPTER, help="LoRA file for the stock side")
    parser.add_argument("--few_step", type=Path, default=None, help="adapter for few steps, for a row of its own")
    parser.add_argument("--json", type=Path, default=None, help="write every figure to this file as well")
    args = parser.parse_args(argv)
    pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    figures = measure(pipe, args.adapter, args.runs, few_step=args.few_step)
    print(as_text(figures))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
