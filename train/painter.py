"""The painter's training (paper 4.2): the LoRA matrices learn a frame from its caption; and samples to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoModel, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel, cast_training_params
from PIL import Image
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel, CLIPTokenizer

from sagan_pipeline.adapter_files import find_adapter
from sagan_pipeline.few_steps import trailing_timesteps
from sagan_pipeline.lora import Adapter
from sagan_pipeline.pose_noise import tell_pose
from train.adapter import LORA_TARGETS, add_lora, load_lora, lora_layers, lora_parameters, save_adapter, under_alpha
from train.config import TrainingConfig
from train.data.annotations import SAMPLED
from train.data.cache import LatentCache, TextCache
from train.data.flintstones import FlintstonesRelease
from train.data.poses import Poses, couple
from train.objectives import make_objective
from train.objectives.diffusion import diffusion_loss, draw_noise
from train.objectives.few_step import generate
from train.objectives.interface import STORY_FRAMES, Batch
from train.objectives.localization import Localizer


DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHOWN_ALPHAS = (0.0, 10.0, 32.0)
CACHED_FRAMES = (1, 3)  # of a clip's five, as `LatentCache` takes them
MOMENTS = tuple(SAMPLED[frame] / 74 for frame in CACHED_FRAMES)  # of a clip of 75 frames, 0 to 1


@dataclass
class PainterDraws:
    """Everything random in the painter's share of a step, for the whole global batch."""

    latents: torch.Tensor
    captions: torch.Tensor  # (B,) rows of the text cache, the last one of which is the empty caption
    noise: torch.Tensor
    timesteps: torch.Tensor
    clips: torch.Tensor  # (B,) rows of the latents' cache
    frames: torch.Tensor  # (B,) which of a clip's cached frames


class Painter:
    """The UNet with its LoRA, and the caches that it learns from.

    Neither the autoencoder nor the text encoder stays in memory: their outputs are read from the caches, and samples
    load the decoder when they are painted.

    Args:
        config (`TrainingConfig`): the run's settings.
        release (`FlintstonesRelease`): the show.
        accelerator (`Accelerator`): says the device and the precision, and wraps the UNet.
    """

    name = "painter"

    def __init__(self, config: TrainingConfig, release: FlintstonesRelease, accelerator: Accelerator):
        self.config, self.accelerator, self.release = config, accelerator, release
        self.device = accelerator.device
        self._vae = None
        vae = AutoModel.from_pretrained(config.base, subfolder="vae", torch_dtype=torch.float32)
        vae = vae.eval().requires_grad_(False).to(self.device)
        text_encoder = CLIPTextModel.from_pretrained(config.base, subfolder="text_encoder", dtype=torch.float32)
        text_encoder = text_encoder.eval().to(self.device)
        tokenizer = CLIPTokenizer.from_pretrained(config.base, subfolder="tokenizer")

        encoders = (vae, text_encoder, tokenizer)
        self.latents, self.text = _caches(config, release, "train", *encoders)
        self.validation_latents, self.validation_text = _caches(config, release, "val", *encoders)
        self.prior = _caches(config, FlintstonesRelease(config.prior), "train", *encoders) if config.prior else None
        shown = [release.clip(id).caption for id in release.stories("val", 4)[0]]
        self.shown = TextCache.build(text_encoder, tokenizer, shown)
        del vae, text_encoder, encoders
        self.scheduler = DDPMScheduler.from_pretrained(config.base, subfolder="scheduler")
        self.unet = UNet2DConditionModel.from_pretrained(config.base, subfolder="unet", torch_dtype=torch.float32)
        self.poses: dict[int, torch.Tensor] = {}  # by the cache that they are of
        if config.pose_noise:
            poses = Poses(release, self.latents, MOMENTS)
            self.poses = {
                id(self.latents): poses.train,
                id(self.validation_latents): poses.of(self.validation_latents),
            }
        if self.device.type == "cpu" or config.l_local:
            # the fused kernel has no maps, and on a CPU its backward is slower
            self.unet.set_attn_processor(AttnProcessor())
        self.init_lora = Adapter.load(find_adapter(config.init_lora)) if config.init_lora else None
        if self.init_lora is not None and self.init_lora.reads_pose and not config.pose_noise:
            raise ValueError(f"`pose_noise` is off, but the adapter {config.init_lora!r} learnt with it.")
        if config.lora_targets:
            self.targets = [name.strip() for name in config.lora_targets.split(",")]
        else:
            self.targets = LORA_TARGETS if self.init_lora is None else list(self.init_lora.matrices)
        recipe = (config.rank, config.alpha, config.seed, config.lora_dropout, config.lora_init)
        self.lora = add_lora(self.unet, *recipe, self.targets)
        if self.init_lora is not None:
            load_lora(self.unet, self.init_lora)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.unet.to(self.device, DTYPES[config.mixed_precision])
        cast_training_params(self.unet, torch.float32)  # the matrices that learn
        if config.mixed_precision != "no":  # autocast casts already; peft would take each input to float32 and back
            for layer in lora_layers(self.unet).values():
                layer.cast_input_dtype_enabled = False
        self.parameters = lora_parameters(self.unet)
        self.state = torch.nn.ParameterList(self.parameters)
        self.ema = EMAModel(self.parameters, decay=config.ema_decay) if config.ema_decay else None
        self.localizer = (
            Localizer(self.unet, release, self.latents.ids, tokenizer, MOMENTS) if config.l_local else None
        )
        self.network = accelerator.prepare(self.unet.train())
        self.objective = make_objective(config, self)  # what it adds to the UNet is no part of what is prepared

    def draw(self, clips: list[str], generator: torch.Generator) -> PainterDraws:
        """The draws of a step: a frame of each clip, noise, timestep, and which captions are left empty."""
        index = torch.tensor([self.latents.index_of[id] for id in clips])
        return self._draw(self.latents, self.text, index, generator)

    def draw_prior(self, size: int, generator: torch.Generator) -> PainterDraws:
        """The same of generic pictures, for the preservation of the base."""
        latents, text = self.prior
        index = torch.randint(len(latents.ids), (size,), generator=generator)
        return self._draw(latents, text, index, generator)

    def _draw(
        self, latents: LatentCache, text: TextCache, index: torch.Tensor, generator: torch.Generator
    ) -> PainterDraws:
        frames = torch.randint(latents.latents.shape[1], index.shape, generator=generator)
        z = latents.latents[index, frames].float()
        dropped = torch.rand(index.shape, generator=generator) < self.config.caption_dropout
        config = self.config
        noise, timesteps = draw_noise(self.scheduler, z.shape, generator, config.noise_offset, config.timestep_power)
        if id(latents) in self.poses:
            noise = couple(noise, self.poses[id(latents)][index, frames])
        return PainterDraws(z, torch.where(dropped, len(text), index), noise, timesteps, index, frames)

    def loss(self, draws: PainterDraws, rows: slice, text: TextCache | None = None, network=None) -> torch.Tensor:
        """The loss of some rows of a step's draws: a scalar."""
        text = self.text if text is None else text
        latents, noise = draws.latents[rows].to(self.device), draws.noise[rows].to(self.device)
        with self.accelerator.autocast():
            return diffusion_loss(
                self.network if network is None else network,
                self.scheduler,
                latents,
                self._states(text, draws.captions[rows], noise),
                noise,
                draws.timesteps[rows].to(self.device),
                snr_gamma=self.config.snr_gamma or None,
            )

    def _states(self, text: TextCache, captions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Text states (B, L, D) in the training precision, with the poses that the noise chooses."""
        states = text.all_states[captions].to(self.device)
        if self.config.pose_noise:
            states = tell_pose(states.float(), noise)
        precision = self.config.mixed_precision
        return states.float() if precision == "no" else states.to(DTYPES[precision])

    def empty_states(self, noise: torch.Tensor) -> torch.Tensor:
        """The empty caption's states, (B, L, D), in the training precision, with the poses that B noises choose."""
        return self._states(self.text, torch.full((len(noise),), len(self.text)), noise)

    def losses(self, draws: PainterDraws, rows: slice, seed: int, step: int) -> dict[str, torch.Tensor]:
        """What the objective says of some rows of a step's draws: `painter_loss`, which is minimised, and each term
        for the log. `seed` governs what the objective draws beyond the step's draws."""
        if self.localizer is not None:
            return self._localized(draws, rows)
        if self.objective is None:
            return {"painter_loss": self.loss(draws, rows)}
        with self.accelerator.autocast():
            losses = self.objective.losses(self.batch(draws, rows, seed, step))
            return {"painter_loss": self.objective.total(losses), **self.objective.log(losses)}

    def _localized(self, draws: PainterDraws, rows: slice) -> dict[str, torch.Tensor]:
        """Plain diffusion, and who is looked up where."""
        captions, size = draws.captions[rows], tuple(draws.latents.shape[-2:])
        with self.localizer.recording() as maps:
            l2 = self.loss(draws, rows)
            local = self.localizer.loss(maps, draws.clips[rows], draws.frames[rows], captions < len(self.text), size)
        loss = l2 + self.config.l_local * local
        return {"painter_loss": loss, "term_l2": l2.detach(), "term_local": local.detach()}

    def batch(self, draws: PainterDraws, rows: slice, seed: int, step: int) -> Batch:
        """Some rows of a step's draws, on the device, as objectives take them."""
        captions, frames = draws.captions[rows], draws.frames[rows].tolist()
        timesteps = draws.timesteps[rows]
        if self.objective is not None and self.objective.needs_stories(self.config):
            timesteps = timesteps[::STORY_FRAMES].repeat_interleave(STORY_FRAMES)
        return Batch(
            latents=draws.latents[rows].to(self.device),
            states=self._states(self.text, captions, draws.noise[rows]),
            noise=draws.noise[rows].to(self.device),
            timesteps=timesteps.to(self.device),
            captioned=(captions < len(self.text)).to(self.device),
            clips=[self.latents.ids[i] for i in draws.clips[rows].tolist()],
            moments=[MOMENTS[frame] for frame in frames],
            mirrored=[self.config.mirror and bool(frame % 2) for frame in frames],
            generator=torch.Generator().manual_seed(seed),
            step=step,
        )

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """What the UNet with its LoRA predicts for noised latents: (B, C, h, w) float32."""
        network = self.network if torch.is_grad_enabled() else self.unet  # only gradients concern other processes
        return network(noisy, timesteps, encoder_hidden_states=states, return_dict=False)[0].float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) float32, in about [-1, 1], of scaled latents, with gradients to the latents."""
        vae = self.vae

        def decoded(z: torch.Tensor) -> torch.Tensor:
            return vae.decode(z / vae.config.scaling_factor, return_dict=False)[0].float()

        if self.config.gradient_checkpointing and latents.requires_grad:
            return checkpoint(decoded, latents, use_reentrant=False)
        return decoded(latents)

    @property
    def vae(self):
        """The autoencoder, frozen; in memory only once an objective decodes."""
        if self._vae is None:
            vae = AutoModel.from_pretrained(self.config.base, subfolder="vae", torch_dtype=torch.float32)
            self._vae = vae.eval().requires_grad_(False).to(self.device)
        return self._vae

    def after_step(self) -> None:
        if self.ema is not None:
            self.ema.step(self.parameters)

    def averaged(self):
        """The moving average in the place of the matrices, for a while."""
        return _Averaged(self.ema, self.parameters)

    @torch.no_grad()
    def validate(self, count: int) -> float:
        """Loss on `count` clips of the validation split, the same draws every time."""
        generator = torch.Generator().manual_seed(self.config.seed)
        index = torch.arange(len(self.validation_latents.ids))[:: max(1, len(self.validation_latents.ids) // count)]
        draws = self._draw(self.validation_latents, self.validation_text, index[:count], generator)
        draws.captions = index[:count]  # every caption as it is
        self.unet.eval()
        with self.averaged():
            losses = [
                float(self.loss(draws, slice(i, i + 8), self.validation_text, self.unet))
                * len(draws.captions[i : i + 8])
                for i in range(0, len(draws.captions), 8)
            ]
        self.unet.train()
        return sum(losses) / len(draws.captions)

    def paint(self) -> Image.Image:
        """A validation story at alpha 0, 10 and 32, one row each, with fixed seeds."""
        vae = AutoModel.from_pretrained(self.config.base, subfolder="vae", torch_dtype=torch.float32)
        vae = vae.eval().to(self.device)
        rows = []
        with self.averaged():
            for alpha in SHOWN_ALPHAS:
                with under_alpha(self.unet, alpha):
                    rows.append(
                        paint_samples(
                            self.unet,
                            vae,
                            self.shown,
                            self.scheduler,
                            seed=self.config.seed,
                            num_inference_steps=self.config.validation_inference_steps,
                            size=self.latents.latents.shape[-2:],
                            few_steps=self.objective.few_steps if self.objective is not None and alpha else 0,
                            pose_noise=self.config.pose_noise and alpha > 0,
                        )
                    )
        return picture_grid(np.concatenate(rows), columns=len(self.shown))

    def sampling_facts(self) -> dict[str, object]:
        """How the adapter is painted with, for its header, where that is not as usual."""
        steps = self.objective.few_steps if self.objective is not None else 0
        facts = {"num_inference_steps": steps, "guidance_scale": 1.0} if steps else {}
        return facts | ({"pose_noise": True} if self.config.pose_noise else {})

    def write(self, path: Path, facts: dict[str, object]) -> None:
        """Write the adapter, averaged if the run averages."""
        with self.averaged():
            save_adapter(self.unet, self.lora, path, facts, self.config.format)


def _caches(
    config: TrainingConfig, release: FlintstonesRelease, split: str, vae, text_encoder, tokenizer
) -> tuple[LatentCache, TextCache]:
    """Latents and text states of a split, computed once."""
    folder = Path(config.cache or Path(config.out) / "cache")
    ids = release.splits[split]
    latents = LatentCache.build(vae, release, ids, folder, CACHED_FRAMES, config.resolution, config.mirror)
    captions = [release.clip(id).caption for id in latents.ids]
    return latents, TextCache.build(text_encoder, tokenizer, captions, folder)


class _Averaged:
    def __init__(self, ema: EMAModel | None, parameters: list[torch.nn.Parameter]):
        self.ema, self.parameters = ema, parameters

    def __enter__(self):
        if self.ema is not None:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)

    def __exit__(self, *_):
        if self.ema is not None:
            self.ema.restore(self.parameters)


@torch.no_grad()
def paint_samples(
    unet: UNet2DConditionModel,
    vae,
    text: TextCache,
    noise_scheduler,
    seed: int,
    num_inference_steps: int = 16,
    guidance_scale: float = 4.0,
    size: tuple[int, int] | None = None,
    few_steps: int = 0,
    pose_noise: bool = False,
) -> np.ndarray:
    """Paint every caption of `text` once: uint8 (N, H, W, 3). For looking at a training, not for users. `size` is of
    the latents, (h, w); by default what the UNet's configuration says. `few_steps` above 0 paints in so many steps, as
    the generator of `objectives/gan.py` does, without guidance. `pose_noise` tells the pose that the noise chooses."""
    training, device = unet.training, next(unet.parameters()).device
    unet.eval()
    scheduler = DPMSolverMultistepScheduler.from_config(
        noise_scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(num_inference_steps)
    generator = torch.Generator().manual_seed(seed)
    size = size or (unet.config.sample_size,) * 2
    latents = torch.randn((len(text), unet.config.in_channels, *size), generator=generator).to(device)
    states = torch.cat([text.all_states[-1:].expand(len(text), -1, -1), text.all_states[:-1]]).float().to(device)
    if pose_noise:
        states = tell_pose(states, torch.cat([latents] * 2))
    with torch.autocast(device.type, torch.bfloat16):
        if few_steps:

            def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
                return unet(noisy, t, states[len(text) :], return_dict=False)[0].float()

            timesteps = trailing_timesteps(len(noise_scheduler.alphas_cumprod), few_steps)
            latents = generate(predict, noise_scheduler, latents, timesteps, generator)
        for timestep in scheduler.timesteps if not few_steps else ():
            noise = unet(torch.cat([latents] * 2), timestep, states, return_dict=False)[0].float()
            unconditional, conditional = noise.chunk(2)
            noise = unconditional + guidance_scale * (conditional - unconditional)
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
        pictures = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0].float()
    unet.train(training)
    return to_pictures(pictures.cpu())


def to_pictures(x: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3)."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def picture_grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures (uint8, (B, H, W, 3)) side by side, row by row, on white."""
    batch, height, width, _ = pictures.shape
    rows = math.ceil(batch / columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    for i, picture in enumerate(pictures):
        grid.paste(Image.fromarray(picture), ((i % columns) * width, (i // columns) * height))
    return grid
