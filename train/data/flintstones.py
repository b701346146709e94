"""FlintstonesSV on disk, and every show written in its layout: validated when opened, frames read only when asked for.

A release is a folder with `flintstones_annotations_v1-0.json` (one record a clip), `train-val-test_split.json` (ids of
each split) and `video_frames_sampled/<id>.npy` (or `video_frames/`), uint8 (n, H, W, 3), RGB.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.data.gravel_gulch.world import REGULARS


ANNOTATIONS = "flintstones_annotations_v1-0.json"
SPLIT = "train-val-test_split.json"
FRAME_FOLDERS = ("video_frames_sampled", "video_frames")
CLIP_ID = re.compile(r"s_(\d{2})_e_(\d{2})_shot_(\d{6})_(\d{6})", re.ASCII)
MAX_MISSING = 0.05  # share of the split's clips that may lack frames or an annotation
FLINTSTONES = ("Wilma", "Fred", "Betty", "Barney", "Dino", "Pebbles", "Mr Slate")  # the literature's order
CASTS = (FLINTSTONES, REGULARS)


@dataclass(frozen=True)
class ClipRecord:
    """What the annotations say of one clip.

    Args:
        id (`str`): its `globalID`.
        caption (`str`): the description, without line breaks, double or outer blanks.
        setting (`str`): where it plays, lower case; empty if the record does not say.
        characters (`list[str]`): the characters' entity labels, stripped and lower case, largest first.
    """

    id: str
    caption: str
    setting: str
    characters: list[str]


def check_id(id: str) -> str:
    """Return a clip's id if it is of the grammar `s_SS_e_EE_shot_FFFFFF_GGGGGG`.

    Raises:
        ValueError: it is not; ids become file names, so nothing else may pass.
    """
    if not isinstance(id, str) or CLIP_ID.fullmatch(id) is None:
        raise ValueError(f"`id` is {id!r}, but a clip's id has the form 's_01_e_02_shot_000300_000374'.")
    return id


def episode_of(id: str) -> str:
    """Season and episode of a clip: `"s_01_e_02"`."""
    return id[:9]


def stories_of(splits: Mapping[str, Sequence[str]], length: int = 5) -> dict[str, list[list[str]]]:
    """Stories of every split: each clip with the next `length - 1` annotated clips of its episode.

    Ids of all splits are sorted together, as the literature's `following_cache` does; a clip that has too few
    followers in its episode starts no story. Stories keep the order of the split's list.

    Args:
        splits (`Mapping[str, Sequence[str]]`): ids of each split.
        length (`int`): frames of a story, at least 1.

    Raises:
        ValueError: `length` is below 1.
    """
    if length < 1:
        raise ValueError(f"`length` is {length}, but a story has at least 1 frame.")
    ids = sorted(id for split in splits.values() for id in split)
    story_of = {}
    for start in range(len(ids) - length + 1):
        story = ids[start : start + length]
        if episode_of(story[0]) == episode_of(story[-1]):
            story_of[story[0]] = story
    return {name: [story_of[id] for id in split if id in story_of] for name, split in splits.items()}


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: lists of clip ids by the split's name.

    Raises:
        ValueError: not JSON, not of that shape, an id not of the grammar, or an id in two places.
    """
    splits = read_json(path)
    if not isinstance(splits, dict) or not all(isinstance(ids, list) for ids in splits.values()):
        raise ValueError(f"{path} must hold one object of lists of clip ids.")
    seen = set()
    for name, ids in splits.items():
        for id in ids:
            try:
                check_id(id)
            except ValueError as error:
                raise ValueError(f"{path}, split {name!r}: {error}") from None
            if id in seen:
                raise ValueError(f"{path} holds {id} twice.")
            seen.add(id)
    return splits


def read_json(path: Path) -> object:
    """Parse a JSON file.

    Raises:
        ValueError: the file is missing, cut off or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        found = ", ".join(sorted(os.listdir(path.parent))[:8]) if path.parent.is_dir() else "no such folder"
        raise ValueError(f"{path} is missing; {path.parent} holds: {found or 'nothing'}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}); fetch or write it again.") from None


def read_record(record: object) -> ClipRecord | None:
    """One annotation as a `ClipRecord`, or `None` if it lacks an id or a caption."""
    if not isinstance(record, dict):
        return None
    id, description = record.get("globalID"), record.get("description")
    if not isinstance(id, str) or not isinstance(description, str) or not description.strip():
        return None
    setting, characters = record.get("setting"), record.get("characters")
    labels = [c.get("entityLabel") for c in characters if isinstance(c, dict)] if isinstance(characters, list) else []
    return ClipRecord(
        id=id,
        caption=" ".join(description.split()),
        setting=" ".join(setting.lower().split()) if isinstance(setting, str) else "",
        characters=[label.strip().lower() for label in labels if isinstance(label, str)],
    )


class FlintstonesRelease:
    """A release on disk. Opening it reads the two JSON files and lists the frames; pictures are read on demand.

    Args:
        root (`str | os.PathLike`): the release's folder.
        max_missing (`float`): share of the split's clips that may be missing.

    Attributes:
        splits (`dict[str, list[str]]`): usable ids of each split, in the order of the split file.
        missing (`dict[str, list[str]]`): ids without `"annotation"` and without `"frames"`; they are in no split.
        cast (`tuple[str, ...]`): the regulars of the show this is, in label order; empty if no known regular occurs.

    Raises:
        ValueError: a file is missing or of the wrong shape, or too many clips are missing.
    """

    def __init__(self, root: str | os.PathLike, max_missing: float = MAX_MISSING):
        self.root = Path(root)
        split = read_split(self.root / SPLIT)
        annotations = read_json(self.root / ANNOTATIONS)
        if not isinstance(annotations, list):
            raise ValueError(f"{self.root / ANNOTATIONS} must hold one list of records.")
        self.folder = next((self.root / name for name in FRAME_FOLDERS if (self.root / name).is_dir()), None)
        if self.folder is None:
            raise ValueError(f"{self.root} holds none of the folders {', '.join(FRAME_FOLDERS)}.")
        records = [record for record in map(read_record, annotations) if record is not None]
        self.records = {record.id: record for record in records}
        with os.scandir(self.folder) as entries:
            present = {entry.name[:-4] for entry in entries if entry.name.endswith(".npy")}
        ids = [id for split_ids in split.values() for id in split_ids]
        self.missing = {
            "annotation": [id for id in ids if id not in self.records],
            "frames": [id for id in ids if id not in present],
        }
        lost = set(self.missing["annotation"]) | set(self.missing["frames"])
        if len(lost) > max_missing * len(ids):
            raise ValueError(
                f"{self.root}: {len(lost)} of {len(ids)} clips are missing ({len(self.missing['annotation'])} without "
                f"a whole annotation, {len(self.missing['frames'])} without frames), more than the accepted share of "
                f"{max_missing:.0%}. Complete the download."
            )
        self.splits = {name: [id for id in split_ids if id not in lost] for name, split_ids in split.items()}
        self.cast = self._cast()

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
        """The frames of a clip: uint8 (n, H, W, 3), RGB, memory-mapped and read-only.

        Floating-point files, which the literature accepts, come back as a uint8 copy.

        Raises:
            ValueError: `id` is not of the grammar, or its file is missing, cut off, or of another shape or type.
        """
        path = self.folder / f"{check_id(id)}.npy"
        try:
            frames = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing.") from None
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} is not a whole array file ({error}); fetch or write it again.") from None
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise ValueError(f"{path} has the shape {frames.shape}, but frames are (n, H, W, 3).")
        if np.issubdtype(frames.dtype, np.floating):
            return np.clip(np.nan_to_num(frames), 0, 255).astype(np.uint8)
        if frames.dtype != np.uint8:
            raise ValueError(f"{path} has the type {frames.dtype}, but frames are uint8 (or floating, 0 to 255).")
        return frames

    def fingerprint(self, id: str) -> str:
        """Changes when the frames of a clip are written anew; what is computed from frames is kept under it."""
        facts = (self.folder / f"{check_id(id)}.npy").stat()
        return f"{id} {facts.st_size} {facts.st_mtime_ns}"

    def labels(self, id: str, classes: Iterable[str] | None = None) -> np.ndarray:
        """Who of `classes` (default: `cast`) the annotation names: uint8 (len(classes),) of 0 and 1.

        An exact match of the whole label, as the literature does: "barney dressed as a baby" is not Barney.
        """
        characters = set(self.clip(id).characters)
        classes = self.cast if classes is None else classes
        return np.array([name.strip().lower() in characters for name in classes], dtype=np.uint8)

    def stories(self, split: str, length: int = 5) -> list[list[str]]:
        """Stories of one split as lists of `length` ids: see `stories_of`.

        Raises:
            ValueError: there is no such split, or `length` is below 1.
        """
        if split not in self.splits:
            raise ValueError(f"`split` is {split!r}, but {self.root} has {', '.join(self.splits)}.")
        return stories_of(self.splits, length)[split]
