import base64
import gzip
import io
import json
import multiprocessing
import os
import pickle
import re
import struct
import tarfile
import threading
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from train.data.annotations import ANNOTATIONS, SPLIT, tidy
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import NoFrames, RawArchive, check_index, recognise
from train.data.layouts.archive import MAX_CLIP_BYTES
from train.data.layouts.base import PerProcess
from train.data.layouts.hdf5 import strip_of_png


FIRST = "s_01_e_01_shot_000000_000074"
SECOND = "s_01_e_01_shot_000100_000174"
ARCHIVE = "flintstones_dataset.tgz"
HDF5 = "flintstones.h5"
LAYOUTS = [
    "our own show",
    "the FlintstonesSV bundle",
    "AI2's raw release, unpacked",
    "AI2's raw release, packed",
    "StoryGPT-V's re-pack",
    "AR-LDM's HDF5",
]
fuzz = settings(deadline=None, max_examples=100, derandomize=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_release):
    """Captions in several scripts; an annotated clip that is in no split."""
    root = make_release(tmp_path_factory.mktemp("bundle") / "show")
    records = json.loads((root / ANNOTATIONS).read_text())
    for i, text in enumerate(("猫は庭にいる。", "القطة في الفناء.", "👩‍👩‍👧 in a\tcar. ", "Gus\n\x1bsays: no.")):
        records[i]["description"] = text
    records.append(records[0] | {"globalID": "s_09_e_01_shot_000000_000074"})
    (root / ANNOTATIONS).write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory, write_layout):
    """Every layout, to be read only."""
    out = tmp_path_factory.mktemp("layouts")
    names = [*LAYOUTS, "AR-LDM's HDF5 alone"]
    return {name: write_layout(name, bundle, out / str(i)) for i, name in enumerate(names)}


@pytest.fixture
def archive(bundle, tmp_path, write_layout):
    return write_layout("AI2's raw release, packed", bundle, tmp_path / "packed") / ARCHIVE


@pytest.fixture
def hdf5(bundle, tmp_path, write_layout):
    return write_layout("AR-LDM's HDF5 alone", bundle, tmp_path / "hdf5") / HDF5


def edit(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


# all layouts


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_gives_back_what_was_written(bundle, written, name):
    release = FlintstonesRelease(written[name])
    assert release.layout.name == name and release.missing == {"annotation": [], "frames": []}
    records = {record["globalID"]: record for record in json.loads((bundle / ANNOTATIONS).read_text())}
    assert release.splits == json.loads((bundle / SPLIT).read_text())
    for ids in release.splits.values():
        for id in ids:
            expected = np.load(bundle / "video_frames_sampled" / f"{id}.npy")
            frames = release.frames(id)
            assert frames.dtype == np.uint8 and np.array_equal(frames, expected) and not frames.flags.writeable
            assert np.array_equal(release.frame(id, 1), expected[1])
            assert np.array_equal(release.frame(id, lambda count: count - 1), expected[-1])
            assert release.clip(id).caption == tidy(records[id]["description"])
            assert release.labels(id).sum() == 1
    plain = FlintstonesRelease(bundle)
    assert all(release.stories(split, 4) == plain.stories(split, 4) for split in plain.splits)
    assert "s_09_e_01_shot_000000_000074" in release.records and len(release) == 30  # annotated, but unused


@pytest.mark.parametrize("name", [*LAYOUTS, "AR-LDM's HDF5 alone"])
def test_a_layout_says_what_it_has_not(written, name):
    release = FlintstonesRelease(written[name])
    gone = "s_08_e_01_shot_000000_000074"
    with pytest.raises(ValueError, match=gone):
        release.frames(gone)
    with pytest.raises(ValueError, match="form"):
        release.frames("../" + FIRST)
    id = release.splits["test"][0]
    with pytest.raises(ValueError, match=rf"`index` is 3, but .*{id}.* has 3 frames"):
        release.frame(id, 3)
    assert (
        release.fingerprint(id)
        == FlintstonesRelease(written[name]).fingerprint(id)
        != release.fingerprint(release.splits["test"][1])
    )


@pytest.mark.parametrize("name", [*LAYOUTS, "AR-LDM's HDF5 alone"])
def test_frames_are_the_same_through_a_pickle_a_fork_and_workers(written, name):
    release = FlintstonesRelease(written[name])
    ids = release.splits["test"][::-1] + release.splits["train"][:3]
    expected = [release.frames(id).copy() for id in ids]
    again = pickle.loads(pickle.dumps(release))
    assert all(np.array_equal(again.frames(id), frames) for id, frames in zip(ids, expected, strict=True))
    if name in ("AI2's raw release, packed", "AR-LDM's HDF5", "AR-LDM's HDF5 alone"):  # those that hold a file open
        loader = DataLoader(
            [id for id in ids], batch_size=None, num_workers=2, collate_fn=lambda id: np.array(release.frames(id))
        )
        assert all(np.array_equal(a, b) for a, b in zip(loader, expected, strict=True))
        assert np.array_equal(release.frames(ids[0]), expected[0])


def test_missing_frames_and_annotations_are_counted(bundle, tmp_path, write_layout):
    root = write_layout("AI2's raw release, unpacked", bundle, tmp_path / "raw")
    (root / f"flintstones_dataset/video_frames/{FIRST}.npy").unlink()
    edit(root / ANNOTATIONS, lambda records: [record for record in records if record["globalID"] != SECOND])
    with pytest.raises(ValueError, match="2 of 30 clips are missing .1 without a whole annotation, 1 without frames"):
        FlintstonesRelease(root)
    release = FlintstonesRelease(root, max_missing=0.07)
    assert release.missing == {"annotation": [SECOND], "frames": [FIRST]}
    assert len(release.splits["train"]) == 16 and len(release.stories("train")) == 4  # episode 1 has four clips left


def test_a_split_without_clips_is_refused(bundle, tmp_path, write_layout):
    root = write_layout("the FlintstonesSV bundle", bundle, tmp_path / "show")
    (root / SPLIT).write_text('{"train": [], "val": []}')
    with pytest.raises(ValueError, match="the split lists no clip"):
        FlintstonesRelease(root)


def test_a_folder_or_a_broken_file_in_place_of_a_clip_is_named(bundle, tmp_path, write_layout):
    root = write_layout("the FlintstonesSV bundle", bundle, tmp_path / "show")
    path = root / f"video_frames_sampled/{FIRST}.npy"
    path.unlink()
    path.mkdir()
    release = FlintstonesRelease(root)
    for read in (release.frames, lambda id: release.frame(id, 0)):
        with pytest.raises(ValueError, match=f"{FIRST}.npy .*(folder|directory)"):
            read(FIRST)


@pytest.mark.parametrize("name", ["AI2's raw release, packed", "StoryGPT-V's re-pack", "AR-LDM's HDF5"])
def test_annotations_are_read_without_the_pictures(bundle, written, name):
    release = FlintstonesRelease(written[name], pictures=False)
    assert isinstance(release.layout, NoFrames)
    assert release.splits == json.loads((bundle / SPLIT).read_text())
    assert release.clip(FIRST).caption == FlintstonesRelease(written[name]).clip(FIRST).caption
    for read in (release.frames, lambda id: release.frame(id, 0), release.fingerprint):
        with pytest.raises(ValueError, match=f"opened without pictures, so that {FIRST}"):
            read(FIRST)
    if name == "AI2's raw release, packed":
        assert FlintstonesRelease(written[name] / ARCHIVE, pictures=False).splits == release.splits


# StoryGPT-V


def test_storygptv_without_its_own_files_uses_the_original_ones(bundle, tmp_path, write_layout):
    root = write_layout("StoryGPT-V's re-pack", bundle, tmp_path / "show")
    (root / "split.json").rename(root / SPLIT)
    edit(root / "cleaned_annotations.json", lambda cleaned: cleaned.pop(FIRST) and None)
    release = FlintstonesRelease(root)
    assert release.clip(FIRST).caption == "What was before it was cleaned."
    assert release.clip("s_01_e_01_shot_000400_000474").caption == "Mabel is in the kitchen. He is talking."
    (root / "cleaned_annotations.json").unlink()
    assert FlintstonesRelease(root).clip(SECOND).caption == "What was before it was cleaned."
    (root / SPLIT).unlink()
    with pytest.raises(ValueError, match="split.json is missing"):
        FlintstonesRelease(root)


@pytest.mark.parametrize("entry", [None, "text", [], {}, {"caption": None}, {"caption": " \n"}])
def test_storygptv_keeps_the_original_caption_for_none(bundle, tmp_path, write_layout, entry):
    root = write_layout("StoryGPT-V's re-pack", bundle, tmp_path / "show")
    edit(root / "cleaned_annotations.json", lambda cleaned: cleaned.update({FIRST: entry}))
    assert FlintstonesRelease(root).clip(FIRST).caption == "What was before it was cleaned."


@pytest.mark.parametrize("content, message", [("[]", "must hold one object of captions"), ('{"a', "not whole JSON")])
def test_storygptv_captions_of_another_shape_name_the_file(bundle, tmp_path, write_layout, content, message):
    root = write_layout("StoryGPT-V's re-pack", bundle, tmp_path / "show")
    (root / "cleaned_annotations.json").write_text(content)
    with pytest.raises(ValueError, match=f"cleaned_annotations.json.*{message}"):
        FlintstonesRelease(root)


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


# one open file for each process


def test_a_file_that_cannot_be_opened_locks_nobody_out():
    opened = PerProcess(open_nothing)
    for _ in range(2):
        with pytest.raises(OSError, match="nothing there"):
            with opened:
                pass
    assert not opened.lock.locked()


def open_nothing():
    raise OSError("nothing there")


def test_every_process_and_every_pickle_opens_its_own_file():
    opened = PerProcess(io.BytesIO)
    with opened as mine:
        pass
    with opened as again:
        assert again is mine
    with pickle.loads(pickle.dumps(opened)) as other:
        assert other is not mine


def test_a_fork_is_not_held_by_the_lock_of_its_parent():
    opened = PerProcess(io.BytesIO)
    context = multiprocessing.get_context("fork")
    with opened as mine:
        child = context.Process(target=open_another, args=(opened, mine))
        child.start()
    child.join(120)
    code = child.exitcode
    child.kill()
    assert code == 0


def open_another(opened, mine):
    with opened as file:
        assert file is not mine


def test_threads_take_turns():
    opened, order = PerProcess(list), []

    def work():
        for _ in range(50):
            with opened as file:
                file.append(1)
                order.append(len(file))
                file.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [1] * 200


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


# shards' index (their reading is tested with their writing)


@pytest.mark.parametrize(
    "index, message",
    [
        ([], "not an index"),
        ({"shards": {}}, "not an index"),
        ({"shards": {"shard-00000.tar": {"bytes": float("inf")}}, "clips": {}}, "not an index"),
        ({"shards": {"shard-00000.tar": {"bytes": float("nan")}}, "clips": {}}, "not an index"),
        ({"shards": {"../shard-00000.tar": {"bytes": 5}}, "clips": {}}, "shards are called as"),
        ({"shards": {"shard-٠٠٠٠٠.tar": {"bytes": 5}}, "clips": {}}, "shards are called as"),
        ({"shards": {"shard-00000.tar": {"bytes": 5}}, "clips": {"x": ["shard-00000.tar", 0, 5]}}, "not an index"),
        ({"shards": {"shard-00000.tar": {"bytes": 5}}, "clips": {FIRST: ["shard-00000.tar", 1, 5]}}, "not there"),
        ({"shards": {"shard-00000.tar": {"bytes": 5}}, "clips": {FIRST: ["shard-00000.tar", -1, 5]}}, "not there"),
        ({"shards": {"shard-00000.tar": {"bytes": 5}}, "clips": {FIRST: ["shard-00000.tar", 0, 0]}}, "not there"),
        ({"shards": {"shard-00000.tar": {"bytes": 5}}, "clips": {FIRST: ["shard-00001.tar", 0, 5]}}, "not there"),
    ],
)
def test_an_index_of_another_shape_is_named(index, message):
    with pytest.raises(ValueError, match=f"some/shards.json .*{message}"):
        check_index(index, "some/shards.json")


numbers = st.integers() | st.floats() | st.text(max_size=3) | st.none()
json_values = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@fuzz
@given(
    json_values
    | st.fixed_dictionaries(
        {
            "shards": st.dictionaries(
                st.sampled_from(["shard-00000.tar", "x"]), json_values | st.fixed_dictionaries({"bytes": numbers})
            ),
            "clips": st.dictionaries(
                st.sampled_from([FIRST, "x"]),
                json_values | st.tuples(st.sampled_from(["shard-00000.tar", "x"]), numbers, numbers),
            ),
        }
    )
)
def test_any_index_is_refused_or_leads_into_its_shards(index):
    try:
        shards, places = check_index(index, "shards.json")
    except ValueError as error:
        assert "shards.json" in str(error)
    else:
        assert all(0 <= at < at + size <= shards[shard] for shard, at, size in places.values())


# recognition


def test_an_unknown_folder_says_what_was_looked_for_and_found(tmp_path):
    with pytest.raises(ValueError, match="no known layout.*Found: nothing"):
        recognise(tmp_path)
    for name in ("pictures", "notes.txt", *map(str, range(20))):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError) as caught:
        recognise(tmp_path)
    message = str(caught.value)
    for name in ("shards.json", "video_frames_sampled/", "video_frames_sampled_4x/", "video_frames/", ".tgz", ".h5"):
        assert name in message.split("Found")[0]
    assert "Found: 0, 1, 10" in message and message.endswith("...")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "is no file and no folder"),
        (lambda path: path.write_text(""), r"is a file; of files, .tgz, .tar.gz, .h5, .hdf5 are read"),
    ],
)
def test_a_path_of_another_kind_is_named(tmp_path, make, message):
    path = tmp_path / "data.zip"
    make(path)
    with pytest.raises(ValueError, match=f"data.zip {message}"):
        recognise(path)


@pytest.mark.parametrize("names", [("a.tgz", "b.tar.gz"), ("a.h5", "b.hdf5")])
def test_of_two_files_none_is_chosen(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"holds {', '.join(map(re.escape, names))}; say which by giving the file"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://example.org/x",
        "file:///etc",
        "s3://bucket/x",
        "http://example.org/x",
        "http://localhost.example.org/x",
        "http://localhost:80@example.org/x",
        "http://127.0.0.1:80@example.org/",
        "http://127.0.0.1.example.org",
        "memory://x",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ValueError, match=f"`root` is '{address}'; addresses of shards begin with hf:// or https://"):
        recognise(address)
