import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from train.data.annotations import ANNOTATIONS
from train.data.flintstones import FlintstonesRelease
from train.data.stories import StoryImageDataset, StoryLoader


ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def release(release_folder):
    return FlintstonesRelease(release_folder)


def test_an_item_holds_a_story(release):
    data = StoryImageDataset(release, "train", num_frames=4, frame="middle")
    item = data[1]
    assert len(data) == 9 and item["index"] == 1 and item["ids"] == data.stories[1]
    assert item["first_frame"].shape == (3, 16, 16) and item["later_frames"].shape == (3, 3, 16, 16)
    assert item["captions"][0] == release.clip(item["ids"][0]).caption and len(item["settings"]) == 4
    assert item["labels"].shape == (4, 7) and item["labels"].sum(dim=1).tolist() == [1, 1, 1, 1]
    expected = torch.from_numpy(np.array(release.frames(item["ids"][2])[1])).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(item["later_frames"][1], expected)


def test_random_frames_depend_on_seed_epoch_and_index_only(release):
    data = StoryImageDataset(release, "train", seed=3)
    state = torch.get_rng_state()
    first = [data[i]["later_frames"] for i in range(len(data))]
    assert all(
        torch.equal(a, StoryImageDataset(release, "train", seed=3)[i]["later_frames"]) for i, a in enumerate(first)
    )
    data.set_epoch(1)
    assert any(not torch.equal(a, data[i]["later_frames"]) for i, a in enumerate(first))
    data.set_epoch(0)
    assert torch.equal(data[-1]["later_frames"], first[-1])
    other = StoryImageDataset(release, "train", seed=4)
    assert any(not torch.equal(a, other[i]["later_frames"]) for i, a in enumerate(first))
    assert torch.equal(state, torch.get_rng_state())


def test_fixed_frames_are_the_clips_own(release):
    def frame_of(data, index, position):
        item = data[index]
        return torch.cat([item["first_frame"][None], item["later_frames"]])[position], item["ids"][position]

    data = StoryImageDataset(release, "train", frame="fixed", seed=3)
    a, id = frame_of(data, 0, 1)
    data.set_epoch(5)
    b, same = frame_of(data, 1, 0)  # the next story begins with the second clip of this one
    assert id == same and torch.equal(a, b)
    others = [StoryImageDataset(release, "train", frame="fixed", seed=seed) for seed in range(8)]
    assert any(not torch.equal(a, frame_of(other, 0, 1)[0]) for other in others)


def test_prefix_lengths_are_drawn_anew_each_epoch(release):
    data = StoryImageDataset(release, "train")
    drawn = []
    for epoch in range(60):
        data.set_epoch(epoch)
        drawn += [data[i]["prefix_length"] for i in range(len(data))]
    assert set(drawn) == {0, 1, 2, 3} and max(map(drawn.count, range(4))) < 1.6 * min(map(drawn.count, range(4)))
    assert StoryImageDataset(release, "train", num_frames=2).max_prefix == 1
    assert StoryImageDataset(release, "train", max_prefix=0)[0]["prefix_length"] == 0


def test_boxes_are_in_pixels_of_the_frame(release_folder):
    path = release_folder / ANNOTATIONS
    records = json.loads(path.read_text())
    id = "s_01_e_01_shot_000000_000074"
    for record in records:
        if record["globalID"] == id:
            record["characters"][0]["rectangles"] = [[0, 0, 320, 480], [64, 48, 640, 240], []]
            record["characters"][0]["entityLabel"] = "gus"
    path.write_text(json.dumps(records))
    release = FlintstonesRelease(release_folder)
    first = [StoryImageDataset(release, "train", frame=frame)[0]["boxes"][0, 0].tolist() for frame in (0, 1, 2)]
    assert first[0] == [0, 0, 8, 16]
    assert first[1] == pytest.approx([1.6, 1.6, 16, 8])
    assert first[2] == [0, 0, 0, 0]  # out of the picture by then
    item = StoryImageDataset(release, "train", frame=0)[0]
    assert item["boxes"].shape == (5, 7, 4) and item["boxes"][0, 1:].abs().sum() == 0


def test_pronouns_replace_the_names_of_those_who_stay(release_folder):
    path = release_folder / ANNOTATIONS
    records = json.loads(path.read_text())
    for record in records:
        record["characters"] = [{"entityLabel": "mabel"}]
        record["description"] = "Mabel is in the yard."
    path.write_text(json.dumps(records))
    item = StoryImageDataset(FlintstonesRelease(release_folder), "train", pronouns=True)[0]
    assert item["captions"] == ["Mabel is in the yard.", *["She is in the yard."] * 4]


def test_one_frame_stories_have_no_later_frames(release):
    item = StoryImageDataset(release, "test", num_frames=1, frame=0)[0]
    assert item["later_frames"].shape == (0, 3, 16, 16)


def test_frames_of_two_sizes_are_not_stacked(release_folder):
    id = "s_01_e_01_shot_000100_000174"
    np.save(release_folder / "video_frames_sampled" / f"{id}.npy", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="s_01_e_01_shot_000000.*differ in size"):
        StoryImageDataset(FlintstonesRelease(release_folder), "train")[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_out_every_story_once(release, workers):
    loader = StoryLoader(StoryImageDataset(release, "train", seed=1), batch_size=2, num_workers=workers)
    state = torch.get_rng_state()
    batches = list(loader)
    assert len(batches) == len(loader) == 3 and loader.epoch == 1
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(6))
    assert batches[0]["later_frames"].shape == (2, 4, 3, 16, 16) and len(batches[0]["captions"]) == 2
    assert batches[0]["prefix_length"].dtype == torch.int64
    assert torch.equal(state, torch.get_rng_state())
    second = [i for batch in loader for i in batch["index"].tolist()]
    assert sorted(second) == list(range(6)) and second != [i for batch in batches for i in batch["index"].tolist()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_exactly_where_it_was(release, workers):
    def flat(batch):
        return batch["index"].tolist(), batch["prefix_length"].tolist(), batch["later_frames"]

    def make():
        return StoryLoader(StoryImageDataset(release, "train", seed=1), batch_size=1, num_workers=workers)

    whole = make()
    expected = [flat(batch) for _ in range(2) for batch in whole]
    for stop in (0, 1, 5, 6, 7, 11):
        first, got = make(), 0
        while got < stop:
            for _ in first:
                got += 1
                if got == stop:
                    break
        state = json.loads(json.dumps(first.state_dict()))
        again, rest = make(), []
        again.load_state_dict(state)
        while len(rest) < 12 - stop:
            rest += [flat(batch) for batch in again]
        for a, b in zip(rest, expected[stop:], strict=False):
            assert a[:2] == b[:2] and torch.equal(a[2], b[2])


def test_a_state_of_another_loader_is_refused(release):
    state = StoryLoader(StoryImageDataset(release, "train"), batch_size=2).state_dict()
    with pytest.raises(ValueError, match="batch_size 2, but this loader has 3"):
        StoryLoader(StoryImageDataset(release, "train"), batch_size=3).load_state_dict(state)
    with pytest.raises(ValueError, match="seed"):
        StoryLoader(StoryImageDataset(release, "train", seed=9), batch_size=2).load_state_dict(state)


def test_processes_share_an_epoch(release):
    data = StoryImageDataset(release, "train", num_frames=2)  # 15 stories
    seen = []
    for epoch in range(2):
        loaders = [StoryLoader(data, 2, num_processes=3, process_index=i) for i in range(3)]
        for loader in loaders:
            loader.epoch = epoch
        batches = [[i for batch in loader.batches() for i in batch] for loader in loaders]
        assert [len(rank) for rank in batches] == [4, 4, 4]
        together = [i for rank in batches for i in rank]
        assert len(set(together)) == 12
        seen.append(set(range(15)) - set(together))
    assert seen[0] != seen[1]  # what is left out of one epoch is in another


UNDER_ACCELERATE = """
import sys

from accelerate import Accelerator
from accelerate.utils import gather_object

from train.data.flintstones import FlintstonesRelease
from train.data.stories import StoryImageDataset, StoryLoader

accelerator = Accelerator(cpu=True)
data = StoryImageDataset(FlintstonesRelease(sys.argv[1]), "train", num_frames=2)
loader = StoryLoader(data, 2, accelerator.num_processes, accelerator.process_index)
indices = gather_object([i for batch in loader for i in batch["index"].tolist()])
if accelerator.is_main_process:
    print("handed out", accelerator.num_processes, sorted(indices))
"""


def test_two_accelerate_processes_get_different_stories(release_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNDER_ACCELERATE)
    command = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(script), str(release_folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("handed out")), done.stderr[-2000:])
    processes, indices = line.removeprefix("handed out ").split(" ", 1)
    assert processes == "2" and len(json.loads(indices)) == len(set(json.loads(indices))) == 12


@pytest.mark.parametrize(
    "arguments",
    [{"frame": "last"}, {"frame": True}, {"frame": 1.5}, {"seed": -1}, {"num_frames": 0}, {"max_prefix": 5}],
)
def test_bad_arguments_are_named(release, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments)).replace("num_frames", "length")):
        StoryImageDataset(release, "train", **arguments)


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"batch_size": 7}, {"process_index": 1}, {"process_index": -1}]
)
def test_bad_loader_arguments_are_named(release, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        StoryLoader(StoryImageDataset(release, "train"), **{"batch_size": 2, **arguments})


def test_a_frame_that_no_clip_has(release):
    with pytest.raises(ValueError, match="3 frames"):
        StoryImageDataset(release, "train", frame=7)[0]
    with pytest.raises(IndexError):
        StoryImageDataset(release, "train")[6]
    with pytest.raises(ValueError, match="epoch"):
        StoryImageDataset(release, "train").set_epoch(-1)
