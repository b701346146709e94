"""How far a set of pictures is from real ones as a set: the Fréchet distance on the judge's features (FJD).

The formula is FID's (Heusel et al. 2017), the features are those of a small judge trained on the show itself, so that
the two are never comparable, nor is an FJD with that of another judge or another number of pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from train.metrics.judge import Judge


BATCH = 64


class JudgeFeatures(torch.nn.Module):
    """The judge's pooled features, as torchmetrics asks for them: uint8 (B, 3, H, W) to float32 (B, D)."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge
        self.num_features = judge.model.config.hidden_sizes[-1]

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.judge(pictures.permute(0, 2, 3, 1).numpy())[2]


class JudgeDistance:
    """FJD to one set of real pictures, whose features are computed once.

    Args:
        judge (`Judge`): gives the features.
        real (`np.ndarray`): uint8 (N, H, W, 3), at least two.
    """

    def __init__(self, judge: Judge, real: np.ndarray):
        self.count = len(real)
        self.metric = FrechetInceptionDistance(feature=JudgeFeatures(judge), reset_real_features=False)
        self._update(real, real=True)

    def __call__(self, pictures: np.ndarray) -> float:
        """FJD of pictures, uint8 (N, H, W, 3), at least two; 0 or more, smaller is nearer.

        Raises:
            ValueError: fewer than two pictures.
        """
        if min(len(pictures), self.count) < 2:
            raise ValueError(f"`pictures` are {len(pictures)}, the real ones {self.count}; FJD needs two of each.")
        self.metric.reset()
        self._update(pictures, real=False)
        return float(self.metric.compute())

    def _update(self, pictures: np.ndarray, real: bool) -> None:
        for start in range(0, len(pictures), BATCH):
            batch = torch.from_numpy(pictures[start : start + BATCH]).permute(0, 3, 1, 2)
            self.metric.update(batch, real=real)
