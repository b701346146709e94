import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train.data.annotations import ANNOTATIONS, SPLIT
from train.data.check import check, main, plot, table
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import STORYGPTV_SPLIT


ROOT = Path(__file__).parents[3]
TOKENIZER = ROOT / "sagan_pipeline" / "embedded" / "tokenizer"
FRAMES = "video_frames_sampled"
SOUND = {"missing_frames": 0, "broken_frames": 0, "missing_annotations": 0, "empty_captions": 0}
OF_RECORDS = ("usable_clips", "usable_stories", "usable_stories_of_4", "annotations", "captions", "characters")


def ids_of(folder):
    return json.loads((folder / SPLIT).read_text())


def edit_records(folder, change):
    """Let `change` see the list of records, which stand in the order of the split file: test, train, val."""
    path = folder / ANNOTATIONS
    records = json.loads(path.read_text())
    changed = change(records)
    path.write_text(json.dumps(records if changed is None else changed))


def with_captions(folder, captions):
    """Give the first records these descriptions, and every other one its own clean and different one."""

    def change(records):
        for i, record in enumerate(records):
            record["description"] = captions[i] if i < len(captions) else f"Clip number {i} is here."

    edit_records(folder, change)


def shown(report, **arguments):
    file = io.StringIO()
    Console(file=file, width=200, **arguments).print(table(report))
    return file.getvalue()


def snapshot(folder):
    facts = {}
    for path in sorted([folder, *folder.rglob("*")]):
        facts[str(path)] = (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return facts


def write_archive(folder):
    """AI2's layout: the frames in `flintstones_dataset.tgz`, the other two files beside it."""
    archive = folder / "flintstones_dataset.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted((folder / FRAMES).iterdir()):
            tar.add(path, f"flintstones_dataset/video_frames/{path.name}")
    for path in (folder / FRAMES).iterdir():
        path.unlink()
    (folder / FRAMES).rmdir()
    return archive


def test_a_sound_release(release_folder, tmp_path, capsys):
    assert main([str(release_folder), "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == check(release_folder)
    assert report["layout"] == "the FlintstonesSV bundle"
    assert list(report["clips"]) == ["train", "val", "test"]  # not the order of the file
    assert report["clips"] == report["usable_clips"] == {"train": 18, "val": 6, "test": 6}
    assert report["episodes"] == {"train": 3, "val": 1, "test": 1}
    assert report["clips_an_episode"]["train"] == {"s_01_e_01": 6, "s_01_e_02": 6, "s_02_e_01": 6}
    assert report["stories"] == report["usable_stories"] == {"train": 6, "val": 2, "test": 2}
    assert report["stories_of_4"] == report["usable_stories_of_4"] == {"train": 9, "val": 3, "test": 3}
    assert report["frames"] == {
        "checked": "quick",
        "missing": [],
        "broken": [],
        "unused": 0,
        "frames_a_clip": {"3": 30},
        "sizes": {"16 x 16": 30},
        "blank": None,
        "duplicates": None,
    }
    assert report["damage"] == SOUND
    said = capsys.readouterr().out
    assert "No damage." in said and "stories of 5 frames" in said and "Damaged" not in said


def test_it_counts_as_the_release_does(make_release, tmp_path):
    folder = make_release(tmp_path / "show", clips=9)
    ids = ids_of(folder)
    (folder / FRAMES / f"{ids['train'][4]}.npy").unlink()
    (folder / FRAMES / f"{ids['val'][8]}.npy").unlink()

    def change(records):
        records[2]["description"] = "  \n "
        records[3]["characters"] = [{"entityLabel": "OTTO "}, {"entityLabel": "gus as a baby"}, {"entityLabel": "gus"}]
        records.append({**records[4], "description": "The later one counts."})
        del records[30]

    edit_records(folder, change)
    report, release = check(folder), FlintstonesRelease(folder, max_missing=1.0)
    assert report["usable_clips"] == {name: len(release.splits[name]) for name in report["usable_clips"]}
    assert report["usable_clips"] == {"train": 25, "val": 8, "test": 8}
    for length, key in ((5, "usable_stories"), (4, "usable_stories_of_4")):
        assert report[key] == {name: len(release.stories(name, length)) for name in report[key]}
    assert report["frames"]["missing"] == release.missing["frames"] == [ids["train"][4], ids["val"][8]]
    unannotated = report["annotations"]["missing"] + report["captions"]["empty"]
    assert sorted(unannotated) == sorted(release.missing["annotation"]) == sorted([ids["test"][2], ids["train"][21]])
    annotated = [id for split_ids in ids.values() for id in split_ids if id in release.records]
    labels = sum(release.labels(id).astype(int) for id in annotated)
    assert report["characters"]["clips"] == dict(zip(release.cast, labels.tolist(), strict=True))
    assert report["annotations"]["repeated"] == 1


@pytest.mark.parametrize("name", [SPLIT, STORYGPTV_SPLIT])
def test_the_split_file_alone_is_enough_for_stories(tmp_path, capsys, name):
    folder = tmp_path / "split"
    folder.mkdir()
    episode = [f"s_01_e_01_shot_{i:06d}_{i + 74:06d}" for i in (0, 75, 300, 900, 1000, 2000, 2075)]
    other = [f"s_01_e_02_shot_{i:06d}_{i + 74:06d}" for i in (0, 80, 160, 240)]
    short = [f"s_02_e_01_shot_{i:06d}_{i + 74:06d}" for i in (5, 90, 200)]
    random.Random(0).shuffle(episode)
    (folder / name).write_text(json.dumps({"test": short, "val": other, "train": episode}))
    assert main([str(folder), "--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["layout"] == "the split file alone"
    assert report["clips"] == {"train": 7, "val": 4, "test": 3}
    assert report["episodes"] == {"train": 1, "val": 1, "test": 1}
    assert report["stories"] == {"train": 3, "val": 0, "test": 0}
    assert report["stories_of_4"] == {"train": 4, "val": 1, "test": 0}
    assert [report[key] for key in (*OF_RECORDS, "settings", "frames")] == [None] * 8
    assert report["damage"] == SOUND
    assert "the split file alone" in capsys.readouterr().out
    assert Image.open(tmp_path / "plot.png").format == "PNG"


def test_annotations_without_frames_are_read(release_folder):
    for path in (release_folder / FRAMES).iterdir():
        path.unlink()
    (release_folder / FRAMES).rmdir()
    edit_records(release_folder, lambda records: records[:-1])
    report = check(release_folder)
    assert report["layout"] == "annotations without pictures" and report["frames"] is None
    assert report["captions"]["count"] == 29 and report["usable_clips"] == {"train": 18, "val": 5, "test": 6}
    assert report["damage"] == {**SOUND, "missing_annotations": 1}
    assert main([str(release_folder)]) == 1


def test_an_empty_folder_of_frames_is_damage(release_folder):
    for path in (release_folder / FRAMES).iterdir():
        path.unlink()
    report = check(release_folder)
    assert report["damage"] == {**SOUND, "missing_frames": 30}
    assert report["stories"]["train"] == 6 and report["usable_stories"] == {"train": 0, "val": 0, "test": 0}
    assert report["characters"]["clips"]["Gus"] == 10  # the captions are there to be counted all the same


def write_bytes(content):
    return lambda path: path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def save(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def make_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut, "not a whole array file"),
        (write_bytes(b""), "not a whole array file"),
        (write_bytes(b"\x93NUMPY\x01\x00"), "not a whole array file"),
        (write_bytes(b"<html>quota exceeded</html>" * 40), "not a whole array file"),
        (save(np.zeros((3, 16, 16), dtype=np.uint8)), "has the shape"),
        (save(np.zeros((3, 16, 16, 4), dtype=np.uint8)), "has the shape"),
        (save(np.zeros((3, 16, 16, 3), dtype=np.int64)), "has the type int64"),
        (save(np.array([{}], dtype=object)), "pickled objects"),
        (make_folder, "folder"),
    ],
)
@pytest.mark.parametrize("frames", ["quick", "all"])
def test_broken_frames(release_folder, tmp_path, capsys, damage, problem, frames):
    id = ids_of(release_folder)["train"][2]
    damage(release_folder / FRAMES / f"{id}.npy")
    status = main([str(release_folder), "--frames", frames, "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    (broken,) = report["frames"]["broken"]
    assert status == 1 and broken["id"] == id and id in broken["problem"]
    assert problem in broken["problem"] or (problem == "folder" and "directory" in broken["problem"])
    assert report["damage"] == {**SOUND, "broken_frames": 1}
    assert report["clips"]["train"] == 18 and report["usable_clips"]["train"] == 17
    assert report["frames"]["frames_a_clip"] == {"3": 29}
    assert "Damaged: 1 frames broken." in capsys.readouterr().out


def test_missing_frames_and_frames_of_nobody(release_folder, capsys):
    ids = ids_of(release_folder)
    (release_folder / FRAMES / f"{ids['train'][0]}.npy").rename(
        release_folder / FRAMES / "s_09_e_09_shot_000000_000074.npy"
    )
    (release_folder / FRAMES / f"{ids['val'][5]}.npy").unlink()
    assert main([str(release_folder)]) == 1
    assert "Damaged: 2 frames missing." in capsys.readouterr().out
    report = check(release_folder)
    assert report["frames"]["missing"] == [ids["train"][0], ids["val"][5]]
    assert report["frames"]["unused"] == 1
    assert report["stories"] == {"train": 6, "val": 2, "test": 2}
    assert report["usable_stories"] == {"train": 5, "val": 1, "test": 2}
    assert report["damage"] == {**SOUND, "missing_frames": 2}


def test_frames_of_two_sizes_are_told(release_folder):
    id = ids_of(release_folder)["test"][0]
    np.save(release_folder / FRAMES / f"{id}.npy", np.zeros((5, 8, 12, 3), dtype=np.uint8))
    report = check(release_folder)
    assert report["frames"]["sizes"] == {"16 x 16": 29, "12 x 8": 1}
    assert report["frames"]["frames_a_clip"] == {"3": 29, "5": 1}
    assert "12 x 8 (1 clips)" in shown(report) and report["damage"] == SOUND


def test_all_frames_find_blank_and_identical_clips(release_folder):
    ids = ids_of(release_folder)["train"]
    blue = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    blue[..., 2] = 200  # of one colour, not of one number
    spot = blue.copy()
    spot[2, 15, 15, 0] = 1
    for id, clip in zip(ids, (blue, spot, blue), strict=False):
        np.save(release_folder / FRAMES / f"{id}.npy", clip)
    first = np.load(release_folder / FRAMES / f"{ids[3]}.npy")
    np.save(release_folder / FRAMES / f"{ids[4]}.npy", first)
    np.save(release_folder / FRAMES / f"{ids[5]}.npy", first.reshape(1, 48, 16, 3))  # the same bytes, another picture
    report = check(release_folder, frames="all")
    assert report["frames"]["checked"] == "all"
    assert report["frames"]["blank"] == [ids[0], ids[2]]
    assert report["frames"]["duplicates"] == [[ids[0], ids[2]], [ids[3], ids[4]]]
    assert report["damage"] == SOUND
    quick = check(release_folder)
    assert quick["frames"]["blank"] is None and quick["frames"]["duplicates"] is None
    assert "--frames all" in shown(quick) and "--frames all" not in shown(report)


def test_dirty_captions_are_counted_by_kind_and_are_no_damage(release_folder):
    dirty = [
        " Gus is in the yard.",
        "Gus is in the yard.\n",
        "Gus is.  He talks.",
        "Gus\nis in the yard.",
        "Gus is\x07 in the yard.",
        "Gus is\u2028in the yard.",
        "Gus | Mabel are in the yard.",
        "\tGus \u00a0 is|in \r\n the  yard. ",
    ]
    with_captions(release_folder, dirty)
    report = check(release_folder)
    assert report["captions"]["dirty"] == {
        "clips": 8,
        "outer_blanks": 3,
        "double_blanks": 2,
        "newlines": 3,
        "control_characters": 3,
        "vertical_bars": 2,
    }
    assert report["damage"] == SOUND and main([str(release_folder)]) == 0
    with_captions(release_folder, [])
    assert set(check(release_folder)["captions"]["dirty"].values()) == {0}


def test_empty_captions_and_missing_records_are_damage(release_folder, capsys):
    ids = ids_of(release_folder)

    def change(records):
        records[0]["description"] = ""
        records[1]["description"] = " \n\t\x00 "
        records[2]["description"] = None
        records[3] = ["no record"]
        records.append({**records[5], "globalID": "s_09_e_09_shot_000000_000074"})
        records.append({**records[6], "globalID": "../../etc/passwd"})

    edit_records(release_folder, change)
    report = check(release_folder)
    assert report["captions"]["empty"] == ids["test"][:2]
    assert report["annotations"]["missing"] == ids["test"][2:4]
    assert report["annotations"]["records"] == 32
    assert report["annotations"]["unusable"] == 5
    assert report["annotations"]["unused"] == 2
    assert report["damage"] == {**SOUND, "missing_annotations": 2, "empty_captions": 2}
    assert main([str(release_folder)]) == 1
    assert "Damaged: 2 annotations missing, 2 captions empty." in capsys.readouterr().out


@pytest.mark.parametrize("before", [True, False])
def test_an_empty_record_beside_a_whole_one_is_no_damage(release_folder, before):
    def change(records):
        empty = {**records[0], "description": ""}
        return [empty, *records] if before else [*records, empty]

    edit_records(release_folder, change)
    report = check(release_folder)
    assert report["captions"]["empty"] == [] and report["annotations"]["repeated"] == 1
    assert report["captions"]["count"] == 30 and report["damage"] == SOUND


@pytest.mark.parametrize("splits", [{}, {"train": []}])
def test_a_split_of_nobody(release_folder, tmp_path, splits):
    (release_folder / SPLIT).write_text(json.dumps(splits))
    arguments = ["--tokenizer", str(TOKENIZER), "--plot", str(tmp_path / "plot.png"), "--frames", "all"]
    assert main([str(release_folder), *arguments]) == 0
    report = check(release_folder)
    assert report["usable_stories"] == dict.fromkeys(splits, 0) and report["captions"]["count"] == 0
    assert (report["frames"]["unused"], report["annotations"]["unused"]) == (30, 30)


def test_caption_figures_by_hand(release_folder):
    captions = [
        "Gus sits.",
        "Gus  sits.\n",  # the same, once tidy
        "gus sits.",  # not the same
        "He talks. Then she laughs! They go. Where? Home.",
        'Mr. Flagg said "No." The others hear of it.',  # two sentences, and no "he", "the" or "they"
        "one two three four five six seven eight nine ten",
    ]
    with_captions(release_folder, captions)
    figures = check(release_folder)["captions"]  # the other 24 have five words
    assert figures["count"] == 30
    assert figures["words"]["histogram"] == {"0": 3, "5": 26, "10": 1}
    assert figures["words"]["mean"] == round((3 * 2 + 9 + 9 + 10 + 24 * 5) / 30, 2)
    assert (figures["words"]["median"], figures["words"]["max"]) == (5, 10)
    assert figures["words"]["p95"] == 9
    assert figures["sentences"] == {"1": 28, "2": 1, "3": 0, "4+": 1}
    assert figures["with_pronoun"] == round(1 / 30, 4)
    assert figures["duplicates"] == {"clips": 1, "captions": 1}


def test_tokens_are_counted_with_a_tokenizer(release_folder, tmp_path, capsys):
    with_captions(release_folder, ["gus " * 75, "gus " * 76, "\ud83d gus"])
    arguments = [str(release_folder), "--json", str(tmp_path / "report.json"), "--tokenizer", str(TOKENIZER)]
    assert main(arguments) == 0
    assert "--tokenizer" not in capsys.readouterr().out
    tokens = json.loads((tmp_path / "report.json").read_text())["captions"]["tokens"]
    assert tokens["over"] == ids_of(release_folder)["test"][1:2]  # 75 and two that begin and end are just 77
    assert (tokens["max"], tokens["limit"]) == (78, 77)
    assert main(arguments[:3]) == 0
    assert "--tokenizer DIR" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["captions"]["tokens"] is None


def test_characters_and_spans_by_hand(release_folder):
    def change(records):
        for record in records:
            record["characters"] = []
        records[0]["characters"] = [{"entityLabel": label} for label in ("gus", " Mabel", "OTTO", "nell")]
        records[1]["characters"] = [{"entityLabel": "gus", "entitySpan": [0, 1]}, {"entityLabel": "gus"}]
        records[2]["characters"] = [{"entityLabel": "gus dressed as a baby", "entitySpan": None}]
        records[3]["characters"] = "nobody"

    edit_records(release_folder, change)
    report = check(release_folder)
    characters = report["characters"]
    assert characters["clips"] == {"Gus": 2, "Mabel": 1, "Otto": 1, "Nell": 1, "Pip": 0, "Rumble": 0, "Mr Flagg": 0}
    assert characters["share"]["Gus"] == round(2 / 30, 4)
    assert characters["regulars_a_clip"] == {"0": 28, "1": 1, "2": 0, "3+": 1}
    assert characters["other_labels"] == 1
    assert (report["annotations"]["characters"], report["annotations"]["null_spans"]) == (7, 6)
    assert report["damage"] == SOUND

    def rename(records):
        records[4]["characters"] = [{"entityLabel": label} for label in ("fred", "wilma", "mr slate")] * 4
        records[5]["characters"] = records[6]["characters"] = records[7]["characters"] = records[4]["characters"]

    edit_records(release_folder, rename)
    assert list(check(release_folder)["characters"]["clips"])[:2] == ["Wilma", "Fred"]
    edit_records(release_folder, lambda records: [{**record, "characters": []} for record in records])
    nobody = check(release_folder)
    assert nobody["characters"]["clips"] == {} and "No regular of a known show" in shown(nobody)


def test_settings_by_hand_and_with_hostile_names(release_folder, tmp_path):
    names = ["[red]Kitchen[/]", "$x_{$", "café", "\ud83d"]

    def change(records):
        for i, record in enumerate(records):
            record["setting"] = names[i] if i < 4 else None if i == 4 else f"place {max(i, 7)}"

    edit_records(release_folder, change)
    report = check(release_folder)
    settings = report["settings"]
    assert (settings["count"], settings["clips_without"], len(settings["top"])) == (3 + 23, 2, 20)
    assert next(iter(settings["top"].items())) == ("place 7", 3)
    assert list(settings["top"])[1:3] == ["$x_{$", "[red]kitchen[/]"]
    assert "[red]kitchen[/]" in shown(report)
    json.dumps(report)
    plot(report, tmp_path / "plot.png")
    edit_records(release_folder, lambda records: [{**r, "setting": names[i % 3]} for i, r in enumerate(records)])
    report = check(release_folder)
    assert list(report["settings"]["top"]) == ["$x_{$", "[red]kitchen[/]", "café"]
    shown(report).encode("utf-8")
    plot(report, tmp_path / "plot.png")


def test_names_of_splits_are_shown_as_they_are(release_folder, tmp_path):
    ids = ids_of(release_folder)
    names = ["[bold]", "\ud83d", "_$x_{$"]
    (release_folder / SPLIT).write_text(json.dumps(dict(zip(names, ids.values(), strict=True))))
    report = check(release_folder)
    assert report["clips"] == {"[bold]": 6, "\ud83d": 18, "_$x_{$": 6}
    assert "[bold]" in shown(report)
    shown(report).encode("utf-8")
    plot(report, tmp_path / "plot.png")


def test_the_plot_is_a_picture_of_the_report(release_folder, tmp_path):
    assert main([str(release_folder), "--plot", str(tmp_path / "one.png")]) == 0
    with Image.open(tmp_path / "one.png") as image:
        image.verify()
        assert image.format == "PNG" and min(image.size) >= 600
    report = check(release_folder)
    plot(report, tmp_path / "same.png")
    report["captions"]["words"]["histogram"] = {"5": 30, "20": 10}
    plot(report, tmp_path / "other.png")
    one, same, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "same", "other"))
    assert (one == same).all() and (one != other).any()
    assert (one.std(axis=(0, 1))[:3] > 10).all()  # not an empty page


def test_the_table_has_colours_on_a_terminal(release_folder):
    terminal = {"force_terminal": True, "color_system": "standard"}
    sound = shown(check(release_folder), **terminal)
    assert "\x1b[1;32mNo damage." in sound and "\x1b[1;31m" not in sound
    (release_folder / FRAMES / f"{ids_of(release_folder)['val'][0]}.npy").unlink()
    damaged = check(release_folder)
    assert "\x1b[1;31mDamaged: 1 frames missing." in shown(damaged, **terminal)
    assert "\x1b" not in shown(damaged)


@pytest.mark.parametrize("frames", ["quick", "all"])
@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_changed(release_folder, tmp_path, frames, packed):
    for i, damage in enumerate([cut, write_bytes(b""), lambda path: path.unlink()]):
        damage(release_folder / FRAMES / f"{ids_of(release_folder)['train'][i]}.npy")
    if packed:
        write_archive(release_folder)
    before = snapshot(release_folder)
    os.chmod(release_folder, 0o555)
    try:
        arguments = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "plot.png")]
        assert main([str(release_folder), "--frames", frames, *arguments]) == 1
    finally:
        os.chmod(release_folder, 0o755)
    assert snapshot(release_folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "report.json", "show"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["damage"] == {**SOUND, "missing_frames": 1, "broken_frames": 2}


@pytest.mark.parametrize("by_file", [False, True])
def test_a_packed_archive_is_spoken_of_where_it_is(release_folder, capsys, by_file):
    id = ids_of(release_folder)["train"][1]
    cut(release_folder / FRAMES / f"{id}.npy")
    archive = write_archive(release_folder)
    report = check(archive if by_file else release_folder, frames="all")
    assert report["layout"] == "AI2's raw release, packed" and report["frames"]["frames_a_clip"] == {"3": 29}
    assert report["frames"]["broken"][0]["problem"].startswith(f"{archive}: {id}.npy is not a whole array file")
    (release_folder / SPLIT).write_text("{")
    assert main([str(archive if by_file else release_folder)]) == 1
    assert str(release_folder / SPLIT) in capsys.readouterr().err


def test_an_index_that_is_there_is_used(release_folder, monkeypatch):
    archive = write_archive(release_folder)
    FlintstonesRelease(archive)
    before = snapshot(release_folder)
    monkeypatch.setattr("train.data.layouts.RawArchive._scan", lambda *_: pytest.fail("the archive was read again"))
    assert check(archive)["damage"] == SOUND
    assert snapshot(release_folder) == before


def test_an_hdf5_has_its_own_stories(tmp_path):
    path = tmp_path / "flintstones.h5"
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, count in (("train", 3), ("val", 2), ("test", 1)):
            group = file.create_group(split)
            texts = [" Fred is here.|".join("abcde")] * count
            group.create_dataset("text", data=texts, dtype=h5py.string_dtype("utf-8"))
            for j in range(5):
                images = group.create_dataset(f"image{j}", (count,), dtype=h5py.vlen_dtype(np.uint8))
                for row in range(count):
                    buffer = io.BytesIO()
                    strip = generator.integers(0, 256, (32, 8, 3), dtype=np.uint8)
                    Image.fromarray(strip).save(buffer, "PNG")
                    raw = buffer.getvalue()
                    images[row] = np.frombuffer(raw[:-30] if (split, j, row) == ("train", 2, 1) else raw, np.uint8)
    report = check(path)
    assert report["clips"] == {"train": 15, "val": 10, "test": 5}
    assert report["stories"] == report["stories_of_4"] == {"train": 3, "val": 2, "test": 1}
    assert report["usable_stories"] == {"train": 2, "val": 2, "test": 1}
    assert report["frames"]["frames_a_clip"] == {"4": 29} and report["frames"]["sizes"] == {"8 x 8": 29}
    assert "train/image2, row 1" in report["frames"]["broken"][0]["problem"]


def test_memory_does_not_grow_with_the_frames(make_release, tmp_path):
    folder = make_release(tmp_path / "show", size=32, clips=60)
    for path in (folder / FRAMES).iterdir():
        np.save(path, np.load(path).astype(np.float32))  # which are converted, not mapped
    check(folder, frames="all")  # what is imported at first use does not count
    peaks = []
    for frames in ("quick", "all"):
        tracemalloc.start()
        check(folder, frames=frames)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    frame_bytes = 300 * 3 * 32 * 32 * 3
    assert peaks[1] - peaks[0] < frame_bytes / 4


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / ANNOTATIONS).unlink(), ANNOTATIONS),
        (lambda folder: (folder / ANNOTATIONS).write_text('[{"globalID": '), "not whole JSON"),
        (lambda folder: (folder / ANNOTATIONS).write_text("{}"), "list of records"),
        (lambda folder: (folder / SPLIT).unlink(), SPLIT),
        (lambda folder: (folder / SPLIT).write_text('{"train": ["../x"]}'), "../x"),
        (lambda folder: (folder / FRAMES).rename(folder / "frames") and (folder / SPLIT).unlink(), "no known layout"),
        (lambda folder: (folder / "shards.json").write_text("{}"), "not an index of shards"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(release_folder, tmp_path, capsys, damage, said):
    damage(release_folder)
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        check(release_folder)
    assert main([str(release_folder), "--json", str(tmp_path / "report.json")]) == 1
    out, error = capsys.readouterr()
    assert out == "" and said in error and "Traceback" not in error
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "ROOT"),
        (["ROOT", "--frames", "some"], "--frames"),
        (["ROOT", "--json", "nowhere/report.json"], "--json"),
        (["ROOT", "--json", "."], "--json"),
        (["ROOT", "--plot", "nowhere/plot.png"], "--plot"),
        (["ROOT", "--plot", "plot.pdf"], "PNG"),
        (["ROOT", "--tokenizer", "nowhere"], "--tokenizer"),
        (["ROOT", "--repair"], "--repair"),
    ],
)
def test_mistakes_in_the_command(release_folder, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(release_folder)
    before = snapshot(release_folder)
    with pytest.raises(SystemExit) as exit:
        main([str(release_folder) if argument == "ROOT" else argument for argument in arguments])
    assert exit.value.code == 2 and said in capsys.readouterr().err
    assert snapshot(release_folder) == before


def test_arguments_of_check_are_looked_at(release_folder, tmp_path):
    with pytest.raises(ValueError, match="frames"):
        check(release_folder, frames="some")
    with pytest.raises(ValueError, match="tokenizer"):
        check(release_folder, tokenizer=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer"):
        check(release_folder, tokenizer=tmp_path)


def test_the_command_gives_its_status_to_the_shell(release_folder):
    command = [sys.executable, "-m", "train.data.check", str(release_folder)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    cut(release_folder / FRAMES / f"{ids_of(release_folder)['test'][0]}.npy")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "frames broken" in run.stdout and "Traceback" not in run.stderr
