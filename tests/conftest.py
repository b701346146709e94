"""A model of tiny random networks of the real classes: 16 px pictures, painted in milliseconds."""

import pytest
import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, UNet2DConditionModel
from huggingface_hub import constants
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)

from hub_server import HubServer
from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.captioner import SPECIAL_TOKENS
from studio.page import OPENINGS
from studio.words import WORD
from train.adapter import adapter_header, add_lora, lora_parameters
from train.base import NOISE_CONFIG, train_tokenizers
from train.captioner import Example, captioner_loss


CAST, PLACES = ("Gus", "Mabel", "Otto"), ("kitchen", "yard")
RANK, ALPHA = 4, 32.0


@pytest.fixture(scope="session")
def make_vae():
    """`tiny_vae` itself, for other weights."""
    return tiny_vae


def tiny_vae(seed: int, scaling_factor: float = 0.5) -> AutoencoderDC:
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
            scaling_factor=scaling_factor,
        ).eval()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, make_vae):
    """The folder of a base, laid out as `train.base export` does."""
    folder = tmp_path_factory.mktemp("tiny_base") / "model"
    captions = [f"{name} is in the {place}. He is talking." for name in CAST for place in PLACES]
    tokenizer, captioner_tokenizer = train_tokenizers(captions, folder.parent)
    captioner_tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    vae = make_vae(0, scaling_factor=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text_encoder = CLIPTextModel(
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
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=16,
            norm_num_groups=8,
        )
        captioner = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(captioner_tokenizer),
                n_positions=256,
                n_embd=32,
                n_layer=1,
                n_head=2,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=captioner_tokenizer.eos_token_id,
                eos_token_id=captioner_tokenizer.eos_token_id,
                pad_token_id=captioner_tokenizer.eos_token_id,
            )
        )
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=1e-2)
    examples = [Example([], caption, "") for caption in captions] + [Example(captions[:1], captions[1], "")] * 3
    for _ in range(60):  # until it ends its sentences, and knows what follows the first caption
        optimizer.zero_grad()
        captioner_loss(captioner, captioner_tokenizer, examples).backward()
        optimizer.step()
    for name, module in {"vae": vae, "text_encoder": text_encoder, "unet": unet, "captioner": captioner}.items():
        module.half().save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "tokenizer")
    captioner_tokenizer.save_pretrained(folder / "captioner_tokenizer")
    DPMSolverMultistepScheduler(
        **NOISE_CONFIG, algorithm_type="dpmsolver++", timestep_spacing="trailing"
    ).save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base):
    """An adapter file for `tiny_base`, as `train.saganets` writes them; neither A nor B is zero."""
    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32)
    config = add_lora(unet, RANK, ALPHA, seed=0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lora_parameters(unet):
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=draw))
    state = {f"unet.{name}": value.contiguous() for name, value in get_peft_model_state_dict(unet).items()}
    path = tiny_base.parent / "tiny.safetensors"
    save_file(state, path, metadata=adapter_header(config, {"base_model": "tiny"}))
    return path


@pytest.fixture(scope="session")
def tiny_pipe(tiny_base, tiny_adapter):
    """A whole pipeline over `tiny_base` with `tiny_adapter`."""
    pipe = SAGANetsPipeline(
        vae=AutoencoderDC.from_pretrained(tiny_base / "vae", torch_dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(tiny_base / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(tiny_base / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(tiny_base / "scheduler"),
        captioner=GPT2LMHeadModel.from_pretrained(tiny_base / "captioner", dtype=torch.float32),
        captioner_tokenizer=GPT2Tokenizer.from_pretrained(tiny_base / "captioner_tokenizer"),
        default_num_inference_steps=3,
        cast=list(CAST),
        places=list(PLACES),
        vocabulary=sorted({word.lower() for opening in OPENINGS for word in WORD.findall(opening)}),
    )
    pipe.load_adapter(tiny_adapter)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipe, tiny_base):
    """`tiny_pipe` saved."""
    tiny_pipe.save_pretrained(tiny_base.parent / "pipeline")
    return tiny_base.parent / "pipeline"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub on loopback, and this process a client of it with an empty cache; no waiting before a request is tried
    again."""
    with HubServer() as server:
        settings = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        yield server
