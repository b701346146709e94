"""What made a report, and how it is written: JSON, Markdown, a page of pictures, plots, and two reports compared."""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from train.adapter import git_commit
from train.evaluation.goals import goals_table
from train.evaluation.scoring import Seen
from train.evaluation.stories import TestStories


matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws


PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "torchmetrics", "sacrebleu", "numpy")
# figure: its head in a table, whether it is a share, whether more is better (`None`: as the real frames have it)
FIGURES: dict[str, tuple[str, bool, bool | None]] = {
    "char_f1_micro": ("Char-F1 micro", True, True),
    "char_f1_macro": ("macro", True, True),
    "frame_acc": ("Frame-Acc", True, True),
    "frame_acc_1": ("1 regular", True, True),
    "frame_acc_2": ("2", True, True),
    "frame_acc_3": ("3", True, True),
    "frame_acc_2_and_3": ("2 and 3", True, True),
    "bg_acc": ("BG-Acc", True, True),
    "fjd": ("FJD", False, False),
    "fid": ("FID", False, False),
    "clip_t": ("CLIP-T", False, True),
    "clip_i": ("CLIP-I", False, True),
    "consistency": ("consistency", False, True),
    "neighbour_distance": ("neighbour distance", False, None),
    "psnr": ("PSNR, dB", False, True),
}
CAPTION_FIGURES = {
    "complete": "complete sentences",
    "keeps_a_character": "keep a character that the prefix names",
    "keeps_a_place": "keep a place that the prefix names",
    "faithful": "faithful to the prefix: keep whatever it names of both",
    "repeats_a_prefix_caption": "repeat a caption of the prefix",
    "distinct_2": "distinct-2",
}
SEEDS_FOR_BETTER = 3
PAGE_SIDE = 128


def shown(argument: str) -> str:
    """An argument as it may be published: a path of this machine by its name alone, or from the present folder on."""
    head, sep, tail = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(tail).expanduser()
    if not tail or not path.is_absolute():
        return argument
    try:
        tail = str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        tail = path.name
    return f"{head}{sep}{tail}"


def provenance(args: argparse.Namespace, argv: list[str] | None, module: str = "train.evaluate") -> dict[str, object]:
    """What made a report: command, commit, versions, hardware, seed. No path of this machine is in it."""
    arguments = [shown(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    return {
        "command": shlex.join(["python", "-m", module, *arguments]),
        "commit": git_commit(),
        "seed": args.seed if hasattr(args, "seed") else args.seeds[0],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def rounded(value: object) -> object:
    """The same with every float at four decimals, and `None` for what is no number."""
    if isinstance(value, Mapping):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write aside, then rename: there is never half a file under `path`."""
    aside = path.with_name(f".{path.name}")
    write(aside)
    os.replace(aside, path)


def write_json(path: Path, report: object) -> None:
    text = json.dumps(rounded(report), indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def cell(row: Mapping[str, object], name: str) -> str:
    """A figure with its 95% interval."""
    value = row.get(name)
    if value is None:
        return ""
    share = FIGURES[name][1]
    low, high = row["intervals"].get(name, (None, None))
    text = percent(value) if share else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    if low is None:
        return text
    bounds = f"{100 * low:.1f} to {100 * high:.1f}" if share else f"{low:.3g} to {high:.3g}"
    return f"{text} ({bounds})"


def as_markdown(name: str, report: Mapping[str, object]) -> str:
    """One report as a section with its tables."""
    lines = [f"## {name}", "", f"`{report['command']}`", ""]
    if rows := report.get("rows"):
        lines += [sentence(report), ""]
        present = [figure for figure in FIGURES if any(row.get(figure) is not None for row in rows)]
        lines += [
            f"| | {' | '.join(FIGURES[figure][0] for figure in present)} | s a frame |",
            f"|{'---|' * (len(present) + 2)}",
        ]
        for row in rows:
            seconds = row.get("seconds_a_frame")
            cells = [cell(row, figure) for figure in present] + ["" if seconds is None else f"{seconds:.2f}"]
            lines.append(f"| {row['name']} | {' | '.join(cells)} |")
        lines += ["", *(f"- **{row['name']}**: {row['words']}" for row in rows if row.get("words"))]
    if sweep := report.get("sweep"):
        lines += ["", f"![{sweep['name']}]({name}.png)"]
    if captions := report.get("captions_of", [report["captions"]] if "captions" in report else []):
        lines += ["", *caption_lines(captions, sweep["name"] if sweep else None)]
    if page := report.get("page"):
        lines += ["", f"Pictures behind these figures, worst frames first: [{page}]({page})."]
    return "\n".join(lines) + "\n"


def sentence(report: Mapping[str, object]) -> str:
    """What the table is of."""
    seeds = ", ".join(map(str, report["seeds"]))
    scored = (
        "all frames scored" if report["mode"] == "visualisation" else "the first real frame given, the later scored"
    )
    many = f" ({report['stories_asked']} were asked for: the split has no more)" if report.get("stories_asked") else ""
    fid = (
        f" FID is of Inception-v3's features at 299 px, {report['fid_frames']} painted against as many real frames of "
        "the same stories."
        if report.get("fid_frames")
        else ""
    )
    size = f" Real and painted frames are reduced to {report['resolution']} px." if report["resolution"] else ""
    return (
        f"{report['num_stories']} stories of {report['num_frames']} frames of the {report['split']} split{many}, "
        f"{report['mode']}, {scored}; captions {report['captions_from']}; seeds {seeds}; commit "
        f"`{report['commit'][:12]}`.{size} In brackets: 95% by bootstrap over stories. The row `real` is the judge on "
        f"real frames: the ceiling, and its FJD, real against real on two disjoint halves of {report['fjd_frames']} "
        "frames, the floor. FJD is the Fréchet distance of the judge's features, by the same halves and counts for "
        "every row; it is no FID." + fid
    )


def caption_lines(captions: Sequence[Mapping[str, object]], swept: str | None = None) -> list[str]:
    """The table of sampled captions beside the real ones, a column for each way in which they were sampled.

    Args:
        swept (`str`, *optional*): in what the ways differ.
    """
    first = captions[0]
    ways = [f"{swept} {each[swept]}" if swept else "sampled" for each in captions]
    settings = {
        "prompting": f"prefix put: {first['prompting']}",
        "temperature": f"temperature {first['temperature']:g}",
        "seed": f"seed {first['seed']}",
    }
    settings.pop(swept, None)

    def one(figures: Mapping[str, object], name: str) -> str:
        low, high = figures["intervals"].get(name, (None, None))
        text = percent(figures[name])
        return text if low is None else f"{text} ({100 * low:.1f} to {100 * high:.1f})"

    def row(words: str, cells: Sequence[str], real: str = "") -> str:
        return f"| {' | '.join([words, *cells, real])} |"

    bleu = [
        f"{percent(each['bleu_4'])} ({' to '.join(f'{100 * x:.1f}' for x in each['bleu_4_interval'])})"
        for each in captions
    ]
    spread = first["perplexity_intervals"]
    return [
        f"{first['count']} captions sampled after 0 to 3 captions of stories of the {first['split']} split "
        f"({'; '.join(settings.values())}):",
        "",
        row("", ways, "real"),
        "|---" * (len(captions) + 2) + "|",
        *(
            row(words, [one(each["sampled"], name) for each in captions], one(first["real"], name))
            for name, words in CAPTION_FIGURES.items()
        ),
        row("BLEU-4 against the real ones", bleu),
        row(
            "first drafts that end by themselves, as a sentence (else it samples again)",
            [percent(each["drafts_that_end_by_themselves"]) for each in captions],
        ),
        "",
        "Perplexity of the real next caption after k captions, per token: "
        + ", ".join(
            f"{v:.2f} ({spread[k][0]:.2f} to {spread[k][1]:.2f}; k = {k})" for k, v in first["perplexity_by_k"].items()
        )
        + "."
        + _of_fourth(first),
    ]


def _of_fourth(captions: Mapping[str, object]) -> str:
    """The same captions after more and more of what came before; reports of earlier versions have no such figures."""
    if "perplexity_of_fourth_by_k" not in captions:
        return ""
    falls = captions["perplexity_of_fourth_falls"]
    told = [
        f"{v:.3f} (k = {k}" + (f"; {100 * falls[k][0]:.1f} to {100 * falls[k][1]:.1f}% lower)" if k in falls else ")")
        for k, v in captions["perplexity_of_fourth_by_k"].items()
    ]
    return f" Of the same fourth captions after the last k before them: {', '.join(told)}."


def write_readme(out: Path) -> None:
    """Show every report of `out` in its `README.md`."""
    sections = ["# Evaluation\n\nWritten by `python -m train.evaluate`; every number comes from a JSON file here.\n"]
    for path in sorted(out.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if "protocol" in report:
            sections.append(as_markdown(path.stem, report))
        if path.stem == "embedded" and report.get("rows"):
            sections.insert(1, goals_table(report, out / "unseen.md"))
    write_whole(out / "README.md", lambda aside: aside.write_text("\n".join(sections), encoding="utf-8"))


def picture_uri(picture: np.ndarray) -> str:
    """A picture, uint8 (H, W, 3), as a `data:` address of a small JPEG."""
    image = Image.fromarray(picture)
    image.thumbnail((PAGE_SIDE, PAGE_SIDE), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    image.save(held, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()


def write_page(
    path: Path,
    title: str,
    stories: TestStories,
    rows: Sequence[tuple[str, Callable[[int], np.ndarray], Seen]],
    count: int,
) -> None:
    """One self-contained page: the frames in which the judge finds the most mistakes in the first row come first, each
    beside the real frame and the other rows' of the same caption.

    Args:
        rows: name, pictures, and what was seen in them.
        count (`int`): frames on the page.
    """
    mistakes = rows[0][2].mistakes(stories)[:, stories.scored]
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    parts = []
    for flat in order.tolist():
        story, position = divmod(flat, mistakes.shape[1])
        frame = stories.scored[position]
        shown = [("real", stories.real, None), *rows]
        figures = []
        for name, pictures, seen in shown:
            said = "" if seen is None else html.escape(_said(seen, stories, story, frame))
            picture = picture_uri(pictures(story)[frame])
            figures.append(
                f'<figure><img src="{picture}" alt="{html.escape(name)}"><figcaption><b>{html.escape(name)}</b><br>'
                f"{said}</figcaption></figure>"
            )
        ought = ", ".join(c for c, there in zip(stories.classes, stories.labels[story, frame], strict=True) if there)
        place = stories.settings[story][frame] or "no setting annotated"
        parts.append(
            f"<section><p>{mistakes[story, position]} wrong: {html.escape(stories.captions[story][frame])}<br><small>"
            f"story {story}, frame {frame + 1}; ought to show {html.escape(ought or 'no regular')} | "
            f"{html.escape(place)}</small></p>{''.join(figures)}</section>"
        )
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>"
        "body{font:15px sans-serif;margin:1em auto;max-width:75em;padding:0 1em}section{border-top:1px solid #ccc}"
        "figure{display:inline-block;margin:0 1em 1em 0;width:128px;vertical-align:top}"
        "figcaption{font-size:12px}img{width:128px}</style>"
        f"<h1>{html.escape(title)}</h1><p>{len(order)} of {mistakes.size} frames, those with the most mistakes of "
        f"<b>{html.escape(rows[0][0])}</b> first. Below each picture: whom and where the judge sees.</p>"
        + "\n".join(parts)
        + "</html>\n"
    )
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _said(seen: Seen, stories: TestStories, story: int, frame: int) -> str:
    names = [c for c, there in zip(stories.classes, seen.characters[story, frame], strict=True) if there]
    return f"{', '.join(names) or 'no regular'} | {seen.places[story, frame]}"


def plot_sweep(path: Path, name: str, rows: Sequence[Mapping[str, object]], real: Mapping[str, object]) -> None:
    """Char-F1, Frame-Acc, FJD and CLIP-T against the swept value, of adapters also what their neighbouring frames have
    in common, with 95% intervals, and those of real frames."""
    figures = ["char_f1_micro", "frame_acc", "fjd", "clip_t"]
    if name == "adapters":
        figures += ["clip_i", "neighbour_distance"]
    shown = [figure for figure in figures if all(figure in row["intervals"] for row in rows)]
    drawing, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.4), layout="constrained", squeeze=False)
    values = [row["value"] for row in rows]
    numbers = all(isinstance(value, (int, float)) for value in values)
    x = values if numbers else list(range(len(values)))
    for axis, figure in zip(axes[0], shown, strict=True):
        low, high = np.transpose([row["intervals"][figure] for row in rows])
        found = np.array([row[figure] for row in rows])
        if numbers:
            axis.plot(x, found, marker="o")
            axis.fill_between(x, low, high, alpha=0.15)
        else:  # nothing lies between two names
            axis.errorbar(x, found, [np.maximum(found - low, 0), np.maximum(high - found, 0)], fmt="o", capsize=3)
        axis.axhline(real[figure], color="gray", linestyle=":", label="real frames")
        axis.set(xlabel=name.replace("_", " "), ylabel=FIGURES[figure][0])
        if not numbers:
            axis.set_xticks(x, [str(value) for value in values], rotation=30, ha="right")
    axes[0][0].legend()
    write_whole(path, lambda aside: drawing.savefig(aside, dpi=110, format="png"))
    plt.close(drawing)


def plot_captions(path: Path, name: str, captions: Sequence[Mapping[str, object]]) -> None:
    """What the captions keep of their prefix, by how they were made; real ones as a line a figure."""
    shown = ("keeps_a_character", "keeps_a_place", "faithful")
    drawing, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for offset, figure in enumerate(shown):
        x = np.arange(len(captions)) + 0.25 * (offset - 1)
        values = np.array([each["sampled"][figure] for each in captions], dtype=float)
        low, high = np.transpose([each["sampled"]["intervals"][figure] for each in captions])
        bars = axis.bar(x, values, 0.22, label=figure.replace("_", " "))
        axis.axhline(captions[0]["real"][figure], color=bars[0].get_facecolor(), linestyle=":")
        axis.errorbar(
            x, values, [np.maximum(values - low, 0), np.maximum(high - values, 0)], fmt="none", color="black"
        )
    axis.set(ylim=(0, 1), xlabel=name, ylabel="share of captions (dotted: real ones)")
    axis.set_xticks(range(len(captions)), [str(each[name]) for each in captions])
    axis.legend()
    write_whole(path, lambda aside: drawing.savefig(aside, dpi=110, format="png"))
    plt.close(drawing)


MUST_AGREE = (
    "protocol",
    "mode",
    "num_frames",
    "num_stories",
    "stories",
    "split",
    "resolution",
    "captions_from",
    "judge",
    "dataset",
)


def compare(a: Mapping[str, object], b: Mapping[str, object], names: tuple[str, str]) -> str:
    """A table of the figures of two reports' models. Nothing is called better by it without three seeds on each side,
    intervals that do not meet, and the same stories before the same judge.

    Raises:
        ValueError: one of them is no report of `train.evaluate` on stories.
    """
    for name, report in zip(names, (a, b), strict=True):
        if not isinstance(report, dict) or not report.get("rows") or "protocol" not in report:
            raise ValueError(f"{name} is no report of train.evaluate on stories.")
    apart = [key for key in MUST_AGREE if a.get(key) != b.get(key)]
    rows = [next(r for r in report["rows"] if r["name"] != "real") for report in (a, b)]
    seeds = min(len(report["seeds"]) for report in (a, b))
    lines = [f"| | {names[0]} | {names[1]} | difference | |", "|---|---|---|---|---|"]
    for figure, (head, share, more) in FIGURES.items():
        values = [row.get(figure) for row in rows]
        if None in values:
            continue
        bounds = [row["intervals"].get(figure) for row in rows]
        difference = values[1] - values[0]
        verdict = ""
        if None not in bounds:
            parted = bounds[0][1] < bounds[1][0] or bounds[1][1] < bounds[0][0]
            winner = names[1] if (difference > 0) == more else names[0]
            if not parted:
                verdict = "not told apart"
            elif apart:
                verdict = "not comparable"
            elif more is None:
                verdict = "intervals apart; the real frames' value is the aim"
            elif seeds < SEEDS_FOR_BETTER:
                verdict = f"intervals apart; {SEEDS_FOR_BETTER} seeds each are needed to say better"
            else:
                verdict = f"{winner} is better"
        text = f"{100 * difference:+.1f} points" if share else f"{difference:+.3g}"
        lines.append(f"| {head} | {cell(rows[0], figure)} | {cell(rows[1], figure)} | {text} | {verdict} |")
    if apart:
        facts = "; ".join(f"{key}: {a.get(key)} and {b.get(key)}" for key in apart)
        lines += ["", f"Measured differently, so that the figures do not compare: {facts}."]
    return "\n".join(lines) + "\n"
