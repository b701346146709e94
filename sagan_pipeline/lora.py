"""The adapter and its strength: W' = W0 + (alpha / r) B A on layers of a UNet (paper 4.2: of its attention).

Alpha belongs to a request. Nothing here changes the UNet that a pipeline holds: a request under some alpha runs on a
copy that shares every weight with it but the adapted ones. So requests cannot disturb each other, whatever runs at the
same time, and alpha 0 is the base model itself.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from safetensors.torch import save_file

from .adapter_files import Matrices, read_adapter


MAX_FEW_STEPS = 100  # that a header may ask for
KEPT_COPIES = 4  # of the UNet's adapted weights, one an alpha


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a UNet.

    Args:
        matrices (`dict[str, tuple[torch.Tensor, torch.Tensor]]`): A (r, in) and B (out, r) by the layer's path; of a
            convolution (r, in, h, w) and (out, r, 1, 1).
        rank (`int`): r.
        lora_alpha (`float`): the alpha it was trained at.
        header (`dict[str, str]`): the file's header, as it was.
        default_alpha (`float`, *optional*): the alpha to paint with, where the header has a `default_lora_alpha`.
        num_inference_steps (`int`, *optional*): the steps it was made for, where the header names them.
        guidance_scale (`float`, *optional*): the guidance it was made for.
    """

    matrices: Matrices
    rank: int
    lora_alpha: float
    header: dict[str, str]
    default_alpha: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    @property
    def is_generator(self) -> bool:
        """Whether it was trained as a GAN's generator, which is painted with by noising its pictures again."""
        return self.header.get("objective") == "gan" and self.num_inference_steps is not None

    @property
    def reads_pose(self) -> bool:
        """Whether it learnt with the pose that the noise chooses among its text states (`pose_noise.py`)."""
        return self.header.get("pose_noise") == "True"

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read a file of ours, of diffusers' trainers or of kohya's.

        Raises:
            ValueError: there is no such file, or it is not such an adapter.
        """
        path = Path(path)
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"`path` {str(path)!r} is no .safetensors file on this disk.")
        matrices, rank, alpha, header = read_adapter(path)
        facts = [
            _number(path, header, name) for name in ("default_lora_alpha", "num_inference_steps", "guidance_scale")
        ]
        steps = facts[1]
        if steps is not None and not (steps.is_integer() and 1 <= steps <= MAX_FEW_STEPS):
            raise ValueError(f"{path}: `num_inference_steps` in the header is {steps:g}, no number of few steps.")
        if facts[2] is not None and not 0 <= facts[2] <= 100:
            raise ValueError(f"{path}: `guidance_scale` in the header is {facts[2]:g}, but must be from 0 to 100.")
        return cls(matrices, rank, alpha, header, facts[0], None if steps is None else int(steps), facts[2])

    def save(self, path: str | Path) -> None:
        """Write it as a file of ours, with its r and alpha in the header."""
        tensors = {}
        for layer, (a, b) in self.matrices.items():
            tensors[f"unet.{layer}.lora_A.weight"] = a.contiguous()
            tensors[f"unet.{layer}.lora_B.weight"] = b.contiguous()
        save_file(tensors, path, metadata={"format": "pt", **self.header, "lora_adapter_metadata": self._settings()})

    def _settings(self) -> str:
        """peft's settings: those of the file, unless they say something else than these matrices."""
        settings = json.loads(self.header.get("lora_adapter_metadata", "{}"))
        same = (settings.get("unet.r"), settings.get("unet.lora_alpha")) == (self.rank, self.lora_alpha)
        if same and not settings.get("unet.use_rslora") and not settings.get("unet.alpha_pattern"):
            return self.header["lora_adapter_metadata"]
        ranks = {layer: a.shape[0] for layer, (a, _) in self.matrices.items() if a.shape[0] != self.rank}
        new = {
            "r": self.rank,
            "lora_alpha": self.lora_alpha,
            "target_modules": sorted(self.matrices),
            "rank_pattern": ranks,
            "alpha_pattern": {layer: self.lora_alpha * rank / self.rank for layer, rank in ranks.items()},
        }
        return json.dumps({f"unet.{name}": value for name, value in new.items()}, sort_keys=True)

    def check_fits(self, unet: UNet2DConditionModel) -> None:
        """Raises `ValueError` unless every layer is in `unet` and of the right shape."""
        for layer, (a, b) in self.matrices.items():
            try:
                weight = _layer(unet, layer).weight
            except AttributeError:
                raise ValueError(f"the adapter has {layer}, which this UNet lacks; it is for another base.") from None
            shape = (b.shape[0], *a.shape[1:])
            if weight.shape != shape:
                raise ValueError(
                    f"the adapter's {layer} is {shape}, this UNet's {tuple(weight.shape)}; it is for another base."
                )


def _number(path: Path, header: dict[str, str], name: str) -> float | None:
    """A number of the header; None where it is not there."""
    try:
        return float(header[name]) if name in header else None
    except ValueError:
        raise ValueError(f"{path}: `{name}` in the header is {header[name]!r}, no number.") from None


def _layer(unet: UNet2DConditionModel, layer: str) -> torch.nn.Linear | torch.nn.Conv2d:
    module = unet.get_submodule(layer)
    return getattr(module, "base_layer", module)  # peft wraps a layer that another adapter adapts


def adapted(unet: UNet2DConditionModel, adapter: Adapter, alpha: float) -> UNet2DConditionModel:
    """A UNet that shares its weights with `unet`, but for W0 + (alpha / r) B A in the adapted layers. It is compiled
    if `unet` is what `torch.compile` returned.

    Raises:
        ValueError: the weights are not there, since something takes them away between the layers.
    """
    plain = getattr(unet, "_orig_mod", unet)  # what `torch.compile` wraps
    shared = [*plain.parameters(), *plain.buffers(), *_hooks_of(plain)]
    if any(tensor.is_meta for tensor in plain.parameters()) or _is_group_offload_enabled(plain):
        raise ValueError(
            "`lora_alpha` above 0 needs the UNet's weights in one place, and sequential and group offload take them "
            "apart; `enable_model_cpu_offload` is possible."
        )
    twin = copy.deepcopy(plain, {id(each): each for each in shared})
    for layer, (a, b) in adapter.matrices.items():
        module = _layer(twin, layer)
        weight = module.weight
        # B A in the adapter's own place and precision, so that devices agree
        delta = (b.flatten(1).float() @ a.flatten(1).float()) * (alpha / adapter.rank)
        merged = (weight.float() + delta.view_as(weight).to(weight.device)).to(weight.dtype)
        module.weight = torch.nn.Parameter(merged, requires_grad=False)
    return twin if plain is unet else unet.dynamo_ctx(twin)


def _hooks_of(unet: UNet2DConditionModel) -> list[object]:
    """accelerate's hook that moves the whole module: it holds the part before it, of which there is to be one."""
    return [unet._hf_hook] if hasattr(unet, "_hf_hook") else []


class AdaptedUNets:
    """The adapted copies of one UNet under one adapter, the most recently used alphas kept. Safe for threads."""

    def __init__(self, adapter: Adapter):
        self.adapter = adapter
        self._base: UNet2DConditionModel | None = None
        self._kept: OrderedDict[tuple, UNet2DConditionModel] = OrderedDict()
        self._lock = threading.Lock()

    def under(self, unet: UNet2DConditionModel, alpha: float) -> UNet2DConditionModel:
        """`unet` under `alpha`; `unet` itself for 0."""
        if alpha == 0:
            return unet
        if getattr(unet, "peft_config", None):
            return adapted(unet, self.adapter, alpha)  # other adapters' weights may change at any time: keep nothing
        key = (str(unet.device), unet.dtype, alpha)
        with self._lock:
            if unet is not self._base:
                self._base = unet
                self._kept.clear()
            if key not in self._kept:
                self._kept[key] = adapted(unet, self.adapter, alpha)
                while len(self._kept) > KEPT_COPIES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]
