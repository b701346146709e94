import io
import json
import os
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.annotations import (
    ANNOTATIONS,
    CONTROLS,
    SPLIT,
    ClipRecord,
    check_id,
    check_splits,
    episode_of,
    followings_of,
    read_followings,
    read_json,
    read_plain_pickle,
    read_record,
    read_split,
    stories_of,
    tidy,
)
from train.data.flintstones import FlintstonesRelease


FIRST = "s_01_e_01_shot_000000_000074"
fuzz = settings(deadline=None, max_examples=100, derandomize=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
clip_ids = st.builds(
    lambda season, episode, number: f"s_{season:02d}_e_{episode:02d}_shot_{number * 80:06d}_{number * 80 + 74:06d}",
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 12),
)


@pytest.fixture
def write(tmp_path):
    def write(raw, name="file"):
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write


# ids and JSON


@pytest.mark.parametrize(
    "id", ["../../etc/passwd", f"../{FIRST}", f"{FIRST}.npy", f"{FIRST}\0", "s_٠١_e_01_shot_1_2", {}]
)
def test_ids_outside_the_grammar_name_the_split_file(write, id):
    path = write(json.dumps({"train": [FIRST, id]}).encode(), SPLIT)
    with pytest.raises(ValueError, match=rf"{SPLIT}, split 'train': `id` is .*has the form"):
        read_split(path)


def test_what_is_no_id_is_shown_short():
    with pytest.raises(ValueError) as caught:
        check_id("x" * 10**6)
    assert len(str(caught.value)) < 200
    deep = None
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="`id` is a list"):
        check_id(deep)


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "not whole JSON"),
        (b'{"train": ["s_01', "not whole JSON"),
        (b'["\xff\xfe"]', "not whole JSON .*utf-8"),
        (b"[" * 100_000 + b"]" * 100_000, "not whole JSON .*recursion"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not whole JSON .*recursion"),
        (b"[" + b"1" * 5000 + b"]", "not whole JSON"),
        (b"{} {}", "not whole JSON"),
    ],
    ids=range(7),
)
def test_broken_json_names_the_file(write, raw, message):
    path = write(raw, "some.json")
    with pytest.raises(ValueError, match=rf"some.json is {message}.*; fetch or write it again"):
        read_json(path)


def test_a_file_of_gigabytes_is_not_even_read(write):
    path = write(b"[]", "some.json")
    os.truncate(path, 2 << 30)
    with pytest.raises(ValueError, match="some.json has 2,147,483,648 bytes.*Is it the right file"):
        read_json(path)
    assert read_json(write(b"[1, 2]", "other.json"), max_bytes=6) == [1, 2]
    with pytest.raises(ValueError, match="more than 5 are not read"):
        read_json(path.with_name("other.json"), max_bytes=5)


def test_missing_files_folders_and_loops_are_named(tmp_path):
    with pytest.raises(ValueError, match="some.json is missing; .* holds: nothing"):
        read_json(tmp_path / "some.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder cannot be read: Is a directory"):
        read_json(tmp_path / "folder")
    with pytest.raises(ValueError, match="some.json is missing; .* holds: folder"):
        read_json(tmp_path / "some.json")
    with pytest.raises(ValueError, match="some.json is missing; .* holds: no such folder"):
        read_json(tmp_path / "gone" / "some.json")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ValueError, match="loop cannot be read"):
        read_json(tmp_path / "loop")


def test_other_encodings_of_json_are_read(write):
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert read_json(write('["é 猫"]'.encode(encoding))) == ["é 猫"]


@pytest.mark.parametrize("value", [[], "text", 5, None, {"train": {}}, {"train": [FIRST], "val": None}])
def test_a_split_of_another_shape_names_the_file(write, value):
    path = write(json.dumps(value).encode(), SPLIT)
    with pytest.raises(ValueError, match=f"{SPLIT} must hold one object of lists of clip ids"):
        read_split(path)


def test_an_id_twice_in_one_split_is_refused():
    with pytest.raises(ValueError, match=f"x.json holds {FIRST} twice"):
        check_splits({"train": [FIRST, FIRST]}, "x.json")


@fuzz
@given(json_values | st.dictionaries(st.text(max_size=5), st.lists(clip_ids | json_values, max_size=3), max_size=2))
def test_any_split_is_refused_or_holds_ids_once(value):
    try:
        splits = check_splits(value, "x.json")
    except ValueError as error:
        assert "x.json" in str(error)
    else:
        ids = [check_id(id) for split in splits.values() for id in split]
        assert len(ids) == len(set(ids))


# captions and labels


@pytest.mark.parametrize(
    "text, expected",
    [
        (" Fred\n is \t here.\r\n", "Fred is here."),
        ("Fred\u2028and\u2029Barney\x85talk\x00.", "Fred and Barney talk ."),
        ("\x1b[31mred\x7f|blue", "[31mred |blue"),
        ("Fred \ud83d is\udc00here", "Fred is here"),
        ("no\u00a0break\u3000wide", "no break wide"),
        ("フレッドは台所にいる。", "フレッドは台所にいる。"),
        ("فريد في المطبخ\u200f", "فريد في المطبخ\u200f"),
        ("👩‍👩‍👧 and 🏳️‍🌈", "👩‍👩‍👧 and 🏳️‍🌈"),
        ("e\u0301 दिल्ली", "e\u0301 दिल्ली"),
        ("\n\x00 \ud800", ""),
    ],
)
def test_captions_are_one_line_and_keep_their_script(text, expected):
    assert tidy(text) == expected
    tidy(text).encode()


def test_surrogates_in_files_do_no_harm(write):
    escaped = rb'["a\ud800b", "\ud83d\ude00"]'
    raw = b'["a\xed\xa0\x80b", "\xf0\x9f\x98\x80"]'
    for content in (escaped, raw):
        assert [tidy(text) for text in read_json(write(content))] == ["a b", "😀"]


@fuzz
@given(st.text(st.characters()))
def test_tidying_twice_changes_nothing(text):
    once = tidy(text)
    assert tidy(once) == once == once.strip() and CONTROLS.search(once) is None and "  " not in once


def record(**fields):
    return {"globalID": FIRST, "description": "Fred talks.", **fields}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {},
        record(globalID=None),
        record(globalID="../x"),
        record(globalID=[FIRST]),
        record(description=None),
        record(description=["Fred talks."]),
        record(description=" \n\u2028"),
    ],
)
def test_records_without_an_id_or_a_caption_are_none(value):
    assert read_record(value) is None


@pytest.mark.parametrize("span", [{}, {"entitySpan": None}, {"entitySpan": [0, 1]}, {"entitySpan": "x"}])
def test_the_entity_span_does_not_matter(span):
    read = read_record(
        record(characters=[{"entityLabel": " Barney dressed as a baby", **span}], setting=" Living\nRoom")
    )
    assert (read.characters, read.setting) == (["barney dressed as a baby"], "living room")
    assert read.boxes == [(None, None, None)]


def test_labels_may_hold_blanks_and_commas_but_must_say_something():
    labels = ["bed, ", "Mr  Slate", "", " \n", "walkie talkie"]
    read = read_record(record(characters=[{"entityLabel": label} for label in labels]))
    assert read.characters == ["bed,", "mr slate", "walkie talkie"] and len(read.boxes) == 3


@pytest.mark.parametrize(
    "characters", [None, "fred", {"entityLabel": "fred"}, [None, "fred", ["fred"], {"label": "x"}]]
)
def test_characters_of_another_shape_are_nobody(characters):
    assert read_record(record(characters=characters)).characters == []


BOX = [10, 20, 110, 220]


@pytest.mark.parametrize(
    "rectangles, expected",
    [
        ([BOX, BOX, BOX], [True, True, True]),
        ([[], BOX, []], [False, True, False]),
        ([BOX], [True, False, False]),
        ([BOX] * 5, [True, True, True]),
        ([], [False] * 3),
        (None, [False] * 3),
        ("box", [False] * 3),
        ([None, "10 20 110 220", {"x1": 10}], [False] * 3),
        ([[10, 20, 110], [10, 20, 110, 220, 1], BOX], [False, False, True]),
        ([[float("nan"), 20, 110, 220], [10, float("inf"), 110, 220], [10, 20, 110, 10**400]], [False] * 3),
        ([["10", 20, 110, 220], [None, 20, 110, 220], [False, False, True, True]], [False] * 3),
        ([[110, 20, 10, 220], [10, 220, 110, 20], [10, 20, 10, 220]], [False] * 3),
        ([[1e6, 20, 2e6, 220], [-1e6, 20, 110, 220], [10.5, 20, 110, 220]], [False, False, True]),
    ],
)
def test_only_true_rectangles_are_boxes(rectangles, expected):
    boxes = read_record(record(characters=[{"entityLabel": "fred", "rectangles": rectangles}])).boxes[0]
    assert [box is not None for box in boxes] == expected
    assert all(box is None or box in ((10, 20, 110, 220), (10.5, 20, 110, 220)) for box in boxes)


@fuzz
@given(
    json_values
    | st.fixed_dictionaries(
        {"globalID": clip_ids | json_values, "description": st.text(st.characters()) | json_values},
        optional={
            "setting": json_values,
            "characters": json_values
            | st.lists(st.fixed_dictionaries({"entityLabel": st.text(), "rectangles": json_values}), max_size=3),
        },
    )
)
def test_any_record_is_none_or_tidy(value):
    read = read_record(value)
    if read is not None:
        assert isinstance(read, ClipRecord) and check_id(read.id)
        assert read.caption and read.caption == tidy(read.caption) and read.setting == tidy(read.setting)
        assert len(read.characters) == len(read.boxes) and all(map(tidy, read.characters))
        assert all(len(boxes) == 3 for boxes in read.boxes)


# boxes


def with_boxes(folder, *rectangles, label="Gus "):
    """The release whose first clip has one character at these places; the others have nobody."""
    records = json.loads((folder / ANNOTATIONS).read_text())
    for value in records:
        value["characters"] = []
        if value["globalID"] == FIRST:
            value["characters"] = [{"entityLabel": label, "rectangles": list(rectangles)}]
    (folder / ANNOTATIONS).write_text(json.dumps(records))
    return FlintstonesRelease(folder)


def box_at(release, frame, name="Gus"):
    return release.boxes(FIRST, frame / 74, [name])[0].tolist()


def test_boxes_are_interpolated_between_key_frames(release_folder):
    release = with_boxes(release_folder, [0, 0, 320, 240], [320, 240, 640, 480], [320, 0, 640, 240])
    expected = {
        0: [0, 0, 0.5, 0.5],
        9: [0, 0, 0.5, 0.5],
        24: [0.25, 0.25, 0.75, 0.75],
        39: [0.5, 0.5, 1, 1],
        49: [0.5, 0.5 / 3 * 2, 1, 0.5 + 0.5 / 3 * 2],
        69: [0.5, 0, 1, 0.5],
        74: [0.5, 0, 1, 0.5],
    }
    for frame, box in expected.items():
        assert box_at(release, frame) == pytest.approx(box, abs=1e-6)


def test_who_is_out_of_the_picture_has_no_box(release_folder):
    release = with_boxes(release_folder, [], [0, 0, 320, 240], [0, 0, 640, 480])
    nowhere = [0, 0, 0, 0]
    assert box_at(release, 0) == box_at(release, 9) == box_at(release, 23) == nowhere
    assert box_at(release, 25) == [0, 0, 0.5, 0.5]
    assert box_at(release, 54) == pytest.approx([0, 0, 0.75, 0.75])
    release = with_boxes(release_folder, [0, 0, 320, 240], [], [0, 0, 640, 480])
    assert box_at(release, 39) == nowhere
    assert box_at(release, 20) == [0, 0, 0.5, 0.5] and box_at(release, 60) == [0, 0, 1, 1]


def test_boxes_are_cut_at_the_edges_and_zero_for_the_absent(release_folder):
    release = with_boxes(release_folder, *[[-64, -48, 700, 240]] * 3)
    assert box_at(release, 39) == [0, 0, 1, 0.5]
    assert box_at(release, 39, "Mabel") == [0, 0, 0, 0]
    assert release.boxes(FIRST).shape == (7, 4) and release.boxes(FIRST).dtype == np.float32
    assert release.boxes(FIRST)[1:].any() == False and release.boxes(FIRST)[0].any()  # noqa: E712
    with pytest.raises(ValueError, match="not annotated"):
        release.boxes("s_09_e_01_shot_000000_000074")


@pytest.mark.parametrize("largest, scale", [(128, (128, 128)), (129, (640, 480)), (640, (640, 480))])
def test_the_scale_is_that_of_the_largest_box(release_folder, largest, scale):
    release = with_boxes(release_folder, [], [], [0, 0, largest, 64])
    assert release.box_scale == scale
    assert box_at(release, 69) == pytest.approx([0, 0, min(1, largest / scale[0]), 64 / scale[1]])


def test_without_any_box_there_is_a_scale(release_folder):
    assert with_boxes(release_folder).box_scale == (128, 128)


# stories


def naive_stories(splits, length):
    """The literature's rule, word for word."""
    ids = sorted(id for split in splits.values() for id in split)
    cache = {}
    for i, id in enumerate(ids):
        followings = ids[i + 1 : i + length]
        if len(followings) == length - 1 and all(episode_of(id) == episode_of(other) for other in followings):
            cache[id] = followings
    return {name: [[id, *cache[id]] for id in split if id in cache] for name, split in splits.items()}


@fuzz
@given(st.lists(clip_ids, unique=True, max_size=40), st.randoms(), st.integers(1, 6))
def test_stories_are_those_of_the_naive_rule(ids, random, length):
    splits = {"train": [], "val": [], "test": []}
    for id in ids:
        splits[random.choice(list(splits))].append(id)
    expected = naive_stories(splits, length)
    assert stories_of(splits, length) == expected
    assert followings_of(splits, length - 1) == {
        story[0]: story[1:] for stories in expected.values() for story in stories
    }


def test_a_table_of_followings_gives_the_stories_of_the_rule(release_folder, write):
    splits = read_split(release_folder / SPLIT)
    ids = sorted(sum(splits.values(), []))
    table = {id: ids[i + 1 : i + 5] for i, id in enumerate(ids) if id in followings_of(splits, 4) or i >= len(ids) - 4}
    assert [len(table[id]) for id in ids[-4:]] == [3, 2, 1, 0]  # as in the real file
    read = read_followings(write(pickle.dumps(table)))
    assert read == table and stories_of(splits, 5, read) == stories_of(splits, 5)
    release = FlintstonesRelease(release_folder)
    assert release.stories("train", 5, read) == release.stories("train") != []
    assert (
        len(release.stories("train", 4, read)) == len(release.stories("train")) + 1
    )  # of the short entries, one will do


def test_a_story_of_a_table_stays_in_its_split():
    a, b, c = (f"s_01_e_01_shot_{i:06d}_{i + 74:06d}" for i in (0, 100, 200))
    splits = {"train": [a, b], "test": [c]}
    table = {a: [b, c], b: [c, a], c: []}
    assert stories_of(splits, 2, table) == {"train": [[a, b]], "test": []}
    assert stories_of(splits, 3, table) == {"train": [], "test": []}
    assert stories_of(splits, 2, {}) == stories_of(splits, 1, {}) == {"train": [], "test": []}


@pytest.mark.parametrize(
    "table, message",
    [
        ([FIRST], "must hold a dict of lists"),
        ({FIRST: FIRST}, "must hold a dict of lists"),
        ({FIRST: [5]}, "`id` is a int"),
        ({FIRST: ["../x"]}, "`id` is '../x'"),
        ({"x": []}, "`id` is 'x'"),
        ({5: []}, "`id` is a int"),
    ],
)
def test_followings_of_another_shape_name_the_file(write, table, message):
    path = write(pickle.dumps(table), "following_cache4.pkl")
    with pytest.raises(ValueError, match=f"following_cache4.pkl.*{message}"):
        read_followings(path)


# pickles


class Call:
    """Calls something when it is unpickled by the common way."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "some id" if value == "away" else None


def persistent():
    file = io.BytesIO()
    Persistent(file).dump({"a": "away"})
    return file.getvalue()


def looped():
    value = []
    value.append(value)
    return value


def bomb():
    value = ["x"]
    for _ in range(60):
        value = [value] * 10
    return value


def wide_bomb():
    return [["x"] * 5000] * 5000


PLAIN = {FIRST: [FIRST, "猫"], "b": [0, 1, -5, 2**70, 300, 70_000], "c": [], "d": {}, 7: {"e": [[1]]}, "f": ["x"] * 3}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read(write, protocol):
    assert read_plain_pickle(write(pickle.dumps(PLAIN, protocol))) == PLAIN
    shared = [0, 1]
    assert read_plain_pickle(write(pickle.dumps([shared, shared], protocol))) == [shared, shared]


def test_a_pickle_of_python_2_is_read(write):
    assert read_plain_pickle(write(b"(dp0\nS's_01'\np1\n(lp2\nI1\naL2L\nas.")) == {"s_01": [1, 2]}


@pytest.mark.parametrize("protocol", range(6))
def test_no_pickle_runs_code(write, tmp_path, protocol):
    marker = tmp_path / "marker"
    for function, args in ((os.system, (f"touch {marker}",)), (eval, (f"open({str(marker)!r}, 'w')",))):
        raw = pickle.dumps([Call(function, *args)], protocol)
        pickle.loads(raw)
        assert marker.exists()
        marker.unlink()
        with pytest.raises(
            ValueError, match=r"labels.pkl is not a plain pickle .*: it asks for (posix|nt|builtins|__builtin__)\."
        ):
            read_plain_pickle(write(raw, "labels.pkl"))
        assert not marker.exists()


@pytest.mark.parametrize(
    "raw, message",
    [
        (pickle.dumps({"a": [0.5]}), "holds a float"),
        (pickle.dumps({"a": 0.5}, 0), "holds a float"),
        (pickle.dumps([True]), "holds a bool"),
        (pickle.dumps([True], 0), "holds a bool"),
        (pickle.dumps([None]), "holds a NoneType"),
        (pickle.dumps(["x", b"bytes"]), "holds a bytes"),
        (pickle.dumps([("a", 1)]), "holds a tuple"),
        (pickle.dumps([("a", 1)], 0), "holds a tuple"),
        (pickle.dumps({("a",): 1}), "holds a tuple"),
        (pickle.dumps([{"a"}]), "holds a tuple, a set or an object"),
        (pickle.dumps([bytearray(5)], 5), "holds a tuple, a set or an object"),
        (pickle.dumps({"a": np.zeros(3)}), r"asks for numpy\."),
        (pickle.dumps({"a": np.float32(1)}), r"asks for numpy\."),
        (pickle.dumps(ClipRecord("a", "b", "c", [])), "asks for train.data.annotations.ClipRecord"),
        (b"(S'x'\nios\nsystem\n.", "asks for os.system"),
        (b"\x80\x02\x82\x01.", "holds a tuple, a set or an object"),
        (persistent(), "holds a persistent id"),
        (b"Psome id\n.", "holds a persistent id"),
        (pickle.dumps(looped()), "holds one list of lists in two places"),
        (pickle.dumps({"a": looped()}), "holds one list of lists in two places"),
        (pickle.dumps(bomb()), "holds one list of lists in two places"),
        (pickle.dumps(wide_bomb()), "holds more than 20,000,000 items"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pickles_of_anything_else_are_refused(write, raw, message):
    path = write(raw, "labels.pkl")
    with pytest.raises(
        ValueError, match=rf"labels.pkl is not a plain pickle of dict, list, str and int: it {message}"
    ):
        read_plain_pickle(path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        pickle.dumps(PLAIN)[:-1],
        pickle.dumps(PLAIN)[:30],
        b"\x80\x63.",
        b"\x8d" + b"\xff" * 8 + b"x.",
        b"X\xff\xff\xff\xffx.",
        b"\x95" + b"\xff" * 8 + b".",
        b"}]1s.",
        b"h\x05.",
        b"I" + b"1" * 5000 + b"\n.",
        b"}X\x01\x00\x00\x00as.",
    ],
    ids=range(12),
)
def test_broken_pickles_are_refused(write, raw):
    with pytest.raises(ValueError, match="labels.pkl is not a (whole|plain) pickle"):
        read_plain_pickle(write(raw, "labels.pkl"))


def test_a_number_in_a_pickle_takes_no_memory(write):
    import tracemalloc

    tracemalloc.start()
    try:
        assert read_plain_pickle(write(b"]r\xff\xff\xff\x00.")) == []  # item 16,777,215 of the memo
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_pickles_that_are_missing_or_too_large_are_named(tmp_path, write):
    with pytest.raises(ValueError, match="labels.pkl is missing"):
        read_plain_pickle(tmp_path / "labels.pkl")
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))} cannot be read"):
        read_plain_pickle(tmp_path)
    path = write(b"", "labels.pkl")
    os.truncate(path, 2 << 30)
    with pytest.raises(ValueError, match="labels.pkl .*more than 268,435,456 bytes"):
        read_plain_pickle(path)


@fuzz
@given(st.data(), st.integers(0, 5))
def test_any_pickle_is_plain_or_refused(tmp_path_factory, data, protocol):
    raw = bytearray(pickle.dumps(PLAIN, protocol))
    if data.draw(st.booleans()):
        raw = data.draw(st.binary(max_size=60))
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    path.write_bytes(raw)
    try:
        value = read_plain_pickle(path)
    except ValueError as error:
        assert "fuzz.pkl" in str(error)
    else:
        assert isinstance(value, (dict, list, str, int))
