"""Captions painted one by one and judged: what comparing trainings and solvers needs, where no story is asked for."""

from __future__ import annotations

import time

import numpy as np
import torch
from tqdm import tqdm

from sagan_pipeline import SAGANetsPipeline
from train.data.flintstones import FlintstonesRelease
from train.metrics.characters import accuracy, character_scores, f1
from train.metrics.distance import JudgeDistance
from train.metrics.judge import THRESHOLD, Judge, real_frames


AT_ONCE = 16  # captions painted in one call
BOOTSTRAPS = 1000
MAX_REFERENCE = 1000  # real frames of training clips that FJD is measured to


def paint(
    pipe: SAGANetsPipeline, captions: list[str], seed: int, bar: tqdm, **arguments: float | None
) -> tuple[np.ndarray, float]:
    """Paint every caption: uint8 (N, H, W, 3), and the seconds a frame took. Same seed, same noise."""
    pictures, start = [], time.perf_counter()
    for first in range(0, len(captions), AT_ONCE):
        chunk = captions[first : first + AT_ONCE]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + first)
        frames = pipe.paint(chunk, generator=generator, **arguments).stories[0].frames
        pictures += [np.asarray(frame.image.convert("RGB")) for frame in frames]
        bar.update(len(chunk))
    return np.stack(pictures), (time.perf_counter() - start) / len(captions)


def micro_f1_interval(predicted: np.ndarray, actual: np.ndarray, seed: int) -> list[float]:
    """95% bootstrap interval of the micro Char-F1 of (N, C) labels, frames drawn with replacement."""
    counts = np.stack([(predicted & actual).sum(axis=1), predicted.sum(axis=1), actual.sum(axis=1)], axis=1)  # [N, 3]
    draws = np.random.default_rng(seed).integers(len(counts), size=(BOOTSTRAPS, len(counts)))
    scores = [f1(*row) for row in counts[draws].sum(axis=1).tolist()]
    return np.percentile(scores, [2.5, 97.5]).tolist()


def judged(
    judge: Judge, distance: JudgeDistance, pictures: np.ndarray, labels: np.ndarray, settings: list[str], seed: int
) -> dict[str, object]:
    """The judge's figures on pictures that ought to show `labels` (N, C) and `settings` (N names).

    Returns:
        those of `character_scores`, `bg_acc`, `fjd`, `char_f1_micro_95` (an interval), and `mistakes` (N): wrong
        characters and wrong setting of each picture, which the caller takes out.
    """
    characters, places, _ = judge(pictures)
    predicted, actual = characters.numpy() > THRESHOLD, labels.astype(bool)
    seen = [judge.settings[i] for i in places.argmax(dim=1).tolist()]
    wrong_place = np.array([bool(setting) and s != setting for s, setting in zip(seen, settings, strict=True)])
    return {
        **character_scores(predicted, actual, list(judge.classes)),
        "char_f1_micro_95": micro_f1_interval(predicted, actual, seed),
        "bg_acc": accuracy(seen, settings),
        "fjd": distance(pictures),
        "mistakes": (predicted != actual).sum(axis=1) + wrong_place,
    }


def reference(judge: Judge, release: FlintstonesRelease, seed: int) -> JudgeDistance:
    """FJD to real frames of training clips, one a clip. What real frames of another split get is its floor."""
    ids = release.splits["train"]
    ids = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:MAX_REFERENCE]]
    return JudgeDistance(judge, real_frames(release, ids, judge.classes, seed)[0])
