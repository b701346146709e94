"""Opens and saves the pipeline: the embedded model, a base of Stable Diffusion's, a folder of ours."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DPMSolverMultistepScheduler
from huggingface_hub import hf_hub_download
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from .captioner import SPECIAL_TOKENS
from .lora import AdaptedUNets, Adapter


if TYPE_CHECKING:
    from typing_extensions import Self

PIPELINE_FILE = "pipeline_saganets.py"
# that file runs with these
SIBLINGS = ("captioner.py", "checks.py", "loading.py", "lora.py", "pipeline_output.py", "story.py")
ADAPTER_FILE = "lora.safetensors"  # in a saved pipeline's folder


class SAGANetsLoaderMixin:
    """The part of `SAGANetsPipeline` that loads and saves."""

    @classmethod
    def from_embedded(cls, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Self:
        """The small model that ships with the project, with its adapter: on the CPU, offline, no download.

        Args:
            dtype (`torch.dtype`): of the painter; the captioner is float32 always. `fastest_dtype()` says which is the
                fastest here. A pipeline saved in bfloat16 is opened with the same `dtype`, to be bit-equal.

        Raises:
            ValueError: its files are not where the repository has them.
        """
        here = Path(__file__).resolve().parent
        folder, adapter = here / "embedded", here.parent / "lora_weights" / "gravel-gulch-diffusion.safetensors"
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"the embedded model is not in {folder}; use a checkout of the whole repository.")
        dtypes = {"default": dtype, "captioner": torch.float32}
        pipe = cls.from_pretrained(folder, dtype=dtypes, local_files_only=True, **kwargs)
        pipe.load_adapter(adapter)
        return pipe

    @classmethod
    def from_base(
        cls,
        base: str | os.PathLike,
        captioner: str | os.PathLike | None = None,
        lora: str | os.PathLike | None = None,
        dtype: torch.dtype = torch.float32,
        **kwargs: Any,
    ) -> Self:
        """A pipeline over a base model in Stable Diffusion's layout, with a captioner and an adapter trained for it.

        The base's solver gives way to DPM-Solver++ on the base's own noise schedule, for the few steps of our default.
        A safety checker of the base is not used.

        Args:
            base (`str` or `os.PathLike`): folder or Hub id, such as `"stable-diffusion-v1-5/stable-diffusion-v1-5"`.
            captioner (`str` or `os.PathLike`, *optional*): folder or Hub id of a GPT-2 as `train.saganets` writes it.
                Without one, only given captions can be painted.
            lora (`str` or `os.PathLike`, *optional*): adapter file of `train.saganets`.
            dtype (`torch.dtype`): of the painter; the captioner is float32 always.
            kwargs: as of `DiffusionPipeline.from_pretrained`; a component given (`scheduler=...`) is used as it is.

        Raises:
            ValueError: the captioner does not know the tokens of a story, or the adapter is for another base.
        """
        components = dict(kwargs)
        if captioner is not None:
            tokenizer = GPT2Tokenizer.from_pretrained(captioner)
            unknown = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
            if unknown:
                raise ValueError(
                    f"`captioner` {str(captioner)!r} does not know the token {unknown[0]}; accepted is a GPT-2 that "
                    "train.saganets wrote."
                )
            components["captioner"] = GPT2LMHeadModel.from_pretrained(captioner, dtype=torch.float32).eval()
            components["captioner_tokenizer"] = tokenizer
        for name in ("captioner", "captioner_tokenizer"):
            components.setdefault(name, None)
        pipe = cls.from_pretrained(base, dtype=dtype, **components)
        if "scheduler" not in kwargs:
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(
                pipe.scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
            )
        if lora is not None:
            pipe.load_adapter(lora)
        return pipe

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """As `DiffusionPipeline.from_pretrained`; the adapter saved with the pipeline comes along. `dtype` is float32
        unless it is given, whatever the files hold."""
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def register_to_config(self, **kwargs: Any) -> None:
        super().register_to_config(**kwargs)
        if kwargs.get("_name_or_path"):  # diffusers says last where a pipeline was loaded from
            self._adapted_unets()  # now, while a relative path still means the same

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """A saved `model_index.json` names this class's file, for diffusers to run; whoever calls
        `SAGANetsPipeline.from_pretrained` has the class, and runs no code of the folder."""
        config = super()._dict_from_json_file(json_file)
        if isinstance(config.get("_class_name"), list):
            config["_class_name"] = cls.__name__
        return config

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write a folder that opens by `from_pretrained`, and by diffusers alone:
        `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`."""
        unets, folder = self._adapted_unets(), Path(save_directory)
        self.register_to_config(adapter_file=ADAPTER_FILE if unets else None)
        super().save_pretrained(save_directory, **kwargs)
        if unets:
            unets.adapter.save(folder / ADAPTER_FILE)
        here = Path(__file__).resolve().parent
        for name in (PIPELINE_FILE, *SIBLINGS):
            if not (folder / name).exists() or not (folder / name).samefile(here / name):
                shutil.copyfile(here / name, folder / name)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = [Path(PIPELINE_FILE).stem, type(self).__name__]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def load_adapter(self, path: str | os.PathLike) -> None:
        """Use the adapter in a `.safetensors` file of ours, instead of the one that is loaded.

        Raises:
            ValueError: it is no such file, or it is for another base.
        """
        adapter = Adapter.load(path)
        adapter.check_fits(self.unet)
        self._adapted = AdaptedUNets(adapter)

    def _adapted_unets(self) -> AdaptedUNets | None:
        """The adapter at work. One that was saved with the pipeline is opened once its folder is known, which
        diffusers does not hand to a pipeline's `__init__`."""
        folder, file = self.config.get("_name_or_path"), self.config.adapter_file
        if self._adapted is None and self.unet is not None and folder and file:
            name = Path(file).name
            if os.path.isdir(folder):
                self.load_adapter(Path(folder) / name)
            else:
                self.load_adapter(hf_hub_download(folder, name))
        return self._adapted


def fastest_dtype() -> torch.dtype:
    """bfloat16 on a processor that multiplies it, where painting measured a third faster; float32 on any other."""
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
