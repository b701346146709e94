"""The work of the models: module-level functions, which a GPU that is lent call by call can run (`@spaces.GPU`).

One thread does it all, so that one picture at a time has the machine to itself, whoever asks. Models are loaded in it
too (`in_painter`): where a second thread has computed anything, OpenMP has more threads than processors, lets them
sleep after every operation, and a picture takes half as long again.
"""

from __future__ import annotations

import base64
import io
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from sagan_pipeline import Frame, SAGANetsPipeline, Story

from .editing import Recipe, Settings


try:
    import spaces

    LENT = True
    on_gpu = spaces.GPU(duration=60)
except ImportError:
    LENT = False

    def on_gpu(function: Callable) -> Callable:
        return function


T = TypeVar("T")
PREVIEW_SECONDS = 0.16  # from one look at a picture on its way to the next: each takes processor time from the painter
BATCH_SECONDS = 1.0  # the same where nothing but the time left is shown
MOST_LOOKS = 8
PREVIEW_CAPTIONS = ["Gus is in the kitchen.", "Nell is on the beach. She is waving."]  # what colours are learnt from


@dataclass(frozen=True)
class Painted:
    """A picture, and what the pipeline says of it."""

    image: Image.Image
    flagged: bool
    model: str | None


def frame_of(recipe: Recipe, picture: Painted) -> Frame:
    """The frame that a picture is, with all that it was made from."""
    return Frame(
        recipe.caption,
        picture.image,
        seed=recipe.seed,
        lora_alpha=recipe.lora_alpha,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        adapter=recipe.adapter,
        model=picture.model,
        flagged=picture.flagged,
    )


@dataclass(frozen=True)
class Step:
    """One step of a batch is done; number 0 is its beginning. Now and then it is worth a `look`, and has `previews`
    if they were asked for: data URIs, one a picture."""

    number: int
    total: int
    look: bool = False
    previews: tuple[str, ...] = ()


class Gone(Exception):
    """Nobody waits for this picture any more."""


# Pipelines by page and adapter: a function that runs elsewhere finds its model by name
MODELS: dict[str, dict[str, SAGANetsPipeline]] = {}
_COLOURS: dict[int, torch.Tensor] = {}  # by autoencoder
_SECONDS: dict[str, float] = {}  # a picture takes, by page
_WORKER: dict[int, ThreadPoolExecutor] = {}  # by process, since a fork has no threads


def register(pipe: SAGANetsPipeline, folder: Path | None, own: str = "default") -> str:
    """Make a pipeline and the adapters in `folder` that fit it known.

    Args:
        pipe (`SAGANetsPipeline`): under its own adapter.
        folder (`Path`, *optional*): adapters to choose from.
        own (`str`): what the pipeline's own adapter is called.

    Returns:
        the name that the functions here know it by; `MODELS[name]` has the adapters, its own first.
    """
    name = f"page-{len(MODELS)}"
    MODELS[name] = in_painter(_adapters, pipe, folder, own)
    return name


def _adapters(pipe: SAGANetsPipeline, folder: Path | None, own: str) -> dict[str, SAGANetsPipeline]:
    adapters = {own: pipe}
    for path in sorted(folder.glob("*.safetensors")) if folder and folder.is_dir() else []:
        if path.stem in adapters:
            continue
        other = type(pipe)(**pipe.components, **_config_of(pipe))
        try:
            other.load_adapter(path)
        except ValueError:
            continue  # it is for another base
        other.set_progress_bar_config(disable=True)
        adapters[path.stem] = other
    pipe.set_progress_bar_config(disable=True)
    return adapters


def _config_of(pipe: SAGANetsPipeline) -> dict[str, Any]:
    names = [name for name in pipe.config if name.startswith("default_")]
    return {name: pipe.config[name] for name in (*names, "cast", "places", "vocabulary")}


def own_sampling(model: str, adapter: str, lora_alpha: float) -> tuple[int, float]:
    """Steps and guidance that an adapter was made for; at alpha 0 those of the base."""
    pipe = MODELS[model][adapter]
    if not lora_alpha:
        return pipe.config.default_num_inference_steps, pipe.config.default_guidance_scale
    return pipe.default_sampling


def sampling_beside(model: str, settings: Settings, adapter: str, lora_alpha: float) -> tuple[int, float]:
    """Steps and guidance under another adapter or alpha than that of `settings`: the same, which the visitor may have
    chosen, unless one of the two is painted in few steps and the other is not; then its own."""
    own = own_sampling(model, adapter, lora_alpha)
    if own == own_sampling(model, settings.adapter, settings.lora_alpha):
        return settings.num_inference_steps, settings.guidance_scale
    return own


def seconds_a_picture(model: str) -> float:
    """What a picture took lately; 1 before the first."""
    return _SECONDS.get(model, 1.0)


def _worker() -> ThreadPoolExecutor:
    return _WORKER.setdefault(os.getpid(), ThreadPoolExecutor(1, "painter"))


def in_painter(function: Callable[..., T], *args: Any) -> T:
    """What `function` returns, called in the painter's thread: for all that computes with tensors."""
    return _worker().submit(function, *args).result()


@on_gpu
def write_caption(
    model: str, captions: tuple[str, ...], seed: int, temperature: float, number: int | None = None
) -> str:
    """The caption that follows `captions`.

    Args:
        seed (`int`): of the story; the first of many captions is the one that `pipe()` writes under it.
        number (`int`, *optional*): another suggestion for the same place.
    """
    pipe = next(iter(MODELS[model].values()))
    generator = torch.Generator().manual_seed(seed if number is None else _mixed(seed, number))
    count = len(captions) + 1
    write = partial(pipe.write_captions, list(captions), count, generator=generator, temperature=temperature)
    return in_painter(write)[0][-1]


def _mixed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number + 1) % 2**62


@on_gpu
def paint(model: str, recipes: tuple[Recipe, ...], previews: bool = True) -> Iterator[Step | Painted]:
    """Paint the recipes, which differ in captions and seeds alone, in one batch.

    Yields:
        a `Step` at the beginning and after each step, then a `Painted` for each recipe. Closing the iterator stops the
        painter.
    """
    steps: queue.SimpleQueue[Any] = queue.SimpleQueue()
    gone = threading.Event()
    done = _worker().submit(_paint, model, recipes, previews, steps.put, gone)
    done.add_done_callback(lambda future: steps.put(None))
    try:
        while (step := steps.get()) is not None:
            yield step
        yield from done.result()
    finally:
        gone.set()
        done.cancel()


def _paint(
    model: str, recipes: tuple[Recipe, ...], previews: bool, report: Callable[[Step], None], gone: threading.Event
) -> list[Painted]:
    first, start = recipes[0], time.perf_counter()
    pipe, total = MODELS[model][first.adapter], first.num_inference_steps
    if gone.is_set():
        raise Gone
    report(Step(0, total, look=previews))
    colours = _colours(pipe) if previews else None
    expected = len(recipes) * seconds_a_picture(model)
    looks = min(MOST_LOOKS, max(1, round(expected / (PREVIEW_SECONDS if previews else BATCH_SECONDS))))

    def on_step(_: Any, number: int, timestep: torch.Tensor, values: dict) -> dict:
        if gone.is_set():
            raise Gone
        look = number * looks // total > (number - 1) * looks // total
        look &= previews or number > 0  # of a batch there is nothing to see yet but the time left
        report(Step(number + 1, total, look, _previews(values["latents"], colours) if look and previews else ()))
        return values

    story = Story([Frame(recipe.caption, seed=recipe.seed) for recipe in recipes])
    frames = (
        pipe(
            story,
            num_frames=len(recipes),
            lora_alpha=first.lora_alpha,
            num_inference_steps=first.num_inference_steps,
            guidance_scale=first.guidance_scale,
            generator=torch.Generator().manual_seed(0),  # of nothing: every frame has its seed
            callback_on_step_end=on_step,
        )
        .stories[0]
        .frames
    )
    _SECONDS[model] = (time.perf_counter() - start) / len(recipes)
    return [Painted(frame.image, frame.flagged, frame.model) for frame in frames]


def warm_up(model: str) -> None:
    """Learn the colours of the previews now, and not while somebody waits. A lent GPU is not there yet."""
    if not LENT:
        _worker().submit(_colours, next(iter(MODELS[model].values())))


@torch.no_grad()
def _colours(pipe: SAGANetsPipeline) -> torch.Tensor:
    """(C + 1, 3): the red, green and blue of a place, as a linear function of its latents and 1. Fitted once for an
    autoencoder, by least squares on two pictures and what they were decoded from."""
    if id(pipe.vae) not in _COLOURS:
        latents = torch.stack(
            pipe.paint(PREVIEW_CAPTIONS, output_type="latent", generator=torch.Generator().manual_seed(0)).images[0]
        )  # [2, C, h, w]
        pictures = pipe.vae.decode((latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype), return_dict=False)[0]
        small = torch.nn.functional.adaptive_avg_pool2d(pictures.float(), latents.shape[-2:])  # [2, 3, h, w]
        places, colours = _with_one(latents).float().cpu(), small.permute(0, 2, 3, 1).reshape(-1, 3).cpu()
        # ridge: sixteen channels and few places
        gram = places.T @ places + 1e-2 * torch.eye(places.shape[1])
        _COLOURS[id(pipe.vae)] = torch.linalg.solve(gram, places.T @ colours)
    return _COLOURS[id(pipe.vae)]


def _with_one(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) to (B h w, C + 1)."""
    flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1)


def _previews(latents: torch.Tensor, colours: torch.Tensor) -> tuple[str, ...]:
    """One small picture a latent, as data URIs."""
    count, _, height, width = latents.shape
    rgb = _with_one(latents.float().cpu()) @ colours
    pixels = ((rgb.view(count, height, width, 3) + 1) * 127.5).clamp(0, 255).to(torch.uint8).numpy()
    uris = []
    for each in pixels:
        out = io.BytesIO()
        Image.fromarray(each).save(out, "PNG")
        uris.append("data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii"))
    return tuple(uris)
