"""One training loop for every stage: resumable after a kill at any moment, a progress bar and a log of the losses.

A stage keeps all that changes while it trains in `Run.modules` (networks, EMA), `Run.optimizer` and `Run.generator`.
A checkpoint is written aside, flushed to the disk and renamed, so the newest one is always whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm


SCHEDULES = ("cosine", "linear", "constant")
LOG_STEPS = 10  # between two lines of the log, which are means of the steps between them


@dataclass
class Run:
    """What one stage trains, where it writes, and for how long.

    Args:
        folder (`Path`): holds `checkpoint.pt`, `log.jsonl` and `samples/`.
        modules (`dict[str, torch.nn.Module]`): everything with a state, saved in each checkpoint.
        optimizer (`torch.optim.Optimizer`): its `initial_lr` is the peak of the schedule.
        steps (`int`): length of the whole schedule.
        generator (`torch.Generator`, *optional*): the only source of randomness of the stage; its state is saved as
            well. A stage whose draws follow from the number of the step alone needs none.
        warmup (`int`): steps of linear warm-up.
        schedule (`str`): of the rate afterwards: `"cosine"` or `"linear"` to 0, or `"constant"`.
        checkpoint_seconds (`float`): time between checkpoints.
        sample_steps (`int`): steps between two calls of `sample`.
        pictures (`int`): a step's size, for the rate shown in the bar and in the log.
        accelerator (`Accelerator`, *optional*): spreads the stage over processes; the main one writes.
        networks (`list[torch.nn.Module]`): what the accelerator wrapped; gradients are exchanged once a step.
        parts (`int`): `loss_of_step` is called so often a step, with the part's number; the gradients are averaged.
        clip (`list[list[torch.nn.Parameter]]`, *optional*): groups that are clipped to `max_grad_norm` each on its
            own; by default all parameters together.
    """

    folder: Path
    modules: dict[str, torch.nn.Module]
    optimizer: torch.optim.Optimizer
    steps: int
    generator: torch.Generator | None
    warmup: int = 100
    checkpoint_seconds: float = 120.0
    sample_steps: int = 500
    step: int = 0
    max_grad_norm: float = 1.0
    extra_state: dict[str, object] = field(default_factory=dict)  # name -> anything with state_dict / load_state_dict
    schedule: str = "cosine"
    pictures: int = 0
    accelerator: Accelerator | None = None
    networks: list[torch.nn.Module] = field(default_factory=list)
    parts: int = 1
    clip: list[list[torch.nn.Parameter]] | None = None

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"`schedule` is {self.schedule!r}, but must be one of {SCHEDULES}.")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def is_main(self) -> bool:
        return self.accelerator is None or self.accelerator.is_main_process

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then the schedule."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - progress if self.schedule == "linear" else 1.0

    def save(self) -> None:
        """Write the checkpoint aside, then rename it over the old one. Only the main process writes.

        Raises:
            OSError: the disk is full or not writable; the old checkpoint is left as it is.
        """
        if not self.is_main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state() if self.generator is not None else None,
            "extra": {name: value.state_dict() for name, value in self.extra_state.items()},
        }
        aside = self.checkpoint.with_suffix(".tmp")
        try:
            with open(aside, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
            aside.unlink(missing_ok=True)
            kept = "the last good one is intact" if self.checkpoint.exists() else "there was none before"
            raise OSError(
                f"The checkpoint of step {self.step} cannot be written to {aside} ({error}); {kept}."
            ) from error
        os.replace(aside, self.checkpoint)

    def resume(self) -> bool:
        """Load the newest checkpoint if there is one. Returns whether there was."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        for name, value in self.extra_state.items():
            value.load_state_dict(state["extra"][name])
        self.step = state["step"]
        return True

    def train(
        self,
        loss_of_step: Callable[..., dict[str, torch.Tensor]],
        sample: Callable[[int], bool | None] | None = None,
        after_step: Callable[[], None] | None = None,
        description: str = "train",
        max_seconds: float = math.inf,
    ) -> None:
        """Train to `steps`, or until `max_seconds` are over, a step at least; what is reached is in the checkpoint.

        SIGTERM ends the step that is under way, writes a checkpoint and leaves with status 0.

        Args:
            loss_of_step: given the step, and the part where there are several, returns named losses; `"loss"` is the
                one that is minimised.
            sample: writes pictures or texts of the present state into `folder / "samples"`; returns `True` to stop.
            after_step: called after each optimizer step (EMA).

        Raises:
            FloatingPointError: the loss or its gradient is not finite. The last checkpoint is left as it is.
            OSError: a checkpoint cannot be written. The one before is left as it is.
        """
        if self.resume():
            tqdm.write(f"{description}: resumed at step {self.step} from {self.checkpoint}")
        (self.folder / "samples").mkdir(parents=True, exist_ok=True)
        groups = self.clip or [[p for group in self.optimizer.param_groups for p in group["params"]]]
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        started = last_saved = time.monotonic()
        seen: dict[str, list[float]] = {}
        count, since, begun = 0, started, self.step
        with (
            _terminated() as terminated,
            tqdm(
                total=self.steps, initial=self.step, desc=description, mininterval=5.0, disable=not self.is_main
            ) as bar,
        ):
            while self.step < self.steps and self._agree(
                self.step == begun or time.monotonic() - started < max_seconds
            ):
                factor = self.learning_rate_factor(self.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
                losses = self._accumulate(loss_of_step, description)
                scaled = self.accelerator is not None and self.accelerator.scaler is not None
                if scaled:
                    self.accelerator.unscale_gradients(self.optimizer)
                norms = [torch.nn.utils.clip_grad_norm_(group, self.max_grad_norm) for group in groups]
                for norm in norms:
                    if not scaled and not torch.isfinite(norm):  # a scaler leaves such a step out by itself
                        raise FloatingPointError(
                            f"{description}: the gradient is {norm.item()} at step {self.step}; {self._last_good()}"
                        )
                self.optimizer.step()
                if after_step is not None:
                    after_step()
                self.step += 1
                bar.update()
                for name, value in {**losses, "grad_norm": sum(map(float, norms))}.items():
                    seen.setdefault(name, []).append(float(value))
                count += 1
                if self.step % LOG_STEPS == 0 or self.step == self.steps:
                    # of the steps that have such a figure: not every batch has neighbours
                    means = {name: round(sum(values) / len(values), 6) for name, values in seen.items()}
                    if self.pictures:
                        means["pictures_a_second"] = round(self.pictures * count / (time.monotonic() - since), 2)
                    bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()}, refresh=False)
                    self._log({"lr_factor": round(factor, 5), **means})
                    seen, count, since = {}, 0, time.monotonic()
                if sample is not None and (self.step % self.sample_steps == 0 or self.step == self.steps):
                    if self._agree(bool(sample(self.step))):
                        break
                if not self._agree(not terminated()):
                    self.save()
                    tqdm.write(f"{description}: terminated at step {self.step}; {self.checkpoint} has it all")
                    raise SystemExit(0)
                if time.monotonic() - last_saved > self.checkpoint_seconds:
                    self.save()
                    last_saved = time.monotonic()
        self.save()

    def _accumulate(self, loss_of_step: Callable[..., dict[str, torch.Tensor]], description: str) -> dict[str, float]:
        """Gradients of one step, averaged over its parts (and, by the wrapped modules, over the processes)."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, float] = {}
        for part in range(self.parts):
            with contextlib.ExitStack() as stack:
                if self.accelerator is not None and part < self.parts - 1:
                    for network in self.networks:
                        stack.enter_context(self.accelerator.no_sync(network))
                found = loss_of_step(self.step, part) if self.parts > 1 else loss_of_step(self.step)
                if not torch.isfinite(found["loss"]):
                    raise FloatingPointError(
                        f"{description}: the loss is {found['loss'].item()} at step {self.step}; {self._last_good()}"
                    )
                loss = found["loss"] / self.parts
                loss.backward() if self.accelerator is None else self.accelerator.backward(loss)
            for name, value in found.items():
                losses[name] = losses.get(name, 0.0) + float(value.detach()) / self.parts
        if self.accelerator is not None and self.accelerator.num_processes > 1:
            names = sorted(losses)
            values = torch.tensor([losses[name] for name in names], device=self.accelerator.device)
            losses = dict(zip(names, self.accelerator.reduce(values, "mean").tolist(), strict=True))
        return losses

    def _agree(self, flag: bool) -> bool:
        """The main process's word, so that all of them leave the loop at the same step."""
        if self.accelerator is None or self.accelerator.num_processes == 1:
            return flag
        told = torch.tensor([int(flag and self.is_main)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum").item())

    def _last_good(self) -> str:
        return f"{self.checkpoint} is intact" if self.checkpoint.exists() else "there is no checkpoint yet"

    def _log(self, values: dict[str, float]) -> None:
        if self.is_main:
            with open(self.folder / "log.jsonl", "a") as log:
                log.write(json.dumps({"step": self.step, **values}) + "\n")
        if self.accelerator is not None and self.accelerator.trackers:
            self.accelerator.log(values, step=self.step)


@contextlib.contextmanager
def _terminated():
    """A function that says whether SIGTERM came; outside the main thread Python has no signals, and it never does."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
