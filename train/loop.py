"""One training loop for every stage: resumable after a kill at any moment, a progress bar and a log of the losses.

A stage keeps all that changes while it trains in `Run.modules` (networks, EMA), `Run.optimizer` and `Run.generator`.
A checkpoint is written aside and renamed, so the newest one is always whole.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm


@dataclass
class Run:
    """What one stage trains, where it writes, and for how long.

    Args:
        folder (`Path`): holds `checkpoint.pt`, `log.jsonl` and `samples/`.
        modules (`dict[str, torch.nn.Module]`): everything with a state, saved in each checkpoint.
        optimizer (`torch.optim.Optimizer`): its `initial_lr` is the peak of the schedule.
        steps (`int`): length of the whole schedule.
        generator (`torch.Generator`): the only source of randomness of the stage; its state is saved as well.
        warmup (`int`): steps of linear warm-up; afterwards the rate falls to 0 on a half cosine.
        checkpoint_seconds (`float`): time between checkpoints.
        sample_steps (`int`): steps between two calls of `sample`.
    """

    folder: Path
    modules: dict[str, torch.nn.Module]
    optimizer: torch.optim.Optimizer
    steps: int
    generator: torch.Generator
    warmup: int = 100
    checkpoint_seconds: float = 120.0
    sample_steps: int = 500
    step: int = 0
    max_grad_norm: float = 1.0
    extra_state: dict[str, object] = field(default_factory=dict)  # name -> anything with state_dict / load_state_dict

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then a half cosine to 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def save(self) -> None:
        """Write the checkpoint aside, then rename it over the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "extra": {name: value.state_dict() for name, value in self.extra_state.items()},
        }
        aside = self.checkpoint.with_suffix(".tmp")
        torch.save(state, aside)
        os.replace(aside, self.checkpoint)

    def resume(self) -> bool:
        """Load the newest checkpoint if there is one. Returns whether there was."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        for name, value in self.extra_state.items():
            value.load_state_dict(state["extra"][name])
        self.step = state["step"]
        return True

    def train(
        self,
        loss_of_step: Callable[[int], dict[str, torch.Tensor]],
        sample: Callable[[int], None] | None = None,
        after_step: Callable[[], None] | None = None,
        description: str = "train",
        max_seconds: float = math.inf,
    ) -> None:
        """Train to `steps`, or until `max_seconds` are over; what is reached is in the checkpoint.

        Args:
            loss_of_step: returns named losses; `"loss"` is the one that is minimised.
            sample: writes pictures or texts of the present state into `folder / "samples"`.
            after_step: called after each optimizer step (EMA).

        Raises:
            FloatingPointError: the loss or its gradient is not finite. The last checkpoint is left as it is.
        """
        if self.resume():
            tqdm.write(f"{description}: resumed at step {self.step} from {self.checkpoint}")
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        started = last_saved = time.monotonic()
        sums: dict[str, float] = {}
        count = 0
        with tqdm(total=self.steps, initial=self.step, desc=description, mininterval=5.0) as bar:
            while self.step < self.steps and time.monotonic() - started < max_seconds:
                factor = self.learning_rate_factor(self.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
                losses = loss_of_step(self.step)
                if not torch.isfinite(losses["loss"]):
                    raise FloatingPointError(f"{description}: the loss is {losses['loss'].item()} at step {self.step}")
                self.optimizer.zero_grad(set_to_none=True)
                losses["loss"].backward()
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                if not torch.isfinite(norm):
                    raise FloatingPointError(f"{description}: the gradient is {norm.item()} at step {self.step}")
                self.optimizer.step()
                if after_step is not None:
                    after_step()
                self.step += 1
                bar.update()
                for name, value in {**losses, "grad_norm": norm}.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach())
                count += 1
                if self.step % 50 == 0 or self.step == self.steps:
                    means = {name: round(value / count, 6) for name, value in sums.items()}
                    bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
                    with open(self.folder / "log.jsonl", "a") as log:
                        log.write(json.dumps({"step": self.step, "lr_factor": round(factor, 5), **means}) + "\n")
                    sums, count = {}, 0
                if sample is not None and (self.step % self.sample_steps == 0 or self.step == self.steps):
                    sample(self.step)
                if time.monotonic() - last_saved > self.checkpoint_seconds:
                    self.save()
                    last_saved = time.monotonic()
        self.save()
