"""A tiny pipeline of the real classes with random weights, and an adapter that changes its pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, GPT2Config, GPT2LMHeadModel

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.captioner import SPECIAL_TOKENS
from train.base import train_tokenizers
from train.captioner import Example, captioner_loss
from train.saganets import adapter_header


CAPTIONS = [
    "Gus is in the kitchen.",
    "He is talking to Mabel.",
    "Mabel is laughing in the yard.",
    "Otto and Nell are driving in the car.",
]


def tiny_vae(kind: str) -> torch.nn.Module:
    torch.manual_seed(1)
    if kind == "kl":
        return AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        )
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
        scaling_factor=0.7,
    )


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    )


def write_adapter(path: Path, rank: int = 4, alpha: float = 32.0) -> Path:
    """An adapter of random matrices, written by the trainer's own means."""
    unet = tiny_unet()
    torch.manual_seed(3)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    unet.add_adapter(config)
    state = {f"unet.{name}": 0.1 * value for name, value in get_peft_model_state_dict(unet).items()}
    save_file(state, path, metadata=adapter_header(config, {"objective": "none"}))
    return path


@pytest.fixture(scope="session")
def adapter_path(tmp_path_factory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "tiny.safetensors")


@pytest.fixture(scope="session")
def language(tmp_path_factory):
    """Tokenizers, and a GPT-2 that has learnt a few captions well enough to end its sentences."""
    tokenizer, gpt2_tokenizer = train_tokenizers(CAPTIONS * 4, tmp_path_factory.mktemp("tokenizers"))
    gpt2_tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    torch.manual_seed(4)
    eos = gpt2_tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(gpt2_tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=eos,
        eos_token_id=eos, pad_token_id=eos,
    )  # fmt: skip
    captioner = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=1e-2)
    examples = [Example(CAPTIONS[:k], CAPTIONS[k], "") for k in range(4)] + [Example([], c, "") for c in CAPTIONS]
    for _ in range(60):
        optimizer.zero_grad()
        captioner_loss(captioner, gpt2_tokenizer, examples).backward()
        optimizer.step()
    return tokenizer, gpt2_tokenizer, captioner.eval()


def build(language, kind: str = "dc", adapter: Path | None = None) -> SAGANetsPipeline:
    tokenizer, gpt2_tokenizer, captioner = language
    torch.manual_seed(5)
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipe = SAGANetsPipeline(
        vae=tiny_vae(kind).eval(),
        text_encoder=CLIPTextModel(text_config).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet().eval(),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="scaled_linear"),
        captioner=captioner,
        captioner_tokenizer=gpt2_tokenizer,
        default_num_inference_steps=3,
        cast=["Gus", "Mabel", "Otto", "Nell"],
        places=["kitchen", "yard", "car"],
        vocabulary=sorted({word.strip(".").lower() for caption in CAPTIONS for word in caption.split()}),
    )
    if adapter is not None:
        pipe.load_adapter(adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def pipe(language, adapter_path) -> SAGANetsPipeline:
    return build(language, adapter=adapter_path)


@pytest.fixture
def build_pipe(language):
    """Builds a fresh one: `build_pipe(kind="dc", adapter=None)`."""
    return partial(build, language)


@pytest.fixture(params=["dc", "kl"])
def either_pipe(request, language, adapter_path) -> SAGANetsPipeline:
    """With each kind of autoencoder."""
    return build(language, request.param, adapter_path)
