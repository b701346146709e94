import gzip
import json
import os
import pickle
import tarfile

import numpy as np
import pytest

from train.data.annotations import ANNOTATIONS, SPLIT
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import RawArchive, recognise
from train.data.layouts.archive import MAX_CLIP_BYTES


FIRST = "s_01_e_01_shot_000000_000074"
ARCHIVE = "flintstones_dataset.tgz"


def edit(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


# AI2's archive


def no_scan(*_):
    raise AssertionError("scanned again")


def test_frames_come_from_the_archive_in_any_order(bundle, archive):
    release = FlintstonesRelease(archive)
    ids = sorted(sum(release.splits.values(), []))
    assert release.layout.present() == set(ids)
    for i in np.random.default_rng(0).permutation(np.repeat(np.arange(len(ids)), 2)):
        expected = np.load(bundle / "video_frames_sampled" / f"{ids[i]}.npy")
        assert np.array_equal(release.frame(ids[i], int(i) % 3), expected[i % 3])


def test_the_second_opening_uses_the_index(archive, monkeypatch):
    first = FlintstonesRelease(archive)
    beside = sorted(path.name for path in archive.parent.iterdir())
    assert beside == sorted([ARCHIVE, f"{ARCHIVE}.clips.json", f"{ARCHIVE}.gzidx", ANNOTATIONS, SPLIT])
    monkeypatch.setattr(RawArchive, "_scan", no_scan)
    second = FlintstonesRelease(archive)
    assert second.layout.places == first.layout.places
    assert np.array_equal(second.frames(FIRST), first.frames(FIRST))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda clips, points: clips.unlink(),
        lambda clips, points: points.unlink(),
        lambda clips, points: clips.write_text("{"),
        lambda clips, points: clips.write_text("[1]"),
        lambda clips, points: edit(clips, lambda known: known.update(clips={"../x": [0, 5]})),
        lambda clips, points: edit(clips, lambda known: known["clips"].update({FIRST: [5]})),
        lambda clips, points: edit(clips, lambda known: known["clips"].update({FIRST: [-5, 10]})),
        lambda clips, points: edit(clips, lambda known: known["clips"].update({FIRST: ["5", 10]})),
        lambda clips, points: edit(clips, lambda known: known.pop("index_bytes") and None),
        lambda clips, points: points.write_bytes(points.read_bytes()[:-1]),
    ],
)
def test_a_broken_index_is_made_anew(archive, spoil):
    expected = FlintstonesRelease(archive).frames(FIRST)
    spoil(archive.with_name(f"{ARCHIVE}.clips.json"), archive.with_name(f"{ARCHIVE}.gzidx"))
    assert np.array_equal(FlintstonesRelease(archive).frames(FIRST), expected)


def test_a_damaged_index_of_the_right_length_is_named(archive):
    FlintstonesRelease(archive)
    path = archive.with_name(f"{ARCHIVE}.gzidx")
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ValueError, match=f"{ARCHIVE}: {FIRST}.npy cannot be read"):
        FlintstonesRelease(archive).frames(FIRST)


def repack(archive, write):
    """Write another archive in its place: `write(tar, clip)` with a clip's name and bytes."""
    with tarfile.open(archive) as tar:
        name = f"flintstones_dataset/video_frames/{FIRST}.npy"
        content = tar.extractfile(name).read()
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        write(tar, name, content)


def test_a_changed_archive_is_scanned_again(archive, add_member):
    before = FlintstonesRelease(archive)
    fingerprint = before.fingerprint(FIRST)
    travelled = pickle.dumps(before)
    repack(archive, lambda tar, name, content: add_member(tar, name, content[:-1] + b"\x05"))
    after = FlintstonesRelease(archive, max_missing=1)
    assert after.layout.present() == {FIRST} and after.frames(FIRST)[-1, -1, -1, -1] == 5
    assert after.fingerprint(FIRST) != fingerprint
    with pytest.raises(ValueError, match=f"{ARCHIVE}: {FIRST}.npy cannot be read .*changed after .*open that again"):
        pickle.loads(travelled).frames(FIRST)


def test_an_archive_that_is_gone_is_named_again_and_again(archive):
    release = FlintstonesRelease(archive)
    archive.unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{ARCHIVE}: {FIRST}.npy cannot be read .*No such file"):
            release.frames(FIRST)


def test_an_index_that_cannot_be_written_is_said(archive):
    archive.with_name(f"{ARCHIVE}.clips.json").mkdir()
    with pytest.raises(ValueError, match=f"{ARCHIVE}: its index cannot be written beside it .*leave to write"):
        FlintstonesRelease(archive)
    assert not list(archive.parent.glob("*.tmp"))


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_archive_is_named(archive, share):
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(ValueError, match=f"{ARCHIVE} is not a whole archive .*fetch it again"):
        FlintstonesRelease(archive)
    assert sorted(path.name for path in archive.parent.iterdir()) == sorted([ARCHIVE, ANNOTATIONS, SPLIT])


def unpacked(archive):
    return bytearray(gzip.decompress(archive.read_bytes()))


def packed(archive, raw):
    archive.write_bytes(gzip.compress(bytes(raw), 1))


def end_of_members(raw):
    return len(raw) - len(raw) % 512 - next(i for i, byte in enumerate(reversed(raw)) if byte) // 512 * 512


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[: 512 * 3],  # between two members, where tarfile sees nothing amiss
        lambda raw: raw[: 512 * 3 + 100],
        lambda raw: raw[:512] + b"\xff" * 512 + raw[1024:],  # a header
        lambda raw: raw[: end_of_members(raw)],
        lambda raw: b"no tar at all" * 1000,
        lambda raw: b"",
    ],
)
def test_a_tar_cut_or_damaged_within_whole_gzip_is_named(archive, spoil):
    packed(archive, spoil(unpacked(archive)))
    with pytest.raises(ValueError, match=f"{ARCHIVE} is not a whole archive .*fetch it again"):
        FlintstonesRelease(archive)


def test_a_flipped_bit_is_found_by_the_checksum(archive):
    with open(archive, "r+b") as file:
        file.seek(archive.stat().st_size // 2)  # in the noise of the frames, which deflate stores as it is
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ValueError, match=f"{ARCHIVE} is not a whole archive"):
        FlintstonesRelease(archive)


@pytest.mark.parametrize("name", ["plain.tgz", "text.tar.gz"])
def test_what_is_no_gzip_is_named(tmp_path, name):
    path = tmp_path / name
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(ValueError, match=f"{name} is not a whole archive"):
        recognise(path)


CLIP = f"flintstones_dataset/video_frames/{FIRST}.npy"


@pytest.mark.parametrize(
    "name, facts, message",
    [
        ("/etc/passwd", {}, "leads out of its folder"),
        (f"/{CLIP}", {}, "leads out of its folder"),
        (f"../video_frames/{FIRST}.npy", {}, "leads out of its folder"),
        ("flintstones_dataset/../../x", {}, "leads out of its folder"),
        (CLIP, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "as a link"),
        (CLIP, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, "as a link"),
        (CLIP, {"type": tarfile.CHRTYPE}, "as a link"),
        (CLIP, {"type": tarfile.FIFOTYPE}, "as a link"),
        (CLIP, {"type": tarfile.DIRTYPE}, "as a link"),
        (CLIP, {"pax_headers": {"GNU.sparse.map": "0,5", "GNU.sparse.size": "5"}}, "as a link"),
        ("x" * 10_000 + "/../y", {}, "leads out of its folder"),
    ],
)
def test_members_that_mean_harm_are_refused(archive, add_member, name, facts, message):
    repack(archive, lambda tar, *_: add_member(tar, name, **facts))
    with pytest.raises(ValueError, match=f"{ARCHIVE} holds .*{message}") as caught:
        FlintstonesRelease(archive)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name",
    [
        f"{FIRST}.npy",
        f"./flintstones_dataset/video_frames/{FIRST}.npy",
        f"video_frames/{FIRST}.npy",
    ],
)
def test_the_folders_above_the_clips_do_not_matter(archive, add_member, name):
    repack(archive, lambda tar, _, content: add_member(tar, name, content))
    assert recognise(archive).frames(FIRST).shape == (3, 16, 16, 3)


@pytest.mark.parametrize(
    "name",
    [
        f"flintstones_dataset/entity_tracking/{FIRST}.npy",
        f"flintstones_dataset/video_frames/{FIRST}.npy.npz",
        f"flintstones_dataset/video_frames/{FIRST}.NPY",
        f"flintstones_dataset/video_frames/x{FIRST}.npy",
    ],
)
def test_members_of_other_names_are_no_clips(archive, add_member, name):
    repack(archive, lambda tar, _, content: add_member(tar, name, content))
    assert recognise(archive).present() == set()


def test_a_broken_clip_in_the_archive_is_named(archive, add_member):
    repack(archive, lambda tar, name, content: add_member(tar, name, content[:-1]))
    with pytest.raises(ValueError, match=f"{ARCHIVE}: {FIRST}.npy is not a whole array file"):
        recognise(archive).frames(FIRST)


def bomb(archive, *blocks):
    """A tiny archive of some blocks and of 16 MB of zeros."""
    packed(archive, b"".join(blocks) + bytes(16 << 20))


def header(name, size, **facts):
    member = tarfile.TarInfo(name)
    member.size = size
    for fact, value in facts.items():
        setattr(member, fact, value)
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "blocks, message",
    [
        ([header("zeros.bin", 100 << 30)], "unpacks to more than 200 times its size at 'zeros.bin'"),
        ([header(CLIP, 20 << 20)], "unpacks to more than 200 times its size at 'flintstones"),
        ([header("x", 1 << 30, type=tarfile.XHDTYPE)], "is not a whole archive .a header is too large"),
        ([header("x", 1 << 30, type=tarfile.XGLTYPE)], "is not a whole archive .a header is too large"),
        ([header("x", 1 << 30, type=tarfile.GNUTYPE_LONGNAME)], "is not a whole archive .a header is too large"),
        ([], "is not a whole archive|unpacks to more than 200 times its size at its end"),
        ([header("x", 0)], "unpacks to more than 200 times its size at its end"),
        ([header("x", 0), header("x.bin", -1024)], "holds 'x.bin' of a negative size"),
        ([header("x", 0), header("x", -1024, type=tarfile.XHDTYPE)], "is not a whole archive"),
    ],
)
def test_a_bomb_is_not_unpacked(archive, blocks, message):
    bomb(archive, *blocks)
    with pytest.raises(ValueError, match=f"{ARCHIVE} ({message})"):
        recognise(archive)


def test_a_clip_of_gigabytes_is_refused(archive, monkeypatch):
    monkeypatch.setattr("train.data.layouts.archive.MAX_RATIO", 10**9)
    bomb(archive, header(CLIP, MAX_CLIP_BYTES + 1))
    with pytest.raises(ValueError, match=f"{ARCHIVE} holds .*{FIRST}.npy' of 1,073,741,825 bytes"):
        recognise(archive)
