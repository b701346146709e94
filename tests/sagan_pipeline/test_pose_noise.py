import pytest
import torch
from safetensors.torch import load_file, save_file

from sagan_pipeline.lora import Adapter
from sagan_pipeline.pose_noise import POSE_NUMBERS, pose_numbers, tell_pose


CAPTIONS = ["Gus is in the kitchen.", "Otto is in the yard."]


def noises(count: int) -> torch.Tensor:
    return torch.randn((count, 4, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def reads_pose(tiny_adapter, tmp_path_factory):
    """`tiny_adapter`, whose header says that it learnt with the pose among its text states."""
    path = tmp_path_factory.mktemp("pose") / "pose.safetensors"
    header = Adapter.load(tiny_adapter).header
    save_file(load_file(tiny_adapter), path, metadata={**header, "pose_noise": "True"})
    return path


def painted(pipe, **arguments):
    result = pipe.paint(CAPTIONS, generator=torch.Generator().manual_seed(3), output_type="latent", **arguments)
    return torch.stack([frame.image for frame in result.stories[0].frames])


def test_plain_noise_chooses_standard_normal_poses():
    numbers = pose_numbers(noises(4000))
    assert numbers.shape == (4000, POSE_NUMBERS)
    assert numbers.mean(dim=0).abs().max() < 0.06 and (numbers.std(dim=0) - 1).abs().max() < 0.05
    assert torch.corrcoef(numbers.T)[0, 1].abs() < 0.05


def test_states_tell_each_number_along_a_direction_of_its_own():
    noise, states = noises(3), torch.randn((3, 5, 16), generator=torch.Generator().manual_seed(1))
    told = tell_pose(states, noise)
    assert torch.allclose(told - states, (told - states)[:, :1].expand_as(states), atol=1e-6)  # all tokens alike
    place, turned = noise.clone(), noise.clone()
    place[:, 1] += 0.25  # 0.25 * 8: two deviations of its mean
    turned[:, 0] = -turned[:, 0]
    along = [(tell_pose(states, other) - told)[:, 0] for other in (turned, place)]
    along[0] = along[0] * -pose_numbers(noise)[:, :1].sign()
    for each in along:  # whatever else the noise is
        assert torch.allclose(each, each[:1].expand(3, -1), atol=1e-5)
        assert (each.square().mean().sqrt() - 1).abs() < 0.01
    assert (along[0] * along[1]).sum(dim=1).abs().max() < 1e-4
    noise[:, 0] *= 3  # no more to the same side than it was
    noise[:, POSE_NUMBERS:] += 1
    assert torch.equal(told, tell_pose(states, noise))
    assert tell_pose(states.half(), noise).dtype == torch.float16


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_an_adapter_that_reads_poses_is_told_them(tiny_pipe, tiny_adapter, reads_pose, guidance_scale):
    plain = painted(tiny_pipe, guidance_scale=guidance_scale)
    base = painted(tiny_pipe, guidance_scale=guidance_scale, lora_alpha=0)
    try:
        tiny_pipe.load_adapter(reads_pose)
        told = painted(tiny_pipe, guidance_scale=guidance_scale)
        again = painted(tiny_pipe, guidance_scale=guidance_scale)
        told_base = painted(tiny_pipe, guidance_scale=guidance_scale, lora_alpha=0)
    finally:
        tiny_pipe.load_adapter(tiny_adapter)
    assert torch.equal(told, again) and not torch.allclose(told, plain, atol=1e-3)
    assert torch.equal(base, told_base)  # which learnt nothing of poses
