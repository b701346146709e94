"""A pipeline over a base in Stable Diffusion's own layout."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.loading import open_captioner
from train.base import train_tokenizers


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard."]


def latents(pipe, **arguments) -> torch.Tensor:
    out = pipe.paint(
        CAPTIONS, num_inference_steps=3, generator=torch.Generator().manual_seed(1), output_type="latent", **arguments
    )
    return torch.stack(out.images[0])


def test_paints_what_the_same_parts_paint(base, captioner, tiny_adapter, tiny_pipe):
    pipe = SAGANetsPipeline.from_base(base, captioner=captioner, lora=tiny_adapter, scheduler=tiny_pipe.scheduler)
    for alpha in (0, 10, 32):
        assert torch.equal(latents(pipe, lora_alpha=alpha), latents(tiny_pipe, lora_alpha=alpha))
    assert pipe.lora_rank == tiny_pipe.lora_rank and pipe.default_lora_alpha == 32
    prefix, seed = CAPTIONS[:1], torch.Generator().manual_seed(2)
    again = torch.Generator().manual_seed(2)
    told = pipe.write_captions(prefix, num_frames=3, generator=seed, temperature=0.5)
    assert told == tiny_pipe.write_captions(prefix, num_frames=3, generator=again, temperature=0.5)


def test_the_solver_is_a_fast_one_on_the_bases_own_noise(base, tiny_pipe):
    pipe = SAGANetsPipeline.from_base(base)
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    assert torch.equal(pipe.scheduler.alphas_cumprod, tiny_pipe.scheduler.alphas_cumprod)
    assert pipe.scheduler.config.prediction_type == "v_prediction"


def test_the_base_alone_paints_given_captions_and_writes_none(base):
    pipe = SAGANetsPipeline.from_base(base)
    assert latents(pipe).isfinite().all() and pipe.lora_rank == 0
    with pytest.raises(ValueError, match="no captioner"):
        pipe(CAPTIONS[:1], num_frames=2)


def test_the_dtype_is_the_painters(base, captioner):
    pipe = SAGANetsPipeline.from_base(base, captioner=captioner, dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16 and pipe.captioner.dtype == torch.float32


def test_a_captioner_that_never_read_stories_is_refused(base, captioner, tmp_path):
    shutil.copytree(captioner, tmp_path / "plain", ignore=shutil.ignore_patterns("*token*"))
    _, plain = train_tokenizers(CAPTIONS, tmp_path)
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"`captioner` .* does not know the token \[S_"):
        SAGANetsPipeline.from_base(base, captioner=tmp_path / "plain")


def test_an_adapter_for_another_base_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="`path`"):
        SAGANetsPipeline.from_base(base, lora=tmp_path / "none.safetensors")


def test_a_model_that_names_itself_or_half_a_model_as_its_base_is_refused(captioner, tmp_path):
    model, tokenizer = open_captioner(captioner)
    pipe = SAGANetsPipeline(captioner=model, captioner_tokenizer=tokenizer, base=str(tmp_path), base_revision="main")
    DiffusionPipeline.save_pretrained(pipe, tmp_path)
    with pytest.raises(ValueError, match="`base` .* has no unet"):
        SAGANetsPipeline.from_pretrained(tmp_path)
