"""`--pose_noise`: the noise chooses the pose of whoever is alone, and the text states tell it."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from sagan_pipeline.lora import Adapter
from sagan_pipeline.pose_noise import pose_numbers, tell_pose
from train.adapter import save_adapter
from train.objectives.interface import Found
from train.saganets import main


GAN = ["--objective", "gan", "--l_dmd", "1", "--gan_steps", "2"]


@pytest.fixture
def reads_pose(make_coordinated, tmp_path):
    """An adapter file of a training with it."""
    trained = make_coordinated("--pose_noise")
    path = tmp_path / "pose.safetensors"
    save_adapter(trained.painter.unet, trained.painter.lora, path, trained.facts(1, {}))
    return path


def test_the_noise_of_a_draw_chooses_its_frames_pose(make_coordinated):
    painter = make_coordinated("--pose_noise", "--objective", "temporal", "--l_coher", "0.1").painter
    clips = painter.latents.ids[:8]
    draws = painter.draw(clips, torch.Generator().manual_seed(0))
    poses = painter.poses[id(painter.latents)][draws.clips, draws.frames]
    assert not poses.isnan().any()  # Gus is alone everywhere
    assert torch.allclose(pose_numbers(draws.noise), poses, atol=1e-4)
    batch = painter.batch(draws, slice(2, 6), seed=0, step=0)
    plain = painter.text.all_states[draws.captions[2:6]].float()
    assert torch.allclose(batch.states, tell_pose(plain, draws.noise[2:6]), atol=1e-5)
    assert not torch.allclose(batch.states, plain, atol=0.1)


def test_the_loss_is_of_what_the_states_tell(make_coordinated):
    """Other noise in the first channels' means changes it, where the UNet is given the same noised latents."""
    painter = make_coordinated("--pose_noise").painter
    seen = []
    painter.unet.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    draws = painter.draw(painter.latents.ids[:4], torch.Generator().manual_seed(0))
    painter.loss(draws, slice(0, 4))
    assert torch.allclose(seen[0], tell_pose(painter.text.all_states[draws.captions].float(), draws.noise), atol=1e-5)


def test_validation_is_along_the_axes_of_training(make_coordinated):
    trained = make_coordinated("--pose_noise")
    poses = trained.painter.poses
    assert len(poses) == 2 and not poses[id(trained.painter.validation_latents)].isnan().any()
    assert trained.painter.validate(2) == trained.painter.validate(2) != make_coordinated().painter.validate(2)


def test_the_header_says_so_and_what_goes_on_must_too(flags, make_coordinated, reads_pose, tmp_path):
    main(flags(tmp_path / "run", "--pose_noise"))
    with safe_open(tmp_path / "run" / "tiny.safetensors", framework="pt") as file:
        assert file.metadata()["pose_noise"] == "True"
    assert Adapter.load(tmp_path / "run" / "tiny.safetensors").reads_pose
    with pytest.raises(ValueError, match="`pose_noise` is off, but the adapter .*pose.safetensors' learnt with it"):
        make_coordinated("--init_lora", str(reads_pose))
    assert "pose_noise" not in make_coordinated().facts(1, {})
    with pytest.raises(ValueError, match="`pose_noise` is without `mirror`"):
        replace(make_coordinated("--pose_noise").config, mirror=True)
    with pytest.raises(ValueError, match="`pose_noise` is without `noise_offset`"):
        replace(make_coordinated("--pose_noise").config, noise_offset=0.1)


def test_both_scores_see_noise_of_the_pose_that_they_are_told(make_coordinated, reads_pose):
    trained = make_coordinated(*GAN, "--pose_noise", "--init_lora", str(reads_pose))
    painter = trained.painter
    batch = painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    term = painter.objective.terms["dmd"]
    noise, _ = term._draw(batch, batch.latents, 0, 1000)
    assert torch.allclose(pose_numbers(noise), pose_numbers(batch.noise), atol=1e-4)
    assert not torch.allclose(noise[:, 2:], batch.noise[:, 2:], atol=0.1)
    empty = painter.empty_states(batch.noise)
    assert torch.allclose(empty, tell_pose(painter.text.all_states[-1:].float().expand(8, -1, -1), batch.noise))
    latents = batch.latents.clone().requires_grad_()
    term(Found(batch, latents, torch.ones(8), painter.decode, 8)).backward()
    assert latents.grad.abs().sum() > 0
    assert trained.facts(1, {}).items() >= {"pose_noise": True, "num_inference_steps": 2}.items()
