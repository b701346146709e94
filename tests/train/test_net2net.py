"""A wider network that predicts what a narrower one does."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderDC, UNet2DConditionModel

from train.net2net import grown, widened


def small_unet(first: int, seed: int = 0, **changes) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    attended = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (first, 64),
        "down_block_types": attended[:1] * 2,
        "up_block_types": attended[1:] * 2,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**config, **changes}).eval()


@torch.no_grad()
def test_a_unet_of_twice_the_width_predicts_nearly_what_it_grew_from():
    trained, generator = small_unet(32), torch.Generator().manual_seed(1)
    x, states = torch.randn(4, 4, 8, 8, generator=generator), torch.randn(4, 5, 16, generator=generator)
    timesteps = torch.tensor([50, 300, 600, 900])
    told = trained(x, timesteps, states).sample

    def error(wider: UNet2DConditionModel) -> float:
        return float((wider(x, timesteps, states).sample - told).square().mean() / told.square().mean())

    wider = small_unet(64, seed=3)
    before = error(wider)
    wider.load_state_dict(widened(trained, wider, generator))
    assert error(wider) < 0.25 * before
    twins = wider.conv_out.weight[:, ::2] - wider.conv_out.weight[:, 1::2]
    assert twins.abs().min() > 0  # those that read a channel and its twin will not stay alike
    same = small_unet(32, seed=3)
    same.load_state_dict(widened(trained, same, generator))
    assert error(same) == 0
    without = small_unet(64, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"))
    without.load_state_dict(widened(trained, without, generator))  # what it lacks is left out
    with pytest.raises(ValueError, match="can double"):
        widened(trained, small_unet(96), generator)


@torch.no_grad()
def test_a_unet_that_is_given_more_latent_channels_predicts_the_old_ones_as_before():
    trained, generator = small_unet(32), torch.Generator().manual_seed(1)
    wider = small_unet(32, seed=3, in_channels=8, out_channels=8)
    wider.load_state_dict(widened(trained, wider, generator))
    x, states = torch.randn(2, 8, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    predicted, before = wider(x, 300, states).sample, trained(x[:, :4], 300, states).sample
    torch.testing.assert_close(predicted[:, :4], before, rtol=0, atol=1e-5)
    assert not predicted[:, 4:].any()


def small_vae(latent_channels: int, layers: tuple[int, int] = (1, 1)) -> AutoencoderDC:
    sizes = {"encoder_block_out_channels": (8, 16), "decoder_block_out_channels": (8, 16)}
    blocks = {"encoder_layers_per_block": layers, "decoder_layers_per_block": (1, 1)}
    kinds = {"encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock"}
    attended = {"encoder_qkv_multiscales": ((), ()), "decoder_qkv_multiscales": ((), ())}
    return AutoencoderDC(latent_channels=latent_channels, **sizes, **blocks, **kinds, **attended).eval()


@pytest.mark.parametrize("layers", [(1, 1), (3, 2)])
def test_an_autoencoder_with_twice_the_latents_and_more_layers_begins_as_it_was(layers):
    torch.manual_seed(0)
    trained, larger = small_vae(4), small_vae(8, layers)
    larger.load_state_dict(grown(trained, larger))
    x = torch.randn(2, 3, 16, 16)
    before, latent = trained.encode(x).latent, larger.encode(x).latent
    torch.testing.assert_close(latent[:, :4], before, rtol=0, atol=1e-5)
    assert torch.linalg.matrix_rank(latent.detach().transpose(0, 1).flatten(1)) == 8  # no new one is idle or a copy
    pictures = trained.decode(before).sample
    torch.testing.assert_close(larger.decode(latent).sample, pictures, rtol=0, atol=1e-5)
    larger.decode(latent).sample.square().mean().backward()
    idle = [name for name, weight in larger.named_parameters() if not weight.grad.any()]
    assert all(".conv" in name and "encoder.down_blocks" in name for name in idle)  # a new block's norm learns first
    same = small_vae(4)
    same.load_state_dict(grown(trained, same))
    torch.testing.assert_close(same.decode(same.encode(x).latent).sample, pictures)


def test_an_autoencoder_that_cannot_grow_so_is_refused():
    with pytest.raises(ValueError, match="only 4 can double"):
        grown(small_vae(4), small_vae(16))
    with pytest.raises(ValueError, match=r"\[1, 1\] layers in its encoder's blocks, but must have \[3, 2\] or more"):
        grown(small_vae(4, (3, 2)), small_vae(4))
