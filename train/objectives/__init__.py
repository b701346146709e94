"""Training objectives of the painter, one file each; `interface` says what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.objectives.clip import ClipCentric
from train.objectives.combined import Combined
from train.objectives.gan import Gan
from train.objectives.interface import Objective
from train.objectives.temporal import Temporal


if TYPE_CHECKING:
    from train.config import TrainingConfig
    from train.painter import Painter


OBJECTIVES: dict[str, type[Objective]] = {each.name: each for each in (Gan, ClipCentric, Temporal, Combined)}


def make_objective(config: TrainingConfig, painter: Painter) -> Objective | None:
    """The objective that `config.objective` names; None for plain diffusion, which needs none."""
    return OBJECTIVES[config.objective](config, painter) if config.objective != "diffusion" else None


def needs_stories(config: TrainingConfig) -> bool:
    """Whether the painter's batches have to be whole stories."""
    return config.objective != "diffusion" and OBJECTIVES[config.objective].needs_stories(config)
