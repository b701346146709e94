import numpy as np
import pytest
import torch

from train.data.flintstones import FlintstonesRelease
from train.data.stories import StoryImageDataset


@pytest.fixture
def release(release_folder):
    return FlintstonesRelease(release_folder)


def test_an_item_holds_a_story(release):
    data = StoryImageDataset(release, "train", num_frames=4, frame="middle")
    item = data[1]
    assert len(data) == 9 and item["ids"] == data.stories[1]
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


def test_one_frame_stories_have_no_later_frames(release):
    item = StoryImageDataset(release, "test", num_frames=1, frame=0)[0]
    assert item["later_frames"].shape == (0, 3, 16, 16)


def test_works_in_a_loader(release):
    loader = torch.utils.data.DataLoader(StoryImageDataset(release, "train", frame=-1), batch_size=2)
    assert next(iter(loader))["later_frames"].shape == (2, 4, 3, 16, 16)


@pytest.mark.parametrize(
    "arguments", [{"frame": "last"}, {"frame": True}, {"frame": 1.5}, {"seed": -1}, {"num_frames": 0}]
)
def test_bad_arguments_are_named(release, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments)).replace("num_frames", "length")):
        StoryImageDataset(release, "train", **arguments)


def test_a_frame_that_no_clip_has(release):
    with pytest.raises(ValueError, match="3 frames"):
        StoryImageDataset(release, "train", frame=7)[0]
    with pytest.raises(IndexError):
        StoryImageDataset(release, "train")[6]
    with pytest.raises(ValueError, match="epoch"):
        StoryImageDataset(release, "train").set_epoch(-1)
