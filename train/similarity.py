"""How well a picture fits its caption, by a frozen CLIP pair, with gradients to the picture."""

from __future__ import annotations

import os

import torch
from transformers import CLIPModel, CLIPTokenizer

from train.features import preprocessing, scaled


class ClipSimilarity:
    """A CLIP pair.

    Args:
        path (`str` or `os.PathLike`): folder or Hub id of a `CLIPModel`. Its `preprocessor_config.json` says how
            pictures are scaled; without one they are given in [-1, 1], as `train.base clip` trained its own.
        base (`str` or `os.PathLike`): brings the tokenizer where `path` has none.
        device (`torch.device`): where it runs.

    Raises:
        ValueError: there is no CLIP pair at `path`, or it has too few words for the tokenizer.
    """

    def __init__(self, path: str | os.PathLike, base: str | os.PathLike, device: torch.device | str = "cpu"):
        try:
            self.model = CLIPModel.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False).to(device)
        except (OSError, ValueError) as error:  # a Hub id that cannot be is a ValueError
            raise ValueError(
                f"`clip` {str(path)!r} holds no CLIP pair ({' '.join(str(error).split())[:120]}); `python -m "
                "train.base clip` trains one and `export` writes it as BASE/clip."
            ) from None
        # transformers makes an empty tokenizer of a folder that has none
        own = not os.path.isdir(path) or os.path.isfile(os.path.join(path, "tokenizer_config.json"))
        self.tokenizer = CLIPTokenizer.from_pretrained(path if own else base, subfolder="" if own else "tokenizer")
        words = self.model.config.text_config.vocab_size
        if len(self.tokenizer) > words:
            raise ValueError(
                f"`clip` {str(path)!r} knows {words} tokens, but the tokenizer has {len(self.tokenizer)}."
            )
        self.size = self.model.config.vision_config.image_size
        self.mean, self.std, _ = preprocessing(path)
        self.length = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)

    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of pictures (B, 3, H, W) in [-1, 1]."""
        x = scaled(pictures, self.size, self.mean, self.std)
        return self.model.visual_projection(self.model.vision_model(x).pooler_output).float()

    @torch.no_grad()
    def texts(self, captions: list[str]) -> torch.Tensor:
        """Embeddings (B, D) of captions."""
        ids = self.tokenizer(
            captions, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        ).input_ids
        return self.model.text_projection(self.model.text_model(ids.to(self.model.device)).pooler_output).float()
