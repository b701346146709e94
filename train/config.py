"""The settings of `train.saganets`: one dataclass gives flags, help, YAML presets and the record of a run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

import yaml
from transformers import HfArgumentParser

from train.data.gravel_gulch.script import TELLABLE


PRESETS = Path(__file__).parent / "configs"


def setting(help: str, default: object = dataclasses.MISSING):
    return field(default=default, metadata={"help": help})


@dataclass
class TrainingConfig:
    """Every setting of a training; `python -m train.saganets --help` prints what each means."""

    data: str = setting("release of the show, in any layout of train/data/layouts")
    base: str = setting("folder or Hub id of the base model, in diffusers' layout")
    captioner: str = setting("folder or Hub id of a GPT-2; empty: the base's own", "")
    out: str = setting("checkpoints, logs, samples and results", "runs/saganets")
    cache: str = setting("folder of the latents and text states, which runs may share; empty: in `out`", "")
    name: str = setting("the adapter's file name, without suffix", "gravel-gulch-diffusion")
    base_model: str = setting("what the adapter's header calls the base", "saganets-embedded")
    modules: Literal["both", "captioner", "painter"] = setting("which parts learn", "both")
    cached: bool = setting("read annotations and caches only; the pictures may be gone by now", False)
    resolution: Optional[int] = setting("side of the pictures in pixels; default: as they are", None)  # noqa: UP045
    seed: int = setting("governs every draw", 0)
    resume: Literal["latest", "never"] = setting(
        "go on from the newest checkpoint, or refuse to run over it", "latest"
    )

    steps: int = setting("optimizer steps of the whole schedule; 0: as `epochs` says", 0)
    epochs: float = setting("passes over the training stories, where `steps` is 0", 5.0)
    batch_size: int = setting("stories a step, over all processes and accumulated parts together", 24)
    accumulation: int = setting("parts that each process splits its share of a step into", 1)
    max_seconds: float = setting("stop, resumable, after so long; 0: never", 0.0)

    rank: int = setting("r of the LoRA matrices", 32)
    alpha: float = setting("alpha of training; alpha = rank is what every LoRA reader agrees on", 32.0)
    lora_dropout: float = setting("dropout before A", 0.0)
    lora_init: Literal["gaussian", "kaiming"] = setting("how A is drawn; B begins as zero", "gaussian")

    learning_rate: float = setting("peak rate of the LoRA matrices", 1e-4)
    captioner_learning_rate: float = setting("peak rate of GPT-2", 5e-5)
    weight_decay: float = setting("AdamW's, of the LoRA matrices", 1e-2)
    captioner_weight_decay: float = setting("AdamW's, of GPT-2", 1e-2)
    captioner_dropout: Optional[float] = setting(  # noqa: UP045
        "GPT-2's dropouts, all three; default: as its own configuration has them", None
    )
    adam_beta2: float = setting("AdamW's second beta", 0.999)
    schedule: Literal["constant", "cosine", "linear"] = setting("of the rates, after the warm-up", "constant")
    warmup: int = setting("steps of linear warm-up", 0)
    max_grad_norm: float = setting("gradients of each module are clipped to this norm", 1.0)

    snr_gamma: float = setting("min-SNR weighting; 0: the paper's plain loss", 0.0)
    noise_offset: float = setting("share of noise that is one value a channel of a picture", 0.0)
    timestep_power: float = setting(
        "timesteps are drawn by the density of t^(power - 1): at 1 all alike (the paper), above it noisy ones oftener",
        1.0,
    )
    pose_noise: bool = setting(
        "let the noise tell which way somebody who is alone faces, and where they stand: train/data/poses.py", False
    )
    caption_dropout: float = setting("share of captions left empty, for classifier-free guidance", 0.0)
    crowds: float = setting(
        "draw k not evenly, but by the number of people in frame k + 1 to this power; 0: evenly, as the paper", 0.0
    )
    rare: float = setting(
        "draw targets by how rare their rarest regular is, 1 being the most frequent, to this power; 0: as they come",
        0.0,
    )
    rare_told: float = setting(
        "and by how rare the rarest action, mood or thing of their captions is, to this power; 0: as they come", 0.0
    )
    oftener: str = setting(
        "and so many times as often where these actions, moods or things are told: sleeping=4,waving=2", ""
    )
    mirror: bool = setting("mirror every other frame; not where captions name people from left to right", False)
    objective: Literal["diffusion", "gan", "clip", "temporal", "combined"] = setting(
        "what the painter learns by: train/objectives", "diffusion"
    )
    init_lora: str = setting("begin from this adapter (a file, folder or Hub id); empty: from the base", "")
    lora_targets: str = setting(
        "layers with LoRA, by the ends of their names; empty: those of `init_lora`, or the paper's to_q,to_k,to_v", ""
    )
    clip: str = setting("folder or Hub id of a CLIP pair; empty: BASE/clip", "")
    char_features: str = setting(
        "folder or Hub id of train.features' or another vision model; empty: BASE/features", ""
    )
    l_clip: float = setting("weight of 1 - cos of a picture's and its caption's CLIP embeddings", 0.0)
    l_char: float = setting("weight of a character's change between neighbouring frames, by `char_features`", 0.0)
    l_coher: float = setting("weight of the squared distance of neighbouring latents", 0.0)
    l_local: float = setting(
        "weight of attending, inside a character's box, to its name and no other's (diffusion); 0: none, as the paper",
        0.0,
    )
    l_adv: float = setting("weight of the adversarial loss", 0.0)
    l_story: float = setting("weight of the adversarial loss over a story's frames in their order", 0.0)
    l_img: float = setting("weight of L1 to the real frame (gan)", 0.0)
    l_dmd: float = setting("weight of distribution matching to the adapter of `init_lora` with guidance (gan)", 0.0)
    balance: Literal["fixed", "gradients"] = setting(
        "weights as they are, or how strong each term's gradient is to be beside L2's (combined)", "fixed"
    )
    l2_on: Literal["noise", "x0"] = setting("what L2 is of: what the UNet predicts, or the latents it means", "noise")
    timestep_weighting: Literal["signal", "uniform"] = setting(
        "how much terms on the predicted latents count: by alpha_bar of the timestep, or all alike", "signal"
    )
    coher_pairs: Literal["any", "all"] = setting(
        "neighbours that `l_coher` is of: those that share the setting or a character, or all (the paper)", "any"
    )
    gan_loss: Literal["minmax", "non-saturating", "hinge"] = setting(
        "adversarial loss; the paper's is minmax", "non-saturating"
    )
    gan_space: Literal["pictures", "latents"] = setting(
        "what the discriminator sees; latents at SD's size", "pictures"
    )
    gan_steps: int = setting("most painting steps of the generator (gan), which its header names", 4)
    discriminator_learning_rate: float = setting("constant rate of the discriminators", 2e-4)
    r1_gamma: float = setting("weight of the discriminators' gradient penalty at real frames; 0: none", 0.1)
    dmd_guidance: float = setting("guidance of the adapter that is distilled", 4.0)
    dmd_fake_steps: int = setting("steps of the fake score for each one of the generator", 1)
    dmd_learning_rate: float = setting("constant rate of the fake score", 1e-3)
    decoded: int = setting("terms on pictures see so many frames of a process's part of a step; 0: all", 0)

    prior: str = setting("release of generic pictures to preserve the base on; empty: none", "")
    prior_weight: float = setting("weight of the loss on them", 1.0)
    ema_decay: float = setting("moving average of the LoRA matrices; 0: none", 0.0)

    mixed_precision: Literal["no", "bf16", "fp16"] = setting("of the products; LoRA and optimizer stay float32", "no")
    gradient_checkpointing: bool = setting("less memory, a third slower", False)
    cpu: bool = setting("do not use a GPU", False)

    validation_steps: int = setting(
        "steps between validations: losses, captions and a story at alpha 0, 10, 32; 0: once an epoch", 500
    )
    validation_stories: int = setting("stories of the validation split that the losses are of", 64)
    validation_inference_steps: int = setting("denoising steps of that story", 16)
    patience: int = setting(
        "stop after so many validations without a better `watch`, and leave the best results; 0: never", 0
    )
    watch: Literal["painter_loss", "captioner_loss"] = setting("metric of early stopping", "painter_loss")
    checkpoint_seconds: float = setting("time between checkpoints", 120.0)
    epoch_adapters: bool = setting("keep the adapter of every epoch, for figures", False)
    report_to: str = setting("an accelerate tracker: tensorboard, trackio, ...; empty: the log file alone", "")
    format: Literal["peft", "kohya"] = setting(
        "of the adapter: peft's keys, or those of ComfyUI and AUTOMATIC1111", "peft"
    )

    def __post_init__(self):
        positive = (
            "gan_steps",
            "dmd_fake_steps",
            "batch_size",
            "accumulation",
            "rank",
            "validation_stories",
            "validation_inference_steps",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be at least 1.")
        rates = (
            "learning_rate",
            "captioner_learning_rate",
            "discriminator_learning_rate",
            "dmd_learning_rate",
            "r1_gamma",
        )
        weights = tuple(f.name for f in dataclasses.fields(self) if f.name.startswith("l_"))
        for name in (
            "steps",
            "decoded",
            *weights,
            "validation_steps",
            "warmup",
            "patience",
            "seed",
            "max_seconds",
            "crowds",
            "rare",
            "rare_told",
            *rates,
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must not be negative.")
        for name in ("lora_dropout", "caption_dropout", "captioner_dropout", "ema_decay"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be at least 0 and below 1.")
        if self.lora_targets and not all(name.strip() for name in self.lora_targets.split(",")):
            raise ValueError(f"`lora_targets` is {self.lora_targets!r}, but must be names parted by commas.")
        self.told_factors()
        for name in ("alpha", "timestep_power"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be above 0.")
        if self.l_local and (self.objective != "diffusion" or self.mirror or self.gradient_checkpointing):
            raise ValueError("`l_local` is of `objective` diffusion, without `mirror` and `gradient_checkpointing`.")
        if self.pose_noise and self.mirror:
            raise ValueError("`pose_noise` is without `mirror`: the boxes are those of the frames as they are.")
        if self.pose_noise and self.noise_offset:
            raise ValueError("`pose_noise` is without `noise_offset`: the pipeline begins from noise without one.")
        if not self.steps and self.epochs <= 0:
            raise ValueError(f"`epochs` is {self.epochs}, but must be above 0 where `steps` is 0.")

    @property
    def uneven(self) -> bool:
        """Whether some targets are drawn oftener than others, whatever k is."""
        return bool(self.rare or self.rare_told or self.oftener)

    def told_factors(self) -> dict[str, float]:
        """`oftener` as numbers by name.

        Raises:
            ValueError: it is of another form, a number is not above 0, or a name is none that a caption tells.
        """
        factors = {}
        for part in filter(None, self.oftener.split(",")):
            name, _, number = part.partition("=")
            try:
                factors[name.strip()] = float(number)
            except ValueError:
                raise ValueError(f"`oftener` has {part!r}, but each part must be a name, = and a number.") from None
            if name.strip() not in TELLABLE:
                raise ValueError(f"`oftener` names {name.strip()!r}; accepted are {', '.join(TELLABLE)}.")
            if not 0 < factors[name.strip()] < math.inf:
                raise ValueError(f"`oftener` has {part!r}, but the number must be above 0.")
        return factors


def parse_config(argv: list[str] | None = None) -> TrainingConfig:
    """Settings from `--config` (a preset's name or a YAML file), overridden by flags.

    Raises:
        SystemExit: with status 2 and a message for whatever is wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(TrainingConfig, description="Coordinated training of SAGANets (paper 4.3).")
    names = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--config", help=f"a YAML file of these settings, or a preset: {names}")
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    given = early.parse_known_args(argv)[0].config
    if given is not None:
        try:
            argv = [*_as_flags(read_yaml(given)), *argv]
        except ValueError as error:
            parser.error(str(error))
    try:
        config, _ = parser.parse_args_into_dataclasses(argv)
    except ValueError as error:
        parser.error(str(error))
    return config


def read_yaml(name: str | os.PathLike) -> dict[str, object]:
    """The settings in a YAML file, or in a preset of this name.

    Raises:
        ValueError: no such file, not YAML, not a mapping, or a setting that there is not.
    """
    path = PRESETS / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"`--config` {name} is no preset and no file that can be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"`--config` {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"`--config` {path} must hold settings as `name: value`.")
    known = {f.name for f in dataclasses.fields(TrainingConfig)}
    for unknown in set(values) - known:
        raise ValueError(f"`--config` {path} sets {unknown!r}, which there is not; see --help.")
    return values


def _as_flags(values: dict[str, object]) -> list[str]:
    return [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]


def save_config(config: TrainingConfig, facts: dict[str, object], path: Path) -> None:
    """Write the resolved settings, and what ran them, beside the run."""
    text = json.dumps({"config": dataclasses.asdict(config), **facts}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
