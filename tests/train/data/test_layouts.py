import io
import json
import multiprocessing
import pickle
import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from train.data.annotations import ANNOTATIONS, SPLIT, tidy
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import NoFrames, check_index, recognise
from train.data.layouts.base import PerProcess


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
