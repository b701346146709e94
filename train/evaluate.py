"""What a model's frames and captions are worth, on test stories that nothing was trained on.

    python -m train.evaluate --data DATA/gulch --judge runs/judge --out evaluation
    python -m train.evaluate --data DATA/gulch --judge runs/judge --out evaluation --sweep steps

Frames are painted from test captions at each alpha, with the same noise, and the judge says who and where it sees.
Its score on real frames of the same clips is the ceiling. Captions are sampled from prefixes of test stories and set
beside the real next ones. `--sweep` tries values of one setting on the validation split, to choose the defaults.
A report is one JSON file in `--out`, with a picture sheet beside it; `README.md` there shows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from PIL import Image
from tqdm import tqdm
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from sagan_pipeline.captioner import draft_caption, next_captions
from train.adapter import git_commit
from train.captioner import MAX_PREFIX, Example, StoryCaptions, captioner_loss, count_target_tokens
from train.data.flintstones import FlintstonesRelease
from train.metrics.captions import bleu_4, distinct, is_complete, keeps_one, share
from train.metrics.characters import accuracy, character_scores, f1
from train.metrics.distance import JudgeDistance
from train.metrics.judge import THRESHOLD, Judge, real_frames
from train.painter import picture_grid


STORY = 16  # captions painted in one call
BOOTSTRAPS = 1000
MAX_REFERENCE = 1000  # real frames of training clips that FJD is measured to
SHEET_ROWS, SHEET_SIDE = 8, 128
SWEEPS = {"steps": "num_inference_steps", "guidance": "guidance_scale", "alpha": "lora_alpha"}
SCHEDULERS = {"dpmsolver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
FIGURES = ("char_f1_micro", "char_f1_macro", "frame_acc", "bg_acc")


def paint(
    pipe: SAGANetsPipeline, captions: list[str], seed: int, bar: tqdm, **arguments: float | None
) -> tuple[np.ndarray, float]:
    """Paint every caption: uint8 (N, H, W, 3), and the seconds a frame took. Same seed, same noise."""
    pictures, start = [], time.perf_counter()
    for first in range(0, len(captions), STORY):
        chunk = captions[first : first + STORY]
        generator = torch.Generator().manual_seed(seed * 1_000_003 + first)
        frames = pipe.paint(chunk, generator=generator, **arguments).stories[0].frames
        pictures += [np.asarray(frame.image.convert("RGB")) for frame in frames]
        bar.update(len(chunk))
    return np.stack(pictures), (time.perf_counter() - start) / len(captions)


def micro_f1_interval(predicted: np.ndarray, actual: np.ndarray, seed: int) -> list[float]:
    """95% bootstrap interval of the micro Char-F1 of (N, C) labels, frames drawn with replacement."""
    counts = np.stack([(predicted & actual).sum(axis=1), predicted.sum(axis=1), actual.sum(axis=1)], axis=1)  # [N, 3]
    draws = np.random.default_rng(seed).integers(len(counts), size=(BOOTSTRAPS, len(counts)))
    scores = [f1(*row) for row in counts[draws].sum(axis=1).tolist()]
    return np.percentile(scores, [2.5, 97.5]).tolist()


def judged(
    judge: Judge, distance: JudgeDistance, pictures: np.ndarray, labels: np.ndarray, settings: list[str], seed: int
) -> dict[str, object]:
    """The judge's figures on pictures that ought to show `labels` (N, C) and `settings` (N names).

    Returns:
        those of `character_scores`, `bg_acc`, `fjd`, `char_f1_micro_95` (an interval), and `mistakes` (N): wrong
        characters and wrong setting of each picture, which the caller takes out.
    """
    characters, places, _ = judge(pictures)
    predicted, actual = characters.numpy() > THRESHOLD, labels.astype(bool)
    seen = [judge.settings[i] for i in places.argmax(dim=1).tolist()]
    wrong_place = np.array([bool(setting) and s != setting for s, setting in zip(seen, settings, strict=True)])
    return {
        **character_scores(predicted, actual, list(judge.classes)),
        "char_f1_micro_95": micro_f1_interval(predicted, actual, seed),
        "bg_acc": accuracy(seen, settings),
        "fjd": distance(pictures),
        "mistakes": (predicted != actual).sum(axis=1) + wrong_place,
    }


def reference(judge: Judge, release: FlintstonesRelease, seed: int) -> JudgeDistance:
    """FJD to real frames of training clips, one a clip. What real frames of another split get is its floor."""
    ids = release.splits["train"]
    ids = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:MAX_REFERENCE]]
    return JudgeDistance(judge, real_frames(release, ids, judge.classes, seed)[0])


def sheet(columns: Sequence[np.ndarray], rows: Sequence[int]) -> Image.Image:
    """The chosen rows of several lists of pictures, side by side."""
    small = [
        np.asarray(Image.fromarray(pictures[row]).resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.LANCZOS))
        for row in rows
        for pictures in columns
    ]
    return picture_grid(np.stack(small), columns=len(columns))


def evaluate_frames(
    pipe: SAGANetsPipeline,
    judge: Judge,
    release: FlintstonesRelease,
    split: str,
    count: int,
    seed: int,
    setting: str,
    values: Sequence[float],
) -> tuple[dict[str, object], dict[str, Image.Image]]:
    """Paint captions of a split under each value of one call argument, and judge them beside the real frames.

    Args:
        count (`int`): clips, drawn from the split by `seed`; all of them if it has fewer.
        setting (`str`): `"lora_alpha"`, `"num_inference_steps"` or `"guidance_scale"`; all others stay at the model's
            own default.

    Returns:
        the figures, and picture sheets by name: rows are clips (`"sheet"` the first ones, `"worst"` those that the
        judge finds the most mistakes in, under the best value), columns the real frame and then each value.
    """
    ids = release.splits[split]
    ids = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:count]]
    captions = [release.clip(id).caption for id in ids]
    real, labels, settings = real_frames(release, ids, judge.classes, seed)
    distance = reference(judge, release, seed)
    ceiling = judged(judge, distance, real, labels, settings, seed)
    del ceiling["mistakes"]
    columns, rows, mistakes = [real], [], []
    with tqdm(total=len(values) * len(captions), desc=f"frames, {setting}") as bar:
        for value in values:
            pictures, seconds = paint(pipe, captions, seed, bar, **{setting: value})
            figures = judged(judge, distance, pictures, labels, settings, seed)
            mistakes.append(figures.pop("mistakes"))
            columns.append(pictures)
            rows.append({setting: value, **figures, "seconds_a_frame": seconds})
    best = max(range(len(rows)), key=lambda i: rows[i]["char_f1_micro"])
    worst = np.argsort(-mistakes[best], kind="stable")
    sheets = {"sheet": sheet(columns, range(len(ids))[:SHEET_ROWS]), "worst": sheet(columns, worst[:SHEET_ROWS])}
    figures = {
        "split": split,
        "clips": len(ids),
        "real_frames": ceiling,
        "fjd_reference": distance.count,
        "painted": rows,
        "best": rows[best][setting],
        "sheet_captions": captions[:SHEET_ROWS],
        "worst_captions": [captions[i] for i in worst[:SHEET_ROWS]],
    }
    return figures, sheets


def caption_figures(
    examples: Sequence[Example], captions: Sequence[str], names: Sequence[str], places: Sequence[str]
) -> dict[str, object]:
    """Figures on the captions that follow the prefixes of `examples`, with the show's characters and places."""
    kept, prefixes = share([keeps_one(e.captions, c, names) for e, c in zip(examples, captions, strict=True)])
    stayed, placed = share([keeps_one(e.captions, c, places) for e, c in zip(examples, captions, strict=True)])
    repeats = [c in e.captions if e.captions else None for e, c in zip(examples, captions, strict=True)]
    return {
        "complete": share([is_complete(caption) for caption in captions])[0],
        "keeps_a_character": kept,
        "prefixes_naming_a_character": prefixes,
        "keeps_a_place": stayed,
        "prefixes_naming_a_place": placed,
        "repeats_a_prefix_caption": share(repeats)[0],
        "distinct_2": distinct(captions, n=2),
    }


@torch.no_grad()
def perplexity_by_k(captioner: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, stories: StoryCaptions) -> dict[str, float]:
    """Perplexity, per token of the captioner's own vocabulary, of caption k+1 of every story after captions 1..k."""
    limit, found = captioner.config.n_positions, {}
    for k in range(MAX_PREFIX + 1):
        examples = [stories.example(story, k) for story in range(len(stories.stories))]
        tokens = count_target_tokens(tokenizer, examples, limit)
        chunks = [examples[i : i + 32] for i in range(0, len(examples), 32)]
        found[str(k)] = float(
            np.exp(sum(float(captioner_loss(captioner, tokenizer, c, limit, tokens)) for c in chunks))
        )
    return found


def evaluate_captions(
    pipe: SAGANetsPipeline, release: FlintstonesRelease, split: str, count: int, seed: int
) -> dict[str, object]:
    """Sample captions after prefixes of 0 to 3 captions of a split's stories, in turn, beside the real next ones."""
    stories = StoryCaptions(release, split)
    warmth = pipe.config.default_temperature
    drawn = torch.randint(len(stories.stories), (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    examples = [stories.example(story, i % (MAX_PREFIX + 1)) for i, story in enumerate(drawn)]
    sampled: list[str] = []
    drafts: list[bool] = []
    with tqdm(total=count, desc="captions") as bar:
        for first in range(0, count, 32):
            chunk = examples[first : first + 32]
            generators = [torch.Generator().manual_seed(seed * 1_000_003 + first + i) for i in range(len(chunk))]
            prefixes = [e.captions for e in chunk]
            sampled += next_captions(pipe.captioner, pipe.captioner_tokenizer, prefixes, generators, warmth)
            for i, prefix in enumerate(prefixes):  # before anything was sampled again or cut
                generator = torch.Generator().manual_seed(seed * 1_000_003 + first + i)
                drafts.append(draft_caption(pipe.captioner, pipe.captioner_tokenizer, prefix, generator, warmth)[1])
            bar.update(len(chunk))
    real = [e.target for e in examples]
    return {
        "split": split,
        "count": count,
        "temperature": warmth,
        "drafts_that_end_by_themselves": share(drafts)[0],
        "perplexity_by_k": perplexity_by_k(pipe.captioner, pipe.captioner_tokenizer, stories),
        "bleu_4": bleu_4(sampled, real),
        "sampled": caption_figures(examples, sampled, release.cast, release.settings),
        "real": caption_figures(examples, real, release.cast, release.settings),
        "incomplete": [caption for caption in sampled if not is_complete(caption)],
        "examples": [{"prefix": e.captions, "sampled": c} for e, c in zip(examples[:8], sampled, strict=False)],
    }


def provenance(args: argparse.Namespace, argv: list[str] | None, module: str = "train.evaluate") -> dict[str, object]:
    """What made a report: command, commit, versions, hardware, seed."""
    return {
        "command": shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)]),
        "commit": git_commit(),
        "seed": args.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
        },
        "hardware": {
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
    }


def rounded(value: object) -> object:
    """The same with every float at four decimals."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write aside, then rename: there is never half a file under `path`."""
    aside = path.with_name(f".{path.name}")
    write(aside)
    os.replace(aside, path)


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def as_markdown(name: str, report: dict) -> str:
    """One report as a section with its tables."""
    lines = [f"## {name}", "", f"`{report['command']}`", ""]
    frames = report["frames"]
    (setting,) = set(frames["painted"][0]) & set(SWEEPS.values())
    lines += [
        f"{frames['clips']} captions of the {frames['split']} split, one frame each, seed {report['seed']}, commit "
        f"`{report['commit'][:12]}`. The first line is the judge on real frames of the same clips. FJD is the Fréchet "
        f"distance of the judge's features to {frames['fjd_reference']} real frames of training clips; it is no FID.",
        "",
        f"| {setting} | Char-F1 micro (95%) | Char-F1 macro | Frame-Acc | 1 / 2 regulars | BG-Acc | FJD | s a frame |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in [frames["real_frames"], *frames["painted"]]:
        micro, macro, frame, place = (percent(row[figure]) for figure in FIGURES)
        low, high = row["char_f1_micro_95"]
        crowds = " / ".join(percent(row["frame_acc_by_cast"].get(n, float("nan"))) for n in "12")
        value = f"{row[setting]:g}" if setting in row else "real frames"
        seconds = f"{row['seconds_a_frame']:.2f}" if setting in row else ""
        lines.append(
            f"| {value} | {micro} ({percent(low)} to {percent(high)}) | {macro} | {frame} | {crowds} | {place} | "
            f"{row['fjd']:.2f} | {seconds} |"
        )
    values = ", ".join(f"{row[setting]:g}" for row in frames["painted"])
    lines += ["", f"![Real frames, then {setting} {values}]({name}-sheet.png)", ""]
    lines += [f"{i}. {caption}" for i, caption in enumerate(frames["sheet_captions"], start=1)]
    if captions := report.get("captions"):
        lines += [
            "",
            f"{captions['count']} captions sampled after 0 to 3 captions of stories of the {captions['split']} split:",
            "",
            "| | sampled | real |",
            "|---|---|---|",
        ]
        for figure, words in {
            "complete": "complete sentences",
            "keeps_a_character": "keep a character that the prefix names",
            "keeps_a_place": "keep a place that the prefix names",
            "repeats_a_prefix_caption": "repeat a caption of the prefix",
            "distinct_2": "distinct-2",
        }.items():
            lines.append(f"| {words} | {percent(captions['sampled'][figure])} | {percent(captions['real'][figure])} |")
        lines += [
            "",
            f"BLEU-4 of the sampled captions against the real ones: {percent(captions['bleu_4'])}.",
            "",
            "Perplexity of the real next caption after k captions, per token: "
            + ", ".join(f"{value:.2f} (k = {k})" for k, value in captions["perplexity_by_k"].items())
            + ".",
            "",
            f"Of the first drafts {percent(captions['drafts_that_end_by_themselves'])} end by themselves and as a "
            "sentence; where one does not, the captioner samples again.",
        ]
    return "\n".join(lines) + "\n"


def write_readme(out: Path) -> None:
    """Show every report of `out` in its `README.md`."""
    sections = ["# Evaluation\n\nWritten by `python -m train.evaluate`; every number comes from a JSON file here.\n"]
    for path in sorted(out.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if "frames" in report and "painted" in report["frames"]:
            sections.append(as_markdown(path.stem, report))
    write_whole(out / "README.md", lambda aside: aside.write_text("\n".join(sections), encoding="utf-8"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--judge", type=Path, required=True, help="folder of a judge: python -m train.metrics.judge")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the reports")
    parser.add_argument("--model", default="embedded", help="a pipeline's folder, or 'embedded'")
    parser.add_argument("--scheduler", choices=SCHEDULERS, default=None, help="instead of the model's own")
    parser.add_argument("--lora", type=Path, default=None, help="adapter file, instead of the model's own")
    parser.add_argument(
        "--name", default=None, help="the report's file name; default: the model's folder and the sweep"
    )
    parser.add_argument("--num_captions", type=int, default=200, help="clips whose captions are painted")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0, 10, 16, 24, 32, 40])
    parser.add_argument("--sampled_captions", type=int, default=500)
    parser.add_argument("--sweep", choices=SWEEPS, default=None, help="try one setting on the validation split")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 12, 16, 20], help="for --sweep steps")
    parser.add_argument("--guidances", type=float, nargs="+", default=[2, 3, 4, 5, 7.5], help="for --sweep guidance")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.num_captions < 2 or args.sampled_captions < 1:
        parser.error("--num_captions and --sampled_captions must be at least 2 and 1")
    release, judge = FlintstonesRelease(args.data), Judge.load(args.judge)
    if judge.classes != release.cast:
        parser.error(f"--judge knows {', '.join(judge.classes)}, but --data shows {', '.join(release.cast)}")
    if args.model == "embedded":
        pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    else:
        pipe = SAGANetsPipeline.from_pretrained(args.model, dtype=torch.float32)
    if args.lora is not None:
        pipe.load_adapter(args.lora)
    if args.scheduler is not None:
        pipe.scheduler = SCHEDULERS[args.scheduler].from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    name = args.name or "-".join([Path(args.model).name, *(["sweep", args.sweep] if args.sweep else [])])
    values = {"steps": args.steps, "guidance": args.guidances, "alpha": args.alphas}[args.sweep or "alpha"]
    split, setting = ("val", SWEEPS[args.sweep]) if args.sweep else ("test", "lora_alpha")
    frames, sheets = evaluate_frames(pipe, judge, release, split, args.num_captions, args.seed, setting, values)
    defaults = ("default_lora_alpha", "default_num_inference_steps", "default_guidance_scale")
    report = {
        **provenance(args, argv),
        "model": {
            "name": args.model,
            "lora": args.lora.name if args.lora else None,
            "scheduler": type(pipe.scheduler).__name__,
            **{name: pipe.config.get(name) for name in defaults},
        },
        "dataset": args.data.name,
        "frames": frames,
    }
    if not args.sweep:
        report["captions"] = evaluate_captions(pipe, release, split, args.sampled_captions, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(report), indent=2, ensure_ascii=False) + "\n"
    for kind, picture in sheets.items():
        write_whole(args.out / f"{name}-{kind}.png", lambda aside, picture=picture: picture.save(aside))
    write_whole(args.out / f"{name}.json", lambda aside: aside.write_text(text, encoding="utf-8"))
    write_readme(args.out)
    print(as_markdown(name, json.loads(text)))


if __name__ == "__main__":
    main()
