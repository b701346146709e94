"""Adapter files: where they are found, and what the writers that there are put into them.

Ours, diffusers' trainers' (with and without metadata, with old names and new) and kohya's, all to A, B, r and alpha.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import convert_unet_state_dict_to_peft
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open


ADAPTER_FILE = "lora.safetensors"  # in a saved pipeline's folder
USUAL_FILES = (ADAPTER_FILE, "pytorch_lora_weights.safetensors")  # ours, diffusers'
UNREADABLE = ("dora_scale", "lora_magnitude_vector", "hada_w", "lokr_w", "oft_", "lora_mid")
Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]


def find_adapter(path: str | os.PathLike, **kwargs: Any) -> Path:
    """The `.safetensors` file that `path` means.

    Args:
        path (`str` or `os.PathLike`): a file, a folder that holds one, `user/repository` or `user/repository/file`.
        kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, as of `huggingface_hub.hf_hub_download`.

    Raises:
        ValueError: there is none, or a folder or repository holds several and none of a usual name.
    """
    given, local = str(path), Path(path)
    if local.is_dir():
        return local / _one_of([file.name for file in local.glob("*.safetensors")], given)
    if local.is_file() and local.suffix == ".safetensors":
        return local
    parts = given.split("/")
    file = "/".join(parts[2:])
    on_hub = isinstance(path, str) and len(parts) >= 2 and all(parts) and not given.startswith(".")
    if not on_hub or local.exists() or bool(file) != given.endswith(".safetensors"):
        raise ValueError(
            f"`path` {given!r} is no .safetensors file on this disk, no folder with one, and no Hub id "
            "(user/repository or user/repository/file.safetensors)."
        )
    repository = "/".join(parts[:2])
    try:
        if not file:
            names = HfApi(token=kwargs.get("token")).list_repo_files(repository, revision=kwargs.get("revision"))
            file = _one_of([name for name in names if name.endswith(".safetensors") and "/" not in name], given)
        return Path(hf_hub_download(repository, file, **kwargs))
    except (HfHubHTTPError, HFValidationError, EntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"`path` {given!r} is not on this disk, and the Hub does not give it: {reason}") from error


def _one_of(names: list[str], where: str) -> str:
    usual = [name for name in USUAL_FILES if name in names]
    if not usual and len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise ValueError(f"`path` {where!r} should hold one .safetensors file; found: {found}.")
    return usual[0] if usual else names[0]


def read_adapter(path: Path) -> tuple[Matrices, int, float, dict[str, str]]:
    """A (r, ...) and B (out, r) by the UNet's layer, r, the alpha trained at, and the file's header.

    Where layers have ranks and alphas of their own, r and alpha are the commonest, and the others' B is scaled for
    them, so that one alpha fits all. A file that says no alpha was trained at alpha = r, as diffusers takes it.

    Raises:
        ValueError: it is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not whole safetensors ({error}).") from None
    state, alphas = _unet_layers(path, tensors)
    settings = _settings(path, header)
    matrices, scales = {}, {}
    for name in state:
        layer, _, rest = name.rpartition(".lora_")
        if not layer or rest not in ("A.weight", "B.weight"):
            raise ValueError(f"{path} holds {name!r}; accepted are the matrices A and B of a UNet's layers.")
        a, b = (state.get(f"{layer}.lora_{letter}.weight") for letter in "AB")
        if a is None or b is None or a.ndim not in (2, 4) or a.ndim != b.ndim or a.shape[0] != b.shape[1]:
            raise ValueError(f"{path}: the matrices of {layer} do not fit each other.")
        rank = a.shape[0]
        if settings is not None:
            alpha = _of_layer(layer, settings.get("alpha_pattern"), settings["lora_alpha"])
            alpha = alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha  # alpha / sqrt(r) there
        else:
            alpha = alphas.get(layer, float(rank))
        if not 0 < alpha < math.inf:
            raise ValueError(f"{path}: the alpha of {layer} is {alpha}, but must be above 0.")
        matrices[layer], scales[layer] = (a, b), (rank, float(alpha))
    if not matrices:
        raise ValueError(f"{path} holds no matrices.")
    rank, alpha = Counter(scales.values()).most_common(1)[0][0]
    for layer, own in scales.items():
        if own != (rank, alpha):
            a, b = matrices[layer]
            matrices[layer] = (a, (b.float() * (own[1] / own[0]) / (alpha / rank)).to(b.dtype))
    return matrices, rank, alpha, header


def _unet_layers(path: Path, tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The tensors under peft's names without `unet.`, and the alphas that kohya's files hold as tensors."""
    for name in tensors:
        if any(part in name for part in UNREADABLE):
            raise ValueError(f"{path} holds {name!r}; accepted is plain LoRA, no DoRA, LoHa, LoKr, OFT or CP.")
        if name.startswith(("lora_te", "text_encoder")):
            raise ValueError(
                f"{path} adapts the text encoder too ({name!r}), where alpha has no say; load it beside ours, by "
                "`load_lora_weights` and `set_adapters`."
            )
    found: dict[str, float] = {}
    if tensors and all(name.startswith("lora_unet_") for name in tensors):
        try:
            tensors, found = StableDiffusionLoraLoaderMixin.lora_state_dict(dict(tensors))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is no LoRA file of kohya's ({error}).") from None
    state = convert_unet_state_dict_to_peft(tensors)
    prefixed = any(name.startswith("unet.") for name in state)
    for name in state:
        if prefixed and not name.startswith("unet."):
            raise ValueError(f"{path} holds {name!r}; accepted are the matrices A and B of a UNet's layers.")
    alphas = {}
    for name, alpha in convert_unet_state_dict_to_peft(found or {}).items():
        alphas[name.removeprefix("unet.").removesuffix(".alpha").removesuffix(".lora_A.weight")] = float(alpha)
    return {name.removeprefix("unet."): value for name, value in state.items()}, alphas


def _settings(path: Path, header: dict[str, str]) -> dict[str, Any] | None:
    """peft's settings in the header, `None` where there are none."""
    if "lora_adapter_metadata" not in header:
        return None
    try:
        metadata = json.loads(header["lora_adapter_metadata"])
        settings = {name.removeprefix("unet."): value for name, value in metadata.items()}
        settings["lora_alpha"] = float(settings["lora_alpha"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: `lora_adapter_metadata` in the header does not say the alpha.") from None
    if settings.get("use_dora"):
        raise ValueError(f"{path} is DoRA; accepted is plain LoRA.")
    return settings


def _of_layer(layer: str, pattern: dict[str, float] | None, default: float) -> float:
    """peft's rule: the first pattern that is the layer's path or its end."""
    for name, value in (pattern or {}).items():
        if layer == name or layer.endswith(f".{name}"):
            return float(value)
    return default
