"""The paper's `StoryImageDataset`: stories of consecutive clips, the first frame apart from the later ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from train.data.flintstones import FlintstonesRelease


FRAME_CHOICES = ("random", "middle")


class StoryImageDataset(Dataset):
    """Stories of one split.

    Args:
        release (`FlintstonesRelease`): the data.
        split (`str`): one of `release.splits`.
        num_frames (`int`): frames of a story, at least 1.
        frame (`str | int`): which frame stands for a clip: `"random"` (drawn for each story, position and epoch),
            `"middle"`, or an index into the clip.
        seed (`int`): governs `"random"`, not negative.
        classes (`Sequence[str] | None`): the characters of the label vectors; the show's own cast by default.

    Items are dicts of
        - ids, captions, settings: lists of `num_frames` strings,
        - first_frame: float32 (3, H, W) in [-1, 1],
        - later_frames: float32 (num_frames - 1, 3, H, W) in [-1, 1],
        - labels: float32 (num_frames, classes) of 0 and 1.

    Raises:
        ValueError: an argument is outside what is said above.
    """

    def __init__(
        self,
        release: FlintstonesRelease,
        split: str,
        num_frames: int = 5,
        frame: str | int = "random",
        seed: int = 0,
        classes: Sequence[str] | None = None,
    ):
        if isinstance(frame, bool) or not (isinstance(frame, int) or frame in FRAME_CHOICES):
            raise ValueError(f"`frame` is {frame!r}, but must be an index or one of {FRAME_CHOICES}.")
        if seed < 0:
            raise ValueError(f"`seed` is {seed}, but must not be negative.")
        self.release = release
        self.stories = release.stories(split, num_frames)
        self.frame = frame
        self.seed = seed
        self.epoch = 0
        self.classes = tuple(release.cast if classes is None else classes)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random frames are drawn; same epoch, same frames."""
        if epoch < 0:
            raise ValueError(f"`epoch` is {epoch}, but must not be negative.")
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.stories)

    def __getitem__(self, index: int) -> dict[str, object]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` is {index}, but there are {len(self)} stories.")
        ids = self.stories[index]
        clips = [self.release.clip(id) for id in ids]
        generator = np.random.default_rng([self.seed, self.epoch, index % len(self)])
        pictures = np.stack([self._picture(id, generator) for id in ids])  # [N, H, W, 3]
        pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = np.stack([self.release.labels(id, self.classes) for id in ids])
        return {
            "ids": list(ids),
            "captions": [clip.caption for clip in clips],
            "first_frame": pictures[0],
            "later_frames": pictures[1:],
            "labels": torch.from_numpy(labels).float(),
            "settings": [clip.setting for clip in clips],
        }

    def _picture(self, id: str, generator: np.random.Generator) -> np.ndarray:
        frames = self.release.frames(id)
        if self.frame == "random":
            return frames[generator.integers(len(frames))]
        if self.frame == "middle":
            return frames[len(frames) // 2]
        if not -len(frames) <= self.frame < len(frames):
            raise ValueError(f"`frame` is {self.frame}, but clip {id} has {len(frames)} frames.")
        return frames[self.frame]
