"""A network that begins as a narrower one that is trained already (Net2Net, arXiv 1511.05641)."""

from __future__ import annotations

import torch
from diffusers import AutoencoderDC, UNet2DConditionModel


@torch.no_grad()
def widened(
    trained: UNet2DConditionModel, wider: UNet2DConditionModel, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Weights for `wider`, whose finest level may have twice the channels, with which it predicts nearly what
    `trained` does: a channel becomes two beside each other, and what reads them shares its weight out unevenly, so
    that they do not stay alike. Normalisations of concatenated channels group them anew, which is not preserved.
    Parts that `wider` lacks are left out; new ones are not known here. Latent channels that are new are neither read
    nor predicted yet.
    """
    (narrow, *others), (wide, *same) = (list(unet.config.block_out_channels) for unet in (trained, wider))
    if wide not in (narrow, 2 * narrow) or same != others:
        raise ValueError(
            f"`wider` has {[wide, *same]} channels, but only the first of {[narrow, *others]} can double."
        )
    known, weights = trained.state_dict(), {}
    of_latents = {"conv_in.weight": 1, "conv_out.weight": 0, "conv_out.bias": 0}  # which dimension is theirs
    for name, new in wider.state_dict().items():
        weight = known[name]
        if name in of_latents:
            weight = padded(weight, of_latents[name], new.shape[of_latents[name]])
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


@torch.no_grad()
def grown(trained: AutoencoderDC, larger: AutoencoderDC) -> dict[str, torch.Tensor]:
    """Weights for `larger`, whose latents may have twice the channels and whose encoder more `ResBlock`s: the first
    channels are what `trained` encodes, and pictures are decoded from them alone.

    A further block adds nothing yet, its norm being zero. `AutoencoderDC` adds means of its last features to the
    latents, and repeats latents into its first ones; the weights make up for how many there are to each. The new
    channels begin as the difference of the halves of these means.
    """
    old, new = trained.config.latent_channels, larger.config.latent_channels
    if new not in (old, 2 * old):
        raise ValueError(f"`larger` has {new} latent channels, but only {old} can double.")
    layers, more = trained.config.encoder_layers_per_block, larger.config.encoder_layers_per_block
    if any(b < a or (b > a == 0) for a, b in zip(layers, more, strict=True)):
        raise ValueError(
            f"`larger` has {list(more)} layers in its encoder's blocks, but must have {list(layers)} or more."
        )
    known, weights = trained.state_dict(), larger.state_dict()
    for name in weights:
        source = name
        if name.startswith("encoder.down_blocks."):
            stage, index, part = name.split(".", 4)[2:]
            stage, index = int(stage), int(index)
            if layers[stage] <= index < more[stage]:  # this block is new
                if part.startswith("norm."):
                    weights[name] = torch.zeros_like(weights[name])
                continue
            if index >= more[stage]:  # the way down to the next stage comes last
                source = f"encoder.down_blocks.{stage}.{index - more[stage] + layers[stage]}.{part}"
        weights[name] = known[source]
    features = larger.config.encoder_block_out_channels[-1]
    means = torch.eye(old).repeat_interleave(features // old, dim=1) * old / features
    halves = torch.eye(new).repeat_interleave(features // new, dim=1) * new / features
    encoding = padded(known["encoder.conv_out.weight"], 0, new)
    encoding[:, :, 1, 1] += torch.cat([means, (halves[::2] - halves[1::2]) / 2])[:new] - halves
    decoding = padded(known["decoder.conv_in.weight"], 1, new)
    repeated = [torch.eye(count).repeat_interleave(features // count, dim=0) for count in (old, new)]
    decoding[:, :, 1, 1] += padded(repeated[0], 1, new) - repeated[1]
    weights["encoder.conv_out.weight"], weights["decoder.conv_in.weight"] = encoding, decoding
    weights["encoder.conv_out.bias"] = padded(known["encoder.conv_out.bias"], 0, new)
    return weights


def padded(weight: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """`weight` with zeros appended in one dimension, up to `size`; a copy."""
    shape = list(weight.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([weight, weight.new_zeros(shape)], dim=dim)
