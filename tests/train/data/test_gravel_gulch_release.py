"""The written show: whole files only, read by the reader of FlintstonesSV."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.data.annotations import ANNOTATIONS, CLIP_ID, SPLIT, episode_of
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.__main__ import main
from train.data.gravel_gulch.release import (
    KEY_FRAMES,
    SAMPLED,
    clip_ids,
    frames_of,
    record_of,
    split_of,
    write_release,
)
from train.data.gravel_gulch.script import episode
from train.data.gravel_gulch.world import REGULARS, SETTINGS


ROOT = Path(__file__).parents[3]
EPISODES, CLIPS, SIZE = 4, 8, 64
ARGUMENTS = {"episodes": EPISODES, "clips": CLIPS, "seed": 2, "size": SIZE, "workers": 1}
FLAGS = [part for name, value in ARGUMENTS.items() for part in (f"--{name}", str(value))]


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def gulch(tmp_path_factory):
    root = tmp_path_factory.mktemp("shows") / "gulch"
    write_release(root, "gulch", **ARGUMENTS)
    return root


@pytest.fixture(scope="module")
def records(gulch):
    return json.loads((gulch / "flintstones_annotations_v1-0.json").read_text())


def test_reader_takes_it(gulch):
    release = FlintstonesRelease(gulch)
    assert release.cast == REGULARS
    assert {name: len(ids) // CLIPS for name, ids in release.splits.items()} == {"test": 1, "train": 2, "val": 1}
    for ids in release.splits.values():
        for id in ids:
            frames = release.frames(id)
            assert frames.shape == (5, SIZE, SIZE, 3) and frames.dtype == np.uint8 and frames.std() > 10
            assert release.clip(id).setting in SETTINGS
    assert release.stories("test") and release.labels(release.splits["test"][0]).shape == (7,)


def test_town_has_no_cast(tmp_path):
    write_release(tmp_path / "town", "town", episodes=3, clips=5, size=64, workers=1)
    assert FlintstonesRelease(tmp_path / "town").cast == ()


def test_frames_are_those_of_the_script(gulch):
    clip = episode("gulch", 2 * 100_000, CLIPS)[0]
    id = min(path.stem for path in (gulch / "video_frames_sampled").iterdir())
    assert np.array_equal(FlintstonesRelease(gulch).frames(id), frames_of(clip, SIZE, SAMPLED))


def test_records_have_every_key(records):
    assert len(records) == EPISODES * CLIPS
    for record in records:
        assert record.keys() == {
            "globalID",
            "keyFrames",
            "setting",
            "description",
            "characters",
            "objects",
            "parse",
        }
        id = record["globalID"]
        assert record["keyFrames"] == [f"{id}_{frame + 1}.png" for frame in KEY_FRAMES]
        assert record["parse"].keys() == {"coref", "noun_phrase_chunks", "pos_tags"}
        chunks = record["parse"]["noun_phrase_chunks"]
        assert chunks.keys() == {"aligned_description", "chunks", "named_chunks", "token_spans"}
        for token, start, end in chunks["token_spans"]:
            assert chunks["aligned_description"][start:end] == token
        for thing in record["objects"]:
            assert thing.keys() == {"entityLabel", "entitySpan", "globalID", "labelNPC", "rectangles"}


def test_characters_of_a_record(records):
    for record in records:
        tokens = [token.lower() for token, _, _ in record["parse"]["noun_phrase_chunks"]["token_spans"]]
        areas = []
        for i, character in enumerate(record["characters"]):
            assert character.keys() == {"entityLabel", "entitySpan", "globalID", "labelNPC", "rectangles"}
            assert character["globalID"] == f"{record['globalID']}_char_{i}"
            assert character["entityLabel"] == character["entityLabel"].lower().strip()
            assert len(character["rectangles"]) == len(KEY_FRAMES)
            for x1, y1, x2, y2 in character["rectangles"]:
                assert 0 <= x1 < x2 <= 640 and 0 <= y1 < y2 <= 480
            x1, y1, x2, y2 = character["rectangles"][1]
            areas.append((x2 - x1) * (y2 - y1))
            if character["entitySpan"] is not None:
                start, end = character["entitySpan"]
                assert tokens[start:end][-1] == character["entityLabel"].split()[-1]
        assert areas == sorted(areas, reverse=True)


def test_some_records_are_dirty():

    rng = random.Random(0)
    clips = [clip for seed in range(4) for clip in episode("gulch", seed, 40)]
    written = [
        record_of(f"s_01_e_01_shot_{i * 100:06d}_{i * 100 + 74:06d}", clip, rng) for i, clip in enumerate(clips)
    ]
    dirty = [record for record in written if record["description"] != " ".join(record["description"].split())]
    assert 0.01 < len(dirty) / len(written) < 0.15
    assert all(character["entitySpan"] is None for record in dirty for character in record["characters"])


def test_ids_do_not_overlap():

    gaps = []
    for number in range(30):
        ids = clip_ids(number, 60, random.Random(number))
        assert all(CLIP_ID.fullmatch(id) for id in ids) and ids == sorted(ids)
        spans = [tuple(map(int, CLIP_ID.fullmatch(id).groups()[2:])) for id in ids]
        assert all(last - first == 74 for first, last in spans)
        gaps += [later[0] - earlier[1] for earlier, later in zip(spans, spans[1:], strict=False)]
    assert min(gaps) == 1 and max(gaps) <= 4109
    assert gaps.count(1) / len(gaps) == pytest.approx(0.28, abs=0.05)
    assert clip_ids(30, 5, random.Random(0))[0].startswith("s_02_e_06")


@pytest.mark.parametrize(("episodes", "counts"), [(3, (1, 1, 1)), (10, (8, 1, 1)), (60, (48, 6, 6))])
def test_split_by_whole_episodes(episodes, counts):
    parts = [split_of(number, episodes) for number in range(episodes)]
    assert tuple(parts.count(name) for name in ("train", "val", "test")) == counts


def test_no_episode_is_in_two_splits(gulch):
    split = json.loads((gulch / "train-val-test_split.json").read_text())
    episodes = {name: {episode_of(id) for id in ids} for name, ids in split.items()}
    assert sum(map(len, episodes.values())) == len(set().union(*episodes.values())) == EPISODES


def test_same_seed_same_bytes_whatever_the_workers(gulch, tmp_path):
    write_release(tmp_path / "again", "gulch", **{**ARGUMENTS, "workers": 2})
    assert files_of(tmp_path / "again") == files_of(gulch)


def test_resumes_after_a_file_is_gone(tmp_path, gulch):
    root = tmp_path / "show"
    write_release(root, "gulch", **ARGUMENTS)
    first, second, *_ = sorted((root / "video_frames_sampled").iterdir())
    first.unlink()
    second.with_name(second.name + ".tmp").write_bytes(b"half")
    kept = second.stat().st_mtime_ns
    write_release(root, "gulch", **ARGUMENTS)
    assert files_of(root) == files_of(gulch)
    assert second.stat().st_mtime_ns == kept


def test_resumes_after_a_kill(tmp_path):
    root, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = {"episodes": 3, "clips": 20, "seed": 1, "size": 64, "workers": 1}
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "train.data.gravel_gulch", str(root), *flags],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while len(list(root.glob("video_frames_sampled/*.npy"))) < 5 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the writer and its own workers, in a session of their own
        process.wait()
    painted = list(root.glob("video_frames_sampled/*.npy"))
    assert 5 <= len(painted) < 60
    assert all(np.load(path).shape == (5, 64, 64, 3) for path in painted)
    write_release(root, "gulch", **arguments)
    write_release(whole, "gulch", **arguments)
    assert files_of(root) == files_of(whole)


@pytest.mark.parametrize("change", [{"seed": 3}, {"size": 32}, {"world": "town"}, {"anywhere": 0.5}])
def test_refuses_another_release_in_the_same_folder(gulch, change):
    before = files_of(gulch)
    with pytest.raises(ValueError, match="another folder"):
        write_release(gulch, **{"world": "gulch", **ARGUMENTS, **change})
    assert files_of(gulch) == before


@pytest.mark.parametrize("bad", [{"episodes": 2}, {"clips": 4}, {"size": 8}, {"anywhere": 2}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        write_release(tmp_path / "bad", "gulch", **{**ARGUMENTS, **bad})
    assert not (tmp_path / "bad").exists()


def test_annotations_alone(gulch, tmp_path):
    main([str(tmp_path / "words"), "--no_pictures", *FLAGS])
    whole, words = files_of(gulch), files_of(tmp_path / "words")
    assert set(words) == {ANNOTATIONS, SPLIT, "made_by.json"}
    assert all(words[name] == whole[name] for name in (ANNOTATIONS, SPLIT))
    assert FlintstonesRelease(tmp_path / "words", pictures=False).stories("train", 4)
    with pytest.raises(ValueError, match="another folder"):
        write_release(tmp_path / "words", "gulch", **ARGUMENTS)


def test_plots_of_any_setting(tmp_path):
    write_release(tmp_path / "direct", "gulch", **ARGUMENTS, anywhere=1.0, pictures=False)
    main([str(tmp_path / "command"), "--anywhere", "1", "--no_pictures", *FLAGS])
    assert files_of(tmp_path / "direct") == files_of(tmp_path / "command")
    assert json.loads((tmp_path / "direct" / "made_by.json").read_text())["anywhere"] == 1
    write_release(tmp_path / "usual", "gulch", **ARGUMENTS, pictures=False)
    assert files_of(tmp_path / "usual")[ANNOTATIONS] != files_of(tmp_path / "direct")[ANNOTATIONS]


def test_command_draws_a_sheet_and_prints_statistics(tmp_path, capsys):
    for name in ("a.png", "b.png"):
        main(["--sheet", str(tmp_path / name), "--statistics", "--seed", "4"])
    assert "FlintstonesSV" in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(tmp_path / "a.png").size == (6 * 256, 6 * 320)


@pytest.mark.parametrize(("argv", "message"), [([], "nothing to do"), (["OUT", "--episodes", "1"], "`episodes`")])
def test_command_refuses(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(argv)
    assert message in capsys.readouterr().err
