"""The adapter and its strength: W' = W0 + (alpha / r) B A on the attention layers of a UNet (paper 4.2).

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


KEPT_COPIES = 4  # of the UNet's adapted weights, one an alpha


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter of a UNet.

    Args:
        matrices (`dict[str, tuple[torch.Tensor, torch.Tensor]]`): A (r, in) and B (out, r) by the layer's path.
        rank (`int`): r.
        lora_alpha (`float`): the alpha it was trained at.
        header (`dict[str, str]`): the file's header, as it was.
        default_alpha (`float`, *optional*): the alpha to paint with, where the header has a `default_lora_alpha`.
    """

    matrices: dict[str, tuple[torch.Tensor, torch.Tensor]]
    rank: int
    lora_alpha: float
    header: dict[str, str]
    default_alpha: float | None = None

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """Read a file of ours: keys `unet.<path>.lora_A.weight` and `.lora_B.weight`, peft's metadata in the header.

        Raises:
            ValueError: there is no such file, or it is not such an adapter.
        """
        path = Path(path)
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"`path` {str(path)!r} is no .safetensors file on this disk.")
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not whole safetensors ({error}).") from None
        try:
            metadata = json.loads(header["lora_adapter_metadata"])
            rank, alpha = int(metadata["unet.r"]), float(metadata["unet.lora_alpha"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path} does not say its r and alpha (`lora_adapter_metadata` in the header), so its strength is "
                "not known."
            ) from None
        default = header.get("default_lora_alpha")
        try:
            default = None if default is None else float(default)
        except ValueError:
            raise ValueError(f"{path}: `default_lora_alpha` in the header is {default!r}, no number.") from None
        matrices = {}
        for name in tensors:
            layer, _, rest = name.removeprefix("unet.").rpartition(".lora_")
            if not name.startswith("unet.") or not layer or rest not in ("A.weight", "B.weight"):
                raise ValueError(f"{path} holds {name!r}; accepted are unet.<layer>.lora_A.weight and lora_B.weight.")
            pair = [tensors.get(f"unet.{layer}.lora_{letter}.weight") for letter in "AB"]
            if any(matrix is None or matrix.ndim != 2 for matrix in pair) or pair[0].shape[0] != pair[1].shape[1]:
                raise ValueError(f"{path}: the matrices of {layer} do not fit each other.")
            matrices[layer] = (pair[0], pair[1])
        if not matrices or rank < 1:
            raise ValueError(f"{path} holds no matrices.")
        return cls(matrices, rank, alpha, header, default)

    def save(self, path: str | Path) -> None:
        """Write the file again, as it was."""
        tensors = {}
        for layer, (a, b) in self.matrices.items():
            tensors[f"unet.{layer}.lora_A.weight"] = a.contiguous()
            tensors[f"unet.{layer}.lora_B.weight"] = b.contiguous()
        save_file(tensors, path, metadata=self.header)

    def check_fits(self, unet: UNet2DConditionModel) -> None:
        """Raises `ValueError` unless every layer is in `unet` and of the right shape."""
        for layer, (a, b) in self.matrices.items():
            try:
                weight = _linear(unet, layer).weight
            except AttributeError:
                raise ValueError(f"the adapter has {layer}, which this UNet lacks; it is for another base.") from None
            if weight.shape != (b.shape[0], a.shape[1]):
                raise ValueError(
                    f"the adapter's {layer} is {(b.shape[0], a.shape[1])}, this UNet's {tuple(weight.shape)}; it is "
                    "for another base."
                )


def _linear(unet: UNet2DConditionModel, layer: str) -> torch.nn.Linear:
    module = unet.get_submodule(layer)
    return getattr(module, "base_layer", module)  # peft wraps a layer that another adapter adapts


def adapted(unet: UNet2DConditionModel, adapter: Adapter, alpha: float) -> UNet2DConditionModel:
    """A UNet that shares its weights with `unet`, but for W0 + (alpha / r) B A in the adapted layers."""
    shared = [*unet.parameters(), *unet.buffers()]
    twin = copy.deepcopy(unet, {id(tensor): tensor for tensor in shared})
    for layer, (a, b) in adapter.matrices.items():
        linear = _linear(twin, layer)
        weight = linear.weight
        # B A in the adapter's own place and precision, so that devices agree
        delta = (b.float() @ a.float()) * (alpha / adapter.rank)
        merged = (weight.float() + delta.to(weight.device)).to(weight.dtype)
        linear.weight = torch.nn.Parameter(merged, requires_grad=False)
    return twin


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
