import json

import numpy as np
import pytest

from train.data.annotations import ANNOTATIONS, SPLIT, check_id, stories_of
from train.data.flintstones import FlintstonesRelease


FIRST = "s_01_e_01_shot_000000_000074"


def edit(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def test_a_release_is_read(release_folder):
    release = FlintstonesRelease(release_folder)
    assert {name: len(ids) for name, ids in release.splits.items()} == {"test": 6, "train": 18, "val": 6}
    assert release.missing == {"annotation": [], "frames": []}
    assert len(release) == 30
    record = release.clip(release.splits["test"][0])
    assert record.caption == "Gus is in the kitchen. He is talking."
    assert (record.setting, record.characters) == ("kitchen", ["gus"])
    assert release.settings == ("kitchen", "yard")
    assert release.cast[:3] == ("Gus", "Mabel", "Otto")


def test_frames_are_mapped_and_not_writable(release_folder):
    frames = FlintstonesRelease(release_folder).frames(FIRST)
    assert isinstance(frames, np.memmap) and frames.shape == (3, 16, 16, 3) and frames.dtype == np.uint8
    with pytest.raises(ValueError):
        frames[0] = 0


def test_floating_frames_become_uint8(release_folder):
    path = release_folder / "video_frames_sampled" / f"{FIRST}.npy"
    np.save(path, np.array([-3.0, 0.0, 127.9, 300.0]).reshape(1, 2, 2, 1).repeat(3, axis=3))
    frames = FlintstonesRelease(release_folder).frames(FIRST)
    assert frames.dtype == np.uint8 and frames[0, ..., 0].ravel().tolist() == [0, 0, 127, 255]


def test_stories_follow_the_sorted_ids_of_all_splits():
    a = [f"s_01_e_01_shot_{i:06d}_{i + 74:06d}" for i in (0, 100, 250, 400)]
    b = [f"s_01_e_02_shot_{i:06d}_{i + 74:06d}" for i in (0, 75, 300)]
    splits = {"train": [a[2], a[0], a[3], a[1]], "test": list(reversed(b))}
    assert stories_of(splits, 3) == {"train": [a[0:3], a[1:4]], "test": [b]}
    assert stories_of(splits, 2)["train"] == [a[2:4], a[0:2], a[1:3]]
    assert stories_of(splits, 1)["test"] == [[b[2]], [b[1]], [b[0]]]
    assert stories_of(splits, 5) == {"train": [], "test": []}
    assert stories_of({"train": a}, 9) == {"train": []}
    with pytest.raises(ValueError, match="length"):
        stories_of(splits, 0)


def test_stories_of_a_split(release_folder):
    release = FlintstonesRelease(release_folder)
    stories = release.stories("train", 4)
    assert len(stories) == 9 and all(len({id[:9] for id in story}) == 1 for story in stories)
    with pytest.raises(ValueError, match="split"):
        release.stories("dev")


def test_labels_match_the_whole_entity(release_folder):
    def dress_up(records):
        by_id = {record["globalID"]: record for record in records}
        by_id[FIRST]["characters"] = [{"entityLabel": " Gus "}, {"entityLabel": "Otto dressed as a baby"}]

    edit(release_folder / ANNOTATIONS, dress_up)
    release = FlintstonesRelease(release_folder)
    assert release.labels(FIRST, ["Mabel", "Gus", "Otto"]).tolist() == [0, 1, 0]
    assert release.labels(FIRST).tolist() == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("id", ["", "../secret", "s_1_e_01_shot_000000_000074", FIRST + "\n", "s_01_e_01/x", None, 5])
def test_ids_outside_the_grammar_are_refused(release_folder, id):
    with pytest.raises(ValueError, match="id"):
        check_id(id)
    with pytest.raises(ValueError, match="id"):
        FlintstonesRelease(release_folder).frames(id)


def test_an_id_outside_the_grammar_in_the_split_names_the_file(release_folder):
    edit(release_folder / SPLIT, lambda split: split["val"].append("../../etc/passwd"))
    with pytest.raises(ValueError, match=f"{SPLIT}.*passwd"):
        FlintstonesRelease(release_folder)


def test_an_id_in_two_splits_is_refused(release_folder):
    edit(release_folder / SPLIT, lambda split: split["val"].append(FIRST))
    with pytest.raises(ValueError, match="twice"):
        FlintstonesRelease(release_folder)


def test_missing_clips_are_skipped_and_counted(release_folder):
    (release_folder / "video_frames_sampled" / f"{FIRST}.npy").unlink()
    release = FlintstonesRelease(release_folder)
    assert release.missing == {"annotation": [], "frames": [FIRST]}
    assert FIRST not in release.splits["train"] and len(release.splits["train"]) == 17
    assert release.stories("train", 5)[0][0] == "s_01_e_01_shot_000100_000174"


def test_too_many_missing_clips_are_an_error(release_folder):
    edit(release_folder / ANNOTATIONS, lambda records: records[:-2])
    with pytest.raises(ValueError, match="2 of 30"):
        FlintstonesRelease(release_folder)
    assert len(FlintstonesRelease(release_folder, max_missing=0.1).missing["annotation"]) == 2


@pytest.mark.parametrize("name", [ANNOTATIONS, SPLIT])
def test_cut_off_json_names_the_file(release_folder, name):
    path = release_folder / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=name):
        FlintstonesRelease(release_folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        FlintstonesRelease(release_folder)


@pytest.mark.parametrize("name", [ANNOTATIONS, SPLIT])
@pytest.mark.parametrize("value", [{"train": "all"}, "text", None])
def test_json_of_the_wrong_shape_names_the_file(release_folder, name, value):
    (release_folder / name).write_text(json.dumps(value))
    with pytest.raises(ValueError, match=name):
        FlintstonesRelease(release_folder)


def test_records_without_caption_or_with_odd_fields(release_folder):
    def spoil(records):
        records[6]["description"] = " \n"
        records[7] |= {"setting": None, "characters": [None, {"entityLabel": 3}, {}]}
        records.append("not a record")

    edit(release_folder / ANNOTATIONS, spoil)
    release = FlintstonesRelease(release_folder)
    assert release.missing["annotation"] == [FIRST]
    odd = release.clip("s_01_e_01_shot_000100_000174")
    assert (odd.setting, odd.characters) == ("", [])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no array"),
        lambda path: np.save(path, np.zeros((16, 16, 3), np.uint8)),
        lambda path: np.save(path, np.zeros((0, 16, 16, 3), np.uint8)),
        lambda path: np.save(path, np.zeros((2, 16, 16, 3), np.int64)),
        lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    ],
)
def test_broken_frames_name_the_file(release_folder, spoil):
    spoil(release_folder / "video_frames_sampled" / f"{FIRST}.npy")
    with pytest.raises(ValueError, match=FIRST):
        FlintstonesRelease(release_folder).frames(FIRST)


def test_a_folder_without_frames_is_refused(release_folder):
    (release_folder / "video_frames_sampled").rename(release_folder / "pictures")
    with pytest.raises(ValueError, match="no known layout.*video_frames_sampled.*Found: .*pictures"):
        FlintstonesRelease(release_folder)
