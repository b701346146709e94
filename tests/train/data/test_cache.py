import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from transformers import CLIPTokenizer

from train.data.cache import LatentCache, TextCache, weights_hash
from train.data.flintstones import FlintstonesRelease


ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def release(release_folder):
    return FlintstonesRelease(release_folder)


def build(vae, release, folder, **arguments) -> LatentCache:
    return LatentCache.build(vae, release, release.splits["train"], folder, **{"frames": (0, 2), **arguments})


@pytest.mark.parametrize("mirror", [False, True])
def test_latents_are_those_of_the_autoencoder(vae, release, tmp_path, mirror):
    cache = build(vae, release, tmp_path / "cache", mirror=mirror)
    assert cache.latents.shape == (18, 2, 4, 8, 8) and cache.latents.dtype == torch.float16
    id = release.splits["train"][17]
    for i, frame in enumerate((0, 2)):
        picture = torch.from_numpy(np.array(release.frames(id)[frame])).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(picture.flip(-1) if mirror and i else picture).latent[0] * 0.5
        stored = cache.latents[cache.index_of[id], i].float()
        assert torch.allclose(stored, expected, atol=0.05 * float(expected.std()) + 0.02)


def test_the_cache_is_opened_again_and_rebuilt_for_another_model(vae, make_vae, release, tmp_path):
    folder = tmp_path / "cache"
    first = build(vae, release, folder)
    (path,) = folder.glob("*.safetensors")
    written = path.stat().st_mtime_ns
    again = build(vae, release, folder)
    assert torch.equal(first.latents, again.latents) and path.stat().st_mtime_ns == written
    other = build(make_vae(1), release, folder)
    assert len(list(folder.glob("*.safetensors"))) == 2 and not torch.equal(first.latents, other.latents)
    build(vae, release, folder, frames=(0, 1))
    build(vae, release, folder, mirror=True)
    LatentCache.build(vae, release, release.splits["val"], folder, frames=(0, 2))
    assert len(list(folder.glob("*.safetensors"))) == 5 and path.stat().st_mtime_ns == written
    assert not list(folder.glob("*.tmp"))


def test_weights_hash_depends_on_every_weight(make_vae):
    a, b = make_vae(0), make_vae(0)
    assert weights_hash(a) == weights_hash(b)
    with torch.no_grad():
        next(b.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(a) != weights_hash(b)


def test_frames_follow_the_generator(vae, release, tmp_path):
    cache = build(vae, release, tmp_path / "cache")
    index = torch.tensor([3, 0, 3, 17, 8])
    z = cache.take(index, torch.Generator().manual_seed(0))
    assert torch.equal(z, cache.take(index, torch.Generator().manual_seed(0)))
    assert z.shape == (5, 4, 8, 8) and z.dtype == torch.float32
    for row, clip in zip(z, index.tolist(), strict=True):
        assert any(torch.equal(row, one.float()) for one in cache.latents[clip])
    many = cache.take(torch.zeros(64, dtype=torch.long), torch.Generator().manual_seed(0))
    assert len({row.numpy().tobytes() for row in many}) == 2  # either frame


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


def test_text_states_are_kept_and_opened_again(text_parts, tmp_path, monkeypatch):
    encoder, tokenizer, captions = text_parts
    first = TextCache.build(encoder, tokenizer, captions, tmp_path)
    monkeypatch.setattr(type(encoder), "forward", None)  # the second time, nothing is encoded
    again = TextCache.build(encoder, tokenizer, captions, tmp_path)
    assert torch.equal(first.all_states, again.all_states)
    with pytest.raises(TypeError):
        TextCache.build(encoder, tokenizer, captions[:1], tmp_path)


def test_a_changed_picture_makes_a_new_cache(vae, release, release_folder, tmp_path):
    first = build(vae, release, tmp_path)
    id = release.splits["train"][3]
    path = release_folder / "video_frames_sampled" / f"{id}.npy"
    np.save(path, 255 - np.load(path))
    os.utime(path, ns=(0, 0))
    again = build(vae, release, tmp_path)
    same = [torch.equal(a, b) for a, b in zip(first.latents, again.latents, strict=True)]
    assert same == [i != 3 for i in range(18)]


def test_training_goes_on_without_the_pictures(vae, make_vae, release, release_folder, tmp_path):
    lost = release.splits["train"][5]
    (release_folder / "video_frames_sampled" / f"{lost}.npy").unlink()
    release = FlintstonesRelease(release_folder, max_missing=0.1)
    first = build(vae, release, tmp_path)
    for path in (release_folder / "video_frames_sampled").iterdir():
        path.unlink()
    bare = FlintstonesRelease(release_folder, pictures=False)
    again = build(vae, bare, tmp_path)
    assert torch.equal(first.latents, again.latents) and again.ids == first.ids and lost not in again.ids
    with pytest.raises(ValueError, match="opened without pictures"):
        bare.frames(bare.splits["train"][0])
    with pytest.raises(ValueError, match="holds no latents of these clips for this model"):
        build(make_vae(1), bare, tmp_path)


def test_latents_are_mapped_not_loaded(vae, release, tmp_path):
    build(vae, release, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    cache = build(vae, release, tmp_path)
    first = cache.latents[0].clone()
    with open(path, "r+b") as file:  # a change of the file shows through the map
        file.seek(-cache.latents.nbytes, os.SEEK_END)
        file.write(bytes(cache.latents[0].nbytes))
    assert not torch.equal(first, torch.zeros_like(first)) and torch.equal(cache.latents[0], torch.zeros_like(first))


ELSEWHERE = """
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from train.data.cache import LatentCache
from train.data.flintstones import FlintstonesRelease

torch.set_num_threads(1)
channels, blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}, (1, 1)
vae = AutoencoderTiny(**channels, num_encoder_blocks=blocks, num_decoder_blocks=blocks)
for parameter in vae.parameters():
    parameter.data.fill_(0.01)
calls, encode = [], vae.encode
vae.encode = lambda x: calls.append(1) or encode(x)
release = FlintstonesRelease(sys.argv[1])
cache = LatentCache.build(vae, release, release.splits["train"], Path(sys.argv[2]), frames=(0,))
print(len(calls) > 0, float(cache.latents.float().sum()))
"""


def test_one_process_computes_and_the_others_wait(release_folder, tmp_path):
    command = [sys.executable, "-c", ELSEWHERE, str(release_folder), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    computed, totals = zip(*[worker.communicate(timeout=120)[0].split() for worker in workers], strict=True)
    assert sorted(computed) == ["False", "True"] and len(set(totals)) == 1


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: b"", lambda raw: raw[:4]])
def test_a_broken_cache_is_named(vae, release, tmp_path, damage):
    build(vae, release, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path.name} is not a whole cache.*delete it"):
        build(vae, release, tmp_path)


def test_every_autoencoder_of_the_field_and_another_size(release, tmp_path):
    torch.manual_seed(0)
    kl = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()
    assert build(kl, release, tmp_path).latents.shape == (18, 2, 4, 8, 8)
    assert build(tiny, release, tmp_path, size=32).latents.shape == (18, 2, 4, 16, 16)


def test_the_frames_of_a_whole_clip_are_those_of_a_sampled_one(vae, make_release, tmp_path):
    release = FlintstonesRelease(make_release(tmp_path / "raw", frames=75, clips=5))
    id = release.splits["val"][0]
    cache = LatentCache.build(vae, release, [id], tmp_path / "cache", frames=(0, 4))
    for i, frame in enumerate((9, 69)):
        picture = torch.from_numpy(np.array(release.frames(id)[frame])).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = vae.encode(picture).latent[0] * 0.5
        assert torch.allclose(cache.latents[0, i].float(), expected, atol=0.05 * float(expected.std()) + 0.02)


def test_no_clips(vae, release, tmp_path):
    with pytest.raises(ValueError, match="ids"):
        LatentCache.build(vae, release, [], tmp_path)
