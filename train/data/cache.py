"""Latents and text states, computed once per model, data and size and kept in memory-mapped safetensors files.

A file is found again by what made it: the weights, the frames, the size. It is written aside and renamed; a lock lets
one process compute while the others wait; a changed model or a changed picture makes a new one. Once it is there,
training needs neither the autoencoder nor the text encoder in memory, nor the pictures on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from train.data.flintstones import FlintstonesRelease, sampled_index
from train.data.layouts import NoFrames


PICTURES_AT_ONCE = 32
CAPTIONS_AT_ONCE = 64


def weights_hash(module: torch.nn.Module) -> str:
    """Short hash of a model's weights: a cache is only good for the model that made it."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def short_hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def encode(vae, pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1] to latents (B, C, h, w), not yet scaled: the posterior's mean where there is one."""
    encoded = vae.encode(pictures)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mode()  # AutoencoderKL
    return encoded.latent if hasattr(encoded, "latent") else encoded.latents  # AutoencoderDC, AutoencoderTiny


class LatentCache:
    """Latents of chosen frames of clips.

    Args:
        latents (`torch.Tensor`): (N, F, C, h, w) float16, scaled to unit deviation; N clips, F frames.
        ids (`list[str]`): the N clips.
    """

    def __init__(self, latents: torch.Tensor, ids: list[str]):
        self.latents = latents
        self.ids = ids
        self.index_of = {id: index for index, id in enumerate(ids)}

    @classmethod
    def build(
        cls,
        vae,
        release: FlintstonesRelease,
        ids: Sequence[str],
        folder: Path,
        frames: tuple[int, ...] = (1, 3),
        size: int | None = None,
        mirror: bool = False,
    ) -> LatentCache:
        """Open the cache of these clips under this encoder, or compute it and write it.

        Args:
            vae (`AutoencoderKL`, `AutoencoderDC` or `AutoencoderTiny`): its encoder and `scaling_factor` make the
                latents; the decoder may change without a new cache.
            ids (`Sequence[str]`): clips of the release. Where it was opened without pictures, a cache of at least some
                of them must be there, and its own clips are those of the result.
            folder (`Path`): of the cache files.
            frames (`tuple[int, ...]`): which of a clip's five frames.
            size (`int`, *optional*): side in pixels that frames are resized to (bicubic); their own by default.
            mirror (`bool`): mirror every other frame. A caption that names people in the order in which they stand
                is not true of its mirrored picture, and a model of such pairs cannot tell who is who.

        Raises:
            ValueError: there is no cache, and no pictures to make one from; or a file that is not whole.
        """
        settings = map(str, (vae.config.scaling_factor, frames, size, mirror))
        model = short_hash(weights_hash(vae.encoder), *settings)
        if isinstance(release.layout, NoFrames):
            return cls._of_lost_pictures(folder, model, ids)
        data = short_hash(*map(release.fingerprint, ids))
        path = folder / f"latents-{model}-{data}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                latents = _encode_clips(vae, release, ids, frames, size, mirror)
                _write(path, {"latents": latents}, {"ids": json.dumps(list(ids))})
        return cls(*_open(path))

    @classmethod
    def _of_lost_pictures(cls, folder: Path, model: str, ids: Sequence[str]) -> LatentCache:
        wanted = set(ids)
        for path in sorted(folder.glob(f"latents-{model}-*.safetensors"), key=lambda p: -p.stat().st_mtime):
            latents, known = _open(path)
            if wanted.issuperset(known):
                return cls(latents, known)
        raise ValueError(f"{folder} holds no latents of these clips for this model, and the pictures are not there.")

    def to(self, device: torch.device) -> LatentCache:
        """The same latents on `device`."""
        return LatentCache(self.latents.to(device), self.ids)

    def take(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (B, C, h, w) float32 of the given clips (B,): a random frame of each. All on one device."""
        frame = torch.randint(self.latents.shape[1], index.shape, generator=generator, device=generator.device)
        return self.latents[index, frame].float()


@torch.no_grad()
def _encode_clips(
    vae, release: FlintstonesRelease, ids: Sequence[str], frames: tuple[int, ...], size: int | None, mirror: bool
) -> torch.Tensor:
    device, at_once = next(vae.parameters()).device, max(1, PICTURES_AT_ONCE // len(frames))
    latents = None
    started = time.monotonic()
    for start in tqdm(range(0, len(ids), at_once), desc="latents", mininterval=5.0):
        clips = ids[start : start + at_once]
        x = np.stack([_pictures(release, id, frames, mirror) for id in clips])  # [n, F, H, W, 3]
        x = torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1  # [nF, 3, H, W]
        if size is not None and tuple(x.shape[-2:]) != (size, size):
            x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
        with torch.autocast(device.type, torch.bfloat16):
            z = encode(vae, x.contiguous(memory_format=torch.channels_last)).float()  # [nF, C, h, w]
        z = (z * vae.config.scaling_factor).unflatten(0, (len(clips), len(frames))).half().cpu()
        if latents is None:
            latents = torch.empty((len(ids), *z.shape[1:]), dtype=torch.float16)
            seconds = (time.monotonic() - started) * len(ids) / len(clips)
            tqdm.write(
                f"latents: {len(ids):,} clips x {len(frames)} frames, {latents.nbytes / 1e6:,.0f} MB, "
                f"about {max(1, round(seconds / 60))} min",
                file=sys.stderr,
            )
        latents[start : start + len(clips)] = z
    if latents is None:
        raise ValueError(f"`ids` is empty: {release.root} has no clips to compute latents of.")
    return latents


def _pictures(release: FlintstonesRelease, id: str, frames: tuple[int, ...], mirror: bool) -> np.ndarray:
    chosen = [release.frame(id, lambda count, frame=frame: sampled_index(frame, count)) for frame in frames]
    return np.stack([picture[:, ::-1] if mirror and i % 2 else picture for i, picture in enumerate(chosen)])


class TextCache:
    """The text encoder's last hidden states of a list of captions, and of the empty caption.

    Args:
        all_states (`torch.Tensor`): (N + 1, L, D) float16; the last one belongs to the empty caption.
    """

    def __init__(self, all_states: torch.Tensor):
        self.all_states = all_states

    @classmethod
    def build(
        cls,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        captions: Sequence[str],
        folder: Path | None = None,
    ) -> TextCache:
        """Compute the states of captions; with a `folder`, keep them there, and open them if they are there."""
        texts = [*captions, ""]
        if folder is None:
            return cls(_encode_texts(text_encoder, tokenizer, texts))
        words = short_hash(json.dumps(tokenizer.get_vocab(), sort_keys=True), str(tokenizer.model_max_length))
        path = folder / f"text-{short_hash(weights_hash(text_encoder), words)}-{short_hash(*texts)}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _write(path, {"states": _encode_texts(text_encoder, tokenizer, texts)}, {})
        with safe_open(path, framework="pt") as file:
            return cls(file.get_tensor("states"))

    def __len__(self) -> int:
        return len(self.all_states) - 1

    def states(self, index: torch.Tensor, generator: torch.Generator, dropout: float = 0.0) -> torch.Tensor:
        """(B, L, D) float32; with probability `dropout` the empty caption's, for classifier-free guidance."""
        dropped = torch.rand(index.shape, generator=generator) < dropout
        return self.all_states[torch.where(dropped, len(self), index)].float()


@torch.no_grad()
def _encode_texts(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    device = next(text_encoder.parameters()).device
    states = []
    for start in range(0, len(texts), CAPTIONS_AT_ONCE):
        tokens = tokenizer(
            texts[start : start + CAPTIONS_AT_ONCE],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        states.append(text_encoder(tokens.input_ids.to(device))[0].half().cpu())
    return torch.cat(states)


def _write(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    aside = path.with_suffix(".tmp")
    save_file(tensors, aside, metadata=facts)
    os.replace(aside, path)


def _open(path: Path) -> tuple[torch.Tensor, list[str]]:
    """The latents, mapped and not copied into memory, and the clips that they are of."""
    try:
        with safe_open(path, framework="pt") as file:
            latents, ids = file.get_tensor("latents"), json.loads(file.metadata()["ids"])
    except Exception as error:  # safetensors has an exception of its own, not derived from ValueError
        raise ValueError(f"{path} is not a whole cache ({error}); delete it, it will be computed again.") from None
    if len(latents) != len(ids):
        raise ValueError(f"{path} holds latents of {len(latents)} clips but names {len(ids)}; delete it.")
    return latents, ids
