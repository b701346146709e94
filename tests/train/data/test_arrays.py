import io
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.arrays import FIRST_BYTES, Clip, as_uint8, choose_index, frame_of_file, frames_of_file, parse_header


FRAMES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
fuzz = settings(deadline=None, max_examples=100, derandomize=True)


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **kwargs)
    return buffer.getvalue()


def with_header(text, data=FRAMES.tobytes(), align=64, version=1):
    """An npy file of any header, padded as numpy does."""
    digits = 2 if version == 1 else 4
    header = text.encode("latin1")
    header += b" " * (-(8 + digits + len(header) + 1) % align) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(digits, "little") + header + data


def facts(descr="|u1", fortran=False, shape=(3, 4, 4, 3)):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran!r}, 'shape': {shape!r}, }}"


def clip_of(raw):
    return Clip(lambda at, length: raw[at : at + length], len(raw), "clip.npy")


@pytest.fixture
def write(tmp_path):
    def write(raw):
        path = tmp_path / "clip.npy"
        path.write_bytes(raw)
        return path

    return write


WHOLE = {
    "numpy's": npy(FRAMES),
    "version 2": npy(FRAMES, version=(2, 0)),
    "version 3": npy(FRAMES, version=(3, 0)),
    "old numpy's, 80 bytes": with_header(facts(), align=16),
    "a long header": with_header(facts() + " " * 900),
    "a long header of version 2": with_header(facts() + " " * 900, version=2),
    "more after the end": npy(FRAMES) + b"more",
    "float32": npy(FRAMES.astype(np.float32)),
    "float64": npy(FRAMES.astype(np.float64) + 0.9),
    "float16": npy(FRAMES.astype(np.float16)),
    "big-endian": npy(FRAMES.astype(">f4")),
}


@pytest.mark.parametrize("name", WHOLE)
def test_frames_are_read(write, name):
    path = write(WHOLE[name])
    for read in (frames_of_file(path), clip_of(WHOLE[name]).frames()):
        assert read.dtype == np.uint8 and np.array_equal(read, FRAMES) and not read.flags.writeable
    for index in range(-3, 3):
        frame = frame_of_file(path, index)
        assert np.array_equal(frame, FRAMES[index]) and not frame.flags.writeable
    assert np.array_equal(frame_of_file(path, lambda count: count - 1), FRAMES[2])


@pytest.mark.filterwarnings("error")
def test_floats_out_of_range_are_brought_in():
    values = np.array([np.nan, np.inf, -np.inf, -1, 0.99, 255.5, 1e30])
    assert as_uint8(values).tolist() == [0, 255, 0, 0, 0, 255, 255]
    assert as_uint8(np.array([np.inf, 300], np.float16)).tolist() == [255, 255]


def test_only_the_header_and_one_frame_are_read():
    raw, asked = npy(FRAMES), []

    def read(at, length):
        asked.append((at, length))
        return raw[at : at + length]

    Clip(read, len(raw), "clip.npy").frame(1)
    assert asked == [(0, FIRST_BYTES), (FIRST_BYTES + 48, 48)]


def test_a_clip_larger_than_memory_gives_its_frames(write):
    path = write(with_header(facts(shape=(10_000, 1024, 1024, 3)), b""))
    size = FIRST_BYTES + 10_000 * 1024 * 1024 * 3
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip("no sparse file of that size here")
    with open(path, "r+b") as file:
        file.seek(size - 1)
        file.write(b"\x07")
    assert frame_of_file(path, -1)[-1, -1].tolist() == [0, 0, 7]
    assert frames_of_file(path)[-1, -1, -1].tolist() == [0, 0, 7]


OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([{"a": 1}], dtype=object), allow_pickle=True)
DEEP = "(" * 1500 + "1," + ")" * 1500
BROKEN = {
    "empty": (b"", "whole array file"),
    "text": (b"no array" * 100, "whole array file"),
    "eleven bytes": (npy(FRAMES)[:11], "whole array file"),
    "cut in its header": (npy(FRAMES)[:60], "ends in its header"),
    "cut in its frames": (npy(FRAMES)[:-1], r"271 of 272 bytes; fetch or write it again"),
    "header alone": (npy(FRAMES)[:128], r"128 of 272 bytes"),
    "unknown version": (b"\x93NUMPY\x09" + npy(FRAMES)[7:], "whole array file"),
    "pickled objects": (OBJECTS.getvalue(), "could run code"),
    "records": (npy(np.zeros(3, [("a", "u1")])), "could run code"),
    "a field of objects": (with_header(facts(descr="u1,O")), "could run code"),
    "one frame alone": (npy(FRAMES[0]), r"shape \(4, 4, 3\), but frames are"),
    "grey": (npy(FRAMES[..., :1]), r"shape \(3, 4, 4, 1\)"),
    "channels first": (npy(FRAMES.transpose(0, 3, 1, 2).copy()), r"shape \(3, 3, 4, 4\)"),
    "no frames": (npy(FRAMES[:0]), r"shape \(0, 4, 4, 3\)"),
    "negative": (with_header(facts(shape=(-3, 4, 4, 3))), "shape"),
    "true": (with_header(facts(shape=(True, 4, 4, 3))), "shape"),
    "a list for a shape": (with_header(facts(shape=[3, 4, 4, 3])), "shape"),
    "huge": (with_header(facts(shape=(10_000, 4096, 4096, 3))), "of 503316480128 bytes"),
    "beyond all": (with_header(facts(shape=(10**300, 4, 4, 3))), "shape"),
    "wide": (with_header(facts(shape=(1, 5000, 1, 3))), "shape"),
    "int64": (npy(FRAMES.astype(np.int64)), "type int64, but frames are uint8"),
    "int8": (npy(FRAMES.astype(np.int8)), "type int8"),
    "bool": (npy(FRAMES > 99), "type bool"),
    "complex": (npy(FRAMES.astype(complex)), "type complex128"),
    "text of numbers": (npy(FRAMES.astype(str)), "type <U3"),
    "times": (with_header(facts(descr="<M8[ns]")), "type datetime64"),
    "several to an item": (with_header(facts(descr="(2,)f4")), "type"),
    "no type": (with_header(facts(descr="nonsense")), "header cannot be read"),
    "Fortran": (npy(np.asfortranarray(FRAMES)), "Fortran order; write it again with numpy.ascontiguousarray"),
    "big header": (with_header(facts() + " " * 9000), "header of 9"),
    "header of gigabytes": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(200), "header of 4294967295 bytes"),
    "header of code": (with_header("__import__('os').abort()"), "header cannot be read"),
    "header of a list": (with_header("['descr', 'fortran_order', 'shape']"), "header cannot be read"),
    "header without a shape": (with_header("{'descr': '|u1', 'fortran_order': False, 'b': 1}"), "header cannot"),
    "header of more": (with_header(facts().replace("}", "'more': 1}")), "header cannot be read"),
    "header of a number": (with_header("1"), "header cannot be read"),
    "deep header": (with_header(facts().replace("(3, 4, 4, 3)", DEEP)), "header cannot be read"),
    "unary header": (with_header("-" * 4000 + "1"), "header cannot be read"),
    "fortran_order 0": (with_header(facts(fortran=0)), "header cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_clip_is_refused_by_name(write, name):
    raw, message = BROKEN[name]
    path = write(raw)
    for read in (frames_of_file, lambda path: frame_of_file(path, 0)):
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*{message}"):
            read(path)


@pytest.mark.parametrize("read", [frames_of_file, lambda path: frame_of_file(path, 0)])
def test_missing_files_and_folders_are_named(tmp_path, read):
    with pytest.raises(ValueError, match="gone.npy cannot be read: No such file"):
        read(tmp_path / "gone.npy")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match="folder.npy (is a folder|cannot be read: Is a directory)"):
        read(tmp_path / "folder.npy")


def test_a_file_that_shrinks_while_it_is_read_is_named():
    raw = npy(FRAMES)
    clip = Clip(lambda at, length: raw[: FIRST_BYTES + 40][at : at + length], len(raw), "clip.npy")
    for read in (clip.frames, lambda: clip.frame(0)):
        with pytest.raises(ValueError, match="clip.npy is not a whole array file: it ends early"):
            read()


@pytest.mark.parametrize("index", [3, -4, lambda count: count])
def test_a_frame_that_is_not_there_is_named(write, index):
    with pytest.raises(ValueError, match="`index` is .*clip.npy has 3 frames"):
        frame_of_file(write(npy(FRAMES)), index)


def test_indices_count_from_both_ends():
    assert [choose_index(index, 3, "a clip") for index in (0, 2, -1, -3)] == [0, 2, 2, 0]


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_a_clean_refusal(raw):
    for read in (parse_header, lambda raw: clip_of(raw).frames()):
        try:
            read(raw)
        except ValueError:
            pass


def check_against_numpy(raw):
    try:
        frames = clip_of(raw).frames()
    except ValueError:
        return
    assert np.array_equal(frames, as_uint8(np.load(io.BytesIO(raw), allow_pickle=False)))


@fuzz
@given(st.sampled_from([WHOLE["numpy's"], WHOLE["version 2"], WHOLE["float32"]]), st.data())
def test_a_changed_file_is_refused_or_read_as_numpy_does(raw, data):
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255) | st.sampled_from(b"0123456789,'{}()"))
    check_against_numpy(bytes(changed))


@fuzz
@given(
    st.text("|<>=?biufcOSUVMm,()0123456789[]", max_size=12) | st.text(max_size=6),
    st.recursive(st.integers(-2, 70) | st.booleans() | st.none(), lambda s: st.lists(s, max_size=5).map(tuple)),
    st.booleans() | st.integers(),
)
def test_any_header_is_refused_or_read_as_numpy_does(descr, shape, fortran):
    text = ascii({"descr": descr, "fortran_order": fortran, "shape": shape})
    check_against_numpy(with_header(text))
    check_against_numpy(with_header(text.replace(repr(shape), "(3, 4, 4, 3)")))
