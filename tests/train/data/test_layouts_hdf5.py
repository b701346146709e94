import base64
import json
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.annotations import ANNOTATIONS, SPLIT
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import recognise
from train.data.layouts.hdf5 import strip_of_png


FIRST = "s_01_e_01_shot_000000_000074"
HDF5 = "flintstones.h5"
fuzz = settings(deadline=None, max_examples=100, derandomize=True)


def edit(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


# AR-LDM's HDF5


def test_hdf5_alone_gives_its_own_stories(bundle, written):
    alone, plain = FlintstonesRelease(written["AR-LDM's HDF5 alone"]), FlintstonesRelease(bundle)
    assert alone.layout.name == "AR-LDM's HDF5" and alone.cast == () and alone.settings == ()
    for split in plain.splits:
        ours, theirs = alone.stories(split), plain.stories(split)
        assert len(ours) == len(theirs) > 0
        for a, b in zip(sum(ours, []), sum(theirs, []), strict=True):
            assert np.array_equal(alone.frames(a), plain.frames(b))
            assert alone.clip(a).caption == plain.clip(b).caption.replace("in a car", "in acar")  # a tab was removed
        assert alone.stories(split, 3) == [story[:3] for story in ours]
    assert len({id for split in alone.splits.values() for id in split}) == len(alone) == 5 * 10
    for length in (0, 6):
        with pytest.raises(ValueError, match=f"`length` is {length}"):
            alone.stories("train", length)


def test_hdf5_reads_captions_where_only_the_split_is_beside(written, bundle, tmp_path):
    (tmp_path / HDF5).symlink_to(written["AR-LDM's HDF5"] / HDF5)
    (tmp_path / SPLIT).symlink_to(written["AR-LDM's HDF5"] / SPLIT)
    release = FlintstonesRelease(tmp_path)
    assert release.splits == FlintstonesRelease(bundle).splits
    id = "s_01_e_05_shot_000100_000174"
    assert release.clip(id).caption == "القطة في الفناء."
    assert np.array_equal(release.frames(id), FlintstonesRelease(bundle).frames(id))


def test_annotations_beside_an_hdf5_without_its_split_are_not_its_own(bundle, hdf5):
    (hdf5.parent / ANNOTATIONS).write_text((bundle / ANNOTATIONS).read_text())
    release = FlintstonesRelease(hdf5)
    assert release.missing == {"annotation": [], "frames": []} and len(release) == 50


def test_hdf5_of_one_split_leaves_the_others_missing(hdf5, bundle):
    with h5py.File(hdf5, "r+") as file:
        del file["test"], file["train"]
    assert {name: len(ids) for name, ids in FlintstonesRelease(hdf5).splits.items()} == {"val": 10}
    for name in (SPLIT, ANNOTATIONS):
        (hdf5.parent / name).write_text((bundle / name).read_text())
    with pytest.raises(ValueError, match="24 of 30 clips are missing"):
        FlintstonesRelease(hdf5)
    release = FlintstonesRelease(hdf5, max_missing=1)
    assert {name: len(ids) for name, ids in release.splits.items()} == {"test": 0, "train": 0, "val": 6}
    with pytest.raises(ValueError, match=f"{HDF5} holds no frames of {FIRST}"):
        release.frames(FIRST)
    (hdf5.parent / ANNOTATIONS).unlink()
    assert len(FlintstonesRelease(hdf5, max_missing=1).splits["val"]) == 6


def test_a_split_that_does_not_fit_is_said(hdf5, bundle):
    (hdf5.parent / SPLIT).write_text((bundle / SPLIT).read_text())
    edit(hdf5.parent / SPLIT, lambda split: split["val"].pop() and None)
    with pytest.raises(ValueError, match=rf"{HDF5} has 2 stories in 'val', but .*{SPLIT} makes 1; .*Move the split"):
        FlintstonesRelease(hdf5)
    edit(hdf5.parent / SPLIT, lambda split: split.pop("val") and None)
    with pytest.raises(ValueError, match="has 2 stories in 'val', but .* makes 0"):
        FlintstonesRelease(hdf5)


def replace(group, name, value, **kwargs):
    del group[name]
    if value is not None:
        group.create_dataset(name, data=value, **kwargs)


def set_row(group, name, row, value):
    group[name][row] = value


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda file: [file.pop(name) for name in list(file)], "holds none of the groups train, val, test"),
        (lambda file: replace(file["val"], "image3", None), "group 'val', lacks image3; write it again"),
        (lambda file: replace(file["val"], "text", None), "group 'val', lacks text; write it again"),
        (lambda file: replace(file["val"], "text", ["a|b|c|d|e"]), "group 'val': the shapes differ"),
        (lambda file: replace(file["val"], "text", "a|b|c|d|e"), "group 'val': the shapes differ"),
        (lambda file: replace(file["val"], "text", h5py.Empty("f")), "not a whole HDF5 file|the shapes differ"),
        (lambda file: replace(file["val"], "image0", np.zeros((2, 9), np.uint8)), "group 'val': the shapes differ"),
        (lambda file: (replace(file["val"], "image0", None), file["val"].create_group("image0")), "not a whole HDF5"),
        (lambda file: replace(file, "val", [1, 2]), "group 'val', lacks image0"),
        (lambda file: replace(file, "val", 5), "not a whole HDF5 file"),
        (lambda file: set_row(file["val"], "text", 1, "a|b|c|d|e|f"), "val/text, row 1 holds 6 captions instead of 5"),
        (lambda file: set_row(file["val"], "text", 0, "a, b, c, d, e"), "row 0 holds 1 captions .*with a '|' breaks"),
        (lambda file: replace(file["val"], "text", [1.5, 2.5]), "row 0 holds 1 captions"),
    ],
)
def test_an_hdf5_of_another_shape_names_file_and_place(hdf5, spoil, message):
    with h5py.File(hdf5, "r+") as file:
        spoil(file)
    with pytest.raises(ValueError, match=f"{HDF5}.*({message})"):
        FlintstonesRelease(hdf5)


def test_more_stories_than_ids_are_refused(hdf5):
    with h5py.File(hdf5, "w") as file:
        for name in ("image0", "image1", "image2", "image3", "image4", "text"):
            file.create_dataset(f"train/{name}", (200_000,), dtype="u1", chunks=(1000,))
    with pytest.raises(ValueError, match="holds 200000 stories in one split"):
        recognise(hdf5)


@pytest.mark.parametrize("raw", [b"", b"no HDF5" * 100, b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_what_is_no_hdf5_is_named(tmp_path, raw):
    (tmp_path / HDF5).write_bytes(raw)
    with pytest.raises(ValueError, match=f"{HDF5} is not a whole HDF5 file .*fetch or write it again"):
        recognise(tmp_path)


def test_a_truncated_hdf5_is_named(hdf5):
    os.truncate(hdf5, hdf5.stat().st_size // 2)
    with pytest.raises(ValueError, match=f"{HDF5} is not a whole HDF5 file"):
        recognise(hdf5)


def test_captions_of_broken_bytes_are_replaced(hdf5):
    with h5py.File(hdf5, "r+") as file:
        replace(file["val"], "text", [b"a \xff|b|c|d|e"] * 2)
    release = FlintstonesRelease(hdf5)
    assert release.clip(release.splits["val"][0]).caption == "a \ufffd"


# AR-LDM's pictures


def png(width, height, rows=b""):
    """A PNG of any size, true or not."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    facts = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# cv2.imencode(".png", a) of OpenCV 5.0.0, where a is (8, 4, 3): four lines of (255, 0, 0), four of (10, 200, 90)
BY_OPENCV = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAICAIAAABRUclSAAAAKUlEQVQIHTXBMQEAAAzCsPJOIopxxS4SQRlBGUEZQRk5x8g5Rs4xco551z0I"
    "tcZLJ7EAAAAASUVORK5CYII="
)


def test_red_comes_out_red_of_a_png_by_opencv(make_png):
    frames = strip_of_png(BY_OPENCV, "x")
    assert frames.shape == (2, 4, 4, 3) and not frames.flags.writeable
    assert (frames[0] == (255, 0, 0)).all() and (frames[1] == (10, 200, 90)).all()
    assert np.array_equal(strip_of_png(make_png(frames), "x"), frames)  # our tests write as OpenCV does


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "is not a whole PNG"),
        (b"no picture", "is not a whole PNG"),
        (BY_OPENCV[:60], "is not a whole PNG"),
        (BY_OPENCV[:80] + b"\xff" + BY_OPENCV[81:], "is not a whole PNG"),
        (png(4, 8), "is not a whole PNG"),
        (png(0, 8), "is not a whole PNG"),
        (png(4, 0), "is not a whole PNG"),
        (png(9000, 9000, bytes(1 << 20)), r"is not a whole PNG .has 9000 x 9000 pixels"),
        (png(100_000, 100_000), "is not a whole PNG"),
        (png(2**31 - 1, 2**31 - 1), "is not a whole PNG"),
        (png(4, 6, bytes(13 * 6)), "is a PNG of 4 x 6 pixels, which is no strip of square frames"),
        (png(4, 2, bytes(13 * 2)), "is a PNG of 4 x 2 pixels"),
        (b"GIF89a" + bytes(100), "is not a whole PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_png_names_its_place(hdf5, raw, message):
    with h5py.File(hdf5, "r+") as file:
        file["val"]["image2"][1] = np.frombuffer(raw, np.uint8)
    release = FlintstonesRelease(hdf5)
    id = release.stories("val")[1][2]
    for read in (release.frames, lambda id: release.frame(id, 0)):
        with pytest.raises(ValueError, match=f"{HDF5}, val/image2, row 1 {message}"):
            read(id)
    assert release.frames(release.stories("val")[1][1]).shape == (3, 16, 16, 3)


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(BY_OPENCV) - 1), st.integers(0, 255)), max_size=4), st.booleans())
def test_any_png_is_a_strip_or_refused(changes, repair):
    raw = bytearray(BY_OPENCV)
    for at, byte in changes:
        raw[at] = byte
    if repair:  # the header's checksum, or nothing in it would ever pass
        raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    try:
        frames = strip_of_png(bytes(raw), "x")
    except ValueError as error:
        assert str(error).startswith("x is ")
    else:
        assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[1] == frames.shape[2]
