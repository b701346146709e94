"""AR-LDM's HDF5: stories as rows, frames as PNG strips, red and blue swapped."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from train.data.annotations import ANNOTATIONS, SPLIT, check_id, read_split, stories_of
from train.data.arrays import Choose, choose_index
from train.data.layouts.base import Layout, PerProcess


HDF5 = (".h5", ".hdf5")
MAX_STRIP_PIXELS = 1 << 26


class _OpenHDF5:
    def __init__(self, path: Path):
        self.path = path

    def __call__(self):
        import h5py

        return h5py.File(self.path, "r")


class ARLDM(Layout):
    """AR-LDM's HDF5: for each split the datasets `image0` to `image4` (PNG bytes of all frames of a clip, one below
    the other) and `text` (five captions joined by `|`), one row a story.

    The file says neither ids nor characters nor settings. With `train-val-test_split.json` beside it, rows get their
    clips' ids by the story rule, and `flintstones_annotations_v1-0.json`, if that is there too, adds the rest. Without
    the split, ids are made up (season 00; episode 01, 02 and 03 for training, validation and test; row and position as
    the frame number), the stories are the file's own, and annotations beside it say nothing of them.

    The PNGs were written by OpenCV from RGB arrays, which it takes for BGR: any other reader sees red and blue
    swapped. They are swapped back here.
    """

    name = "AR-LDM's HDF5"
    positions = 5
    made_up = {"train": "s_00_e_01", "val": "s_00_e_02", "test": "s_00_e_03"}

    def __init__(self, path: Path):
        super().__init__(path.parent)
        self.path = path
        self.h5 = PerProcess(_OpenHDF5(path))
        self.rows = self._rows()
        self.own_stories: dict[str, list[list[str]]] = {}
        self.places: dict[str, tuple[str, int, int]] = {}  # id -> split, position in the story, row
        self.split = read_split(self.root / SPLIT) if (self.root / SPLIT).exists() else None
        if self.split is not None:
            self.own_stories = stories_of(self.split, self.positions)
            for split, rows in self.rows.items():
                expected = len(self.own_stories.get(split, ()))
                if expected != rows:
                    raise ValueError(
                        f"{self.path} has {rows} stories in {split!r}, but {self.root / SPLIT} makes {expected}; they "
                        "are not of one release. Move the split file away to read the HDF5 alone."
                    )
        else:
            self.own_stories = {
                split: [[self._made_up(split, row, j) for j in range(self.positions)] for row in range(rows)]
                for split, rows in self.rows.items()
            }
        for split in self.rows:
            for row, story in enumerate(self.own_stories.get(split, ())):
                for position, id in enumerate(story):
                    self.places.setdefault(id, (split, position, row))

    def _made_up(self, split: str, row: int, position: int) -> str:
        number = row * self.positions + position
        return f"{self.made_up[split]}_shot_{number:06d}_{number + 74:06d}"

    def _rows(self) -> dict[str, int]:
        rows = {}
        try:
            with self.h5 as file:
                for split in self.made_up:
                    if split not in file:
                        continue
                    names = [f"image{j}" for j in range(self.positions)] + ["text"]
                    missing = [name for name in names if name not in file[split]]
                    if missing:
                        raise ValueError(f"{self.path}, group {split!r}, lacks {', '.join(missing)}; write it again.")
                    lengths = {name: file[split][name].shape for name in names}
                    if len(set(lengths.values())) != 1 or len(lengths["text"]) != 1:
                        raise ValueError(
                            f"{self.path}, group {split!r}: the shapes differ or are not (N,): {lengths}."
                        )
                    rows[split] = lengths["text"][0]
        except (OSError, AttributeError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is not a whole HDF5 file ({error}); fetch or write it again.") from None
        if not rows:
            raise ValueError(f"{self.path} holds none of the groups {', '.join(self.made_up)}.")
        if max(rows.values()) * self.positions > 999_000:
            raise ValueError(f"{self.path} holds {max(rows.values())} stories in one split; ids reach to 199,800.")
        return rows

    def splits(self) -> dict[str, list[str]]:
        if self.split is not None:
            return self.split
        return {split: [id for story in stories for id in story] for split, stories in self.own_stories.items()}

    def annotations(self) -> list[object]:
        if self.split is not None and (self.root / ANNOTATIONS).exists():
            return super().annotations()
        records = []
        try:
            with self.h5 as file:
                texts = {split: file[split]["text"][:] for split in self.rows}
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: the captions cannot be read ({error}); fetch or write it again.") from None
        captions: dict[tuple[str, int], list[str]] = {}
        for split, rows in texts.items():
            for row, text in enumerate(rows):
                raw = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else str(text)
                parts = raw.split("|")
                if len(parts) != self.positions:
                    raise ValueError(
                        f"{self.path}, {split}/text, row {row} holds {len(parts)} captions instead of "
                        f"{self.positions}; a caption with a '|' breaks this format."
                    )
                captions[split, row] = parts
        for id, (split, position, row) in self.places.items():
            records.append({"globalID": id, "description": captions[split, row][position]})
        return records

    def present(self) -> set[str]:
        return set(self.places)

    def stories(self, length: int) -> dict[str, list[list[str]]] | None:
        if self.split is not None:
            return None
        if not 1 <= length <= self.positions:
            raise ValueError(f"`length` is {length}, but the stories of {self.path} have {self.positions} frames.")
        return {split: [story[:length] for story in stories] for split, stories in self.own_stories.items()}

    def frames(self, id: str) -> np.ndarray:
        if check_id(id) not in self.places:
            raise ValueError(f"{self.path} holds no frames of {id}.")
        split, position, row = self.places[id]
        name = f"{self.path}, {split}/image{position}, row {row}"
        try:
            with self.h5 as file:
                raw = np.asarray(file[split][f"image{position}"][row], dtype=np.uint8).tobytes()
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name} cannot be read ({error}); fetch or write the file again.") from None
        return strip_of_png(raw, name)

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        frames = self.frames(id)
        return frames[choose_index(choose, len(frames), f"{self.path}: {id}")]

    def fingerprint(self, id: str) -> str:
        facts = self.path.stat()
        return f"{id} {self.places[check_id(id)]} {facts.st_size} {facts.st_mtime_ns}"


def strip_of_png(raw: bytes, name: str) -> np.ndarray:
    """The frames of AR-LDM's PNG of a clip: uint8 (n, W, W, 3), RGB, after undoing OpenCV's swap of red and blue."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw), formats=["PNG"]) as image:
                if image.width * image.height > MAX_STRIP_PIXELS:
                    raise ValueError(f"has {image.width} x {image.height} pixels")
                strip = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} is not a whole PNG ({error}); write the file again.") from None
    height, width, _ = strip.shape
    if height % width:
        raise ValueError(f"{name} is a PNG of {width} x {height} pixels, which is no strip of square frames.")
    frames = np.ascontiguousarray(strip[..., ::-1]).reshape(height // width, width, width, 3)
    frames.flags.writeable = False
    return frames
