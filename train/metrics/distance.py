"""How far a set of pictures is from real ones as a set: the Fréchet distance of their features.

The formula is FID's (Heusel et al. 2017). On Inception-v3's features it is FID; on those of a judge, which is small
and trained on the show itself, it is called FJD, and the two are never comparable, nor is an FJD with that of another
judge or another number of pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from train.metrics.judge import Judge


BATCH = 64


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of features, (N, D) and (M, D), in float64.

    Raises:
        ValueError: fewer than two of either, or the widths differ.
    """
    if min(len(a), len(b)) < 2 or a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"`a` {a.shape} and `b` {b.shape} must be two or more rows of features of one width.")
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = ((m - m.mean(axis=0)) / np.sqrt(len(m) - 1) for m in (a, b))  # C_a = x^T x
    # the eigenvalues of C_a C_b are the squared singular values of x y^T: symmetric, and of the smaller side
    if len(x) > x.shape[1]:
        x = np.linalg.qr(x, mode="r")
    if len(y) > y.shape[1]:
        y = np.linalg.qr(y, mode="r")
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(max(0.0, shift + (x**2).sum() + (y**2).sum() - 2 * root))


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
