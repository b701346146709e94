"""Coordinated training (paper 4.3): GPT-2 and the UNet's LoRA learn from the same sampled stories.

    python -m train.saganets --config better --data DATA/gulch --base runs/base/model --out runs/saganets

For each story a prefix length k ~ U{0, 1, 2, 3} is drawn. The captioner learns caption k+1 from the true captions
1..k; the painter learns frame k+1 from the true caption k+1. No error passes between them. The base stays frozen.

Every draw of a step follows from the seed and the step's number alone, for the whole global batch; each process takes
its share. So a resumed run, a run on more processes and a run in more accumulated parts see the same batches.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedType

from train.adapter import provenance
from train.captioner import MAX_PREFIX, Captioner, Example, StoryCaptions
from train.config import TrainingConfig, parse_config, save_config
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.script import told
from train.data.rarity import rarest, rarities
from train.loop import Run
from train.objectives import needs_stories
from train.objectives.interface import STORY_FRAMES
from train.painter import Painter, PainterDraws


FIXED_BATCHES = 4
OVER = "over.json"  # beside the checkpoint of a training that has come to its end
SHARDED = (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM)


@dataclass
class Draws:
    """Everything random in one step."""

    examples: list[Example]
    painter: PainterDraws | None
    prior: PainterDraws | None


class Coordinated:
    """Both modules, the stories, and the step that trains them.

    Args:
        config (`TrainingConfig`): the run's settings.
        accelerator (`Accelerator`): over as many processes as there are.

    Raises:
        ValueError: the batch does not divide into processes and parts, weights are to be sharded, or the data or the
            base is not as it should be.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator):
        if accelerator.distributed_type in SHARDED:
            raise ValueError(
                f"`accelerate` is configured for {accelerator.distributed_type.value}, but every process holds the "
                "whole model here: LoRA leaves next to nothing to shard. Configure plain data parallelism."
            )
        shares = accelerator.num_processes * config.accumulation
        if config.batch_size % shares:
            raise ValueError(
                f"`batch_size` {config.batch_size} does not divide into {accelerator.num_processes} processes with "
                f"{config.accumulation} parts each."
            )
        self.config, self.accelerator = config, accelerator
        self.release = FlintstonesRelease(config.data, pictures=not config.cached)
        self.stories = StoryCaptions(self.release, "train")
        self.painter = Painter(config, self.release, accelerator) if config.modules != "captioner" else None
        self.captioner = Captioner(config, self.release, accelerator) if config.modules != "painter" else None
        self.modules = [module for module in (self.painter, self.captioner) if module is not None]
        if self.painter is not None:
            self.stories.keep(self.painter.latents.index_of)  # where pictures are gone, some clips never had any
        self.whole_stories = needs_stories(config) and self.painter is not None
        if self.whole_stories and config.batch_size // shares % STORY_FRAMES:
            raise ValueError(
                f"`objective` {config.objective!r} takes whole stories of {STORY_FRAMES} frames, but `batch_size` "
                f"{config.batch_size} leaves {config.batch_size // shares} for each part."
            )
        if len(self.stories.stories) < config.batch_size:
            raise ValueError(
                f"`batch_size` is {config.batch_size}, but there are {len(self.stories.stories)} stories."
            )
        clips = [self.release.clip(id) for id in self.release.splits["train"]]
        seen, cast = Counter(name for clip in clips for name in clip.characters), map(str.lower, self.release.cast)
        self.rarity = rarities({name: seen[name] for name in cast if seen[name]})
        self.steps_per_epoch = len(self.stories.stories) // config.batch_size
        self.steps = config.steps or math.ceil(config.epochs * self.steps_per_epoch)
        self._drawn: tuple[int, Draws] | None = None
        self.best, self.worse = math.inf, 0

    def optimizer(self) -> torch.optim.Optimizer:
        config, groups = self.config, []
        if self.painter is not None:
            rates = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
            groups.append({"params": self.painter.parameters, **rates})
        if self.captioner is not None:
            rates = {"lr": config.captioner_learning_rate, "weight_decay": config.captioner_weight_decay}
            groups.append({"params": self.captioner.parameters, **rates})
        return torch.optim.AdamW(groups, betas=(0.9, config.adam_beta2), fused=True)

    def draws(self, step: int) -> Draws:
        """All draws of a step, for the whole global batch: a function of the seed and the step."""
        if self._drawn is not None and self._drawn[0] == step:
            return self._drawn[1]
        size = self.config.batch_size
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        chosen = order[position * size : (position + 1) * size].tolist()
        lengths = self._lengths(chosen, generator)
        examples = [self.stories.example(story, k) for story, k in zip(chosen, lengths, strict=True)]
        painter = self.painter.draw(self._clips(chosen, examples), generator) if self.painter is not None else None
        prior = self.painter.draw_prior(size, generator) if painter is not None and self.painter.prior else None
        self._drawn = (step, Draws(examples, painter, prior))
        return self._drawn[1]

    def _order(self, epoch: int) -> np.ndarray:
        """The stories of an epoch: each once; or as many draws, with replacement, those of rare targets oftener."""
        generator, count = np.random.default_rng([self.config.seed, epoch]), len(self.stories.stories)
        if not self.config.uneven:
            return generator.permutation(count)
        return generator.choice(count, count, p=self._story_shares)

    @cached_property
    def _story_shares(self) -> np.ndarray:
        """How much of an epoch's draws each story gets, by its clips' weights; they add up to one."""
        weights = np.array([sum(self._clip_weights[id] for id in story) for story in self.stories.stories])
        return weights / weights.sum()

    @cached_property
    def rarity_told(self) -> dict[str, float]:
        """How rare each action, mood and thing is among what the training captions tell."""
        captions = (self.release.clip(id).caption for id in self.release.splits["train"])
        return rarities(Counter(name for caption in captions for name in told(caption)))

    @cached_property
    def _clip_weights(self) -> dict[str, float]:
        """How often each clip is to be drawn as a target, against one of a single most frequent regular of whom the
        most frequent thing is told."""
        config, weights, factors = self.config, {}, self.config.told_factors()
        for id in {id for story in self.stories.stories for id in story}:
            clip = self.release.clip(id)
            crowd, rarity = max(len(clip.characters), 1), rarest(clip.characters, self.rarity)
            names = told(clip.caption)
            rarity_told = rarest(names, self.rarity_told)
            weights[id] = crowd**config.crowds * rarity**config.rare * rarity_told**config.rare_told
            weights[id] *= max((factors[name] for name in names if name in factors), default=1.0)
        return weights

    def _lengths(self, chosen: list[int], generator: torch.Generator) -> list[int]:
        """k of each story: ~ U{0, 1, 2, 3} (paper 4.3), or by the weights of the targets."""
        if not (self.config.uneven or self.config.crowds):
            return torch.randint(MAX_PREFIX + 1, (len(chosen),), generator=generator).tolist()
        stories = [self.stories.stories[story] for story in chosen]
        weights = torch.tensor([[self._clip_weights[id] for id in story] for story in stories])
        return torch.multinomial(weights, 1, generator=generator)[:, 0].tolist()

    def _clips(self, chosen: list[int], examples: list[Example]) -> list[str]:
        """The clips that the painter learns from: each story's target; or every fourth story whole, which makes as
        many."""
        if not self.whole_stories:
            return [example.clip_id for example in examples]
        return [id for story in chosen[::STORY_FRAMES] for id in self.stories.stories[story]]

    def loss(self, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """This process's losses on one part of a step."""
        shares = self.accelerator.num_processes * self.config.accumulation
        share = self.accelerator.process_index * self.config.accumulation + part
        size = self.config.batch_size // shares
        rows, draws = slice(share * size, (share + 1) * size), self.draws(step)
        seed = (self.config.seed * 1_000_003 + step) * 64 + share
        torch.manual_seed(seed)  # dropout draws from the global RNG
        losses, terms = {}, {}
        if self.painter is not None:
            terms = self.painter.losses(draws.painter, rows, seed, step)
            losses["painter_loss"] = terms.pop("painter_loss")
        if draws.prior is not None:
            losses["prior_loss"] = self.painter.loss(draws.prior, rows, self.painter.prior[1])
        if self.captioner is not None:
            losses["captioner_loss"] = self.captioner.loss(draws.examples, rows, shares)
        weights = {"prior_loss": self.config.prior_weight}
        losses["loss"] = sum(weights.get(name, 1.0) * value for name, value in losses.items())
        return {**losses, **terms}

    def after_step(self) -> None:
        for module in self.modules:
            module.after_step()

    @property
    def stopped(self) -> bool:
        """Whether `patience` is at its end."""
        return bool(self.config.patience) and self.worse >= self.config.patience

    def state_dict(self) -> dict[str, float]:
        """Where early stopping stands."""
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best, self.worse = state["best"], state["worse"]

    def facts(self, step: int, metrics: dict[str, float]) -> dict[str, object]:
        """What an adapter's header says of the run."""
        config = self.config
        return {
            "base_model": config.base_model,
            "objective": config.objective,
            **({"init_lora": Path(config.init_lora).name} if config.init_lora else {}),
            **(self.painter.sampling_facts() if self.painter is not None else {}),
            "dataset": Path(config.data).name,
            "steps": step,
            "epochs": round(step / self.steps_per_epoch, 3),
            "batch_size": config.batch_size,
            "seed": config.seed,
            **{f"validation_{name}": value for name, value in metrics.items()},
        }

    def validate(self, step: int, folder: Path) -> bool:
        """Losses on the validation split, captions and one story at three alphas, and the results so far; whether to
        stop early."""
        metrics = {f"{m.name}_loss": round(m.validate(self.config.validation_stories), 5) for m in self.modules}
        samples = folder / "samples"
        samples.mkdir(parents=True, exist_ok=True)
        line = {"step": step, "epoch": round(step / self.steps_per_epoch, 3), **metrics, **self.fixed_losses()}
        with open(folder / "validation.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")
        self.accelerator.log({f"validation/{name}": value for name, value in metrics.items()}, step=step)
        if self.captioner is not None:
            (samples / f"{step:06d}.txt").write_text(self.captioner.sample(), encoding="utf-8")
        if self.painter is not None:
            picture = self.painter.paint()
            picture.save(samples / f"{step:06d}.png")
            for tracker in self.accelerator.trackers:
                if tracker.name == "tensorboard":
                    tracker.writer.add_image("story at alpha 0, 10, 32", np.asarray(picture), step, dataformats="HWC")
        watched, patience = metrics.get(self.config.watch, math.inf), self.config.patience
        better = watched < self.best
        if better or not patience:  # a run that may stop early leaves its best results, others their last
            self.write(step, metrics)
        self.best, self.worse = (watched, 0) if better else (self.best, self.worse + 1)
        return self.stopped

    def fixed_losses(self) -> dict[str, float]:
        """What the objective says of the same `FIXED_BATCHES` batches every time, those that the training would come
        to next after its end: the log's own losses go up and down with each batch's timesteps. Nothing of an
        objective that trains a network of its own, which would take a step, or whose weights move."""
        objective = None if self.painter is None else self.painter.objective
        if objective is None or objective.learners or not objective.on_timesteps or self.config.balance != "fixed":
            return {}
        found: dict[str, float] = {}
        with torch.no_grad(), self.painter.averaged():
            for step in range(self.steps, self.steps + FIXED_BATCHES):
                rows = slice(0, self.config.batch_size)
                losses = self.painter.losses(self.draws(step).painter, rows, self.config.seed, step)
                for name, value in losses.items():
                    if name == "painter_loss" or name.startswith("term_"):
                        name = f"fixed_{name.removeprefix('painter_')}"
                        found[name] = found.get(name, 0.0) + float(value) / FIXED_BATCHES
        return {name: round(value, 6) for name, value in found.items()}

    def write(self, step: int, metrics: dict[str, float], folder: Path | None = None) -> None:
        """The results as they are now: the adapter, and the captioner's folder."""
        folder = Path(self.config.out) if folder is None else folder
        if self.painter is not None:
            self.painter.write(folder / f"{self.config.name}.safetensors", self.facts(step, metrics))
        if self.captioner is not None:
            self.captioner.write(folder / "captioner")


def train(config: TrainingConfig) -> None:
    """Train as `config` says; results lie in `config.out`.

    Raises:
        ValueError: a setting does not fit the data, the base or the number of processes.
        FloatingPointError: a loss or a gradient is not finite.
        OSError: a checkpoint cannot be written.
    """
    accelerator = Accelerator(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        log_with=config.report_to or None,
        project_dir=config.out,
    )
    out = Path(config.out)
    folder = out / "run"
    out.mkdir(parents=True, exist_ok=True)
    if config.resume == "never" and (folder / "checkpoint.pt").exists():
        raise ValueError(f"`resume` is 'never', but {folder} holds a checkpoint; choose another `out`.")
    if accelerator.is_main_process:
        (folder / OVER).unlink(missing_ok=True)
        save_config(config, {**provenance(), "processes": accelerator.num_processes}, out / "config.json")
    if config.report_to:
        accelerator.init_trackers("saganets", config={name: str(value) for name, value in vars(config).items()})
    trained = Coordinated(config, accelerator)
    run = Run(
        folder,
        {module.name: module.state for module in trained.modules},
        accelerator.prepare(trained.optimizer()),
        trained.steps,
        None,
        warmup=config.warmup,
        checkpoint_seconds=config.checkpoint_seconds,
        sample_steps=config.validation_steps or trained.steps_per_epoch,
        max_grad_norm=config.max_grad_norm,
        schedule=config.schedule,
        pictures=config.batch_size,
        accelerator=accelerator,
        networks=[module.network for module in trained.modules],
        parts=config.accumulation,
        clip=[module.parameters for module in trained.modules],
    )
    run.extra_state["stopping"] = trained
    if trained.painter is not None and trained.painter.ema is not None:
        run.extra_state["ema"] = trained.painter.ema
    if trained.painter is not None and trained.painter.objective is not None:
        run.extra_state["objective"] = trained.painter.objective

    def sample(step: int) -> bool:
        stop = accelerator.is_main_process and trained.validate(step, folder)
        accelerator.wait_for_everyone()
        return stop

    def after_step() -> None:
        trained.after_step()
        done = run.step + 1
        if config.epoch_adapters and accelerator.is_main_process and done % trained.steps_per_epoch == 0:
            trained.write(done, {}, out / "epochs" / f"{done // trained.steps_per_epoch:02d}")

    run.train(trained.loss, sample, after_step, description=config.modules, max_seconds=config.max_seconds or math.inf)
    if accelerator.is_main_process and (run.step >= trained.steps or trained.stopped):
        (folder / OVER).write_text(json.dumps({"step": run.step, "of": trained.steps}) + "\n")
    if config.report_to:
        accelerator.end_training()


def main(argv: list[str] | None = None) -> None:
    train(parse_config(argv))


if __name__ == "__main__":
    main()
