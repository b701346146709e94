import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from train.base import NOISE_CONFIG
from train.data.cache import TextCache
from train.painter import paint_samples, picture_grid, to_pictures


def test_samples_are_painted_one_a_caption(vae, text_parts):
    encoder, tokenizer, captions = text_parts
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    ).train()
    arguments = (unet, vae, TextCache.build(encoder, tokenizer, captions), DDPMScheduler(**NOISE_CONFIG))
    state = torch.get_rng_state()
    pictures = paint_samples(*arguments, seed=1, num_inference_steps=2)
    assert pictures.shape == (2, 8, 8, 3) and pictures.dtype == np.uint8 and unet.training
    assert np.array_equal(pictures, paint_samples(*arguments, seed=1, num_inference_steps=2))
    assert not np.array_equal(pictures, paint_samples(*arguments, seed=2, num_inference_steps=2))
    assert torch.equal(state, torch.get_rng_state())


def test_pictures_and_their_grid():
    x = torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    pictures = to_pictures(x)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 128, 255]
    grid = np.asarray(picture_grid(pictures[:2].repeat(2, axis=0)[:3], columns=2))
    assert grid.shape == (8, 8, 3)
    assert (grid[0, 0, 0], grid[0, 4, 0], grid[4, 0, 0], grid[4, 4, 0]) == (0, 0, 128, 255)
