"""What a call of the pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput

from .story import Story


@dataclass
class SAGANetsPipelineOutput(BaseOutput):
    """What a call returns.

    Args:
        stories (`list[Story]`): for each story of the prefix, one for each alpha, in that order.
        images (`list[list]`): the pictures of each story; see `Frame.image` for their type.
        captions (`list[list[str]]`): the captions of each story.
    """

    stories: list[Story]
    images: list[list[Any]]
    captions: list[list[str]]
