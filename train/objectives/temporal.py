"""Temporal coherence (paper 4.4): L2 + l_coher sum_k ||L_{k+1} - L_k||^2 over a story's consecutive latents.

By default a pair counts only if its clips share the setting or a character by the annotations: a scene change is not
to be smoothed away. `coher_pairs: all` is the paper's form.
"""

from __future__ import annotations

import torch

from train.data.annotations import ClipRecord
from train.objectives.interface import STORY_FRAMES, Found, Term
from train.objectives.prediction import OnPrediction


def neighbours(clips: list[ClipRecord], share: str = "any") -> list[tuple[int, int]]:
    """Rows of consecutive frames of the stories in a batch.

    Args:
        clips (`list[ClipRecord]`): of each frame; whole stories of `STORY_FRAMES`, one after the other.
        share (`str`): `"any"`: pairs that share the setting or a character; `"character"`: a character; `"all"`: all.

    Raises:
        ValueError: another `share`, or no whole stories.
    """
    if share not in ("any", "character", "all"):
        raise ValueError(f"`share` is {share!r}, but must be 'any', 'character' or 'all'.")
    if len(clips) % STORY_FRAMES:
        raise ValueError(f"`clips` are {len(clips)}, but must be whole stories of {STORY_FRAMES}.")
    pairs = []
    for row in range(len(clips) - 1):
        first, second = clips[row], clips[row + 1]
        if (row + 1) % STORY_FRAMES == 0:
            continue
        character = bool(set(first.characters) & set(second.characters))
        setting = bool(first.setting) and first.setting == second.setting
        if share == "all" or character or (share == "any" and setting):
            pairs.append((row, row + 1))
    return pairs


def coherence_loss(latents: torch.Tensor, pairs: list[tuple[int, int]], weights: torch.Tensor) -> torch.Tensor:
    """sum_k ||L_{k+1} - L_k||^2 of a story, mean over the stories: a scalar.

    Args:
        latents (`torch.Tensor`): (B, C, h, w), whole stories.
        pairs (`list[tuple[int, int]]`): rows.
        weights (`torch.Tensor`): (B,), of each frame; a pair counts by its first one's.

    The square is the mean over a latent's numbers, so that the weight does not depend on the size of the picture.
    """
    if not pairs:
        return latents.sum() * 0
    a, b = (torch.tensor(rows, device=latents.device) for rows in zip(*pairs, strict=True))
    distances = (latents[b] - latents[a]).square().mean(dim=(1, 2, 3))  # [P]
    return (weights[a] * distances).sum() / (len(latents) // STORY_FRAMES)


class CoherenceTerm(Term):
    """l_coher."""

    needs_stories = True

    def __call__(self, found: Found) -> torch.Tensor:
        clips = [self.painter.release.clip(id) for id in found.batch.clips]
        pairs = neighbours(clips, self.config.coher_pairs)
        self.logs = self._distances(found, pairs)
        return coherence_loss(found.latents, pairs, found.weights)

    @torch.no_grad()
    def _distances(self, found: Found, pairs: list[tuple[int, int]]) -> dict[str, float]:
        """Mean squared distance of the neighbours, as found and of the real frames."""
        if not pairs:
            return {"pairs": 0.0}
        a, b = map(list, zip(*pairs, strict=True))
        mean = {
            name: float((latents[b] - latents[a]).square().mean())
            for name, latents in (("neighbour_distance", found.latents), ("real_distance", found.batch.latents))
        }
        return {"pairs": float(len(pairs)), **mean}


class Temporal(OnPrediction):
    """L2 + coherence, in batches of whole stories."""

    name = "temporal"
    terms_of = {"coher": CoherenceTerm}
