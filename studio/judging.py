"""What a judge sees in a picture: who, where, and how alike two pictures are. It sees those that it knows and nobody
else, and neither clothes nor deeds.

The judge in `judge/` is opened when somebody first asks for scores, and not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sagan_pipeline import SAGANetsPipeline

from .painting import in_painter


if TYPE_CHECKING:
    from transformers import ResNetForImageClassification

JUDGE = Path(__file__).parent / "judge"
SIZE = 128  # pixels that it was trained at
SURE = 0.5  # probability from which somebody counts as seen
CHARACTER, SETTING = "character: ", "setting: "


@dataclass(frozen=True)
class Seen:
    """What the judge sees in one picture.

    Args:
        cast (`tuple[str, ...]`): who is there.
        place (`str`): the likeliest place.
        features (`torch.Tensor`): float32 (256,), of length 1: what the judge's answers follow from.
    """

    cast: tuple[str, ...]
    place: str
    features: torch.Tensor


@dataclass(frozen=True)
class Score:
    """One line under a picture. `kind` is "kept", "missing", "extra" or "plain"; `text` says the same in words."""

    kind: str
    text: str


@lru_cache
def known(folder: Path = JUDGE) -> tuple[list[str], list[str]]:
    """The characters and the places that the judge knows, in the order of its answers; none without a judge."""
    if not (folder / "config.json").is_file():
        return [], []
    labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    names = [labels[str(number)] for number in range(len(labels))]
    cast = [name.removeprefix(CHARACTER) for name in names if name.startswith(CHARACTER)]
    return cast, [name.removeprefix(SETTING) for name in names if name.startswith(SETTING)]


def has_judge(pipe: SAGANetsPipeline) -> bool:
    """Whether the judge knows the pipeline's cast, and all of its places."""
    cast, places = known()
    return bool(cast) and set(cast) == set(pipe.cast) and set(pipe.places) <= set(places)


@lru_cache
def _model() -> ResNetForImageClassification:
    from transformers import ResNetForImageClassification

    model = ResNetForImageClassification.from_pretrained(JUDGE, local_files_only=True, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def look_at(pictures: Sequence[Image.Image]) -> list[Seen]:
    """What the judge sees in each picture, in the painter's thread, after what is being painted."""
    return in_painter(_look_at, pictures) if pictures else []


@torch.inference_mode()
def _look_at(pictures: Sequence[Image.Image]) -> list[Seen]:
    cast, places = known()
    # each alone: they may differ in size
    x = torch.cat([_prepared(picture) for picture in pictures])  # [B, 3, 128, 128]
    pooled = _model().resnet(x).pooler_output.flatten(1)  # [B, D]
    logits = _model().classifier(pooled)
    there = logits[:, : len(cast)].sigmoid() > SURE  # [B, C]
    where = logits[:, len(cast) :].argmax(dim=1)  # [B]
    return [
        Seen(tuple(name for name, yes in zip(cast, row, strict=True) if yes), places[place], features)
        for row, place, features in zip(there.tolist(), where.tolist(), F.normalize(pooled), strict=True)
    ]


def _prepared(picture: Image.Image) -> torch.Tensor:
    """(1, 3, 128, 128) in [-1, 1]; larger pictures are averaged down, as when the judge was trained."""
    x = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    if min(x.shape[-2:]) >= SIZE:
        return F.interpolate(x, (SIZE, SIZE), mode="area")
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False)


def named_in(caption: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that the caption names, as whole words in any case."""
    return [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE)]


def scores(caption: str, seen: Seen, before: Seen | None = None) -> list[Score]:
    """What to say under a picture: who and where, how much of what the caption names is seen, how like the frame
    before.

    Args:
        before (`Seen`, *optional*): of the frame before; without one nothing is said of it.
    """
    cast, places = known()
    who, where = named_in(caption, cast), named_in(caption, places)
    lines = [Score("kept", f"{name} \u2713") for name in who if name in seen.cast]
    lines += [Score("missing", f"{name} is missing") for name in who if name not in seen.cast]
    lines += [Score("extra", f"{name}, not asked for") for name in seen.cast if name not in who]
    if not where:
        lines.append(Score("plain", f"looks like the {seen.place}"))
    elif seen.place in where:
        lines.append(Score("kept", f"{seen.place} \u2713"))
    else:
        lines.append(Score("missing", f"looks like the {seen.place}, not the {where[0]}"))
    asked = len(who) + bool(where)
    if asked:
        kept = len(set(who) & set(seen.cast)) + (seen.place in where)
        lines.append(Score("plain", f"{kept} of {asked} named are seen"))
    if before is not None:
        lines.append(Score("plain", f"like the frame before: {float(seen.features @ before.features):.2f}"))
    return lines
