"""Pipelines over the tiny base, with an adapter strong enough that every alpha shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline import SAGANetsPipeline
from train.adapter import LORA_TARGETS, adapter_header


@pytest.fixture(scope="session")
def adapter_path(tiny_base, tmp_path_factory) -> Path:
    """Random A and B, r = 4, trained alpha 32."""
    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=list(LORA_TARGETS), init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        unet.add_adapter(config)
    state = {f"unet.{name}": 0.1 * value for name, value in get_peft_model_state_dict(unet).items()}
    path = tmp_path_factory.mktemp("adapter") / "strong.safetensors"
    save_file(state, path, metadata=adapter_header(config, {"objective": "none"}))
    return path


@pytest.fixture(scope="session")
def language(tiny_base):
    """The captioner's tokenizer, and the captioner."""
    tokenizer = GPT2Tokenizer.from_pretrained(tiny_base / "captioner_tokenizer")
    return tokenizer, GPT2LMHeadModel.from_pretrained(tiny_base / "captioner", dtype=torch.float32)


@pytest.fixture(scope="session")
def build_pipe(tiny_base, language) -> Callable[..., SAGANetsPipeline]:
    """Builds a fresh pipeline: `build_pipe(kind="dc" or "kl", adapter=None)`."""

    def build(kind: str = "dc", adapter: Path | None = None) -> SAGANetsPipeline:
        if kind == "dc":
            vae = AutoencoderDC.from_pretrained(tiny_base / "vae", torch_dtype=torch.float32)
        else:
            with torch.random.fork_rng():
                torch.manual_seed(1)
                vae = AutoencoderKL(
                    block_out_channels=(8, 16),
                    down_block_types=("DownEncoderBlock2D",) * 2,
                    up_block_types=("UpDecoderBlock2D",) * 2,
                    latent_channels=4,
                    norm_num_groups=4,
                ).eval()
        pipe = SAGANetsPipeline(
            vae=vae,
            text_encoder=CLIPTextModel.from_pretrained(tiny_base / "text_encoder", dtype=torch.float32),
            tokenizer=CLIPTokenizer.from_pretrained(tiny_base / "tokenizer"),
            unet=UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32),
            scheduler=DPMSolverMultistepScheduler.from_pretrained(tiny_base / "scheduler"),
            captioner=language[1],
            captioner_tokenizer=language[0],
            default_num_inference_steps=3,
            cast=["Gus", "Mabel", "Otto"],
        )
        if adapter is not None:
            pipe.load_adapter(adapter)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture(scope="session")
def pipe(build_pipe, adapter_path) -> SAGANetsPipeline:
    return build_pipe(adapter=adapter_path)


@pytest.fixture(params=["dc", "kl"])
def either_pipe(request, build_pipe, adapter_path) -> SAGANetsPipeline:
    """With each kind of autoencoder."""
    return build_pipe(request.param, adapter_path)
