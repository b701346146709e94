"""What happens when a button is pressed: the handlers of the page, over one pipeline."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gradio as gr
import torch
from PIL import Image

from sagan_pipeline import SAGANetsPipeline

from .words import captions_of


MAX_SEED = 2**31 - 1
Pictures = list[tuple[Image.Image, str]]


@dataclass(frozen=True)
class Told:
    """The story on the page: enough to paint it again under another alpha."""

    captions: tuple[str, ...] = ()
    seed: int = 0
    alpha: float = 0.0


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the pipeline refuses into a message on the page; the story on the page stays as it is."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), title="This story cannot be painted", print_exception=False) from error


class Teller:
    """The handlers. They hold no story: the page keeps it (`Told`), one for each visitor."""

    def __init__(self, pipe: SAGANetsPipeline):
        self.pipe = pipe

    def tell_story(
        self, opening: str, num_frames: float, seed: float, alpha: float
    ) -> Iterator[tuple[Pictures, str, Told]]:
        """Tell a story: continue the opening captions and paint every frame, each shown as soon as it is painted.

        Args:
            opening: Opening captions, one a line. May be empty: then the captioner opens the story.
            num_frames: Frames of the whole story, the opening included.
            seed: Seed of the story, 0 to 2147483647. The same seed tells the same story.
            alpha: How much of the adapter is added: 0 is the base model, the trained alpha is the cast as trained.
        """
        start = time.perf_counter()
        pictures: Pictures = []
        with _refusals():
            generator = _generator(seed)
            count = _whole(num_frames, "num_frames")
            frames = self.pipe.stream(
                captions_of(opening), num_frames=count, lora_alpha=_number(alpha, "alpha"), generator=generator
            )
            for frame in frames:
                pictures.append((frame.image, frame.caption))
                told = Told(tuple(caption for _, caption in pictures), int(seed), float(alpha))
                seconds = time.perf_counter() - start
                status = f"Frame {len(pictures)} of {count} painted, {seconds:.1f} s"
                if len(pictures) == count:
                    status = f"{_frames(count)} at alpha {alpha:g}, seed {seed:g}, {seconds:.1f} s"
                yield list(pictures), status, told

    def repaint(self, alpha: float, told: Told | None) -> tuple[Pictures | dict, str | dict, Told | dict]:
        """Paint the story on the page again under another alpha: the same captions, the same noise.

        Args:
            alpha: How much of the adapter is added: 0 is the base model, the trained alpha is the cast as trained.
        """
        if not told or alpha == told.alpha:
            return gr.skip(), gr.skip(), gr.skip()
        start = time.perf_counter()
        with _refusals():
            pictures = self._painted(told, _number(alpha, "alpha"))
        seconds = time.perf_counter() - start
        status = f"{_frames(len(pictures))} repainted at alpha {alpha:g}, seed {told.seed}, {seconds:.1f} s"
        return pictures, status, Told(told.captions, told.seed, float(alpha))

    def compare(self, told: Told | None, alphas: tuple[float, ...]) -> tuple[dict, str | dict]:
        """The story on the page under each of `alphas`, side by side."""
        if not told:
            raise gr.Error(
                "Tell a story first, then compare it.", title="There is no story yet", print_exception=False
            )
        start = time.perf_counter()
        columns = [self._painted(told, alpha) for alpha in alphas]
        side_by_side = [
            (image, f"alpha {alpha:g} \u2013 {caption}")
            for row in zip(*columns, strict=True)
            for alpha, (image, caption) in zip(alphas, row, strict=True)
        ]
        return gr.update(value=side_by_side, visible=True), f"Compared in {time.perf_counter() - start:.1f} s"

    def _painted(self, told: Told, alpha: float) -> Pictures:
        out = self.pipe.paint(list(told.captions), lora_alpha=alpha, generator=_generator(told.seed))
        return [(frame.image, frame.caption) for frame in out.stories[0].frames]


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _number(value: float | None, name: str) -> float:
    if value is None:
        raise ValueError(f"`{name}` has to be a number, but is empty.")
    return float(value)


def _whole(value: float | None, name: str) -> int:
    number = _number(value, name)
    if not math.isfinite(number) or number != int(number):
        raise ValueError(f"`{name}` has to be a whole number, but is {value}.")
    return int(number)


def _generator(seed: float | None) -> torch.Generator:
    whole = _whole(seed, "seed")
    if not 0 <= whole <= MAX_SEED:
        raise ValueError(f"`seed` has to be between 0 and {MAX_SEED}, but is {whole}.")
    return torch.Generator().manual_seed(whole)
