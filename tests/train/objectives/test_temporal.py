import pytest
import torch

from train.data.annotations import ClipRecord
from train.objectives.temporal import coherence_loss, neighbours


def clip(setting: str, *characters: str) -> ClipRecord:
    return ClipRecord("s_01_e_01_shot_000000_000074", "", setting, list(characters))


STORIES = [clip("yard", "gus"), clip("yard", "otto"), clip("cave", "otto"), clip("park"), clip("park"), clip("park")]
STORIES += [clip("", "nell"), clip("", "nell")]


def test_pairs_share_the_setting_or_a_character_and_stay_in_their_story():
    assert neighbours(STORIES) == [(0, 1), (1, 2), (4, 5), (6, 7)]
    assert neighbours(STORIES, "character") == [(1, 2), (6, 7)]
    assert neighbours(STORIES, "all") == [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)]
    with pytest.raises(ValueError, match="whole stories"):
        neighbours(STORIES[:3])
    with pytest.raises(ValueError, match="`share`"):
        neighbours(STORIES, "some")


def test_coherence_by_hand():
    latents = torch.tensor([0.0, 1, 3, 7, 0, 2, 2, 5]).view(8, 1, 1, 1).repeat(1, 2, 1, 1).requires_grad_()
    weights = torch.tensor([1.0, 0.5, 1, 1, 2, 1, 1, 1])
    loss = coherence_loss(latents, [(0, 1), (1, 2), (4, 5)], weights)
    assert loss.item() == pytest.approx((1 * 1 + 0.5 * 4 + 2 * 4) / 2)
    (gradient,) = torch.autograd.grad(loss, [latents])
    # d/da of (b - a)^2, mean over two channels, half of it for two stories
    assert gradient[0, 0].item() == pytest.approx(-2 * 1 / 2 / 2) and gradient[6:].abs().sum() == 0
    nothing = coherence_loss(latents, [], weights)
    assert nothing.item() == 0 and nothing.requires_grad
