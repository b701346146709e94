"""A network that begins as a narrower one that is trained already (Net2Net, arXiv 1511.05641)."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel


@torch.no_grad()
def widened(
    trained: UNet2DConditionModel, wider: UNet2DConditionModel, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Weights for `wider`, whose finest level may have twice the channels, with which it predicts nearly what
    `trained` does: a channel becomes two beside each other, and what reads them shares its weight out unevenly, so
    that they do not stay alike. Normalisations of concatenated channels group them anew, which is not preserved.
    Parts that `wider` lacks are left out; new ones are not known here.
    """
    (narrow, *others), (wide, *same) = (list(unet.config.block_out_channels) for unet in (trained, wider))
    if wide not in (narrow, 2 * narrow) or same != others:
        raise ValueError(
            f"`wider` has {[wide, *same]} channels, but only the first of {[narrow, *others]} can double."
        )
    known, weights = trained.state_dict(), {}
    for name, new in wider.state_dict().items():
        weight = known[name]
        for dim, (size, target) in enumerate(zip(weight.shape, new.shape, strict=True)):
            if size == target:
                continue
            # all channels of the finest level, or those behind the coarser level's that a skip is appended to
            doubled = size if target == 2 * size else target - size
            index = torch.cat([torch.arange(size - doubled), torch.arange(size - doubled, size).repeat_interleave(2)])
            weight = weight.index_select(dim, index)
            if dim == 1:
                uneven = 0.5 + 0.2 * (2 * torch.rand(doubled, generator=generator) - 1)
                if name == "time_embedding.linear_1.weight":  # every other frequency is a new one
                    uneven = torch.ones(doubled)
                shares = torch.cat([torch.ones(size - doubled), torch.stack([uneven, 1 - uneven], dim=1).flatten()])
                weight = weight * shares.reshape(-1, *[1] * (weight.ndim - 2))
        if name.endswith("to_q.weight") and weight.shape != known[name].shape:
            weight = weight / 2**0.5  # a dot product of twice as many terms is scaled down by the root alone
        weights[name] = weight
    return weights
