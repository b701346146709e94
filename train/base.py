"""The embedded base from nothing: tokenizers, autoencoder, CLIP pair, UNet and GPT-2, each stage resumable.

    python -m train.base vae        --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base clip       --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base unet       --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base decoder    --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base captioner  --town DATA/town --gulch DATA/gulch --out runs/base
    python -m train.base export     --town DATA/town --gulch DATA/gulch --out runs/base

With `--init sagan_pipeline/embedded` a stage goes on from the parts of that model instead of from nothing.
`unet --device cuda` learns on a GPU, where larger batches (`--batch_size`) pay.

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
from train.autoencoder import Pictures, load_vae, outdated, save_whole, to_tensor, train_decoder, train_vae
from train.captioner import StoryCaptions, captioner_loss
from train.data.cache import LatentCache, TextCache
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.script import told
from train.data.rarity import clip_weights
from train.loop import Run
from train.net2net import widened
from train.objectives.diffusion import diffusion_loss, draw_noise
from train.painter import paint_samples, picture_grid


MAX_TOKENS = 48  # of a caption for the text encoder; the longest caption of either world fits
STAGES = ("vae", "clip", "unet", "decoder", "captioner", "export")
UNET_CONFIG = {
    "sample_size": 16,
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


def new_unet(vae: AutoencoderDC) -> UNet2DConditionModel:
    """A UNet for the latents of `vae`."""
    channels = vae.config.latent_channels
    return UNet2DConditionModel(in_channels=channels, out_channels=channels, **UNET_CONFIG)


def first_unet(args: argparse.Namespace, vae: AutoencoderDC) -> UNet2DConditionModel:
    """A new UNet, or `--init`'s, widened where this one is wider."""
    unet = new_unet(vae)
    if args.init is not None:
        trained = UNet2DConditionModel.from_pretrained(args.init / "unet", torch_dtype=torch.float32)
        unet.load_state_dict(widened(trained, unet, torch.Generator().manual_seed(args.seed)))
    return unet


def train_unet(args: argparse.Namespace, town: FlintstonesRelease, gulch: FlintstonesRelease) -> None:
    """The base UNet: velocity prediction on cached latents of generic town only, the text encoder learning along.

    A contrastive loss reaches the text encoder through its last token alone; trained along, the other tokens' states
    learn to say whose hair and whose dress they mean. The names of the cast occur in no caption of the town.
    """
    device = torch.device(args.device)
    vae, text_encoder = load_vae(args, [town, gulch]).to(device), first_text_encoder(args).to(device)
    tokenizer = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    latents = LatentCache.build(vae, town, town.splits["train"], args.out / "cache").to(device)
    clips = [town.clip(id) for id in latents.ids]
    captions = [clip.caption for clip in clips]
    weights = clip_weights([clip.characters for clip in clips], map(told, captions), args.rare, args.rare_told)
    weights = torch.tensor(weights, dtype=torch.float32, device=device)
    tokens = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    tokens = tokens.to(device)
    torch.manual_seed(args.seed)
    unet = first_unet(args, vae).to(device).train()
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # 1.4 times faster to train there than the fused kernel's backward
    text_encoder.train().requires_grad_(True)
    parameters = [*unet.parameters(), *text_encoder.parameters()]
    ema = EMAModel(parameters, decay=0.9995, use_ema_warmup=True, power=0.75, foreach=True)
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
    generator = torch.Generator(device).manual_seed(args.seed)
    noise_scheduler = DDPMScheduler(**NOISE_CONFIG)
    folder = args.out / "unet"
    modules = {"unet": unet, "text_encoder": text_encoder}
    run = Run(folder, modules, optimizer, args.steps or 40000, generator, extra_state={"ema": ema})
    shown = [town.clip(id).caption for id in town.splits["test"][:32:4]]
    predict = torch.compile(unet) if args.compile else unet

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        index = torch.multinomial(weights, args.batch_size, generator=generator)
        z = latents.take(index, generator)
        dropped = torch.rand(index.shape, generator=generator, device=device) < 0.1
        with torch.autocast(device.type, torch.bfloat16):
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
    unet = new_unet(vae)
    state = torch.load(args.out / "unet" / "checkpoint.pt", weights_only=True, map_location="cpu")
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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the UNet learns (unet)")
    parser.add_argument("--max_seconds", type=float, default=float("inf"), help="stop (resumable) after so long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.timestep_power <= 0:
        parser.error(f"argument --timestep_power: {args.timestep_power} must be above 0")
    for name in ("rare", "rare_told"):
        if getattr(args, name) < 0:
            parser.error(f"argument --{name}: {getattr(args, name)} must be 0 or above")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: cuda, but torch finds no GPU here; cpu is accepted")
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
