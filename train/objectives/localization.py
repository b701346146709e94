"""Who is looked up where: inside a character's box the UNet attends to that character's name and to no other's.

Of two people in a frame, clothes and hair get mixed when the pixels of one attend to the name of the other. The
annotations say where each of them is, so cross-attention can be taught directly: the localization loss of FastComposer
(Xiao et al. 2023, section 4.2), put as a choice among the names in the frame, so that it asks nothing of other tokens.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

from train.data.flintstones import FlintstonesRelease


MAX_PIXELS = 1024  # of a map; the finer ones of a large UNet are left out


def mentions(caption: str, names: Sequence[str], tokenizer: CLIPTokenizer) -> dict[str, list[int]]:
    """Where a caption names somebody: positions among its tokens, the first token being number 0.

    Args:
        names (`Sequence[str]`): in any case; those that do not occur as whole words are left out.
    """
    encoded = tokenizer(caption, truncation=True, return_offsets_mapping=True)
    found = {}
    for name in names:
        spans = [match.span() for match in re.finditer(rf"\b{re.escape(name)}\b", caption, re.IGNORECASE)]
        places = [
            i
            for i, (start, end) in enumerate(encoded.offset_mapping)
            if any(first <= start < end <= last for first, last in spans)
        ]
        if places:
            found[name] = places
    return found


def localization_loss(
    maps: Sequence[torch.Tensor], tokens: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """-log of the share that a pixel's own character has of its attention to all characters of the frame, mean over
    the pixels that lie in one box alone, and over the maps: a scalar.

    Args:
        maps (`Sequence[torch.Tensor]`): cross-attention probabilities, (B * heads, h * w, L) each.
        tokens (`torch.Tensor`): (B, N, L), 1 where token l names character n, else 0.
        boxes (`torch.Tensor`): (B, N, 4), x1, y1, x2, y2 in [0, 1]; of no area where there is no such character.
        size (`tuple[int, int]`): h, w of the latents, which the maps' pixels are halves, quarters, ... of.
    """
    count, total = 0, tokens.sum() * 0.0
    for probabilities in maps:
        own = own_pixels(boxes, _side(probabilities.shape[1], size))  # [B, N, hw]
        if not own.any():
            continue
        mean = probabilities.float().unflatten(0, (len(tokens), -1)).mean(dim=1)  # [B, hw, L]
        attention = torch.einsum("bpl,bnl->bnp", mean, tokens) + 1e-6
        everybody = attention.masked_fill(~tokens.any(dim=2)[..., None], 0).sum(dim=1, keepdim=True)
        # chosen before the division, which has no gradient where nobody is named
        total = total - (attention[own] / everybody.expand_as(attention)[own]).log().mean()
        count += 1
    return total / max(count, 1)


def own_pixels(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Which pixels have their centres in a character's box and in no other's: (B, N, h * w) bool."""
    h, w = size
    y = ((torch.arange(h, device=boxes.device) + 0.5) / h)[:, None].expand(h, w).flatten()
    x = ((torch.arange(w, device=boxes.device) + 0.5) / w)[None].expand(h, w).flatten()
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=2)  # [B, N, 1] each
    inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return inside & (inside.sum(dim=1, keepdim=True) == 1)


def _side(pixels: int, size: tuple[int, int]) -> tuple[int, int]:
    h, w = size
    while h * w > pixels:
        h, w = (h + 1) // 2, (w + 1) // 2
    if h * w != pixels:
        raise ValueError(f"an attention map has {pixels} pixels, which {size} latents have at no level")
    return h, w


class Localizer:
    """The loss for a release's clips under a UNet.

    Args:
        unet (`UNet2DConditionModel`): its cross-attention must compute probabilities (`AttnProcessor`).
        release (`FlintstonesRelease`): boxes and cast.
        ids (`Sequence[str]`): clips, in the order in which `loss` takes their numbers.
        tokenizer (`CLIPTokenizer`): of the text states.
        moments (`Sequence[float]`): which moments of a clip its cached frames show, 0 to 1.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        release: FlintstonesRelease,
        ids: Sequence[str],
        tokenizer: CLIPTokenizer,
        moments: Sequence[float],
    ):
        self.maps: list[torch.Tensor] | None = None
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.get_attention_scores = self._recorded(module.get_attention_scores)
        named = [mentions(release.clip(id).caption, release.cast, tokenizer) for id in ids]
        most = max(1, *map(len, named))
        self.tokens = torch.zeros(len(ids), most, tokenizer.model_max_length, dtype=torch.bool)
        self.boxes = torch.zeros(len(ids), len(moments), most, 4)
        for row, (id, found) in enumerate(zip(ids, named, strict=True)):
            if len(found) < 2:  # one alone has nobody to be mixed up with
                continue
            for n, places in enumerate(found.values()):
                self.tokens[row, n, places] = True
            places = np.stack([release.boxes(id, moment, list(found)) for moment in moments])
            self.boxes[row, :, : len(found)] = torch.from_numpy(places)

    def _recorded(self, scores):
        def recorded(*args, **kwargs) -> torch.Tensor:
            probabilities = scores(*args, **kwargs)
            if self.maps is not None and probabilities.shape[1] <= MAX_PIXELS:
                self.maps.append(probabilities)
            return probabilities

        return recorded

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[torch.Tensor]]:
        """The maps of the forward passes within, one a cross-attention layer."""
        self.maps = []
        try:
            yield self.maps
        finally:
            self.maps = None

    def loss(
        self,
        maps: Sequence[torch.Tensor],
        clips: torch.Tensor,
        frames: torch.Tensor,
        captioned: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """`localization_loss` of a batch.

        Args:
            clips (`torch.Tensor`), frames (`torch.Tensor`): (B,), numbers of the clips and of their cached frames.
            captioned (`torch.Tensor`): (B,) bool; False where the caption was left empty, and nobody is named.
            size (`tuple[int, int]`): h, w of the latents.
        """
        device = maps[0].device
        tokens = self.tokens[clips].to(device, torch.float32)
        boxes = self.boxes[clips, frames] * captioned[:, None, None]
        return localization_loss(maps, tokens, boxes.to(device), size)
