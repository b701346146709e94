"""What an objective of the painter is: it predicts latents for a batch, and its terms say what is wrong with them.

An objective has one way to come by its latents (the prediction of a denoising step, or a generator's picture) and any
of the terms below. A term of weight zero is not even built. What a term or an objective trains for itself, beside the
LoRA matrices, is a `Learner`; all learners are saved in the run's checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from train.config import TrainingConfig
    from train.painter import Painter


STORY_FRAMES = 4  # of a story in a batch of whole stories
MAX_GRAD_NORM = 10.0  # of a learner


@dataclass
class Batch:
    """One process's share of a step; B frames, which are whole stories of `STORY_FRAMES` where the objective says so.

    Args:
        latents (`torch.Tensor`): (B, C, h, w) float32, scaled, of the real frames.
        states (`torch.Tensor`): (B, L, D), the text states, in the training precision.
        noise (`torch.Tensor`): (B, C, h, w) float32.
        timesteps (`torch.Tensor`): (B,) int64; one for a whole story, so that its predictions are equally sharp.
        captioned (`torch.Tensor`): (B,) bool; False where the caption is left empty for classifier-free guidance.
        clips (`list[str]`): B ids.
        moments (`list[float]`): which moment of its clip a frame shows, 0 to 1.
        mirrored (`list[bool]`): whether it is mirrored.
        generator (`torch.Generator`): on the CPU, for all further draws; a function of the seed, the step and the
            share.
        step (`int`): of the run.
    """

    latents: torch.Tensor
    states: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    captioned: torch.Tensor
    clips: list[str]
    moments: list[float]
    mirrored: list[bool]
    generator: torch.Generator
    step: int = 0

    def __len__(self) -> int:
        return len(self.latents)


@dataclass
class Found:
    """What an objective found for a batch.

    Args:
        batch (`Batch`): what it was found for.
        latents (`torch.Tensor`): (B, C, h, w) float32, scaled: x0 as predicted or generated, with its gradient.
        weights (`torch.Tensor`): (B,), how much the terms on `latents` count in each frame.
        decode (`Callable`): latents (n, C, h, w) to pictures (n, 3, H, W) in about [-1, 1], with gradients.
        decoded (`int`): the terms on pictures see the first so many frames.
        placed (`bool`): whether the latents' characters stand where the real frame's do, so that its boxes hold.
    """

    batch: Batch
    latents: torch.Tensor
    weights: torch.Tensor
    decode: Callable[[torch.Tensor], torch.Tensor]
    decoded: int
    placed: bool = True
    _pictures: torch.Tensor | None = None
    _real: torch.Tensor | None = None

    @property
    def pictures(self) -> torch.Tensor:
        """The first `decoded` frames, (n, 3, H, W), decoded once for all terms."""
        if self._pictures is None:
            self._pictures = self.decode(self.latents[: self.decoded])
        return self._pictures

    @property
    def real(self) -> torch.Tensor:
        """The real frames through the same decoder, so that nothing can tell them apart by its manner."""
        if self._real is None:
            with torch.no_grad():
                self._real = self.decode(self.batch.latents[: self.decoded])
        return self._real


class Learner:
    """A network with an optimizer of its own, of a constant rate. Where a step has several parts, it takes one of its
    own in each.

    Args:
        module (`torch.nn.Module`): what learns.
        accelerator: averages the gradients over processes.
    """

    def __init__(self, module: torch.nn.Module, accelerator, learning_rate: float, betas=(0.0, 0.99)):
        self.module, self.accelerator = module, accelerator
        self.parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, betas=betas, weight_decay=0.0)

    def step(self, loss: torch.Tensor) -> None:
        """One step down `loss`, by these parameters alone."""
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            gradient = torch.zeros_like(parameter) if gradient is None else gradient
            if self.accelerator.num_processes > 1:
                gradient = self.accelerator.reduce(gradient, "mean")
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"{type(self.module).__name__}: the gradient is {norm.item()}.")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # of the weights as they were

    def state_dict(self) -> dict[str, object]:
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])


class Term:
    """One summand of a loss. `learners` are what it trains for itself; `logs` are figures to look at, of this step."""

    needs_stories = False

    def __init__(self, config: TrainingConfig, painter: Painter):
        self.config, self.painter = config, painter
        self.learners: dict[str, Learner] = {}
        self.logs: dict[str, float] = {}

    def __call__(self, found: Found) -> torch.Tensor:
        """The term, not yet weighted: a scalar."""
        raise NotImplementedError


def weighted_sum(values: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """What has no weight (L2) counts once."""
    return sum(weights.get(name, 1.0) * value for name, value in values.items())


class Objective:
    """The base of all objectives but plain diffusion.

    Args:
        config (`TrainingConfig`): the run's settings; `l_NAME` is the weight of the term NAME.
        painter (`Painter`): the UNet, its caches and the decoder.
    """

    name = ""
    terms_of: dict[str, type[Term]] = {}  # those that the objective may have
    on_timesteps = False  # whether its latents are the prediction at a timestep, so that its losses can be watched
    few_steps = 0  # painting steps that the adapter is made for; 0: as many as the model's default

    def __init__(self, config: TrainingConfig, painter: Painter):
        self.config, self.painter = config, painter
        self.weights = self._weights(config)
        if not self.weights:
            names = ", ".join(f"`l_{name}`" for name in self.terms_of)
            raise ValueError(f"`objective` {self.name!r} needs a weight above 0 among {names}.")
        if config.decoded % STORY_FRAMES and self.needs_stories(config):
            raise ValueError(f"`decoded` is {config.decoded}, but must be whole stories of {STORY_FRAMES} frames.")
        self.terms: dict[str, Term] = {name: self.terms_of[name](config, painter) for name in self.weights}
        self.logs: dict[str, float] = {}

    @classmethod
    def _weights(cls, config: TrainingConfig) -> dict[str, float]:
        weights = {name: getattr(config, f"l_{name}") for name in cls.terms_of}
        return {name: weight for name, weight in weights.items() if weight}

    @classmethod
    def needs_stories(cls, config: TrainingConfig) -> bool:
        """Whether a batch has to be whole stories."""
        return any(cls.terms_of[name].needs_stories for name in cls._weights(config))

    @property
    def learners(self) -> dict[str, Learner]:
        return {name: learner for term in self.terms.values() for name, learner in term.learners.items()}

    def find(self, batch: Batch) -> tuple[Found, dict[str, torch.Tensor]]:
        """The latents for a batch, and the losses that came with them (L2, if any)."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Every term of a batch, not yet weighted, by its name: scalars with gradients."""
        found, losses = self.find(batch)
        return {**losses, **{name: term(found) for name, term in self.terms.items()}}

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum, which is minimised."""
        return weighted_sum(losses, self.weights)

    def log(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the log says of this step: each term, and the terms' own figures."""
        figures = {f"term_{name}": value.detach() for name, value in losses.items()}
        own = {**self.logs, **{name: figure for term in self.terms.values() for name, figure in term.logs.items()}}
        return {**figures, **{name: torch.as_tensor(float(figure)) for name, figure in own.items()}}

    def state_dict(self) -> dict[str, object]:
        """All that learns beside the LoRA matrices."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])
