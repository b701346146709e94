"""Paints rows of stories into a folder that outlives an interruption, split over accelerate's processes.

Stories are painted in chunks of fixed size, so that what a frame looks like depends neither on the number of
processes nor on where an earlier run was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from tqdm import tqdm

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.captioner import next_captions
from sagan_pipeline.story import Story
from train.data.cache import encode
from train.evaluation.stories import TestStories


STORIES_AT_ONCE = 4  # 16 frames of four-frame stories: one batch of the UNet
Painter = Callable[[list[int]], list[np.ndarray]]  # stories' numbers -> uint8 (frames, H, W, 3) each


@dataclass(frozen=True)
class Painted:
    """A row of painted stories on disk.

    Args:
        folder (`Path`): one strip a story, its frames side by side, lossless.
        num_frames (`int`): of a story.
        count (`int`): stories.
    """

    folder: Path
    num_frames: int
    count: int

    def __call__(self, story: int) -> np.ndarray:
        """The frames of a story: uint8 (frames, H, W, 3)."""
        strip = np.asarray(Image.open(self.folder / f"{story:05d}.png").convert("RGB"))
        return np.stack(np.split(strip, self.num_frames, axis=1))

    @property
    def seconds_a_frame(self) -> float:
        """Painting alone, on one process; the first chunk, which warms up, does not count where there are others."""
        times = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        times = times[1:] or times
        return sum(t["seconds"] for t in times) / max(1, sum(t["frames"] for t in times))


def key_of(name: str, facts: dict[str, object]) -> str:
    """A folder's name that changes whenever anything does that the pictures depend on."""
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}-{digest}"


def fingerprint(*paths: Path) -> str:
    """Of the weights in files and folders: changes when any of them does."""
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*.safetensors")) or sorted(path.rglob("*.pt"))
        for file in files:
            with open(file, "rb") as opened:
                while part := opened.read(1 << 20):
                    digest.update(part)
    return digest.hexdigest()


def shared_chunks(
    folder: Path, count: int, size: int, accelerator: Accelerator, make: Callable[[list[int]], dict], description: str
) -> list[dict]:
    """What `make` returns for every chunk of `range(count)`, in order; from disk where it was made before.

    Every process makes its share and reads the others'; the folder must be one that all of them see.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    mine = range(accelerator.process_index, len(chunks), accelerator.num_processes)
    missing = [i for i in mine if not (folder / f"{i:05d}.json").exists()]
    bar = tqdm(missing, desc=description, disable=not accelerator.is_main_process or not missing, mininterval=5.0)
    for i in bar:
        made = make(chunks[i])
        aside = folder / f".{i:05d}.{accelerator.process_index}"
        aside.write_text(json.dumps(made), encoding="utf-8")
        os.replace(aside, folder / f"{i:05d}.json")
    accelerator.wait_for_everyone()
    return [json.loads((folder / f"{i:05d}.json").read_text(encoding="utf-8")) for i in range(len(chunks))]


def paint_row(
    work: Path, key: str, stories: TestStories, painter: Painter, accelerator: Accelerator, description: str
) -> Painted:
    """Paint every story with `painter`, unless that was done before."""
    folder = work / key

    def make(indices: list[int]) -> dict:
        start = time.perf_counter()
        told = painter(indices)
        seconds = time.perf_counter() - start
        for index, frames in zip(indices, told, strict=True):
            aside = folder / f".{index:05d}.{accelerator.process_index}.png"
            Image.fromarray(np.concatenate(list(frames), axis=1)).save(aside, compress_level=1)
            os.replace(aside, folder / f"{index:05d}.png")
        return {"seconds": seconds, "frames": len(indices) * len(stories.scored)}

    shared_chunks(folder, len(stories), STORIES_AT_ONCE, accelerator, make, description)
    return Painted(folder, stories.num_frames, len(stories))


def story_generator(seed: int, story: int) -> torch.Generator:
    """The noise of a story depends on the seed and its number, not on what is painted beside it."""
    digest = hashlib.blake2b(f"{seed} story {story}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def at_size_of(pipe: SAGANetsPipeline, pictures: Sequence[np.ndarray]) -> list[Image.Image]:
    """Pictures, uint8 (H, W, 3) each, at the size that the pipeline paints."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    return [Image.fromarray(p).convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for p in pictures]


@torch.no_grad()
def encoded(pipe: SAGANetsPipeline, pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """Latents of pictures, uint8 (H, W, 3) each: [N, C, h, w] in the autoencoder's dtype, not yet scaled."""
    pixels = pipe.image_processor.preprocess(at_size_of(pipe, pictures))
    return encode(pipe.vae, pixels.to(pipe.vae.device, pipe.vae.dtype))


def pipeline_painter(pipe: SAGANetsPipeline, stories: TestStories, seed: int, **arguments: object) -> Painter:
    """Paints with the pipeline; in a continuation it is given the first real frame of each story."""

    def paint(indices: list[int]) -> list[np.ndarray]:
        told = []
        for i in indices:
            images: list[Image.Image | None] = [None] * stories.num_frames
            if 0 not in stories.scored:
                images[0] = at_size_of(pipe, stories.real(i)[:1])[0]
            told.append(Story.from_captions(stories.captions[i], images))
        generators = [story_generator(seed, i) for i in indices]
        out = pipe(told, num_frames=stories.num_frames, generator=generators, **arguments)
        return [np.stack([np.asarray(f.image.convert("RGB")) for f in s.frames]) for s in out.stories]

    return paint


def reconstructing_painter(pipe: SAGANetsPipeline, stories: TestStories, seed: int) -> Painter:
    """Paints nothing: the real frames, encoded by the pipeline's autoencoder and decoded again."""

    @torch.no_grad()
    def paint(indices: list[int]) -> list[np.ndarray]:
        told = []
        for i in indices:
            pictures = pipe.vae.decode(encoded(pipe, stories.real(i)), return_dict=False)[0].float()
            told.append(np.stack([np.asarray(p) for p in pipe.image_processor.postprocess(pictures)]))
        return told

    return paint


def continuation_painter(
    pipe: SAGANetsPipeline, stories: TestStories, seed: int, share: float = 0.25, **arguments: object
) -> Painter:
    """Paints as StoryDALL-E's continuation is asked to: the first real frame is the source of all later ones.

    Training-free: for the first `share` of the denoising steps every later frame is the source under its own noise,
    as in SDEdit, and only then goes its own way.
    """

    def paint(indices: list[int]) -> list[np.ndarray]:
        told = []
        for i in indices:
            generator = story_generator(seed, i)
            clean = encoded(pipe, stories.real(i)[:1]).float() * pipe.vae.config.scaling_factor
            own = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
            scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
            steps = arguments.get("num_inference_steps") or pipe.config.default_num_inference_steps
            scheduler.set_timesteps(steps)
            held = max(1, round(share * steps))

            def steer(pipe, step, timestep, values, clean=clean, own=own, scheduler=scheduler, held=held):
                if step < held and step + 1 < len(scheduler.timesteps):
                    latents = values["latents"]
                    noise = torch.randn(latents.shape, generator=own).to(latents)
                    at = scheduler.timesteps[step + 1].expand(len(latents))
                    values["latents"] = scheduler.add_noise(clean.expand_as(latents).to(latents), noise, at)
                return values

            out = pipe.paint(stories.captions[i], generator=generator, callback_on_step_end=steer, **arguments)
            told.append(np.stack([np.asarray(f.image.convert("RGB")) for f in out.stories[0].frames]))
        return told

    return paint


def generated_captions(
    pipe: SAGANetsPipeline, stories: TestStories, seed: int, folder: Path, accelerator: Accelerator
) -> list[list[str]]:
    """The first caption of each story, and what the captioner writes after it."""

    def make(indices: list[int]) -> dict:
        told = []
        for i in indices:
            captions, generator = stories.captions[i][:1], story_generator(seed, i)
            while len(captions) < stories.num_frames:
                captions += next_captions(
                    pipe.captioner,
                    pipe.captioner_tokenizer,
                    [captions],
                    [generator],
                    temperature=pipe.config.default_temperature,
                )
            told.append(captions)
        return {"captions": told}

    chunks = shared_chunks(folder, len(stories), 16, accelerator, make, "captions")
    return [captions for chunk in chunks for captions in chunk["captions"]]


def shuffled_rows(count: int, seed: int) -> np.ndarray:
    """A random permutation of `range(count)` that leaves nothing where it was (with two or more)."""
    order = np.random.default_rng([seed, 1]).permutation(count)
    moved = np.empty(count, dtype=int)
    moved[order] = np.roll(order, 1)
    return moved


def shuffled(pictures: Callable[[int], np.ndarray], count: int, seed: int) -> Callable[[int], np.ndarray]:
    """Each story shown with another story's frames."""
    order = shuffled_rows(count, seed)
    return lambda story: pictures(int(order[story]))


class NearestFrames:
    """The real training frame whose caption is the most like a frame's: TF-IDF of words, cosine.

    Args:
        stories (`TestStories`): whose captions are looked up.
    """

    def __init__(self, stories: TestStories):
        self.stories = stories
        release = stories.release
        self.ids = list(release.splits["train"])
        texts = [release.clip(id).caption for id in self.ids]
        vocabulary = sorted({word for text in texts for word in words_of(text)})
        self.index = {word: i for i, word in enumerate(vocabulary)}
        counts = self._counts(texts)
        self.idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
        self.known = self._unit(counts)

    def _counts(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.zeros((len(texts), len(self.index)), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words_of(text):
                if word in self.index:
                    counts[row, self.index[word]] += 1
        return counts

    def _unit(self, counts: np.ndarray) -> np.ndarray:
        weighted = counts * self.idf
        return weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-9)

    def nearest(self, captions: Sequence[str]) -> list[str]:
        """The training clip of each caption."""
        best = (self._unit(self._counts(captions)) @ self.known.T).argmax(axis=1)
        return [self.ids[i] for i in best.tolist()]

    def __call__(self, story: int) -> np.ndarray:
        """The frames of a story: uint8 (frames, H, W, 3)."""
        release = self.stories.release
        middle = [release.frame(id, lambda n: n // 2) for id in self.nearest(self.stories.captions[story])]
        return np.stack(middle)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())
