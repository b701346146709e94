"""Poses of the drawn show: the code that drew it knows who faces where."""

import random

import pytest
import torch

from sagan_pipeline.pose_noise import pose_numbers
from train.data.cache import LatentCache
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.release import clip_ids, record_of, write_release
from train.data.gravel_gulch.script import episode
from train.data.poses import Poses, couple


EPISODES, CLIPS, SEED, MOMENTS = 12, 24, 0, (0.2, 0.6)


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """The show, each picture's 16 x 16 pixels as its latents, and what the script says of each clip."""
    folder = tmp_path_factory.mktemp("poses") / "gulch"
    write_release(folder, "gulch", EPISODES, CLIPS, SEED, size=64)
    release, script = FlintstonesRelease(folder), {}
    for number in range(EPISODES):
        rng = random.Random(f"gulch {SEED} {number} release")
        clips = episode("gulch", SEED * 100_000 + number, CLIPS)
        for id, clip in zip(clip_ids(number, CLIPS, rng), clips, strict=True):
            record_of(id, clip, rng)
            script[id] = clip
    return release, script, {split: cache_of(release, release.splits[split]) for split in ("train", "val")}


def cache_of(release, ids) -> LatentCache:
    pictures = torch.stack([torch.from_numpy(release.frames(id)[[1, 3]].copy()) for id in ids])  # [N, 2, H, W, 3]
    x = pictures.permute(0, 1, 4, 2, 3).flatten(0, 1).float() / 127.5 - 1
    return LatentCache(torch.nn.functional.avg_pool2d(x, 4).unflatten(0, (len(ids), 2)).half(), list(ids))


def test_who_faces_where_is_read_from_the_pictures(show):
    release, script, caches = show
    poses = Poses(release, caches["train"], MOMENTS)
    alone = [row for row, id in enumerate(caches["train"].ids) if len(release.clip(id).characters) == 1]
    known = ~poses.train.isnan().any(dim=2)
    assert (
        not known[[row for row in range(len(known)) if row not in alone]].any() and known[alone].float().mean() > 0.9
    )
    for of, cache in ((poses.train, caches["train"]), (poses.of(caches["val"]), caches["val"])):
        agree, middles = [], []
        for row, id in enumerate(cache.ids):
            actors = script[id].actors
            if not of[row, 1].isnan().any() and actors[0].action not in ("sleeping", "running"):
                agree.append((float(of[row, 1, 0]) > 0) == (actors[0].facing > 0))
                middles.append((float(of[row, 1, 1]), actors[0].x))
        share = sum(agree) / len(agree)
        assert len(agree) > 5 and max(share, 1 - share) > 0.75  # the axis has two ends, and either may be first
        assert torch.corrcoef(torch.tensor(middles).T)[0, 1] > 0.8
    numbers = poses.train[known]
    assert numbers.mean(dim=0).abs().max() < 0.1 and (numbers.std(dim=0) - 1).abs().max() < 0.1


def test_the_axis_has_the_same_ends_in_another_part_of_the_show(show):
    release, _, caches = show
    ids, latents = caches["train"].ids, caches["train"].latents
    halves = [LatentCache(latents[part::2], ids[part::2]) for part in (0, 1)]
    axes = [Poses(release, half, MOMENTS).groups[False][0] for half in halves]
    assert axes[0] @ axes[1] > 0.7


def test_where_nobody_is_alone_nothing_is_known(show):
    release, script, caches = show
    ids, latents = caches["train"].ids, caches["train"].latents
    rows = [row for row, id in enumerate(ids) if len(release.clip(id).characters) != 1]
    poses = Poses(release, LatentCache(latents[rows], [ids[row] for row in rows]), MOMENTS)
    assert poses.train.isnan().all() and not poses.groups
    assert poses.of(caches["val"]).isnan().all()


def test_noise_is_made_to_choose_the_poses():
    draw = torch.Generator().manual_seed(0)
    noise, poses = torch.randn((400, 4, 8, 8), generator=draw), torch.randn((400, 2), generator=draw)
    poses[7] = float("nan")
    coupled = couple(noise, poses)
    assert torch.equal(coupled[7], noise[7]) and torch.equal(coupled[:, 2:], noise[:, 2:])
    known = ~poses.isnan().any(dim=1)
    assert torch.allclose(pose_numbers(coupled)[known], poses[known], atol=1e-4)
    assert abs(float(coupled.std()) - 1) < 0.02  # standard normal poses leave the noise as it was
    within = coupled - coupled.mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(within, noise - noise.mean(dim=(2, 3), keepdim=True), atol=1e-5)
