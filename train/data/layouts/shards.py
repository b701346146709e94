"""Shards with an index, in a folder or on the web."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np

from train.data.annotations import ANNOTATIONS, SPLIT, check_id, check_splits, read_json
from train.data.arrays import Choose, Clip
from train.data.layouts.base import Layout, PerProcess


SHARDS = "shards.json"
WEB = re.compile(  # frames over plain http could be anybody's
    r"(hf|https)://|http://(localhost|127\.0\.0\.1)(:\d+)?(/|$)"
)
SHARD_NAME = re.compile(r"shard-[0-9]{5}\.tar")
WHOLE_CLIP = 1 << 20  # a clip up to this size is fetched from the web in one request


class Shards(Layout):
    """What `python -m train.data.shard` wrote: WebDataset tar files with an index, in a folder or on the web.

    A clip is read by its place in its shard: from a local file, or by a ranged request through fsspec, for
    `hf://datasets/USER/NAME` and `https://HOST/PATH`. So random access, and with it every shuffle and every resume,
    works the same in both.
    """

    name = "shards"

    def __init__(self, root: str | Path):
        self.remote = isinstance(root, str) and WEB.match(root) is not None
        self.root = root.rstrip("/") if self.remote else Path(root)
        self.fs = PerProcess(_OpenFilesystem(self.root)) if self.remote else None
        index = self._json(SHARDS)
        self.shards, self.places = check_index(index, self._where(SHARDS))
        if not self.remote:
            for name, size in self.shards.items():
                path = self.root / name
                if not path.is_file() or path.stat().st_size != size:
                    found = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
                    raise ValueError(f"{path} should have {size} bytes, but there is {found}; fetch the shard again.")

    def _where(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _json(self, name: str) -> object:
        if not self.remote:
            return read_json(self.root / name)
        try:
            with self.fs as fs:
                return json.loads(fs.cat_file(self._where(name)))
        except FileNotFoundError:
            raise ValueError(f"{self._where(name)} is missing; is this the address of a folder of shards?") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self._where(name)} is not whole JSON ({error}).") from None

    def splits(self) -> dict[str, list[str]]:
        if not self.remote:
            return super().splits()
        return check_splits(self._json(SPLIT), self._where(SPLIT))

    def annotations(self) -> list[object]:
        annotations = self._json(ANNOTATIONS)
        if not isinstance(annotations, list):
            raise ValueError(f"{self._where(ANNOTATIONS)} must hold one list of records.")
        return annotations

    def present(self) -> set[str]:
        return set(self.places)

    def _read(self, shard: str, start: int, end: int) -> bytes:
        if self.remote:
            with self.fs as fs:
                return fs.cat_file(self._where(shard), start=start, end=end)
        file = os.open(f"{self.root}{os.sep}{shard}", os.O_RDONLY)
        try:
            return os.pread(file, end - start, start)
        finally:
            os.close(file)

    def _clip(self, id: str) -> Clip:
        if check_id(id) not in self.places:
            raise ValueError(f"{self._where(SHARDS)} holds no frames of {id}.")
        shard, start, size = self.places[id]
        name = f"{self._where(shard)}: {id}.npy"
        if self.remote and size <= WHOLE_CLIP:
            whole = self._read(shard, start, start + size)
            return Clip(lambda at, length: whole[at : at + length], size, name)
        return Clip(
            lambda at, length: self._read(shard, start + at, min(start + at + length, start + size)), size, name
        )

    def frames(self, id: str) -> np.ndarray:
        return self._clip(id).frames()

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        return self._clip(id).frame(choose)

    def fingerprint(self, id: str) -> str:
        shard, start, size = self.places[check_id(id)]
        return f"{id} {shard} {start} {size} {self.shards[shard]}"


class _OpenFilesystem:
    def __init__(self, root: str):
        self.root = root

    def __call__(self):
        import fsspec

        return fsspec.core.url_to_fs(self.root)[0]


def check_index(index: object, where: str) -> tuple[dict[str, int], dict[str, tuple[str, int, int]]]:
    """The shards' sizes in bytes, and each clip's shard, first byte and size, of a `shards.json`.

    Raises:
        ValueError: not of that shape, or names what is no plain name of a shard.
    """
    try:
        shards = {str(name): int(facts["bytes"]) for name, facts in index["shards"].items()}
        places = {check_id(id): (str(shard), int(at), int(size)) for id, (shard, at, size) in index["clips"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where} is not an index of shards ({error!r}).") from None
    for name in shards:
        if SHARD_NAME.fullmatch(name) is None:
            raise ValueError(f"{where} names {name!r}, but shards are called as {SHARD_NAME.pattern}.")
    for id, (shard, at, size) in places.items():
        if shard not in shards or not 0 <= at < at + size <= shards[shard]:
            raise ValueError(f"{where} places {id} in {shard!r} at byte {at}, which is not there.")
    return shards, places
