"""FlintstonesSV, and every show in one of its layouts: validated when opened, frames read only when asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from train.data.annotations import KEY_FRAMES, SAMPLED, ClipRecord, check_id, read_record, stories_of
from train.data.arrays import Choose
from train.data.gravel_gulch.world import REGULARS
from train.data.layouts import NoFrames, recognise


MAX_MISSING = 0.05  # share of the split's clips that may lack frames or an annotation
FLINTSTONES = ("Wilma", "Fred", "Betty", "Barney", "Dino", "Pebbles", "Mr Slate")  # the literature's order
CASTS = (FLINTSTONES, REGULARS)
ORIGINAL_SIZE = (640, 480)  # pixels of the frames that the boxes were drawn on; later squeezed to a square


class FlintstonesRelease:
    """A release. Opening it reads the annotations and lists the frames; pictures are read on demand.

    Args:
        root (`str | os.PathLike`): a folder or file in one of the layouts of `train.data.layouts`, or the address of
            shards (`hf://datasets/USER/NAME`, `https://HOST/PATH`).
        max_missing (`float`): share of the split's clips that may be missing.
        pictures (`bool`): `False` opens the annotations alone, wherever the frames are.

    Attributes:
        layout (`Layout`): how it lies on disk; `layout.name` says it in words.
        splits (`dict[str, list[str]]`): usable ids of each split, in the order of the split file.
        missing (`dict[str, list[str]]`): ids without `"annotation"` and without `"frames"`; they are in no split.
        cast (`tuple[str, ...]`): the regulars of the show this is, in label order; empty if no known regular occurs.

    Raises:
        ValueError: no known layout, a file is missing or of the wrong shape, or too many clips are missing.
    """

    def __init__(self, root: str | os.PathLike, max_missing: float = MAX_MISSING, pictures: bool = True):
        self.layout = recognise(root) if pictures else NoFrames(Path(root))
        self.root = self.layout.root
        split = self.layout.splits()
        records = [record for record in map(read_record, self.layout.annotations()) if record is not None]
        self.records = {record.id: record for record in records}
        present = self.layout.present()
        ids = [id for split_ids in split.values() for id in split_ids]
        self.missing = {
            "annotation": [id for id in ids if id not in self.records],
            "frames": [id for id in ids if id not in present],
        }
        if not ids:
            raise ValueError(f"{self.root}: the split lists no clip; fetch or write it again.")
        lost = set(self.missing["annotation"]) | set(self.missing["frames"])
        if len(lost) > max_missing * len(ids):
            raise ValueError(
                f"{self.root}: {len(lost)} of {len(ids)} clips are missing ({len(self.missing['annotation'])} without "
                f"a whole annotation, {len(self.missing['frames'])} without frames), more than the accepted share of "
                f"{max_missing:.0%}. Complete the download."
            )
        self.splits = {name: [id for id in split_ids if id not in lost] for name, split_ids in split.items()}
        self.cast = self._cast()
        self._box_scale: tuple[float, float] | None = None

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def _cast(self) -> tuple[str, ...]:
        counts = Counter(label for ids in self.splits.values() for id in ids for label in self.records[id].characters)
        totals = [(sum(counts[name.lower()] for name in cast), cast) for cast in CASTS]
        total, cast = max(totals, key=lambda pair: pair[0])
        return cast if total else ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the training split, the most frequent first."""
        counts = Counter(self.records[id].setting for id in self.splits.get("train", ()))
        counts.pop("", None)
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))

    def clip(self, id: str) -> ClipRecord:
        """The record of a clip.

        Raises:
            ValueError: `id` is not of the grammar, or not annotated here.
        """
        if check_id(id) not in self.records:
            raise ValueError(f"`id` {id!r} is not annotated in {self.root}.")
        return self.records[id]

    def frames(self, id: str) -> np.ndarray:
        """The frames of a clip: uint8 (n, H, W, 3), RGB, read-only; memory-mapped where they have a file of their own.

        Floating-point files, which the literature accepts, come back as a uint8 copy.

        Raises:
            ValueError: `id` is not of the grammar, or its frames are missing, cut off, or of another shape or type.
        """
        return self.layout.frames(check_id(id))

    def frame(self, id: str, index: int | Choose) -> np.ndarray:
        """One frame of a clip: uint8 (H, W, 3), RGB, read-only. Only its bytes are read.

        Args:
            index (`int | Callable[[int], int]`): which, negative from the end; or a function that is given the number
                of frames and says which, so that choosing needs no second read.

        Raises:
            ValueError: as `frames`, or the clip has no such frame.
        """
        return self.layout.frame(check_id(id), index)

    def fingerprint(self, id: str) -> str:
        """Changes when the frames of a clip are written anew; what is computed from frames is kept under it."""
        return self.layout.fingerprint(check_id(id))

    def boxes(self, id: str, position: float = 0.5, classes: Iterable[str] | None = None) -> np.ndarray:
        """Where those of `classes` (default: `cast`) are in the squeezed, square frame.

        Args:
            position (`float`): which moment of the clip, 0 (first frame) to 1 (last); between two key frames with
                boxes they are interpolated, as AI2's tracking does; elsewhere the nearest key frame says it.

        Returns:
            float32 (len(classes), 4): x1, y1, x2, y2 as shares of the frame's width and height in [0, 1]; zeros where
            the character is not annotated or out of the picture.
        """
        record = self.clip(id)
        scale = np.array([*self.box_scale, *self.box_scale], dtype=np.float32)
        classes = self.cast if classes is None else tuple(classes)
        boxes = np.zeros((len(classes), 4), dtype=np.float32)
        for i, name in enumerate(classes):
            if name.strip().lower() in record.characters:
                box = _at(record.boxes[record.characters.index(name.strip().lower())], position * 74)
                if box is not None:
                    boxes[i] = np.clip(np.asarray(box, dtype=np.float32) / scale, 0, 1)
        return boxes

    @property
    def box_scale(self) -> tuple[float, float]:
        """Width and height, in pixels, of the picture that the boxes count in: the 640 x 480 original, or 128 x 128 if
        no box of the whole release leaves that, as in some copies."""
        if self._box_scale is None:
            largest = max(
                (max(box) for record in self.records.values() for boxes in record.boxes for box in boxes if box),
                default=0,
            )
            self._box_scale = ORIGINAL_SIZE if largest > 128 else (128, 128)
        return self._box_scale

    def labels(self, id: str, classes: Iterable[str] | None = None) -> np.ndarray:
        """Who of `classes` (default: `cast`) the annotation names: uint8 (len(classes),) of 0 and 1.

        An exact match of the whole label, as the literature does: "barney dressed as a baby" is not Barney.
        """
        characters = set(self.clip(id).characters)
        classes = self.cast if classes is None else classes
        return np.array([name.strip().lower() in characters for name in classes], dtype=np.uint8)

    def stories(
        self, split: str, length: int = 5, followings: Mapping[str, Sequence[str]] | None = None
    ) -> list[list[str]]:
        """Stories of one split as lists of `length` ids: see `stories_of`.

        Args:
            followings: what `read_followings` read of a `following_cacheK.pkl`; the rule makes them otherwise.

        Raises:
            ValueError: there is no such split, or `length` is below 1 or more than the layout's stories have.
        """
        if split not in self.splits:
            raise ValueError(f"`split` is {split!r}, but {self.root} has {', '.join(self.splits)}.")
        own = self.layout.stories(length) if followings is None else None
        if own is None:
            return stories_of(self.splits, length, followings)[split]
        usable = set(self.splits[split])
        return [story for story in own[split] if usable.issuperset(story)]


def sampled_index(index: int, count: int) -> int:
    """Where frame `index` of five lies in a clip of `count` frames: at its own place, or in a whole clip of 75."""
    return SAMPLED[index] if count == 75 else index


def _at(boxes: Sequence[tuple | None], frame: float) -> np.ndarray | None:
    """The box at a frame of 75: between two key frames that both have one, else that of the nearest key frame."""
    known = [(key, box and np.asarray(box, dtype=np.float32)) for key, box in zip(KEY_FRAMES, boxes, strict=True)]
    for (a, first), (b, second) in zip(known, known[1:]):
        if a <= frame <= b and first is not None and second is not None:
            return first + (second - first) * ((frame - a) / (b - a))
    nearest = min(abs(key - frame) for key in KEY_FRAMES)
    return next((box for key, box in known if box is not None and abs(key - frame) == nearest), None)
