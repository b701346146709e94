"""Frames in npy files, wherever their bytes lie: plain files, shards, archives, the web. Only what is asked is read.

An npy file here is uint8 (n, H, W, 3), RGB, or floating of the same shape with values 0 to 255, as the literature
accepts. Pickled objects are refused by their header, before a byte of them is looked at.
"""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np


FIRST_BYTES = 128  # numpy pads the header of such an array to exactly this
USUAL = b"\x93NUMPY\x01\x00" + (FIRST_BYTES - 10).to_bytes(2, "little")  # how such a file begins
MAX_HEADER = 4096
MAX_SIDE = 4096
MAX_FRAMES = 10_000
Choose = Callable[[int], int]


@dataclass(frozen=True)
class Header:
    """What an npy header says: the array's type and shape (n, H, W, 3), and where its data begins in bytes."""

    dtype: np.dtype
    shape: tuple[int, int, int, int]
    offset: int

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.frame_bytes


@lru_cache(maxsize=64)  # the clips of a release share one header
def parse_header(raw: bytes) -> Header:
    """Parse the first bytes of an npy file.

    Raises:
        ValueError: not an npy file, or one whose array cannot be frames; says what is wrong, not where.
    """
    if len(raw) < 12 or raw[:6] != USUAL[:6] or raw[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise ValueError("is not a whole array file; fetch or write it again")
    length, begin = (
        (int.from_bytes(raw[8:10], "little"), 10) if raw[6] == 1 else (int.from_bytes(raw[8:12], "little"), 12)
    )
    if length > MAX_HEADER:
        raise ValueError(f"has a header of {length} bytes, but that of frames has less than {MAX_HEADER}")
    if len(raw) < begin + length:
        raise ValueError("is not a whole array file: it ends in its header; fetch or write it again")
    try:
        facts = ast.literal_eval(raw[begin : begin + length].decode("latin1"))
        descr, fortran, shape = facts["descr"], facts["fortran_order"], facts["shape"]
        if len(facts) != 3 or not isinstance(fortran, bool):
            raise ValueError("no header of numpy's")
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, LookupError, TypeError, OverflowError, MemoryError, RecursionError):
        raise ValueError("is not a whole array file: its header cannot be read; fetch or write it again") from None
    if dtype is None or dtype.hasobject:
        raise ValueError("holds pickled objects or records, which are not read: they could run code")
    if (
        not isinstance(shape, tuple)
        or len(shape) != 4
        or not all(type(side) is int and side > 0 for side in shape)
        or shape[3] != 3
        or shape[0] > MAX_FRAMES
        or max(shape[1:3]) > MAX_SIDE
    ):
        raise ValueError(f"has the shape {shape}, but frames are (n, H, W, 3)")
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise ValueError(f"has the type {dtype}, but frames are uint8 (or floating, 0 to 255)")
    if fortran:
        raise ValueError("is in Fortran order; write it again with numpy.ascontiguousarray")
    return Header(dtype, shape, begin + length)


def as_uint8(frames: np.ndarray) -> np.ndarray:
    """Floating frames (0 to 255) rounded down as the literature does, out-of-range and NaN values brought in."""
    if frames.dtype == np.uint8:
        return frames
    frames = np.clip(np.nan_to_num(frames), 0, 255).astype(np.uint8)
    frames.flags.writeable = False  # as all others
    return frames


def choose_index(choose: int | Choose, count: int, name: str) -> int:
    """The index that `choose` means in a clip of `count` frames; negative ones count from the end.

    Raises:
        ValueError: the clip has no such frame.
    """
    index = choose(count) if callable(choose) else choose
    if not -count <= index < count:
        raise ValueError(f"`index` is {index}, but {name} has {count} frames.")
    return index % count


class Clip:
    """An npy file of frames inside something that can be read at an offset.

    Args:
        read (`Callable[[int, int], bytes]`): reads `length` bytes at an offset from the file's own beginning; may give
            fewer at the end.
        size (`int`): the file's length in bytes.
        name (`str`): what messages call it.

    Raises:
        ValueError: the bytes are not a whole array file of frames.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str):
        self.read, self.name = read, name
        first = read(0, min(FIRST_BYTES, size))
        try:
            if not first.startswith(USUAL):
                first = read(0, min(MAX_HEADER + 12, size))
            self.header = parse_header(first)
        except ValueError as error:
            raise ValueError(f"{name} {error}.") from None
        if size < self.header.end:
            raise ValueError(
                f"{name} is not a whole array file: it has {size} of {self.header.end} bytes; fetch or write it again."
            )

    def frame(self, choose: int | Choose) -> np.ndarray:
        """One frame: uint8 (H, W, 3), read-only."""
        header = self.header
        index = choose_index(choose, header.shape[0], self.name)
        raw = self.read(header.offset + index * header.frame_bytes, header.frame_bytes)
        return self._array(raw, header.shape[1:])

    def frames(self) -> np.ndarray:
        """All frames: uint8 (n, H, W, 3), read-only."""
        return self._array(self.read(self.header.offset, self.header.end - self.header.offset), self.header.shape)

    def _array(self, raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
        if len(raw) != math.prod(shape) * self.header.dtype.itemsize:
            raise ValueError(f"{self.name} is not a whole array file: it ends early; fetch or write it again.")
        return as_uint8(np.frombuffer(raw, self.header.dtype).reshape(shape))


def frame_of_file(path: Path | str, choose: int | Choose) -> np.ndarray:
    """One frame of an npy file: uint8 (H, W, 3). Reads the header and that frame's bytes, nothing else.

    Raises:
        ValueError: the file is missing, not a whole array file of frames, or has no such frame.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return Clip(lambda at, length: os.pread(file, length, at), os.fstat(file).st_size, str(path)).frame(choose)
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, but must be an array file.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    finally:
        os.close(file)


def frames_of_file(path: Path | str) -> np.ndarray:
    """All frames of an npy file: uint8 (n, H, W, 3), memory-mapped and read-only (floating ones come as a copy).

    Raises:
        ValueError: the file is missing, or not a whole array file of frames.
    """
    try:
        with open(path, "rb") as file:
            clip = Clip(lambda at, length: os.pread(file.fileno(), length, at), os.stat(path).st_size, str(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    header = clip.header
    return as_uint8(np.memmap(path, dtype=header.dtype, mode="r", shape=header.shape, offset=header.offset))
