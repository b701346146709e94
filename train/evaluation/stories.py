"""The stories that are painted and scored, and the protocols under which the literature does so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.world import SETTINGS
from train.metrics.captions import named


MODES = ("visualisation", "continuation")


@dataclass(frozen=True)
class Protocol:
    """How a family of papers measures; their figures compare within a protocol only.

    Args:
        num_frames (`int`): frames of a story.
        mode (`str`): `"visualisation"` paints and scores all of them from text; `"continuation"` is given the first
            real frame and scores the later ones.
        resolution (`int`, *optional*): real and painted frames are reduced to this side before anything looks at
            them; `None`: as they are.
        num_stories (`int`, *optional*): `None`: all of the split.
        shuffled (`bool`): the stories are drawn at random; otherwise they are the first ones of the split.
    """

    num_frames: int
    mode: str
    resolution: int | None = None
    num_stories: int | None = None
    shuffled: bool = True


PROTOCOLS = {
    "embedded": Protocol(4, "visualisation", num_stories=500),
    # adymaharana/storydalle, eval_fid.py: the first 1,900 stories, four target frames each, at 64 px
    "storydalle": Protocol(5, "continuation", resolution=64, num_stories=1900, shuffled=False),
    # xichenpan/ARLDM, main.py: every test story, painted at 512 px and, like the real frames, reduced to 64 px
    "arldm": Protocol(5, "continuation", resolution=64, shuffled=False),
    # xiaoqian-shen/StoryGPT-V, eval: stories of four frames, at the size that Inception-v3 takes
    "storygptv": Protocol(4, "visualisation", shuffled=False),
}


@dataclass(frozen=True)
class TestStories:
    """Stories of one split, what their frames ought to show, and their real frames.

    Args:
        release (`FlintstonesRelease`): the data.
        ids (`list[list[str]]`): clips, story by story.
        captions (`list[list[str]]`): of each frame, as they are or as a captioner wrote them.
        labels (`np.ndarray`): bool (stories, frames, characters), who ought to be there.
        settings (`list[list[str]]`): where it ought to be; empty where nothing says so, and then it does not count.
        classes (`tuple[str, ...]`): the characters.
        scored (`list[int]`): the frames that figures are of.
        seed (`int`): draws which of a clip's real frames stands for it.
        resolution (`int`, *optional*): of the real frames; as they are by default.
    """

    __test__ = False  # for pytest, which takes every class of this name for one of its own

    release: FlintstonesRelease
    ids: list[list[str]]
    captions: list[list[str]]
    labels: np.ndarray
    settings: list[list[str]]
    classes: tuple[str, ...]
    scored: list[int]
    seed: int
    resolution: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_frames(self) -> int:
        return len(self.ids[0])

    def real(self, story: int) -> np.ndarray:
        """The real frames of a story, one a clip: uint8 (frames, H, W, 3). The same story, the same frames."""
        draw = np.random.default_rng([self.seed, story])
        frames = [self.release.frame(id, lambda count: int(draw.integers(count))) for id in self.ids[story]]
        return reduced(np.stack(frames), self.resolution)

    def halves(self) -> np.ndarray:
        """Which of two disjoint halves each frame's clip is in: int (stories, frames) of 0 and 1. No clip is in both.

        By clip and not by episode: episodes differ in cast and places, so that two halves of a handful of them are far
        apart whatever is painted (measured on the show's test split: a floor of 67.6, against 16.5 by clip).
        """
        clips = sorted({id for story in self.ids for id in story})
        order = np.random.default_rng(0).permutation(len(clips))
        half = {clips[clip]: i % 2 for i, clip in enumerate(order)}
        return np.array([[half[id] for id in story] for story in self.ids])

    def with_captions(self, captions: list[list[str]]) -> TestStories:
        """The same stories told in other words: who and where then follows from the captions themselves."""
        labels = np.array([[[name in named(c, self.classes) for name in self.classes] for c in s] for s in captions])
        places = place_words(self.release.settings)
        settings = [[place_of(caption, places) for caption in story] for story in captions]
        return replace(self, captions=captions, labels=labels, settings=settings)

    def caption_agreement(self) -> dict[str, float]:
        """How often the captions alone say what the annotation does: shares of frames. Where captions are generated
        nothing else says what a frame ought to show."""
        told = self.with_captions(self.captions)
        who = (told.labels == self.labels).all(axis=-1)[:, self.scored]
        pairs = [
            (a[f], b[f])
            for a, b in zip(told.settings, self.settings, strict=True)
            for f in self.scored
            if a[f] and b[f]
        ]
        where = sum(a == b for a, b in pairs) / len(pairs) if pairs else float("nan")
        return {"characters": float(who.mean()), "setting": where}


def test_stories(
    release: FlintstonesRelease,
    classes: Sequence[str],
    split: str,
    num_frames: int,
    mode: str,
    num_stories: int | None,
    seed: int = 0,
    shuffled: bool = True,
    resolution: int | None = None,
) -> TestStories:
    """Stories of a split, drawn without replacement; all of them if there are fewer than `num_stories`.

    Raises:
        ValueError: `mode` is unknown, or the split holds no such story.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` is {mode!r}, but must be one of {', '.join(MODES)}.")
    if mode == "continuation" and num_frames < 2:
        raise ValueError(f"`num_frames` is {num_frames}, but a continuation needs 2: the first frame is given.")
    stories = release.stories(split, num_frames)
    if not stories:
        raise ValueError(f"`split` {split!r} holds no story of {num_frames} annotated clips.")
    order = np.random.default_rng(seed).permutation(len(stories)) if shuffled else np.arange(len(stories))
    ids = [stories[i] for i in order[:num_stories]]
    return TestStories(
        release=release,
        ids=ids,
        captions=[[release.clip(id).caption for id in story] for story in ids],
        labels=np.stack([[release.labels(id, classes) for id in story] for story in ids]).astype(bool),
        settings=[[release.clip(id).setting for id in story] for story in ids],
        classes=tuple(classes),
        scored=list(range(mode == "continuation", num_frames)),
        seed=seed,
        resolution=resolution,
    )


test_stories.__test__ = False


def place_words(settings: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words that a caption may use for each setting; of a show that is not ours, its name alone."""
    return {name: tuple(dict.fromkeys((name, *SETTINGS.get(name, ())))) for name in settings}


def place_of(caption: str, places: dict[str, tuple[str, ...]]) -> str:
    """The setting that a caption names, by its longest word for one; empty if it names none or several."""
    found: dict[str, str] = {word: name for name, words in places.items() for word in named(caption, words)}
    whole = {word: name for word, name in found.items() if not any(word != o and word in o for o in found)}
    return next(iter(whole.values())) if len(set(whole.values())) == 1 else ""


def reduced(pictures: np.ndarray, side: int | None) -> np.ndarray:
    """Pictures, uint8 (N, H, W, 3), at `side` pixels; as they are for `None`."""
    if side is None or pictures.shape[1:3] == (side, side):
        return pictures
    small = [Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in small])
