"""Compares trainings of the painter by what they paint: quality against epochs and alpha (paper, figures 4 and 3).

    python -m train.study --data DATA/gulch --judge runs/judge --runs runs/paper runs/better --epochs --name recipes

Every run is one of `train.saganets` on the base of `--model`. Its adapter paints captions of the validation split at
each alpha and, with `--epochs`, its adapter of every epoch at the trained alpha: the same captions and noise for all
of them, judged as `train.evaluate` does. The losses are those of the run's own validations. A report is one JSON file
in `--out`, with a plot for each figure; its table is printed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from tqdm import tqdm

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from train.data.flintstones import FlintstonesRelease
from train.evaluation.report import provenance, rounded, write_whole
from train.evaluation.single import judged, paint, reference
from train.metrics.judge import Judge, real_frames
from train.saganets import OVER


matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws


ALPHAS = (0, 5, 10, 16, 24, 32, 48)  # paper, figure 3


@dataclass
class Captions:
    """The captions that every adapter paints, and what their pictures are held against."""

    captions: list[str]
    labels: np.ndarray
    settings: list[str]
    real: np.ndarray


def captions_of(release: FlintstonesRelease, judge: Judge, split: str, count: int, seed: int) -> Captions:
    ids = release.splits[split]
    ids = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))[:count]]
    real, labels, settings = real_frames(release, ids, judge.classes, seed)
    return Captions([release.clip(id).caption for id in ids], labels, settings, real)


class Study:
    """Paints and judges one adapter after the other.

    Args:
        pipe (`SAGANetsPipeline`): brings the base; its adapter is replaced.
        judge (`Judge`): says who and where it sees.
        release (`FlintstonesRelease`): the show.
        split (`str`), count (`int`), seed (`int`): which captions, and with what noise.
    """

    def __init__(
        self, pipe: SAGANetsPipeline, judge: Judge, release: FlintstonesRelease, split: str, count: int, seed: int
    ):
        self.pipe, self.judge, self.seed = pipe, judge, seed
        self.what = captions_of(release, judge, split, count, seed)
        self.distance = reference(judge, release, seed)

    def judged(self, pictures: np.ndarray) -> dict[str, object]:
        what = self.what
        figures = judged(self.judge, self.distance, pictures, what.labels, what.settings, self.seed)
        del figures["mistakes"]
        return figures

    def figures(self, adapter: Path, alphas: list[float | None], bar: tqdm) -> list[dict[str, object]]:
        """Figures of an adapter's pictures under each alpha; `None` is the trained one."""
        self.pipe.load_adapter(adapter)
        rows = []
        for alpha in alphas:
            alpha = self.pipe.trained_lora_alpha if alpha is None else alpha
            pictures, _ = paint(self.pipe, self.what.captions, self.seed, bar, lora_alpha=alpha)
            rows.append({"lora_alpha": alpha, **self.judged(pictures)})
        return rows


def adapters_of(run: Path) -> tuple[Path, list[Path]]:
    """The adapter of a run, and those of its epochs, in order.

    Raises:
        ValueError: the folder holds no run, one that is not over, or one that trained no painter.
    """
    try:
        name = json.loads((run / "config.json").read_text())["config"]["name"]
    except OSError:
        raise ValueError(f"`runs`: {run} holds no run of train.saganets (no config.json).") from None
    if not (run / "run" / OVER).is_file():  # each validation writes the results so far
        raise ValueError(f"`runs`: the training in {run} is not over.")
    adapter = run / f"{name}.safetensors"
    if not adapter.is_file():
        raise ValueError(f"`runs`: {run} holds no {adapter.name}.")
    return adapter, sorted((run / "epochs").glob(f"*/{name}.safetensors"))


def losses_of(run: Path) -> list[dict[str, float]]:
    """What the run's validations found: step, epoch and losses."""
    lines = (run / "run" / "validation.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def study(pipeline: Study, runs: list[Path], alphas: list[float | None], epochs: bool) -> dict[str, object]:
    """The figures of every run, by its folder's name."""
    found: dict[str, object] = {}
    adapters = {run: adapters_of(run) for run in runs}
    sets = sum(len(alphas) + epochs * len(each) for _, each in adapters.values())
    with tqdm(total=sets * len(pipeline.what.captions), desc="frames") as bar:
        for run, (adapter, of_epochs) in adapters.items():
            config = json.loads((run / "config.json").read_text())
            found[run.name] = {
                "config": config["config"],
                "commit": config["commit"],
                "validations": losses_of(run),
                "alphas": pipeline.figures(adapter, list(alphas), bar),
                "epochs": [
                    {"epoch": int(path.parent.name), **pipeline.figures(path, [None], bar)[0]}
                    for path in (of_epochs if epochs else [])
                ],
            }
    return found


def alpha_of(text: str) -> float | None:
    """A number, or None for "trained"."""
    return None if text == "trained" else float(text)


def plot(runs: dict[str, dict], figure: str, x: str, path: Path) -> None:
    """Char-F1 with its 95% interval, FJD and, against epochs, the held-out loss."""
    columns = {"char_f1_micro": "Char-F1 micro", "fjd": "FJD"}
    if figure == "epochs":
        columns["painter_loss"] = "held-out loss"
    drawing, axes = plt.subplots(1, len(columns), figsize=(5 * len(columns), 3.6), layout="constrained")
    for name, run in runs.items():
        for axis, (column, label) in zip(axes, columns.items(), strict=True):
            rows = run["validations"] if column == "painter_loss" else run[figure]
            values = [row[column] for row in rows]
            (line,) = axis.plot([row[x] for row in rows], values, marker="o", label=name)
            if column == "char_f1_micro":
                low, high = np.transpose([row["char_f1_micro_95"] for row in rows])
                axis.fill_between([row[x] for row in rows], low, high, alpha=0.15, color=line.get_color())
            axis.set(xlabel={"epoch": "epoch", "lora_alpha": "alpha"}[x], ylabel=label)
    axes[0].legend()
    write_whole(path, lambda aside: drawing.savefig(aside, dpi=110, format="png"))
    plt.close(drawing)


def as_markdown(report: dict) -> str:
    """A table of every adapter that was painted with."""
    real = report["real_frames"]
    lines = [
        f"`{report['command']}`",
        "",
        f"{report['captions']} captions of the {report['split']} split, seed {report['seed']}, commit "
        f"`{report['commit'][:12]}`; real frames of the same clips: Char-F1 {100 * real['char_f1_micro']:.1f}%, FJD "
        f"{real['fjd']:.2f}.",
        "",
        "| run | epoch | alpha | Char-F1 micro (95%) | Frame-Acc | BG-Acc | FJD | held-out loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in report["runs"].items():
        last = run["validations"][-1]
        loss_at = {round(row["epoch"], 2): row["painter_loss"] for row in run["validations"]}
        rows = [(row["epoch"], row, loss_at.get(row["epoch"])) for row in run["epochs"]]
        rows += [(round(last["epoch"], 2), row, last["painter_loss"]) for row in run["alphas"]]
        for epoch, row, loss in rows:
            low, high = row["char_f1_micro_95"]
            cells = [name, f"{epoch:g}", f"{row['lora_alpha']:g}"]
            cells.append(f"{100 * row['char_f1_micro']:.1f}% ({100 * low:.1f} to {100 * high:.1f})")
            cells += [f"{100 * row[figure]:.1f}%" for figure in ("frame_acc", "bg_acc")]
            cells += [f"{row['fjd']:.2f}", "" if loss is None else f"{loss:.4f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--judge", type=Path, required=True, help="folder of a judge: python -m train.metrics.judge")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders that train.saganets wrote")
    parser.add_argument("--model", default="embedded", help="a pipeline's folder over the runs' base, or 'embedded'")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the report")
    parser.add_argument("--name", default="study", help="the report's file name")
    parser.add_argument(
        "--alphas", type=alpha_of, nargs="+", default=list(ALPHAS), help="for each run's final adapter, or 'trained'"
    )
    parser.add_argument("--epochs", action="store_true", help="the adapter of every epoch too (--epoch_adapters)")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--num_captions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.num_captions < 2:
        parser.error("--num_captions must be at least 2")
    names = [run.name for run in args.runs]
    if len(set(names)) < len(names):
        parser.error(f"--runs must have different names, but are {', '.join(names)}")
    release, judge = FlintstonesRelease(args.data), Judge.load(args.judge)
    if args.model == "embedded":
        pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    else:
        pipe = SAGANetsPipeline.from_pretrained(args.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipeline = Study(pipe, judge, release, args.split, args.num_captions, args.seed)
    try:
        runs = study(pipeline, args.runs, args.alphas, args.epochs)
    except ValueError as error:
        parser.error(str(error))
    report = {
        **provenance(args, argv, module="train.study"),
        "split": args.split,
        "captions": len(pipeline.what.captions),
        "real_frames": pipeline.judged(pipeline.what.real),
        "runs": runs,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    report = rounded(report)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    plot(runs, "alphas", "lora_alpha", args.out / f"{args.name}-alphas.png")
    if args.epochs:
        plot(runs, "epochs", "epoch", args.out / f"{args.name}-epochs.png")
    write_whole(args.out / f"{args.name}.json", lambda aside: aside.write_text(text, encoding="utf-8"))
    print(as_markdown(report))


if __name__ == "__main__":
    main()
