"""Pipelines over the tiny base, with an adapter strong enough that every alpha shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, DPMSolverMultistepScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer

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


@pytest.fixture(scope="session")
def checker() -> tuple[StableDiffusionSafetyChecker, CLIPImageProcessor]:
    """A safety checker of the real class that flags nothing, until its thresholds are lowered, and its eyes."""
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config=vision | {"image_size": 16, "patch_size": 8}, projection_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module = StableDiffusionSafetyChecker(config).eval()
        for embeddings in (module.concept_embeds, module.special_care_embeds):
            embeddings.data.normal_()
    for threshold in (module.concept_embeds_weights, module.special_care_embeds_weights):
        threshold.data.fill_(2.0)  # no cosine is as large
    size = {"height": 16, "width": 16}
    return module, CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)


@pytest.fixture(scope="session")
def base(tiny_base, checker, tmp_path_factory) -> Path:
    """The folder that a plain Stable Diffusion of the tiny networks is published as, its checker and all."""
    folder = tmp_path_factory.mktemp("base") / "sd"
    for part in ("vae", "text_encoder", "tokenizer", "unet"):
        shutil.copytree(tiny_base / part, folder / part)
    noise = DPMSolverMultistepScheduler.from_pretrained(tiny_base / "scheduler").config
    kinds = ("beta_start", "beta_end", "beta_schedule", "prediction_type")
    PNDMScheduler(**{kind: noise[kind] for kind in kinds}, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    checker[0].save_pretrained(folder / "safety_checker")
    checker[1].save_pretrained(folder / "feature_extractor")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderDC"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def captioner(tiny_base, tmp_path_factory) -> Path:
    """One folder of model and tokenizer, as `train.saganets` writes it."""
    folder = tmp_path_factory.mktemp("captioner")
    GPT2LMHeadModel.from_pretrained(tiny_base / "captioner").save_pretrained(folder)
    GPT2Tokenizer.from_pretrained(tiny_base / "captioner_tokenizer").save_pretrained(folder)
    return folder
