"""Adapters whose header says in how many steps they paint."""

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sagan_pipeline.few_steps import trailing_timesteps
from sagan_pipeline.lora import Adapter
from train.objectives.diffusion import kept_signal


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard."]
GAN = {"objective": "gan", "num_inference_steps": "2", "guidance_scale": "1.0"}


@pytest.fixture
def pipe(tiny_pipe):
    """A pipeline of its own over the same modules."""
    return copy.copy(tiny_pipe)


@pytest.fixture
def with_header(tiny_adapter, tmp_path):
    """A function that writes `tiny_adapter` anew with more facts in its header."""

    def write(**facts: str):
        with safe_open(tiny_adapter, framework="pt") as file:
            header = file.metadata()
        save_file(load_file(tiny_adapter), tmp_path / "few.safetensors", metadata={**header, **facts})
        return tmp_path / "few.safetensors"

    return write


def paint(pipe, **arguments):
    generator = torch.Generator().manual_seed(7)
    return pipe.paint(CAPTIONS, generator=generator, output_type="latent", **arguments).stories[0].frames


def made_with(frames) -> set[tuple]:
    return {(frame.num_inference_steps, frame.guidance_scale) for frame in frames}


def test_the_steps_of_the_header_are_taken_and_may_be_overruled(pipe, with_header):
    pipe.load_adapter(with_header(**GAN))
    assert made_with(paint(pipe)) == {(2, 1.0)}
    assert made_with(paint(pipe, num_inference_steps=4, guidance_scale=3)) == {(4, 3.0)}
    with pytest.raises(ValueError, match="`num_inference_steps` is 0"):
        paint(pipe, num_inference_steps=0)
    assert made_with(paint(pipe, lora_alpha=0)) == {(3, 5.0)}  # the base in the model's own defaults
    story = pipe(CAPTIONS, lora_alpha=[0, 32], generator=torch.Generator().manual_seed(7), output_type="latent")
    assert [made_with(each.frames) for each in story.stories] == [{(3, 5.0)}, {(2, 1.0)}]


def test_the_base_paints_as_without_such_an_adapter(pipe, tiny_pipe, with_header):
    pipe.load_adapter(with_header(**GAN))
    ours, plain = paint(pipe, lora_alpha=0), paint(tiny_pipe, lora_alpha=0)
    assert all(torch.equal(a.image, b.image) for a, b in zip(ours, plain, strict=True))


def test_a_generator_noises_its_pictures_again(pipe, with_header):
    """By hand: predict, add fresh noise, predict."""
    pipe.load_adapter(with_header(**GAN))
    frames = paint(pipe)
    unet = pipe._adapted_unets().under(pipe.unet, 32.0)
    states = pipe.encode_prompt(CAPTIONS).detach()
    generators = [torch.Generator().manual_seed(frame.seed) for frame in frames]
    noise, again = (torch.cat([torch.randn((1, 4, 8, 8), generator=g) for g in generators]) for _ in range(2))
    first, second = trailing_timesteps(1000, 2)
    ours = noise
    with torch.no_grad():
        for t, fresh in ((first, None), (second, again)):
            keep = kept_signal(pipe.scheduler, torch.tensor([t]))
            noisy = ours if fresh is None else keep.sqrt() * ours + (1 - keep).sqrt() * fresh
            ours = keep.sqrt() * noisy - (1 - keep).sqrt() * unet(noisy, t, states).sample
    assert torch.allclose(torch.stack([frame.image for frame in frames]), ours, atol=1e-3)


def test_other_objectives_keep_the_models_solver(pipe, tiny_pipe, with_header):
    pipe.load_adapter(with_header(objective="temporal", num_inference_steps="2"))
    ours, plain = paint(pipe), paint(tiny_pipe, num_inference_steps=2)
    assert made_with(ours) == {(2, 5.0)}
    assert all(torch.equal(a.image, b.image) for a, b in zip(ours, plain, strict=True))


def test_the_facts_survive_saving(pipe, with_header, tmp_path):
    pipe.load_adapter(with_header(**GAN))
    pipe.save_pretrained(tmp_path / "saved")
    again = type(pipe).from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    assert again._adapted_unets().adapter.header["objective"] == "gan"
    ours, theirs = paint(pipe), paint(again)
    assert made_with(theirs) == {(2, 1.0)}
    assert all(torch.equal(a.image, b.image) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "facts",
    [
        {"num_inference_steps": "many"},
        {"num_inference_steps": "0"},
        {"num_inference_steps": "2.5"},
        {"num_inference_steps": "100000"},
        {"guidance_scale": "-1"},
        {"guidance_scale": "nan"},
    ],
)
def test_a_header_that_cannot_be_is_refused(with_header, facts):
    (name,) = facts
    with pytest.raises(ValueError, match=f"`{name}` in the header"):
        Adapter.load(with_header(**facts))
