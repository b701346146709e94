"""The folder of a Space: the studio, what it runs with, and its README's settings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml


ROOT = Path(__file__).resolve().parents[2]
COPIED = ("app.py", "LICENSE", "studio", "sagan_pipeline", "lora_weights")
ENTRY = '''"""Starts the studio with the model of this Space. Variables of the Space's settings come before these."""

import os


os.environ.setdefault("SAGANETS_MODEL", {model!r})
{lora}
from app import main  # noqa: E402


main([])
'''


@dataclass(frozen=True)
class Hardware:
    """What a kind of Space hardware asks for.

    Args:
        python (`str`): its `python_version`.
        pins (`dict[str, str]`): versions that differ from the project's requirements.txt, or are not in it.
        gpu (`bool`): whether it has one.
    """

    python: str
    pins: dict[str, str]
    gpu: bool


HARDWARE = {
    "cpu-basic": Hardware("3.11", {}, gpu=False),
    "t4-small": Hardware("3.11", {}, gpu=True),
    # ZeroGPU runs Python 3.12.12 and PyTorch 2.8.0 to 2.11.0 alone
    "zero-a10g": Hardware("3.12.12", {"torch": "2.11.0", "spaces": "0.51.3"}, gpu=True),
}


def write_space(
    out: Path,
    hardware: str,
    model: str | None = None,
    lora: str | None = None,
    base: str | None = None,
    title: str = "SAGANets",
) -> None:
    """Write everything that the Space's repository holds.

    Args:
        hardware (`str`): one of `HARDWARE`.
        model (`str`, *optional*): Hub id of the model that a GPU runs. On `cpu-basic` it is the embedded model, and
            this is where it is published, if it is.
        lora (`str`, *optional*): adapter instead of the model's own: a file, which is copied, or
            `user/repository/file`.
        base (`str`, *optional*): Hub id of the base that `model` needs, fetched with it before the Space starts.

    Raises:
        ValueError: the hardware is unknown, a GPU has no model to run, or the embedded model is given an adapter.
    """
    if hardware not in HARDWARE:
        raise ValueError(f"`--hardware` is {hardware!r}, but must be one of {', '.join(HARDWARE)}.")
    kind = HARDWARE[hardware]
    if kind.gpu and not model:
        raise ValueError(f"`--model` is missing; {hardware} runs a model of the Hub, such as user/saganets-sd15.")
    if lora and not kind.gpu:
        raise ValueError("`--lora` is for a Space with a GPU; the embedded model has its own adapter.")
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(ROOT / name, out / name)
    if kind.gpu:
        line = ""
        if lora:
            if Path(lora).is_file():
                shutil.copyfile(lora, out / "lora_weights" / Path(lora).name)
                lora = f"lora_weights/{Path(lora).name}"
            line = f'os.environ.setdefault("SAGANETS_LORA", {lora!r})\n'
        (out / "space.py").write_text(ENTRY.format(model=model, lora=line), encoding="utf-8")
    else:
        (out / "space.py").unlink(missing_ok=True)
    (out / "requirements.txt").write_text(requirements(kind), encoding="utf-8")
    (out / "README.md").write_text(readme(hardware, model, base, title), encoding="utf-8")


def requirements(kind: Hardware) -> str:
    """The project's requirements.txt, with the hardware's own pins."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line) | kind.pins
    return "".join(f"{name}=={pinned}\n" for name, pinned in pins.items())


def readme(hardware: str, model: str | None, base: str | None, title: str) -> str:
    """The README.md of the Space, whose front matter is its configuration."""
    kind = HARDWARE[hardware]
    models = [name for name in (model, base) if name]
    matter = {
        "title": title,
        "emoji": "\U0001f995",
        "colorFrom": "yellow",
        "colorTo": "red",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": kind.python,
        "app_file": "space.py" if kind.gpu else "app.py",
        "suggested_hardware": hardware,
        "short_description": f"Illustrated stories from a caption, on a {'GPU' if kind.gpu else 'CPU'}",
        "license": "apache-2.0",
        "models": models,
        "preload_from_hub": list(models) if kind.gpu else [],
        "tags": ["text-to-image", "story-generation", "story-continuation", "lora", "diffusers"],
    }
    text = yaml.safe_dump({k: v for k, v in matter.items() if v}, sort_keys=False, allow_unicode=True)
    runs = f"[{model}](https://hf.co/{model})" if kind.gpu else "the small model in `sagan_pipeline/embedded/`"
    settings = (
        "\nThe variables `SAGANETS_MODEL` (a Hub id) and `SAGANETS_LORA` (a file here, or `user/repository/file`) in "
        "the Space's settings choose another model and adapter.\n"
        if kind.gpu
        else ""
    )
    return (
        f"---\n{text}---\n\n# {title}\n\nWrite how a story opens. A language model continues it, and a diffusion "
        f"model paints each frame. This Space runs {runs}.\n{settings}"
    )
