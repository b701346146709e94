"""Redraws the paper's figures 2 to 8 from saved runs, and one of all objectives, each with its caption.

    python -m train.figures --runs runs --out evaluation/figures

`--runs` holds the folders of `train.saganets`, named after their presets: paper, better, gan-paper, gan, clip-paper,
clip. What a figure shows was painted or logged while they trained; only figure 7, with the runs' adapters, and the
last one, with those of `--adapters`, are painted anew, by `--model`. Figures whose runs are not there are left out and
named in `README.md` of `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from train.metrics.captions import is_complete
from train.painter import SHOWN_ALPHAS


matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws


COLUMNS = 4  # frames of the story that a run paints at every validation, a row for each of SHOWN_ALPHAS
PAINTED = ("figure-2-one-epoch", "figure-3-alpha", "figure-4-epochs", "figure-7-gan-epochs", "objectives")
PAPER_LOSSES = {"generator": 1.197, "discriminator": 0.686}  # paper, figure 6
OBJECTIVES = ("diffusion", "gan", "clip", "temporal", "combined")
CAPTIONS = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Mr Flagg is driving in the car. He is angry.",
    "Otto and Nell are sitting in the bowling alley.",
    "Rumble is sleeping in the bedroom.",
]
SEED = 7


class Missing(Exception):
    """What a figure is made from is not there."""


@dataclass
class Run:
    """The folder of a run of `train.saganets`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def lines(self, file: str) -> list[dict[str, float]]:
        """The run's log ("log.jsonl") or its validations ("validation.jsonl")."""
        path = self.folder / "run" / file
        if not path.is_file():
            raise Missing(f"{self.name}/run/{file}")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def painted(self, epoch: float, alpha: float) -> Image.Image:
        """The validation story at an alpha, as painted at the validation next to `epoch`; a row of frames."""
        lines = self.lines("validation.jsonl")
        line = min(lines, key=lambda line: abs(line["epoch"] - epoch))
        if abs(line["epoch"] - epoch) > 0.5:
            raise Missing(f"{self.name}: a validation at epoch {epoch:g}")
        path = self.folder / "run" / "samples" / f"{line['step']:06d}.png"
        if not path.is_file():
            raise Missing(f"{self.name}/run/samples/{path.name}")
        sheet = Image.open(path).convert("RGB")
        height = sheet.height // len(SHOWN_ALPHAS)
        row = SHOWN_ALPHAS.index(alpha)
        return sheet.crop((0, row * height, sheet.width, (row + 1) * height))

    def adapter(self, epoch: int | None = None) -> Path:
        """The adapter that the run came to, or that of an epoch (--epoch_adapters)."""
        folder = self.folder if epoch is None else self.folder / "epochs" / f"{epoch:02d}"
        found = sorted(folder.glob("*.safetensors"))
        if not found:
            raise Missing(f"{self.name}: an adapter" + ("" if epoch is None else f" of epoch {epoch}"))
        return found[0]

    @property
    def epochs(self) -> float:
        return self.lines("validation.jsonl")[-1]["epoch"]


def rows_of(rows: list[tuple[str, Image.Image]], path: Path) -> None:
    """Rows of frames under each other, each with its name at the left."""
    drawing, axes = plt.subplots(len(rows), 1, figsize=(9, 2.25 * len(rows)), layout="constrained", squeeze=False)
    for axis, (name, row) in zip(axes[:, 0], rows, strict=True):
        axis.imshow(np.asarray(row))
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    drawing.savefig(path, dpi=110, pil_kwargs={"quality": 88})
    plt.close(drawing)


def curves(panels: list[tuple[str, dict[str, tuple[list[float], list[float]]]]], path: Path, marks: dict) -> None:
    """Panels with curves, name to (steps, values); `marks` are horizontal lines."""
    drawing, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 3.8), layout="constrained", squeeze=False)
    for axis, (title, lines) in zip(axes[0], panels, strict=True):
        for name, (steps, values) in lines.items():
            axis.plot(steps, values, label=name)
        for name, value in marks.items():
            axis.axhline(value, ls=":", lw=1, color="gray")
            axis.annotate(name, (0.01, value), xycoords=("axes fraction", "data"), fontsize=7)
        axis.set(title=title, xlabel="step", ylabel="loss")
        axis.legend()
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def column(run: Run, name: str, file: str = "log.jsonl") -> tuple[list[float], list[float]]:
    lines = [line for line in run.lines(file) if name in line]
    if not lines:
        raise Missing(f"{run.name}: {name} in its log")
    return [line["step"] for line in lines], [line[name] for line in lines]


# The figures; each writes its file and returns its caption


def one_epoch(of: Callable[[str], Run], path: Path) -> str:
    paper, better = of("paper"), of("better")
    rows_of([("paper's recipe", paper.painted(1, 32.0)), ("ours", better.painted(1, 32.0))], path)
    return (
        "Figure 2: one validation story after one epoch, alpha 32. Above: the paper's recipe (`configs/paper.yaml`); "
        "below: ours (`configs/better.yaml`), same base, data and seed."
    )


def alphas(of: Callable[[str], Run], path: Path) -> str:
    rows = []
    for name, label in (("paper", "paper's"), ("better", "ours")):
        run = of(name)
        rows += [(f"{label}, {alpha:g}", run.painted(run.epochs, alpha)) for alpha in (32.0, 10.0)]
    rows_of(rows, path)
    return (
        "Figure 3: the same story after the last epoch at alpha 32 above alpha 10, of the paper's recipe and of ours."
    )


def more_epochs(of: Callable[[str], Run], path: Path) -> str:
    rows = []
    for name, label in (("paper", "paper's"), ("better", "ours")):
        run = of(name)
        there = [line["epoch"] for line in run.lines("validation.jsonl")]
        chosen = sorted({there[0], there[len(there) // 2], there[-1]})
        rows += [(f"{label}, epoch {epoch:g}", run.painted(epoch, 32.0)) for epoch in chosen]
    rows_of(rows, path)
    return "Figure 4: beyond one epoch, alpha 32, of the paper's recipe and of ours."


def caption_failures(of: Callable[[str], Run], path: Path) -> str:
    shares, shown = [], []
    for name, label in (("paper", "the paper's recipe"), ("better", "ours")):
        texts = sorted((of(name).folder / "run" / "samples").glob("*.txt"))
        if not texts:
            raise Missing(f"{name}/run/samples/*.txt (--modules both or captioner)")
        lines = [line.strip() for text in texts for line in text.read_text(encoding="utf-8").splitlines()]
        written = [line.removeprefix("-> ") for line in lines if line.startswith("-> ")]
        failed = [line for line in written if line.endswith("(unfinished)") or not is_complete(line)]
        shares.append(f"{len(failed)} of {len(written)} of {label}")
        shown.append(f"{label}:")
        for line in (failed or written)[:6]:
            shown += textwrap.wrap(line, 110, initial_indent="  ", subsequent_indent="    ")
    drawing, axis = plt.subplots(figsize=(9, 0.15 * len(shown) + 0.2), layout="constrained")
    axis.axis("off")
    axis.text(0, 1, "\n".join(shown), va="top", family="monospace", fontsize=8)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)
    return f"Figure 5: captions that break off, as drafted at the validations: {' and '.join(shares)}."


def gan_losses(of: Callable[[str], Run], path: Path) -> str:
    panels, ends = [], []
    for name in ("gan-paper", "gan"):
        run = of(name)
        lines = {"generator": column(run, "painter_loss"), "discriminator": column(run, "discriminator_loss")}
        panels.append((name, lines))
        g, d = (np.mean(values[-max(1, len(values) // 10) :]) for _, values in lines.values())
        ends.append(f"{name}: generator {g:.3f}, discriminator {d:.3f}")
    paper = {f"paper's {name}, {value}": value for name, value in PAPER_LOSSES.items()}
    curves(panels, path, {**paper, "log 2": math.log(2)})
    return (
        "Figure 6: losses of the GAN-based objective, the generator's with all terms; the paper reports 1.197 and "
        f"0.686. Means of the last tenth: {'; '.join(ends)}."
    )


def clip_losses(of: Callable[[str], Run], path: Path) -> str:
    panels, words = [], []
    for name in ("clip-paper", "clip"):
        run = of(name)
        lines = {"as trained": column(run, "painter_loss"), "L2": column(run, "term_l2")}
        lines["on the same batches"] = steps, values = column(run, "fixed_loss", "validation.jsonl")
        panels.append((name, lines))
        quarter = max(2, len(values) // 4)
        slope = np.polyfit(steps[-quarter:], values[-quarter:], 1)[0] if len(values) > 1 else 0.0
        spread = [float(np.std(part)) for part in (values[:quarter], values[-quarter:])]
        words.append(
            f"{name}: from {values[0]:.4f} to {values[-1]:.4f}, spread {spread[0]:.5f} in the first quarter, "
            f"{spread[1]:.5f} in the last, slope there {slope:.2g} a step"
        )
    curves(panels, path, {})
    return (
        "Figure 8: the CLIP-centric objective as the paper writes it, and ours. The losses of the same batches at "
        f"every validation: {'; '.join(words)}."
    )


FIGURES: dict[str, Callable[[Callable[[str], Run], Path], str]] = {
    "figure-2-one-epoch": one_epoch,
    "figure-3-alpha": alphas,
    "figure-4-epochs": more_epochs,
    "figure-5-captions": caption_failures,
    "figure-6-gan-losses": gan_losses,
    "figure-8-clip-losses": clip_losses,
}


def painted_rows(opened: Callable[[], SAGANetsPipeline], files: list[tuple[str, Path | None]], path: Path) -> None:
    """`CAPTIONS` under the same noise, a row for each adapter, in the steps that it is made for; `None`: the base."""
    pipe, rows = opened(), []
    for name, file in files:
        if file is not None:
            pipe.load_adapter(file)
        alpha = 0 if file is None else pipe.trained_lora_alpha
        generator = torch.Generator().manual_seed(SEED)
        frames = pipe.paint(CAPTIONS, lora_alpha=alpha, generator=generator).stories[0].frames
        row = np.concatenate([np.asarray(frame.image) for frame in frames], axis=1)
        rows.append((f"{name}\n{frames[0].num_inference_steps} steps", Image.fromarray(row)))
    rows_of(rows, path)


def gan_epochs(of: Callable[[str], Run], opened: Callable[[], SAGANetsPipeline], path: Path) -> str:
    paper, ours = of("gan-paper"), of("gan")
    files = [(f"paper's, epoch {epoch}", paper.adapter(epoch)) for epoch in (20, 5)]
    painted_rows(opened, [*files, (f"ours, epoch {ours.epochs:.1f}", ours.adapter())], path)
    return (
        "Figure 7: the GAN-based objective of the paper at 20 and 5 epochs (one step), and ours at its end, on the "
        f"same captions and noise (seed {SEED}): {' | '.join(CAPTIONS)}"
    )


def objectives(opened: Callable[[], SAGANetsPipeline], adapters: Path, path: Path) -> str:
    """The same captions and noise under the base and the adapter of each objective."""
    files = {name: found for name in OBJECTIVES for found in adapters.glob(f"*-{name}.safetensors")}
    if len(files) < 2:
        raise Missing(f"adapters of at least two objectives in {adapters}")
    painted_rows(opened, [("base", None), *files.items()], path)
    left = [name for name in OBJECTIVES if name not in files]
    missing = f" Not there: {', '.join(left)}." if left else ""
    return f"All objectives on the same captions and noise (seed {SEED}), a row each: {' | '.join(CAPTIONS)}{missing}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs' folders")
    parser.add_argument("--adapters", type=Path, default=Path("lora_weights"), help="folder of NAME-OBJECTIVE files")
    parser.add_argument(
        "--model", default="embedded", help="a pipeline's folder over the adapters' base, or 'embedded'"
    )
    parser.add_argument("--out", type=Path, default=Path("evaluation/figures"))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    lines, left = ["# Figures", "", "Drawn by `python -m train.figures` from saved runs.", ""], []

    @cache
    def pipe() -> SAGANetsPipeline:
        if args.model == "embedded":
            opened = SAGANetsPipeline.from_embedded(fastest_dtype())
        else:
            opened = SAGANetsPipeline.from_pretrained(args.model)
        opened.set_progress_bar_config(disable=True)
        return opened

    def draw(name: str, figure: Callable[[Path], str]) -> None:
        path = args.out / f"{name}.{'jpg' if name in PAINTED else 'png'}"
        try:
            caption = figure(path)
        except Missing as missing:
            left.append(f"- {name}: there is no {missing}")
            return
        lines.extend([f"![{name}]({path.name})", "", caption, ""])

    of = lambda run: Run(args.runs / run)  # noqa: E731
    figures = {name: partial(figure, of) for name, figure in FIGURES.items()}
    figures["figure-7-gan-epochs"] = partial(gan_epochs, of, pipe)
    figures["objectives"] = partial(objectives, pipe, args.adapters)
    for name in sorted(figures):
        draw(name, figures[name])
    if left:
        lines += ["Left out:", "", *left, ""]
    (args.out / "README.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(left) or "all figures drawn")


if __name__ == "__main__":
    main()
