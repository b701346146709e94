"""What a caption leaves open of somebody who is alone in a frame: which way they face, and where they stand.

Both are read from latents and boxes alone, so that they are there for every show of FlintstonesSV's format. Who faces
left is the mirrored picture of who faces right: of what is inside people's boxes, the part that changes its sign in a
mirror varies most along that, and its first principal component tells the one from the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sagan_pipeline.pose_noise import POSE_NUMBERS, pose_numbers
from train.data.cache import LatentCache
from train.data.flintstones import FlintstonesRelease


GRID = 8  # what is inside a box, in rows and columns
MARGIN = 0.15  # of a box's width, for hands beside the body and over the head
LYING = 1.1  # wider than this times the height


class Poses:
    """Facing and place of whoever is alone, as standard normal quantiles.

    Args:
        release (`FlintstonesRelease`): whose boxes say who is where.
        cache (`LatentCache`): of clips of the release; the axes are those of these clips.
        moments (`Sequence[float]`): of a clip, 0 to 1: where each cached frame is from.
    """

    def __init__(self, release: FlintstonesRelease, cache: LatentCache, moments: Sequence[float]):
        self.release, self.moments = release, tuple(moments)
        self.groups: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}  # who lies: an axis, sorted numbers
        where, boxes, halves = self._alone(cache)
        lies = _lying(boxes)
        for group in (False, True):
            mine = halves[lies == group]
            if len(mine) < 2:
                continue
            axis = torch.linalg.svd(mine, full_matrices=False)[2][0]
            axis = axis * (1 if axis.sum() >= 0 else -1)  # the same in another release of the show
            numbers = self._numbers(mine, boxes[lies == group], axis)
            self.groups[group] = (axis, numbers.sort(dim=0)[0])
        self.train = self._of(len(cache.ids), where, boxes, halves)

    def of(self, cache: LatentCache) -> torch.Tensor:
        """Facing and place in each frame of other clips of the release, along the same axes.

        Returns:
            float32 (N, F, 2): each standard normal over the clips that the axes are of; NaN where nobody, or not one
            person alone, is boxed.
        """
        return self._of(len(cache.ids), *self._alone(cache))

    def _of(self, count: int, where: torch.Tensor, boxes: torch.Tensor, halves: torch.Tensor) -> torch.Tensor:
        quantiles = torch.full((count, len(self.moments), POSE_NUMBERS), float("nan"))
        lies = _lying(boxes)
        for group, (axis, known) in self.groups.items():
            rows = lies == group
            numbers = self._numbers(halves[rows], boxes[rows], axis)
            for k in range(POSE_NUMBERS):
                rank = torch.searchsorted(known[:, k].contiguous(), numbers[:, k].contiguous()).float()
                share = ((rank + 0.5) / (len(known) + 1)).clamp(0.5 / (len(known) + 1), 1 - 0.5 / (len(known) + 1))
                quantiles[where[rows, 0], where[rows, 1], k] = torch.special.ndtri(share)
        return quantiles

    @staticmethod
    def _numbers(halves: torch.Tensor, boxes: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
        """(n, 2): along the axis, and the middle of the box."""
        return torch.stack([halves @ axis, (boxes[:, 0] + boxes[:, 2]) / 2], dim=1)

    def _alone(self, cache: LatentCache) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where somebody is alone, (n, 2) rows and frames of the cache; their boxes, (n, 4); what changes its sign in
        a mirror inside them, (n, C * GRID * GRID / 2)."""
        where, boxes = [], []
        for row, id in enumerate(cache.ids):
            names = self.release.clip(id).characters
            if len(names) != 1:
                continue
            for frame, moment in enumerate(self.moments):
                box = self.release.boxes(id, moment, classes=names)[0]
                if box[2] > box[0] and box[3] > box[1]:
                    where.append((row, frame))
                    boxes.append(box)
        if not where:
            return torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 4), torch.zeros(0, 1)
        places, found = torch.tensor(where), torch.from_numpy(np.stack(boxes))
        halves = [
            _mirrored_half(cache.latents[rows[:, 0], rows[:, 1]].float(), part)
            for rows, part in zip(places.split(256), found.split(256), strict=True)
        ]
        return places, found, torch.cat(halves)


def _lying(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[:, 2] - boxes[:, 0]) > LYING * (boxes[:, 3] - boxes[:, 1])


def _mirrored_half(latents: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Half of the difference between what is in each box and its mirrored picture, (n, C * GRID * GRID / 2)."""
    left, top, right, bottom = boxes.unbind(1)
    margin = MARGIN * (right - left)
    left, top, right = left - margin, top - margin, right + margin
    middles = (torch.arange(GRID) + 0.5) / GRID
    x = left[:, None] + (right - left)[:, None] * middles  # [n, GRID]
    y = top[:, None] + (bottom - top)[:, None] * middles
    grid = torch.stack([x[:, None, :].expand(-1, GRID, -1), y[:, :, None].expand(-1, -1, GRID)], dim=-1) * 2 - 1
    inside = torch.nn.functional.grid_sample(latents, grid, padding_mode="border", align_corners=False)
    return ((inside - inside.flip(-1)) / 2)[..., : GRID // 2].flatten(1)


def couple(noise: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Noise that chooses the poses: what `pose_numbers` reads from it is made to be theirs.

    As each number is standard normal, so are the means of the noise, as before: what is painted begins from plain
    noise. By the flow along which a deterministic sampler goes, any coupling of pictures and noise with the same
    margins learns to paint the same pictures (Tong et al. 2024, "Improving and Generalizing Flow-Based Generative
    Models with Minibatch Optimal Transport"); where the noise says early what else would have to be read from under
    it, that is learnt faster (Lee et al. 2023, "Minimizing Trajectory Curvature of ODE-based Generative Models").

    Args:
        noise (`torch.Tensor`): (B, C, h, w), standard normal.
        poses (`torch.Tensor`): (B, 2), NaN where the noise is to be left alone.

    Returns:
        (B, C, h, w), the same but for the means of the first channels.
    """
    change = (poses - pose_numbers(noise)).nan_to_num(0.0) / (noise.shape[-2] * noise.shape[-1]) ** 0.5
    return torch.cat([noise[:, :POSE_NUMBERS] + change[:, :, None, None], noise[:, POSE_NUMBERS:]], dim=1)
