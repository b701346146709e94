"""What every layout answers, and how files stay each process's own."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from train.data.annotations import ANNOTATIONS, SPLIT, read_json, read_split
from train.data.arrays import Choose


class Layout:
    """How one layout answers.

    Attributes:
        name (`str`): what it is called in messages and in `python -m train.data.check`.
        root (`Path | str`): where it lies.
    """

    name = ""

    def __init__(self, root: Path):
        self.root = root

    def splits(self) -> dict[str, list[str]]:
        """Ids of each split, in the order of the split file."""
        return read_split(self.root / SPLIT)

    def annotations(self) -> list[object]:
        """The annotation records, as in `flintstones_annotations_v1-0.json`, not yet looked at."""
        return read_annotations(self.root / ANNOTATIONS)

    def present(self) -> set[str]:
        """Ids whose frames are there."""
        raise NotImplementedError

    def frames(self, id: str) -> np.ndarray:
        """All frames of a clip: uint8 (n, H, W, 3), RGB, read-only."""
        raise NotImplementedError

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        """One frame of a clip, by index or by a function of the number of frames: uint8 (H, W, 3), RGB."""
        raise NotImplementedError

    def fingerprint(self, id: str) -> str:
        """Changes when the frames of a clip are written anew."""
        raise NotImplementedError

    def stories(self, length: int) -> dict[str, list[list[str]]] | None:
        """Stories, where the layout itself says them; `None` where the rule of `stories_of` makes them."""
        return None


def read_annotations(path: Path) -> list[object]:
    """The list of records of an annotation file.

    Raises:
        ValueError: missing, cut off, too large, or not a list.
    """
    annotations = read_json(path)
    if not isinstance(annotations, list):
        raise ValueError(f"{path} must hold one list of records.")
    return annotations


class PerProcess:
    """An open file that no two processes share: each opens its own when it first reads, and it never travels in a
    pickle. Forked or spawned loader workers so neither race for one offset nor need anything passed."""

    def __init__(self, open_file):
        self.open_file, self.file, self.owner = open_file, None, os.getpid()
        self.lock = threading.Lock()

    def __enter__(self):
        if self.owner != os.getpid():
            self.__init__(self.open_file)  # with a lock of its own: a thread of the parent may have held that one
        self.lock.acquire()
        try:
            if self.file is None:
                self.file = self.open_file()
        except BaseException:
            self.lock.release()
            raise
        return self.file

    def __exit__(self, *_):
        self.lock.release()

    def __getstate__(self):
        return self.open_file

    def __setstate__(self, open_file):
        self.__init__(open_file)
