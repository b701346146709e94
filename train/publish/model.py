"""The folder of a model repository: a whole model, or the captioner and adapters of a base that is named by its id."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import HfApi

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.adapter_files import ADAPTER_FILE
from sagan_pipeline.loading import open_captioner, write_code
from sagan_pipeline.lora import Adapter


ROOT = Path(__file__).resolve().parents[2]
# opened by diffusers alone, as anybody would
OPENS = """
import sys
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True, local_files_only=True)
pipe.set_progress_bar_config(disable=True)
generator = torch.Generator().manual_seed(0)
frames = pipe(num_frames=2, num_inference_steps=1, generator=generator, output_type="latent").stories[0].frames
assert len(frames) == 2 and all(frame.image.isfinite().all() for frame in frames)
assert "sagan_pipeline" not in sys.modules
"""


def write_whole(out: Path, model: str, loras: list[Path]) -> tuple[SAGANetsPipeline, dict[str, Adapter]]:
    """Write a model with all its parts and with the adapters of `loras`; the first is the one that it opens with.

    Args:
        model (`str`): `"embedded"`, or a folder of `save_pretrained`.

    Returns:
        the pipeline, and the adapters by their files' names.

    Raises:
        ValueError: an adapter is for another base, or there is none at all.
    """
    if model == "embedded":
        pipe = SAGANetsPipeline.from_embedded()
    else:
        pipe = SAGANetsPipeline.from_pretrained(model, local_files_only=True)
    if loras:
        pipe.load_adapter(loras[0])
    if not pipe.lora_rank:
        raise ValueError(f"`--model` {model} has no adapter; give one by `--lora`.")
    pipe.save_pretrained(out)
    _forget_where(out)
    return pipe, _write_adapters(out, loras, pipe.unet)


def write_reference(
    out: Path, base: str, captioner: Path, loras: list[Path], revision: str | None = None
) -> tuple[SAGANetsPipeline, dict[str, Adapter]]:
    """Write a model of a captioner and adapters alone; all else comes from `base` whenever it is opened, at the commit
    that `revision` is today.

    Args:
        base (`str`): Hub id of a Stable Diffusion model.
        revision (`str`, *optional*): branch, tag or commit of it; the newest by default.

    Returns:
        the pipeline without its painter, and the adapters by their files' names.

    Raises:
        ValueError: the captioner or an adapter is for something else, or there is no adapter.
    """
    if not loras:
        raise ValueError("`--lora` is missing; a model that names its base consists of its adapters.")
    commit = HfApi().model_info(base, revision=revision).sha
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(base, subfolder="unet", revision=commit)
        )
    Adapter.load(loras[0]).check_fits(unet)
    model, tokenizer = open_captioner(captioner)
    pipe = SAGANetsPipeline(
        captioner=model, captioner_tokenizer=tokenizer, adapter_file=ADAPTER_FILE, base=base, base_revision=commit
    )
    DiffusionPipeline.save_pretrained(pipe, out)
    write_code(out)
    Adapter.load(loras[0]).save(out / ADAPTER_FILE)
    _forget_where(out)
    return pipe, _write_adapters(out, loras, unet)


def _write_adapters(out: Path, loras: list[Path], unet: UNet2DConditionModel) -> dict[str, Adapter]:
    adapters = {path.name: Adapter.load(path) for path in loras}
    for name, adapter in adapters.items():
        try:
            adapter.check_fits(unet)
        except ValueError as error:
            raise ValueError(f"`--lora` {name}: {error}") from None
        (out / "lora_weights").mkdir(exist_ok=True)
        adapter.save(out / "lora_weights" / name)
    return adapters or {ADAPTER_FILE: Adapter.load(out / ADAPTER_FILE)}


def _forget_where(out: Path) -> None:
    """Take the paths of this machine out of the settings."""
    for path in (out / "model_index.json", *out.glob("*/*config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_written(out: Path) -> SAGANetsPipeline:
    """The model of the folder and its base, fetched where it is not yet here; on the GPU where there is one."""
    if torch.cuda.is_available():
        return SAGANetsPipeline.from_pretrained(out, dtype=torch.float16).to("cuda")
    return SAGANetsPipeline.from_pretrained(out)


def paint_gallery(out: Path, pipe: SAGANetsPipeline, opening: str, seed: int = 7) -> list[tuple[str, str]]:
    """Paint one story of four frames into `out/images`.

    Returns:
        file and caption of each.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    shown = []
    for frame in pipe(opening, num_frames=4, generator=generator).stories[0].frames:
        file = f"images/frame-{frame.index + 1}.png"
        frame.image.save(out / file)
        shown.append((file, frame.caption))
    return shown


def copy_licence(out: Path) -> None:
    shutil.copyfile(ROOT / "LICENSE", out / "LICENSE")


def check_opens(out: Path) -> None:
    """Open the folder with diffusers alone, in a process of its own, and tell a story of noise.

    Raises:
        ValueError: it does not open; says what was raised there.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as elsewhere:
        run = subprocess.run(
            [sys.executable, "-c", OPENS, str(out.resolve())],
            cwd=elsewhere,
            env=environment | {"HF_MODULES_CACHE": elsewhere, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
    if run.returncode:
        raise ValueError(f"{out} was written, but diffusers does not open it: {run.stderr.strip().splitlines()[-1]}")
