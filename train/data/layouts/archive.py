"""AI2's packed release, read out of the archive where it lies."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.data.annotations import CLIP_ID, check_id, read_json
from train.data.arrays import Choose, Clip
from train.data.layouts.base import Layout, PerProcess


ARCHIVES = (".tgz", ".tar.gz")
MAX_CLIP_BYTES = 1 << 30  # of one clip's file in an archive; a real one has 3.7 MB
MAX_RATIO = 200  # bytes unpacked for each packed one; video in gzip has less than 10, a bomb has a thousand
MAX_TAR_HEADER = 1 << 20  # of a member; a long name takes a kilobyte


class _OpenGzip:
    """Opens a gzip file with its index of seek points, if it still is the one that the index was made of."""

    def __init__(self, path: Path, index: Path, key: str):
        self.path, self.index, self.key = path, index, key

    def __call__(self):
        from indexed_gzip import IndexedGzipFile

        file = open(self.path, "rb")  # held, so that nobody can replace it under the index
        if _key_of(os.fstat(file.fileno())) != self.key:
            file.close()
            raise OSError("it was changed after the release was opened; open that again")
        return IndexedGzipFile(fileobj=file, index_file=str(self.index))


def _key_of(facts: os.stat_result) -> str:
    return f"{facts.st_size} {facts.st_mtime_ns}"


class _Headers:
    """What `tarfile` may read of an unpacked archive: the members' headers. It takes into memory whatever a header
    says of its own length, before any check of ours."""

    def __init__(self, file, limit: int):
        self.file, self.limit, self.tell = file, limit, file.tell

    def seek(self, position: int) -> int:
        if not 0 <= position <= self.limit:
            raise tarfile.ReadError(f"a header points to byte {position}")
        return self.file.seek(position)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_TAR_HEADER or self.tell() > self.limit:
            raise tarfile.ReadError(f"a header is too large at byte {self.tell()}")
        return self.file.read(size)


def _members(file: _Headers) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file to its very end, which `tarfile` also sees where the file is cut or damaged.

    Raises:
        tarfile.TarError: it is no tar file, or not a whole one.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                yield member
                tar.members = []  # or it keeps every member it has met
            file.seek(tar.offset)
    except (ValueError, OverflowError) as error:  # of a number in a header
        raise tarfile.ReadError(str(error)) from None
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it ends or breaks at byte {tar.offset} of its content")


class RawArchive(Layout):
    """AI2's `flintstones_dataset.tgz`, read where it is; the annotation and the split file lie beside it.

    Opening it the first time passes once through the archive and writes where every clip lies beside it
    (`<archive>.clips.json`) with points to start unpacking from (`<archive>.gzidx`, under 1% of its size); then a clip
    is read by unpacking the few megabytes before it. Nothing is ever extracted to disk.
    """

    name = "AI2's raw release, packed"

    def __init__(self, archive: Path):
        super().__init__(archive.parent)
        self.archive = archive
        self.key = _key_of(archive.stat())
        self.places = self._known_places()
        if self.places is None:
            self.places = self._scan()
        self.gzip = PerProcess(_OpenGzip(archive, self._beside(".gzidx"), self.key))

    def _beside(self, suffix: str) -> Path:
        return self.archive.with_name(self.archive.name + suffix)

    def _known_places(self) -> dict[str, list[int]] | None:
        """The places that an earlier opening wrote beside this very archive, if that is whole."""
        try:
            known = read_json(self._beside(".clips.json"))
            if known["archive"] != self.key or known["index_bytes"] != self._beside(".gzidx").stat().st_size:
                return None
            places = {check_id(id): [start, size] for id, (start, size) in known["clips"].items()}
        except (ValueError, TypeError, LookupError, AttributeError, OSError):
            return None
        return places if all(type(n) is int and n >= 0 for place in places.values() for n in place) else None

    def _scan(self) -> dict[str, list[int]]:
        from indexed_gzip import IndexedGzipFile

        places: dict[str, list[int]] = {}
        limit = MAX_RATIO * self.archive.stat().st_size + (1 << 20)

        def check_size(end: int, at: str) -> None:
            if end > limit:
                raise ValueError(
                    f"{self.archive} unpacks to more than {MAX_RATIO} times its size at {at}; it is not read further."
                )

        try:
            with open(self.archive, "rb") as packed, IndexedGzipFile(fileobj=packed, spacing=4 << 20) as unpacked:
                for member in _members(_Headers(unpacked, limit)):
                    check_size(member.offset_data + member.size, repr(member.name[:200]))
                    id = clip_of_member(member, str(self.archive))
                    if id is not None:
                        places[id] = [member.offset_data, member.size]
                while unpacked.read(1 << 20):  # the rest, for the checksum
                    check_size(unpacked.tell(), "its end")
                self._write_index(places, unpacked)
        except (tarfile.TarError, EOFError, OSError, RuntimeError) as error:
            raise ValueError(f"{self.archive} is not a whole archive ({error}); fetch it again.") from None
        return places

    def _write_index(self, places: dict[str, list[int]], unpacked) -> None:
        mine = f".{os.getpid()}.tmp"  # several processes may open a new archive at once
        index, clips = self._beside(".gzidx" + mine), self._beside(".clips.json" + mine)
        try:
            unpacked.export_index(str(index))
            known = {"archive": self.key, "index_bytes": index.stat().st_size, "clips": places}
            clips.write_text(json.dumps(known), encoding="utf-8")
            os.replace(index, self._beside(".gzidx"))
            os.replace(clips, self._beside(".clips.json"))
        except OSError as error:
            raise ValueError(
                f"{self.archive}: its index cannot be written beside it ({error.strerror or error}); put the archive "
                "where there is space and leave to write."
            ) from None
        finally:
            index.unlink(missing_ok=True)
            clips.unlink(missing_ok=True)

    def present(self) -> set[str]:
        return set(self.places)

    def _clip(self, id: str) -> Clip:
        if check_id(id) not in self.places:
            raise ValueError(f"{self.archive} holds no frames of {id}.")
        start, size = self.places[id]

        name = f"{self.archive}: {id}.npy"

        def read(at: int, length: int) -> bytes:
            try:
                with self.gzip as file:
                    file.seek(start + at)
                    return file.read(length)
            except (OSError, ValueError) as error:
                raise ValueError(f"{name} cannot be read ({error}); is the archive as it was?") from None

        return Clip(read, size, name)

    def frames(self, id: str) -> np.ndarray:
        return self._clip(id).frames()

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        return self._clip(id).frame(choose)

    def fingerprint(self, id: str) -> str:
        return f"{id} {self.places[check_id(id)]} {self.key}"


def clip_of_member(member: tarfile.TarInfo, archive: str) -> str | None:
    """The clip whose frames a member of a tar file holds; `None` if it is something else.

    Raises:
        ValueError: the member is called as a clip but is a link or too large, or leaves the archive's folder.
    """
    parts, shown = member.name.split("/"), repr(member.name[:200])
    if member.name.startswith("/") or ".." in parts:
        raise ValueError(f"{archive} holds {shown}, which leads out of its folder; it is not read further.")
    if member.size < 0:
        raise ValueError(f"{archive} holds {shown} of a negative size; it is not read further.")
    stem, suffix = os.path.splitext(parts[-1])
    if suffix != ".npy" or CLIP_ID.fullmatch(stem) is None or (len(parts) > 1 and parts[-2] != "video_frames"):
        return None
    if not member.isreg() or member.issparse():
        raise ValueError(f"{archive} holds {shown} as a link or the like, not as a file; it is not read further.")
    if member.size > MAX_CLIP_BYTES:
        raise ValueError(f"{archive} holds {shown} of {member.size:,} bytes; a clip has a few megabytes.")
    return stem
