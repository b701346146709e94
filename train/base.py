"""The embedded base from nothing: tokenizers, autoencoder, CLIP pair, UNet and GPT-2, each stage resumable.

    python -m train.base vae        --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base clip       --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base unet       --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base decoder    --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base captioner  --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base export     --town DATA/town --gulch DATA/gulch --out runs/base

With `--init sagan_pipeline/embedded` a stage goes on from the parts of that model instead of from nothing.

`town` is generic town, the only world that the UNet and the base GPT-2 see; `gulch` is the show with its cast, which
the autoencoder and the CLIP pair see as well, as Stable Diffusion's autoencoder and OpenAI's CLIP had seen cartoons.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torchmetrics.functional.image import peak_signal_noise_ratio
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)

from sagan_pipeline.captioner import SPECIAL_TOKENS
from train.captioner import StoryCaptions, captioner_loss
from train.data.cache import LatentCache, TextCache
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.script import told
from train.data.rarity import clip_weights
from train.loop import Run
from train.net2net import widened
from train.objectives.diffusion import diffusion_loss, draw_noise
from train.painter import paint_samples, picture_grid, to_pictures


MAX_TOKENS = 48  # of a caption for the text encoder; the longest caption of either world fits
STAGES = ("vae", "clip", "unet", "decoder", "captioner", "export")
VAE_CONFIG = {
    "latent_channels": 16,
    "encoder_block_out_channels": (32, 32, 64, 128, 256),
    "decoder_block_out_channels": (32, 32, 64, 128, 256),
    "encoder_layers_per_block": (0, 1, 1, 1, 2),
    "decoder_layers_per_block": (0, 1, 1, 1, 2),
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_qkv_multiscales": ((), (), (), (), ()),
    "decoder_qkv_multiscales": ((), (), (), (), ()),
    "upsample_block_type": "interpolate",
    "downsample_block_type": "pixel_unshuffle",
}
UNET_CONFIG = {
    "sample_size": 16,
    "in_channels": 16,
    "out_channels": 16,
    "layers_per_block": 1,
    "block_out_channels": (128, 128, 192),  # faces are a matter of the finest level
    # attention is dearest there: on the way up alone
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,  # heads in every block, as in Stable Diffusion 1.5
    "cross_attention_dim": 192,
    "norm_num_groups": 32,
}
NOISE_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """A CLIP pair at small scale; the token ids are the tokenizer's own."""
    return CLIPConfig(
        projection_dim=128,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 576,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "image_size": 64,
            "patch_size": 8,
            "hidden_size": 192,
            "intermediate_size": 576,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
    )


def train_tokenizers(captions: list[str], out: Path) -> tuple[CLIPTokenizer, GPT2Tokenizer]:
    """Byte-pair tokenizers of CLIP's and GPT-2's own kinds, learnt from captions; loaded instead where they exist."""
    clip_folder, gpt2_folder = out / "tokenizer", out / "captioner_tokenizer"
    if not (clip_folder / "tokenizer_config.json").exists():
        specials = ["<|startoftext|>", "<|endoftext|>"]
        template = CLIPTokenizer().backend_tokenizer
        bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
        bpe.normalizer, bpe.pre_tokenizer = template.normalizer, template.pre_tokenizer
        bpe.train_from_iterator(
            captions,
            trainers.BpeTrainer(
                vocab_size=2048,
                special_tokens=specials,
                end_of_word_suffix="</w>",
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        vocab, merges = vocabulary(bpe)
        for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):  # any word of any script has tokens
            vocab.setdefault(letter + "</w>", len(vocab))
        CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS).save_pretrained(clip_folder)
    if not (gpt2_folder / "tokenizer_config.json").exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        bpe.train_from_iterator(
            captions,
            trainers.BpeTrainer(
                vocab_size=2048,
                special_tokens=["<|endoftext|>"],
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        vocab, merges = vocabulary(bpe)
        GPT2Tokenizer(vocab=vocab, merges=merges, model_max_length=512).save_pretrained(gpt2_folder)
    return CLIPTokenizer.from_pretrained(clip_folder), GPT2Tokenizer.from_pretrained(gpt2_folder)


def vocabulary(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a trained byte-pair tokenizer."""
    state = json.loads(tokenizer.to_str())["model"]
    return state["vocab"], [tuple(pair) for pair in state["merges"]]


class Pictures:
    """Frames of several releases, drawn at random; memory-mapped, so that nothing is held.

    Args:
        releases (`list[FlintstonesRelease]`): read from their training split.
    """

    def __init__(self, releases: list[FlintstonesRelease]):
        self.clips = [(release, id) for release in releases for id in release.splits["train"]]

    def frame(self, index: int, generator: torch.Generator) -> np.ndarray:
        """A random frame of clip `index`: uint8 (H, W, 3)."""
        release, id = self.clips[index]
        frames = release.frames(id)
        return frames[int(torch.randint(len(frames), (1,), generator=generator))]

    def caption(self, index: int) -> str:
        release, id = self.clips[index]
        return release.clip(id).caption

    def crops(self, batch: int, size: int, generator: torch.Generator) -> torch.Tensor:
        """(batch, 3, size, size) float32 in [-1, 1]: random crops of random frames, half of them mirrored."""
        crops = np.empty((batch, size, size, 3), dtype=np.uint8)
        for i, index in enumerate(torch.randint(len(self.clips), (batch,), generator=generator).tolist()):
            frame = self.frame(index, generator)
            top = int(torch.randint(frame.shape[0] - size + 1, (1,), generator=generator))
            left = int(torch.randint(frame.shape[1] - size + 1, (1,), generator=generator))
            crop = frame[top : top + size, left : left + size]
            crops[i] = crop[:, ::-1] if torch.rand((), generator=generator) < 0.5 else crop
        return to_tensor(crops)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors in [-1, 1]."""
    return float(peak_signal_noise_ratio(a, b, data_range=2.0))


def train_vae(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """AutoencoderDC on 128 px crops: L1 + half of the gradients' difference, a little noise on the latents."""
    torch.manual_seed(args.seed)
    first = args.init is None
    vae = AutoencoderDC(**VAE_CONFIG) if first else AutoencoderDC.from_pretrained(args.init / "vae").float().train()
    vae = vae.to(memory_format=torch.channels_last)  # 1.3 times faster on a CPU
    rate = 1e-3 if first else 5e-4
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed)
    run = Run(args.out / "vae", {"vae": vae}, optimizer, args.steps or 8300, generator, sample_steps=1500)
    pictures = Pictures([town, gulch])

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        x = pictures.crops(8, 128, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            z = vae.encode(x).latent.float()
            noise = torch.randn(z.shape, generator=generator)
            spread = z.detach().std().clamp(min=1e-3)
            y = vae.decode(z + 0.05 * spread * noise).sample.float()
        losses = reconstruction_loss(y, x)
        # a sampler starts from noise of mean 0: keep the channels' means there
        centre = z.mean(dim=(0, 2, 3)).square().mean() / spread.square()
        return {**losses, "loss": losses["loss"] + 0.01 * centre}

    sample = reconstructions(vae, town, gulch, args.out / "vae")
    run.train(loss_of_step, sample, description="autoencoder", max_seconds=args.max_seconds)


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """L1 and half of the L1 between gradients, of pictures (B, 3, H, W)."""

    def gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]

    l1 = torch.nn.functional.l1_loss(y, x)
    edges = sum(torch.nn.functional.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x), strict=True))
    return {"loss": l1 + 0.5 * edges, "l1": l1, "edges": edges}


def reconstructions(vae: AutoencoderDC, town: FlintstonesRelease, gulch: FlintstonesRelease, folder: Path):
    """A function of the step that writes test frames above their reconstructions, and their PSNR."""
    held_out = [release.frames(id)[2] for release in (gulch, town) for id in release.splits["test"][:40:10]]
    held_out = to_tensor(np.stack(held_out))

    @torch.no_grad()
    def sample(step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(vae.encode(held_out).latent).sample.float().clamp(-1, 1)
        rows = to_pictures(torch.cat([held_out, y]))
        picture_grid(rows, columns=len(held_out)).save(folder / "samples" / f"{step:06d}.png")
        with open(folder / "psnr.jsonl", "a") as log:
            log.write(json.dumps({"step": step, "psnr_db": round(psnr(y, held_out), 3)}) + "\n")

    return sample


def outdated(folder: Path, checkpoint: Path) -> bool:
    """Whether `folder` does not hold what `checkpoint` does."""
    return not folder.exists() or folder.stat().st_mtime < checkpoint.stat().st_mtime


def save_whole(folder: Path, *parts: torch.nn.Module | CLIPTokenizer) -> None:
    """`save_pretrained` of each, written aside and renamed, so that a kill leaves no half folder."""
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    for part in parts:
        part.save_pretrained(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def load_vae(args: argparse.Namespace, releases: list[FlintstonesRelease]) -> AutoencoderDC:
    """The trained autoencoder with its `scaling_factor` (1 / deviation of the latents), written once as a folder."""
    folder, checkpoint = args.out / "vae" / "model", args.out / "vae" / "checkpoint.pt"
    if args.init is not None and not checkpoint.exists():
        return AutoencoderDC.from_pretrained(args.init / "vae").float().eval().requires_grad_(False)
    if outdated(folder, checkpoint):
        vae = AutoencoderDC(**VAE_CONFIG)
        vae.load_state_dict(torch.load(checkpoint, weights_only=True)["modules"]["vae"])
        generator = torch.Generator().manual_seed(args.seed)
        with torch.no_grad():
            z = vae.encode(Pictures(releases).crops(64, 256, generator)).latent
        vae.register_to_config(scaling_factor=round(1 / float(z.std()), 5))
        save_whole(folder, vae)
    return AutoencoderDC.from_pretrained(folder).eval().requires_grad_(False)


def train_decoder(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """The decoder alone goes on learning, on latents roughened as a sampler's are. The encoder, and with it every
    latent, stays as it is, so that the UNet and its adapters stay good."""
    vae = load_vae(args, [town, gulch]).to(memory_format=torch.channels_last)
    decoder = vae.decoder.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-4, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(args.seed + 1)
    steps = args.steps or 6000
    run = Run(args.out / "decoder", {"decoder": decoder}, optimizer, steps, generator, sample_steps=1000)
    pictures = Pictures([town, gulch])

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        x = pictures.crops(8, 128, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                z = vae.encode(x).latent.float()
            rough = 0.15 * torch.rand((len(x), 1, 1, 1), generator=generator) / vae.config.scaling_factor
            y = vae.decode(z + rough * torch.randn(z.shape, generator=generator)).sample.float()
        return reconstruction_loss(y, x)

    sample = reconstructions(vae, town, gulch, args.out / "decoder")
    run.train(loss_of_step, sample, description="decoder", max_seconds=args.max_seconds)


def train_clip(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """The CLIP pair, contrastively, on captions and frames of both worlds."""
    pictures = Pictures([town, gulch])
    captions = [pictures.caption(index) for index in range(len(pictures.clips))]
    tokenizer, _ = train_tokenizers(captions, args.out)
    torch.manual_seed(args.seed)
    clip = CLIPModel(clip_config(tokenizer))
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    generator = torch.Generator().manual_seed(args.seed)
    run = Run(args.out / "clip", {"clip": clip}, optimizer, args.steps or 550, generator, sample_steps=500)
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    tokens = tokens[:, : int((tokens != tokenizer.pad_token_id).sum(dim=1).max()) + 1]
    batch = 128

    def batch_of(indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        frames = to_tensor(np.stack([pictures.frame(index, generator) for index in indices]))
        mirrored = torch.rand(len(indices), generator=generator) < 0.5
        frames = torch.where(mirrored[:, None, None, None], frames.flip(-1), frames)
        return torch.nn.functional.interpolate(frames, size=(64, 64), mode="area"), tokens[indices]

    def contrast(pixel_values: torch.Tensor, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            logits = clip(input_ids=input_ids, pixel_values=pixel_values).logits_per_text.float()
        target = torch.arange(len(logits))
        loss = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        return loss / 2, (logits.argmax(dim=1) == target).float().mean()

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        indices = torch.randperm(len(pictures.clips), generator=generator)[:batch].tolist()
        loss, accuracy = contrast(*batch_of(indices))
        return {"loss": loss, "accuracy": accuracy}

    def sample(step: int) -> None:
        held_out = [(release, id) for release in (town, gulch) for id in release.splits["test"][:64]]
        frames = to_tensor(np.stack([release.frames(id)[2] for release, id in held_out]))
        frames = torch.nn.functional.interpolate(frames, size=(64, 64), mode="area")
        texts = [release.clip(id).caption for release, id in held_out]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            loss, accuracy = contrast(frames, ids)
        with open(args.out / "clip" / "held_out.jsonl", "a") as log:
            log.write(json.dumps({"step": step, "loss": float(loss), "accuracy": float(accuracy)}) + "\n")

    run.train(loss_of_step, sample, description="clip", max_seconds=args.max_seconds)
    load_clip(args)


def load_clip(args: argparse.Namespace) -> CLIPModel:
    """The trained pair, written once as a folder, with its tokenizer."""
    folder = args.out / "clip" / "model"
    if outdated(folder, args.out / "clip" / "checkpoint.pt"):
        tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
        clip = CLIPModel(clip_config(tokenizer))
        clip.load_state_dict(torch.load(args.out / "clip" / "checkpoint.pt", weights_only=True)["modules"]["clip"])
        save_whole(folder, clip, tokenizer)
    return CLIPModel.from_pretrained(folder).eval().requires_grad_(False)


def first_text_encoder(args: argparse.Namespace) -> CLIPTextModel:
    """The text encoder that the UNet starts with: the trained pair's, or that of the model to go on from."""
    if args.init is not None and not (args.out / "clip" / "checkpoint.pt").exists():
        return CLIPTextModel.from_pretrained(args.init / "text_encoder", dtype=torch.float32)
    return text_encoder_of(load_clip(args))


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """The text tower alone, as the stock class that the pipeline uses."""
    text_encoder = CLIPTextModel(clip.config.text_config)
    own = text_encoder.state_dict()
    towers = {name.removeprefix("text_model."): value for name, value in clip.text_model.state_dict().items()}
    text_encoder.load_state_dict({name: towers[name.removeprefix("text_model.")] for name in own})
    return text_encoder.eval().requires_grad_(False)


def first_unet(args: argparse.Namespace) -> UNet2DConditionModel:
    """A new UNet, or `--init`'s, widened where this one is wider."""
    unet = UNet2DConditionModel(**UNET_CONFIG)
    if args.init is not None:
        trained = UNet2DConditionModel.from_pretrained(args.init / "unet", torch_dtype=torch.float32)
        unet.load_state_dict(widened(trained, unet, torch.Generator().manual_seed(args.seed)))
    return unet


def train_unet(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """The base UNet: velocity prediction on cached latents of generic town only, the text encoder learning along.

    A contrastive loss reaches the text encoder through its last token alone; trained along, the other tokens' states
    learn to say whose hair and whose dress they mean. The names of the cast occur in no caption of the town.
    """
    vae, text_encoder = load_vae(args, [town, gulch]), first_text_encoder(args)
    tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    latents = LatentCache.build(vae, town, town.splits["train"], args.out / "cache")
    clips = [town.clip(id) for id in latents.ids]
    captions = [clip.caption for clip in clips]
    weights = clip_weights([clip.characters for clip in clips], map(told, captions), args.rare, args.rare_told)
    weights = torch.tensor(weights, dtype=torch.float32)
    tokens = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    torch.manual_seed(args.seed)
    unet = first_unet(args).train()
    unet.set_attn_processor(AttnProcessor())  # 1.4 times faster to train on a CPU than the fused kernel's backward
    text_encoder.train().requires_grad_(True)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    ema = EMAModel(parameters, decay=0.9995, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(unet.parameters()), "weight_decay": 0.01},
            # no decay: it would wear away the names, whose embeddings get no gradient here
            {"params": list(text_encoder.parameters()), "lr": args.learning_rate / 4, "weight_decay": 0.0},
        ],
        lr=args.learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    generator = torch.Generator().manual_seed(args.seed)
    noise_scheduler = DDPMScheduler(**NOISE_CONFIG)
    folder = args.out / "unet"
    modules = {"unet": unet, "text_encoder": text_encoder}
    run = Run(folder, modules, optimizer, args.steps or 40000, generator, extra_state={"ema": ema})
    shown = [town.clip(id).caption for id in town.splits["test"][:32:4]]
    predict = torch.compile(unet) if args.compile else unet

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        index = torch.multinomial(weights, args.batch_size, generator=generator)
        z = latents.take(index, generator)
        dropped = torch.rand(index.shape, generator=generator) < 0.1
        with torch.autocast("cpu", torch.bfloat16):
            states = text_encoder(tokens[torch.where(dropped, len(captions), index)])[0]
            noise, timesteps = draw_noise(noise_scheduler, z.shape, generator, power=args.timestep_power)
            # no min-SNR weighting: it all but leaves out the noisy timesteps, where the text is all there is
            return {"loss": diffusion_loss(predict, noise_scheduler, z, states, noise, timesteps)}

    def sample(step: int) -> None:
        ema.store(parameters)
        ema.copy_to(parameters)
        samples = TextCache.build(text_encoder, tokenizer, shown)
        pictures = paint_samples(unet, vae, samples, noise_scheduler, seed=args.seed)
        ema.restore(parameters)
        picture_grid(pictures, columns=4).save(folder / "samples" / f"{step:06d}.png")
        (folder / "samples" / "captions.txt").write_text("\n".join(shown) + "\n")

    run.train(loss_of_step, sample, lambda: ema.step(parameters), description="unet", max_seconds=args.max_seconds)


def captioner_config(tokenizer: GPT2Tokenizer) -> GPT2Config:
    """GPT-2 at small scale (2.3 M parameters with a vocabulary of 2,048)."""
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=512,
        n_embd=192,
        n_layer=4,
        n_head=4,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def train_captioner(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """GPT-2 from nothing on the stories of generic town: the language, not yet the cast."""
    captions = [release.clip(id).caption for release in (town, gulch) for id in release.splits["train"]]
    _, tokenizer = train_tokenizers(captions, args.out)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.save_pretrained(args.out / "captioner" / "tokenizer")
    torch.manual_seed(args.seed)
    captioner = GPT2LMHeadModel(captioner_config(tokenizer))
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    generator = torch.Generator().manual_seed(args.seed)
    run = Run(args.out / "captioner", {"captioner": captioner}, optimizer, args.steps or 1600, generator)
    stories = StoryCaptions(town, "train")

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(args.seed * 1_000_003 + step)  # dropout draws from the global RNG: same after a resume
        with torch.autocast("cpu", torch.bfloat16):
            return {"loss": captioner_loss(captioner, tokenizer, stories.examples(32, generator))}

    run.train(loss_of_step, description="captioner", max_seconds=args.max_seconds)
    captioner.save_pretrained(args.out / "captioner" / "model")


def export(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """Write what is trained as component folders (fp16 safetensors), in the layout that the pipeline loads."""
    vae, text_encoder = load_vae(args, [town, gulch]), first_text_encoder(args)
    tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    unet = UNet2DConditionModel(**UNET_CONFIG)
    state = torch.load(args.out / "unet" / "checkpoint.pt", weights_only=True)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    ema = EMAModel(parameters)
    ema.load_state_dict(state["extra"]["ema"])
    ema.copy_to(parameters)
    tuned = args.out / "decoder" / "checkpoint.pt"
    if tuned.exists():
        vae.decoder.load_state_dict(torch.load(tuned, weights_only=True)["modules"]["decoder"])
    model = args.out / "model"
    vae.half().save_pretrained(model / "vae")
    text_encoder.half().save_pretrained(model / "text_encoder")
    if (args.out / "clip" / "checkpoint.pt").exists():
        load_clip(args).half().save_pretrained(model / "clip")
    unet.half().save_pretrained(model / "unet")
    tokenizer.save_pretrained(model / "tokenizer")
    DPMSolverMultistepScheduler(
        **NOISE_CONFIG, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    ).save_pretrained(model / "scheduler")
    captioner = args.out / "captioner" / "model"
    if captioner.exists():
        GPT2LMHeadModel.from_pretrained(captioner).half().save_pretrained(model / "captioner")
        GPT2Tokenizer.from_pretrained(args.out / "captioner" / "tokenizer").save_pretrained(
            model / "captioner_tokenizer"
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--town", type=Path, required=True, help="release of generic town")
    parser.add_argument("--gulch", type=Path, required=True, help="release of the show")
    parser.add_argument("--out", type=Path, default=Path("runs/base"), help="folder of checkpoints, logs and samples")
    parser.add_argument("--init", type=Path, default=None, help="model to go on from where OUT has no part of its own")
    parser.add_argument("--steps", type=int, default=None, help="length of the schedule; default: the stage's own")
    parser.add_argument("--batch_size", type=int, default=24, help="pictures a step (unet)")
    parser.add_argument("--learning_rate", type=float, default=8e-4, help="peak rate (unet)")
    parser.add_argument(
        "--timestep_power",
        type=float,
        default=1.0,
        help="timesteps are drawn with the density of t^(power - 1): above 1 noisy ones oftener (unet)",
    )
    parser.add_argument(
        "--rare",
        type=float,
        default=1.0,
        help="clips are drawn by how rare their rarest kind of person is, to this power; 0: as they come (unet)",
    )
    parser.add_argument(
        "--rare_told",
        type=float,
        default=0.75,
        help="and by how rare the rarest action, mood or thing of their captions is, to this power (unet)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the UNet: 1.2 times faster after 3 minutes (needs a C++ compiler)",
    )
    parser.add_argument("--max_seconds", type=float, default=float("inf"), help="stop (resumable) after so long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.timestep_power <= 0:
        parser.error(f"argument --timestep_power: {args.timestep_power} must be above 0")
    for name in ("rare", "rare_told"):
        if getattr(args, name) < 0:
            parser.error(f"argument --{name}: {getattr(args, name)} must be 0 or above")
    for name in ("tokenizer", "captioner_tokenizer") if args.init is not None else ():
        if not (args.out / name).exists():
            shutil.copytree(args.init / name, args.out / name)
    town = FlintstonesRelease(args.town, pictures=args.stage != "captioner")  # that one reads captions alone
    gulch = FlintstonesRelease(args.gulch)
    stages = {
        "vae": train_vae,
        "clip": train_clip,
        "unet": train_unet,
        "decoder": train_decoder,
        "captioner": train_captioner,
        "export": export,
    }
    stages[args.stage](args, town, gulch)


if __name__ == "__main__":
    main()
