"""CLIP-centric (paper 4.4): L2 + l_clip (1 - cos(E_img, E_text)) + l_char sum of distances of neighbouring frames.

Both terms see the decoded prediction of the latents without noise; their gradients run through the decoder. l_char
compares what `train.features` sees of a character in two neighbouring frames, cropped by the annotations' boxes where
the batch has them.
"""

from __future__ import annotations

import torch

from train.features import CharacterFeatures
from train.objectives.interface import STORY_FRAMES, Found, Term
from train.objectives.prediction import OnPrediction
from train.objectives.temporal import neighbours
from train.similarity import ClipSimilarity


def clip_loss(images: torch.Tensor, texts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted 1 - cos of (B, D) embeddings of pictures and captions: a scalar."""
    cosines = torch.nn.functional.cosine_similarity(images, texts)
    return (weights * (1 - cosines)).mean()


def character_loss(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor, stories: int) -> torch.Tensor:
    """Sum of squared distances of features (P, D) of unit length, divided by the number of stories: a scalar."""
    return (weights * (a - b).square().sum(dim=1)).sum() / stories


class ClipTerm(Term):
    """l_clip. Frames whose caption is left empty do not count."""

    def __init__(self, config, painter):
        super().__init__(config, painter)
        self.clip = ClipSimilarity(config.clip or f"{config.base}/clip", config.base, painter.device)

    def __call__(self, found: Found) -> torch.Tensor:
        batch, n = found.batch, found.decoded
        captions = [self.painter.release.clip(id).caption for id in batch.clips[:n]]
        images, texts = self.clip.images(found.pictures), self.clip.texts(captions)
        with torch.no_grad():
            self.logs = {"clip_cosine": float(torch.nn.functional.cosine_similarity(images, texts).mean())}
        return clip_loss(images, texts, found.weights[:n] * batch.captioned[:n])


class CharTerm(Term):
    """l_char, over neighbouring frames that share a character."""

    needs_stories = True

    def __init__(self, config, painter):
        super().__init__(config, painter)
        self.features = CharacterFeatures(config.char_features or f"{config.base}/features", painter.device)

    def __call__(self, found: Found) -> torch.Tensor:
        release, batch, pictures = self.painter.release, found.batch, found.pictures
        clips = [release.clip(id) for id in batch.clips[: found.decoded]]
        crops, rows = [], []
        for a, b in neighbours(clips, "character"):
            names = sorted(set(clips[a].characters) & set(clips[b].characters)) if found.placed else [""]
            for name in names:
                boxes = [self._box(batch, row, name) if name else None for row in (a, b)]
                if name and not all(boxes):
                    continue
                crops += [crop(pictures[row], box) for row, box in zip((a, b), boxes, strict=True)]
                rows.append(a)
        self.logs = {"char_pairs": float(len(rows))}
        if not rows:
            return pictures.sum() * 0
        features = self.features(crops)  # [2P, D]
        stories = found.decoded // STORY_FRAMES
        return character_loss(features[::2], features[1::2], found.weights[rows], stories)

    def _box(self, batch, row: int, name: str) -> tuple[float, float, float, float] | None:
        """Where a character is in a frame, in shares of its sides; None if the annotations do not say."""
        left, top, right, bottom = self.painter.release.boxes(batch.clips[row], batch.moments[row], [name])[0].tolist()
        if right - left < 0.02 or bottom - top < 0.02:
            return None
        return (1 - right, top, 1 - left, bottom) if batch.mirrored[row] else (left, top, right, bottom)


def crop(picture: torch.Tensor, box: tuple[float, float, float, float] | None) -> torch.Tensor:
    """The part (3, h, w) of a picture (3, H, W) that a box in shares of its sides cuts out; all of it without one."""
    if box is None:
        return picture
    height, width = picture.shape[-2:]
    left, right = int(box[0] * width), max(int(box[0] * width) + 1, round(box[2] * width))
    top, bottom = int(box[1] * height), max(int(box[1] * height) + 1, round(box[3] * height))
    return picture[:, top:bottom, left:right]


class ClipCentric(OnPrediction):
    """L2 + CLIP + character consistency."""

    name = "clip"
    terms_of = {"clip": ClipTerm, "char": CharTerm}
