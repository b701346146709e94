"""Opens and saves the pipeline: the embedded model, a base of Stable Diffusion's, a folder or a Hub id of ours."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DPMSolverMultistepScheduler
from huggingface_hub import hf_hub_download
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from .adapter_files import ADAPTER_FILE, find_adapter
from .captioner import SPECIAL_TOKENS
from .lora import AdaptedUNets, Adapter
from .one_file import joined


if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

PIPELINE_FILE = "pipeline_saganets.py"
# what `custom_pipeline=` looks for in a folder or a repository
CUSTOM_FILE, CUSTOM_CODE = "pipeline.py", "from .pipeline_saganets import SAGANetsPipeline\n"
PAINTER = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "safety_checker", "feature_extractor")
# no longer on the Hub, and where its copy is
MOVED = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
OF_THE_HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
OF_ALL_PARTS = (
    "cache_dir",
    "device_map",
    "dtype",
    "force_download",
    "local_files_only",
    "proxies",
    "token",
    "variant",
)


EMBEDDED = Path(__file__).resolve().parent / "embedded"
EMBEDDED_ADAPTER = EMBEDDED.parents[1] / "lora_weights" / "gravel-gulch-diffusion.safetensors"


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
        if not (EMBEDDED / "model_index.json").is_file():
            raise ValueError(f"the embedded model is not in {EMBEDDED}; use a checkout of the whole repository.")
        dtypes = {"default": dtype, "captioner": torch.float32}
        pipe = cls.from_pretrained(EMBEDDED, dtype=dtypes, local_files_only=True, **kwargs)
        pipe.load_adapter(EMBEDDED_ADAPTER)
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
        Its safety checker stays, unless `safety_checker=None` is given.

        Args:
            base (`str` or `os.PathLike`): folder or Hub id, such as `"stable-diffusion-v1-5/stable-diffusion-v1-5"`.
            captioner (`str` or `os.PathLike`, *optional*): folder or Hub id of a GPT-2 as `train.saganets` writes it.
                Without one, only given captions can be painted.
            lora (`str` or `os.PathLike`, *optional*): adapter: a file, a folder, `user/repository` or
                `user/repository/file.safetensors`; see `load_adapter`.
            dtype (`torch.dtype`): of the painter; the captioner is float32 always.
            kwargs: as of `DiffusionPipeline.from_pretrained`; a component given (`scheduler=...`, or `vae=` an
                `AutoencoderTiny` such as TAESD) is used as it is.

        Raises:
            ValueError: the base lacks a part, the captioner does not know the tokens of a story, or the adapter is for
                another base.
        """
        of_hub = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token") if name in kwargs}
        components = dict(kwargs)
        if captioner is not None:
            components["captioner"], components["captioner_tokenizer"] = open_captioner(captioner, **of_hub)
        for name in ("captioner", "captioner_tokenizer"):
            components.setdefault(name, None)
        if kwargs.get("safety_checker", ...) is None:
            components.setdefault("feature_extractor", None)
        pipe = cls.from_pretrained(base, dtype=dtype, base=None, **components)  # a base names no base
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            if getattr(pipe, part) is None and part not in kwargs:
                raise ValueError(f"`base` {str(base)!r} has no {part}; accepted is a whole Stable Diffusion model.")
        if "scheduler" not in kwargs:
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(
                pipe.scheduler.config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
            )
        if lora is not None:
            pipe.load_adapter(lora, **of_hub)
        return pipe

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """As `DiffusionPipeline.from_pretrained`; the adapter saved with the pipeline comes along, and so do the parts
        of the base that it names. `dtype` is float32 unless it is given, whatever the files hold."""
        if "torch_dtype" in kwargs:
            kwargs["dtype"] = kwargs.pop("torch_dtype")
        kwargs.setdefault("dtype", torch.float32)
        name = str(pretrained_model_name_or_path)
        if name in MOVED and not os.path.isdir(name):
            logger.warning("%s is no longer on the Hub; %s is taken, its copy.", name, MOVED[name])
            pretrained_model_name_or_path = MOVED[name]
        of_hub = {name: kwargs[name] for name in OF_THE_HUB if name in kwargs}
        index = cls.load_config(pretrained_model_name_or_path, **of_hub)
        if index.get("base") and "base" not in kwargs:
            shared = {name: kwargs[name] for name in OF_ALL_PARTS if name in kwargs}
            base = cls._of_base(index, {part: kwargs[part] for part in PAINTER if part in kwargs}, **shared)
            kwargs.update({part: getattr(base, part) for part in PAINTER}, base=None)
            kwargs.pop("variant", None)  # of the base's files
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def download(cls, pretrained_model_name: str | os.PathLike, **kwargs: Any) -> str | os.PathLike:
        """As `DiffusionPipeline.download`, with the adapter."""
        folder = Path(super().download(pretrained_model_name, **kwargs))
        file = cls._dict_from_json_file(folder / cls.config_name).get("adapter_file")
        if file:
            of_hub = {name: kwargs[name] for name in OF_THE_HUB if name in kwargs} | {"revision": folder.name}
            hf_hub_download(str(pretrained_model_name), Path(file).name, **of_hub)
        return folder

    @classmethod
    def _of_base(cls, index: dict[str, Any], parts: dict[str, Any], **kwargs: Any) -> Self:
        """The pipeline over the base that `index` names, at the revision that it names."""
        return cls.from_base(
            index["base"], revision=index.get("base_revision"), use_safetensors=True, **parts, **kwargs
        )

    def register_to_config(self, **kwargs: Any) -> None:
        super().register_to_config(**kwargs)
        if kwargs.get("_name_or_path"):  # diffusers says last where a pipeline was loaded from
            if self.config.base and self.unet is None:  # opened by diffusers, which knows of no base
                of_captioner = {"dtype": self.captioner.dtype} if self.captioner is not None else {}
                base = self._of_base(self.config, {}, **of_captioner)
                missing = {name: getattr(base, name) for name in PAINTER if getattr(self, name) is None}
                self.register_modules(**missing)
                if self.captioner is not None:
                    self.to(self.captioner.device)
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
        if kwargs.get("push_to_hub"):
            raise ValueError(
                "`push_to_hub` is not accepted here; `python -m train.publish model --push` sends a model."
            )
        unets, folder = self._adapted_unets(), Path(save_directory)
        self.register_to_config(adapter_file=ADAPTER_FILE if unets else None, base=None, base_revision=None)
        super().save_pretrained(save_directory, **kwargs)
        if unets:
            unets.adapter.save(folder / ADAPTER_FILE)
        write_code(folder)

    def load_adapter(self, path: str | os.PathLike, **kwargs: Any) -> None:
        """Use this adapter instead of the one that is loaded. Adapters of others go beside it, by `load_lora_weights`
        and `set_adapters`; a call's alpha is of this one alone.

        Args:
            path (`str` or `os.PathLike`): a `.safetensors` file, a folder that holds one, `user/repository` or
                `user/repository/file.safetensors` on the Hub: of ours, of diffusers' trainers or of kohya's.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, of an adapter on the Hub.

        Raises:
            ValueError: it is no such file, or it is for another base.
        """
        adapter = Adapter.load(find_adapter(path, **kwargs))
        adapter.check_fits(self.unet)
        self._adapted = AdaptedUNets(adapter)

    def _adapted_unets(self) -> AdaptedUNets | None:
        """The adapter at work. One that was saved with the pipeline is opened once its folder is known, which
        diffusers does not hand to a pipeline's `__init__`."""
        folder, file = self.config.get("_name_or_path"), self.config.adapter_file
        if self._adapted is None and self.unet is not None and folder and file:
            name = Path(file).name
            self.load_adapter(Path(folder) / name if os.path.isdir(folder) else self._on_hub(str(folder), name))
        return self._adapted

    def _on_hub(self, repository: str, file: str) -> str:
        """A file of the repository that the pipeline was loaded from, of the same commit."""
        for part in self.components.values():
            origin = getattr(part, "name_or_path", None) or getattr(part, "config", {}).get("_name_or_path")
            commit = Path(str(origin)).parent
            if commit.match(f"models--{repository.replace('/', '--')}/snapshots/*"):
                return hf_hub_download(repository, file, revision=commit.name, cache_dir=commit.parents[2])
        return hf_hub_download(repository, file)


def write_code(folder: Path) -> None:
    """Write the pipeline's code into a saved pipeline's folder, in the form that diffusers runs."""
    here = Path(__file__).resolve()
    if here.name != PIPELINE_FILE:
        (folder / PIPELINE_FILE).write_text(joined(here.with_name(PIPELINE_FILE)), encoding="utf-8")
    elif here != (folder / PIPELINE_FILE).resolve():  # this is that one file
        shutil.copyfile(here, folder / PIPELINE_FILE)
    (folder / CUSTOM_FILE).write_text(CUSTOM_CODE, encoding="utf-8")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["_class_name"] = [Path(PIPELINE_FILE).stem, "SAGANetsPipeline"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def open_captioner(path: str | os.PathLike, **kwargs: Any) -> tuple[GPT2LMHeadModel, GPT2Tokenizer]:
    """A captioner as `train.saganets` writes it, in float32, and its tokenizer. Raises `ValueError` for any other."""
    tokenizer = GPT2Tokenizer.from_pretrained(path, **kwargs)
    unknown = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if unknown:
        raise ValueError(
            f"`captioner` {str(path)!r} does not know the token {unknown[0]}; accepted is a GPT-2 that train.saganets "
            "wrote."
        )
    return GPT2LMHeadModel.from_pretrained(path, dtype=torch.float32, **kwargs).eval(), tokenizer


def fastest_dtype() -> torch.dtype:
    """bfloat16 on a processor that multiplies it, where painting measured a third faster; float32 on any other."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every PyTorch that a Space may have
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
