import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train.base import NOISE_CONFIG, train_tokenizers
from train.data.flintstones import FlintstonesRelease
from train.painter import LatentCache, TextCache, paint_samples, picture_grid, to_pictures, weights_hash


@pytest.fixture(scope="module")
def vae():
    return tiny_vae(0)


def tiny_vae(seed: int) -> AutoencoderDC:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoencoderDC(
            latent_channels=4,
            encoder_block_out_channels=(8, 16),
            decoder_block_out_channels=(8, 16),
            encoder_layers_per_block=(0, 1),
            decoder_layers_per_block=(0, 1),
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            upsample_block_type="interpolate",
            downsample_block_type="pixel_unshuffle",
            scaling_factor=0.5,
        ).eval()


@pytest.fixture
def release(release_folder):
    return FlintstonesRelease(release_folder)


def build(vae, release, folder, **arguments) -> LatentCache:
    return LatentCache.build(vae, release, release.splits["train"], folder, **{"frames": (0, 2), **arguments})


def test_latents_are_those_of_the_autoencoder(vae, release, tmp_path):
    cache = build(vae, release, tmp_path / "cache")
    assert cache.latents.shape == (18, 2, 4, 8, 8) and cache.latents.dtype == torch.float16
    id = release.splits["train"][17]
    for i, frame in enumerate((0, 2)):  # the second one is mirrored
        picture = torch.from_numpy(np.array(release.frames(id)[frame])).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(picture.flip(-1) if i else picture).latent[0] * 0.5
        stored = cache.latents[cache.index_of[id], i].float()
        assert torch.allclose(stored, expected, atol=0.05 * float(expected.std()) + 0.02)


def test_the_cache_is_opened_again_and_rebuilt_for_another_model(vae, release, tmp_path):
    folder = tmp_path / "cache"
    first = build(vae, release, folder)
    (path,) = folder.iterdir()
    written = path.stat().st_mtime_ns
    again = build(vae, release, folder)
    assert torch.equal(first.latents, again.latents) and path.stat().st_mtime_ns == written
    other = build(tiny_vae(1), release, folder)
    assert len(list(folder.iterdir())) == 2 and not torch.equal(first.latents, other.latents)
    build(vae, release, folder, frames=(0, 1))
    LatentCache.build(vae, release, release.splits["val"], folder, frames=(0, 2))
    assert len(list(folder.iterdir())) == 4 and path.stat().st_mtime_ns == written
    assert not list(folder.glob("*.tmp"))


def test_weights_hash_depends_on_every_weight():
    a, b = tiny_vae(0), tiny_vae(0)
    assert weights_hash(a) == weights_hash(b)
    with torch.no_grad():
        next(b.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(a) != weights_hash(b)


def test_batches_follow_the_generator(vae, release, tmp_path):
    cache = build(vae, release, tmp_path / "cache")
    z, index = cache.batch(5, torch.Generator().manual_seed(0))
    z_again, index_again = cache.batch(5, torch.Generator().manual_seed(0))
    assert torch.equal(z, z_again) and torch.equal(index, index_again)
    assert z.shape == (5, 4, 8, 8) and z.dtype == torch.float32
    for row, clip in zip(z, index.tolist(), strict=True):
        assert any(torch.equal(row, one.float()) for one in cache.latents[clip])
    many = cache.take(torch.zeros(64, dtype=torch.long), torch.Generator().manual_seed(0))
    assert len({row.numpy().tobytes() for row in many}) == 2  # either frame


@pytest.fixture(scope="module")
def text_parts(tmp_path_factory):
    captions = ["Gus is in the kitchen.", "Mabel is talking to Gus in the yard."]
    tokenizer, _ = train_tokenizers(captions, tmp_path_factory.mktemp("tokenizers"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        ).eval()
    return encoder, tokenizer, captions


def test_text_states_are_those_of_the_encoder(text_parts):
    encoder, tokenizer, captions = text_parts
    assert isinstance(tokenizer, CLIPTokenizer)
    cache = TextCache.build(encoder, tokenizer, captions * 50)
    assert len(cache) == 100
    index = torch.tensor([1, 0, 99])
    states = cache.states(index, torch.Generator())
    assert states.shape == (3, tokenizer.model_max_length, 16) and states.dtype == torch.float32
    tokens = tokenizer(captions[1], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        expected = encoder(tokens.input_ids)[0][0]
    assert torch.allclose(states[0], expected, atol=1e-2) and torch.allclose(states[2], expected, atol=1e-2)
    empty = cache.states(index, torch.Generator(), dropout=1.0)
    assert torch.equal(empty, cache.all_states[-1:].float().expand(3, -1, -1))
    some = cache.states(torch.zeros(400, dtype=torch.long), torch.Generator().manual_seed(0), dropout=0.25)
    dropped = (some == empty[:1]).all(dim=(1, 2)).float().mean()
    assert 0.15 < dropped < 0.35


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
