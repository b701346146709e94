"""CLIP-T and CLIP-I: cosines of a CLIP that scores and trains nothing.

    python -m train.base clip --town DATA/town --gulch DATA/gulch --seed 7 --out runs/scorer

The painter reads captions with a text encoder of its own; a scorer that shares its weights would be no judge.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer


class Scorer:
    """A CLIP pair that gives unit vectors of pictures and captions.

    Args:
        model (`CLIPModel`): both towers.
        tokenizer (`CLIPTokenizer`): the model's own.
        mean, std (`Sequence[float]`): of the pictures' channels in [0, 1]; 0.5 for those that `train.base` trains.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.mean, self.std = (torch.tensor(list(v), dtype=torch.float32).view(1, 3, 1, 1) for v in (mean, std))

    @classmethod
    def load(cls, folder: str | Path) -> Scorer:
        """Open a folder of transformers' CLIP with its tokenizer, or one that `train.base clip` wrote.

        Raises:
            ValueError: there is neither.
        """
        folder = Path(folder)
        if (folder / "clip" / "checkpoint.pt").is_file() and (folder / "tokenizer").is_dir():
            from train.base import clip_config

            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            model = CLIPModel(clip_config(tokenizer))
            state = torch.load(folder / "clip" / "checkpoint.pt", weights_only=True, map_location="cpu")
            model.load_state_dict(state["modules"]["clip"])
            return cls(model, tokenizer)
        if not (folder / "config.json").is_file():
            raise ValueError(f"`folder` {folder} holds no CLIP; train one with `python -m train.base clip --seed 7`.")
        model = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        prepared = folder / "preprocessor_config.json"
        facts = json.loads(prepared.read_text()) if prepared.is_file() else {}
        return cls(model, tokenizer, facts.get("image_mean", (0.5,) * 3), facts.get("image_std", (0.5,) * 3))

    def refuse_own(self, text_encoder: CLIPTextModel) -> None:
        """Raises:
        ValueError: the model's text encoder has layers of this very CLIP.
        """
        own = {tuple(v.shape): v for n, v in text_encoder.state_dict().items() if "self_attn.q_proj.weight" in n}
        for name, value in self.model.text_model.state_dict().items():
            other = own.get(tuple(value.shape))
            if "self_attn.q_proj.weight" in name and other is not None:
                if torch.allclose(value.half().float(), other.detach().float().cpu(), atol=1e-3):
                    raise ValueError("`scorer` is the CLIP whose text encoder the model paints with; it cannot judge.")

    @torch.inference_mode()
    def pictures(self, pictures: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Unit vectors of pictures, uint8 (N, H, W, 3): float32 (N, D)."""
        side, found = self.model.config.vision_config.image_size, []
        for start in range(0, len(pictures), batch_size):
            x = torch.from_numpy(np.ascontiguousarray(pictures[start : start + batch_size])).permute(0, 3, 1, 2) / 255
            if x.shape[-1] >= side:
                x = F.interpolate(x, (side, side), mode="area")
            else:
                x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
            pooled = self.model.vision_model(pixel_values=(x - self.mean) / self.std).pooler_output
            found.append(F.normalize(self.model.visual_projection(pooled), dim=-1))
        return torch.cat(found).numpy()

    @torch.inference_mode()
    def captions(self, captions: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Unit vectors of captions: float32 (N, D)."""
        found = []
        for start in range(0, len(captions), batch_size):
            ids = self.tokenizer(
                list(captions[start : start + batch_size]),
                padding="max_length",
                max_length=self.model.config.text_config.max_position_embeddings,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            pooled = self.model.text_model(input_ids=ids).pooler_output
            found.append(F.normalize(self.model.text_projection(pooled), dim=-1))
        return torch.cat(found).numpy()
