"""The model card: what the model is, how to use it, how strong alpha is, and the figures as they were measured."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from sagan_pipeline.lora import Adapter


USE = """```python
import torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("{repo}", trust_remote_code=True)
out = pipe("{opening}", num_frames=4, lora_alpha={alpha:g}, generator=torch.Generator().manual_seed(7))
[frame.image.save(f"frame-{{frame.index + 1}}.png") for frame in out.stories[0].frames]
```"""
METRICS = (  # of the evaluation's painted frames: key, the Hub's type, name
    ("char_f1_micro", "f1", "Char-F1 (micro)"),
    ("frame_acc", "accuracy", "Frame-Acc"),
    ("bg_acc", "accuracy", "BG-Acc"),
    ("fjd", "fjd", "FJD"),
)
TAGS = ["story-generation", "story-continuation", "story-visualization", "lora", "saganets", "gpt2"]


def model_card(
    repo: str,
    adapters: dict[str, Adapter],
    default: str,
    opening: str,
    evaluation: dict[str, Any] | None = None,
    gallery: list[tuple[str, str]] | None = None,
    base: tuple[str, str] | None = None,
    cast: list[str] | None = None,
    license: str = "apache-2.0",
    datasets: list[str] | None = None,
) -> str:
    """The README.md of a model repository.

    Args:
        repo (`str`): its Hub id, for the lines that others copy.
        adapters (`dict[str, Adapter]`): by the name of their file.
        default (`str`): the adapter that the model opens with.
        opening (`str`): a caption of its world.
        evaluation (`dict`, *optional*): what `train.evaluate` wrote.
        gallery (`list[tuple[str, str]]`, *optional*): file and caption of pictures in the repository.
        base (`tuple[str, str]`, *optional*): Hub id and commit of the model that it needs.
        cast (`list[str]`, *optional*): the characters that it knows.
        datasets (`list[str]`, *optional*): Hub ids.
    """
    adapter = adapters[default]
    alpha = _alpha(adapter)
    data = ModelCardData(
        language="en",
        license=license,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=base[0] if base else None,
        base_model_relation="adapter" if base else None,
        datasets=datasets,
        tags=TAGS,
        model_name=repo.rpartition("/")[2] if evaluation else None,
        eval_results=_results(evaluation, alpha) if evaluation else None,
        widget=[{"text": caption, "output": {"url": file}} for file, caption in gallery or []] or None,
    )
    parts = [
        f"# {repo.rpartition('/')[2]}",
        "Continues illustrated stories: a GPT-2 reads the captions so far and writes the next one, and a latent "
        "diffusion model whose UNet carries a LoRA adapter paints it. An implementation of *Story Augmentation with "
        "Generative AI (SAGANets)*.",
        _gallery(gallery),
        "## How to use it",
        USE.format(repo=repo, opening=opening, alpha=alpha),
        "`trust_remote_code=True` runs `pipeline_saganets.py` of this repository; read it, and pin `revision=` to "
        "the commit that you read. With the project installed, `SAGANetsPipeline.from_pretrained` opens it without.",
        _parts(base),
        "## Alpha",
        _about_alpha(adapter),
        _table_of_adapters(adapters, default),
        *_measured(evaluation),
        "## What it cannot do",
        _limits(cast, base),
        "## Licence",
        f"`{license}`."
        + (f" The base is under its own licence: see [{base[0]}](https://hf.co/{base[0]})." if base else ""),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _alpha(adapter: Adapter) -> float:
    return adapter.lora_alpha if adapter.default_alpha is None else adapter.default_alpha


def _gallery(gallery: list[tuple[str, str]] | None) -> str:
    if not gallery:
        return ""
    pictures = " | ".join(f"![{caption}]({file})" for file, caption in gallery)
    captions = " | ".join(caption for _, caption in gallery)
    return f"| {pictures} |\n|{'---|' * len(gallery)}\n| {captions} |"


def _parts(base: tuple[str, str] | None) -> str:
    if not base:
        return "All parts are here. It runs on a CPU."
    return (
        f"The autoencoder, the UNet, the text encoder and the safety checker are not copied: they come from "
        f"[{base[0]}](https://hf.co/{base[0]}) at commit `{base[1]}`. The safety checker stays on, and a frame that "
        "it flags is left blank and marked (`frame.flagged`)."
    )


def _about_alpha(adapter: Adapter) -> str:
    rank, trained = adapter.rank, adapter.lora_alpha
    ten = 10 / trained
    return (
        f"W' = W0 + (alpha / r) B A. The adapter has r = {rank} and was trained at alpha = {trained:g}, so that "
        f"alpha / r = {trained / rank:g} as trained. `lora_alpha=0` is the base model, {trained:g} is as trained, 10 "
        f"(the paper's choice) is {ten:.2f} times the trained strength. It is an argument of the call, and changing "
        "it loads nothing.\n\nOther readers: `load_lora_weights` of diffusers takes the same file; a weight w of its "
        f"`set_adapters` is alpha = {trained:g} w."
    )


def _table_of_adapters(adapters: dict[str, Adapter], default: str) -> str:
    lines = ["| adapter | objective | r | trained alpha | steps | data |", "|---|---|---|---|---|---|"]
    for name, adapter in adapters.items():
        facts = [adapter.header.get(key, "") for key in ("objective", "steps", "dataset")]
        mark = " (opened by default)" if name == default and len(adapters) > 1 else ""
        lines.append(
            f"| `{name}`{mark} | {facts[0]} | {adapter.rank} | {adapter.lora_alpha:g} | {facts[1]} | {facts[2]} |"
        )
    return "\n".join(lines)


def _rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a report of `train.evaluate`, real frames first."""
    return [{**row, "char_f1_micro_95": row["intervals"]["char_f1_micro"]} for row in evaluation["rows"]]


def _told(evaluation: dict[str, Any]) -> str:
    return f"{evaluation['num_stories']} stories of {evaluation['num_frames']} frames"


def _results(evaluation: dict[str, Any], alpha: float) -> list[EvalResult] | None:
    row = next((row for row in _rows(evaluation) if row.get("lora_alpha") == alpha), None)
    if row is None:
        return None
    return [
        EvalResult(
            task_type="text-to-image",
            task_name="Story visualization",
            dataset_type=evaluation["dataset"],
            dataset_name=f"{evaluation['dataset']}, {_told(evaluation)}",
            dataset_split=evaluation["split"],
            metric_type=kind,
            metric_name=f"{name}, alpha {alpha:g}",
            metric_value=row[key],
        )
        for key, kind, name in METRICS
        if row.get(key) is not None
    ]


def _measured(evaluation: dict[str, Any] | None) -> list[str]:
    if not evaluation:
        return ["## Measured", "Nothing yet."]
    seeds = ", ".join(map(str, evaluation["seeds"]))
    lines = ["| | Char-F1 micro (95%) | Frame-Acc | BG-Acc | FJD |", "|---|---|---|---|---|"]
    for row in _rows(evaluation):
        low, high = row["char_f1_micro_95"]
        share = f"{row['char_f1_micro']:.1%} ({low:.1%} to {high:.1%})"
        lines.append(f"| {row['name']} | {share} | {row['frame_acc']:.1%} | {row['bg_acc']:.1%} | {row['fjd']:.1f} |")
    made = (
        f"`{evaluation['command']}` at commit `{evaluation['commit'][:12]}`, seeds {seeds}: {_told(evaluation)} of "
        f"the {evaluation['split']} split of {evaluation['dataset']}. A judge that trained on real frames, and never "
        "trained a model here, says who is in a frame and where. FJD is the Fréchet distance of its features to real "
        f"frames, between two halves of {evaluation['fjd_frames']} that share no clip; it is no FID. "
        "Interval: 95%, by bootstrap. All numbers: `evaluation.json`."
    )
    parts = ["## Measured", "\n".join(lines), made]
    if captions := evaluation.get("captions"):
        sampled, real = captions["sampled"], captions["real"]
        parts.append(
            f"Of {captions['count']} captions sampled at temperature {captions['temperature']:g}, "
            f"{sampled['complete']:.1%} are complete sentences, and of those whose prefix names a character "
            f"{sampled['keeps_a_character']:.1%} keep one (real stories: {real['keeps_a_character']:.1%})."
        )
    return parts


def _limits(cast: list[str] | None, base: tuple[str, str] | None) -> str:
    knows = f"It knows {', '.join(cast)}. Anybody else" if cast else "It knows one show. Anybody else"
    lines = [
        f"- {knows} is painted as somebody else.",
        "- Captions are English, one or two short sentences in the manner of the show.",
        "- A frame follows from its caption: what no caption says may change from frame to frame.",
        "- Small faces, hands, lettering, and several characters in one frame are unreliable.",
        "- The captioner keeps a story going; it does not plan one.",
    ]
    if base:
        lines.append("- What the base cannot do, and the biases that it has, are here too.")
    return "\n".join(lines)
