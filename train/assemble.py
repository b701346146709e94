"""Put a trained base, captioner and adapter together as the embedded model that the project ships.

    python -m train.assemble --base runs/base/model --tuned runs/saganets --captioner runs/captions/captioner \\
        --town data/town --gulch data/gulch

Writes `sagan_pipeline/embedded/` (fp16 safetensors, diffusers' layout) and the adapter into `lora_weights/`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderDC, DiffusionPipeline, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.loading import EMBEDDED_ADAPTER
from sagan_pipeline.lora import Adapter
from train.data.flintstones import FlintstonesRelease


ROOT = Path(__file__).resolve().parents[1]


def words_of(releases: list[FlintstonesRelease]) -> list[str]:
    """Every word of the training captions, lower case, sorted."""
    captions = (release.clip(id).caption for release in releases for id in release.splits["train"])
    return sorted({word for caption in captions for word in re.findall(r"[^\W\d_]+", caption.lower())})


def assemble(base: Path, captioner: Path, town: FlintstonesRelease, gulch: FlintstonesRelease) -> SAGANetsPipeline:
    """The pipeline of the trained parts, fp16, without its adapter."""
    half = {"dtype": torch.float16}
    return SAGANetsPipeline(
        vae=AutoencoderDC.from_pretrained(base / "vae", torch_dtype=torch.float16),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder", **half),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float16),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(base / "scheduler"),
        captioner=GPT2LMHeadModel.from_pretrained(captioner, **half),
        captioner_tokenizer=GPT2Tokenizer.from_pretrained(captioner),
        cast=list(gulch.cast),
        places=sorted(gulch.settings),
        vocabulary=words_of([town, gulch]),
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder that `train.base export` wrote")
    parser.add_argument("--tuned", type=Path, required=True, help="folder that `train.saganets` wrote")
    parser.add_argument(
        "--captioner", type=Path, default=None, help="folder of the captioner; default: TUNED/captioner"
    )
    parser.add_argument("--town", type=Path, required=True, help="release that the base was trained on")
    parser.add_argument("--gulch", type=Path, required=True, help="release that the adapter was trained on")
    parser.add_argument("--name", default=EMBEDDED_ADAPTER.stem, help="of the adapter")
    parser.add_argument("--num_inference_steps", type=int, default=12, help="the model's default; choose by a sweep")
    parser.add_argument("--guidance_scale", type=float, default=4.0, help="the model's default; choose by a sweep")
    parser.add_argument("--lora_alpha", type=float, default=None, help="the adapter's default; none: as trained")
    parser.add_argument("--temperature", type=float, default=0.5, help="the captioner's default; choose by a sweep")
    parser.add_argument("--out", type=Path, default=ROOT, help="root of the project, or of a copy of it")
    args = parser.parse_args(argv)
    town, gulch = FlintstonesRelease(args.town), FlintstonesRelease(args.gulch)
    pipe = assemble(args.base, args.captioner or args.tuned / "captioner", town, gulch)
    pipe.register_to_config(
        default_num_inference_steps=args.num_inference_steps,
        default_guidance_scale=args.guidance_scale,
        default_temperature=args.temperature,
    )
    embedded = args.out / "sagan_pipeline" / "embedded"
    shutil.rmtree(embedded, ignore_errors=True)
    DiffusionPipeline.save_pretrained(pipe, embedded)  # without the code, which lies beside it
    for path in embedded.glob("*/config.json"):  # where it was trained is nobody's business
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    adapters = args.out / "lora_weights"
    adapters.mkdir(exist_ok=True)
    adapter = Adapter.load(args.tuned / f"{args.name}.safetensors")
    if args.lora_alpha is not None:
        adapter = replace(adapter, header={**adapter.header, "default_lora_alpha": str(args.lora_alpha)})
    adapter.save(adapters / f"{args.name}.safetensors")
    opened = SAGANetsPipeline.from_pretrained(embedded, dtype=torch.float32, local_files_only=True)
    opened.load_adapter(adapters / f"{args.name}.safetensors")
    size = sum(path.stat().st_size for folder in (embedded, adapters) for path in folder.rglob("*.safetensors"))
    print(f"{embedded} and {adapters}: {size / 1e6:.1f} MB of weights, {len(opened.vocabulary)} words")


if __name__ == "__main__":
    main()
