"""LoRA on the UNet's attention (paper 4.2), and the file that a trained adapter is kept in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from sagan_pipeline.lora import Adapter


LORA_TARGETS = ("to_q", "to_k", "to_v")  # of every self- and cross-attention layer, paper 4.2
FORMATS = ("peft", "kohya")


def add_lora(
    unet: UNet2DConditionModel,
    rank: int,
    alpha: float,
    seed: int,
    dropout: float = 0.0,
    init: str = "gaussian",
    targets: Sequence[str] = LORA_TARGETS,
) -> LoraConfig:
    """Freeze the UNet and add the trainable matrices A (random) and B (zero).

    Args:
        init (`str`): `"gaussian"` draws A as the diffusers trainers do, `"kaiming"` as peft and the LoRA paper's code.
        targets (`Sequence[str]`): the ends of the adapted layers' names; the paper's by default.

    Raises:
        ValueError: the UNet has no such layer.
    """
    names = [name for name, _ in unet.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ValueError(f"`lora_targets`: the UNet has no layer whose name ends in {target!r}.")
    unet.requires_grad_(False)
    config = lora_config(rank, alpha, init, targets, dropout)
    with torch.random.fork_rng():  # peft draws A from the global RNG
        torch.manual_seed(seed)
        unet.add_adapter(config)
    return config


def lora_config(rank: int, alpha: float, init: str, targets: Sequence[str], dropout: float = 0.0) -> LoraConfig:
    """peft's settings of such matrices."""
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        init_lora_weights=True if init == "kaiming" else init,
    )


def lora_layers(unet: UNet2DConditionModel) -> dict[str, LoraLayer]:
    """The adapted layers, by their paths."""
    return {path: module for path, module in unet.named_modules() if isinstance(module, LoraLayer)}


@torch.no_grad()
def load_lora(unet: UNet2DConditionModel, adapter: Adapter, name: str = "default") -> None:
    """Put an adapter's matrices in the place of those of the UNet's LoRA called `name`; layers that it lacks stay.

    Raises:
        ValueError: it is for another base, has another rank, or adapts a layer that this LoRA does not.
    """
    adapter.check_fits(unet)
    layers = lora_layers(unet)
    for path, (a, b) in adapter.matrices.items():
        layer = layers.get(path)
        if layer is None or name not in layer.lora_A:
            raise ValueError(f"`init_lora` adapts {path}, which `lora_targets` leaves out.")
        if layer.r[name] != a.shape[0]:
            raise ValueError(f"`init_lora` has rank {a.shape[0]} in {path}, but `rank` is {layer.r[name]}.")
        layer.lora_A[name].weight.copy_(a)
        layer.lora_B[name].weight.copy_(b.float() * (adapter.lora_alpha / adapter.rank / layer.scaling[name]))


@contextlib.contextmanager
def under_adapter(unet: UNet2DConditionModel, name: str | None) -> Iterator[None]:
    """Another of the UNet's LoRAs at work for a while, or none of them. Unlike `set_adapter`, who learns stays as it
    is; not for several threads."""
    layers = list(lora_layers(unet).values())
    before = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [] if name is None else [name]
        yield
    finally:
        for layer, names in zip(layers, before, strict=True):
            layer._active_adapter = names


def lora_parameters(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


@contextlib.contextmanager
def under_alpha(unet: UNet2DConditionModel, alpha: float) -> Iterator[None]:
    """The UNet's adapter at another alpha than the trained one, for a while; not for several threads."""
    layers = list(lora_layers(unet).values())
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            for name in layer.scaling:
                layer.scaling[name] = alpha / layer.r[name]
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


def adapter_header(config: LoraConfig, facts: Mapping[str, object]) -> dict[str, str]:
    """The header of an adapter file: peft's own metadata for every reader, and what made it, all strings."""
    metadata = config.to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])
    keep = {f"unet.{name}": value for name, value in metadata.items() if is_json(value)}
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(keep, sort_keys=True),
        **{name: str(value) for name, value in facts.items()},
    }


def is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def adapter_state(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The LoRA matrices under peft's keys with the prefix `unet.`, fp16."""
    return {f"unet.{name}": value.half().contiguous() for name, value in get_peft_model_state_dict(unet).items()}


def as_kohya(state: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The same matrices as ComfyUI and AUTOMATIC1111 read them.

    diffusers' converter writes `alpha = r` whatever alpha was; here the true one goes in.
    """
    converted = convert_state_dict_to_kohya(dict(state))
    for name in converted:
        if name.endswith(".alpha"):
            converted[name] = torch.tensor(float(alpha))
    return {name: value.contiguous() for name, value in converted.items()}


def save_adapter(
    unet: UNet2DConditionModel, config: LoraConfig, path: Path, facts: Mapping[str, object], format: str = "peft"
) -> None:
    """Write the adapter as fp16 safetensors with its header, aside first.

    Args:
        facts (`Mapping[str, object]`): what made it; r, alpha, versions, commit and ModelSpec's fields are added.
        format (`str`): `"peft"`, which diffusers and this project read, or `"kohya"`.

    Raises:
        ValueError: another `format`.
    """
    if format not in FORMATS:
        raise ValueError(f"`format` is {format!r}, but must be one of {FORMATS}.")
    state = adapter_state(unet)
    header = adapter_header(config, {**facts, **provenance(), "r": config.r, "lora_alpha": config.lora_alpha})
    header |= {
        "license": "apache-2.0",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": path.stem,
        "modelspec.license": "apache-2.0",
    }
    if format == "kohya":
        state = as_kohya(state, config.lora_alpha)
        header.pop("lora_adapter_metadata")  # its keys are those of peft; a reader that meets both refuses
        header |= {"ss_network_dim": str(config.r), "ss_network_alpha": str(config.lora_alpha)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    save_file(state, aside, metadata=header)
    os.replace(aside, path)


def provenance() -> dict[str, str]:
    """Commit and versions of what runs."""
    return {
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "peft", "accelerate")},
    }


def git_commit() -> str:
    """The commit that this process runs from, or `"unknown"` outside a checkout."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
