"""Why CLIP-centric training broke in the paper (figure 8): what its terms' gradients do, and how CLIP is fooled.

    python -m train.clip_study --data DATA/gulch --base BASE --init_lora ADAPTER

1. Gradients: at each timestep, the norm of each term's gradient in the UNet's prediction, in shares of plain
   diffusion's, and the cosine between CLIP's and L2's direction; the terms as the paper writes them, unweighted.
2. Fooling: the latents of real validation frames are moved up CLIP's cosine alone, and again with L2 to hold them.
   If the cosine rises above the real frames' while the pictures leave them, CLIP rewards what is no character: the
   share of fine texture says what. With `--judge`, its Char-F1 says whether the characters are still seen.

Further flags are those of `train.saganets`. Figures go to OUT/clip_study.json, with a plot beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from train.adapter import provenance
from train.config import parse_config
from train.metrics.characters import character_scores
from train.metrics.judge import THRESHOLD, Judge
from train.objectives.diffusion import prediction_loss
from train.painter import Painter, to_pictures
from train.saganets import Coordinated


matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws


TIMESTEPS = (20, 100, 250, 400, 550, 700, 850, 980)
HELD = 10.0  # weight of L2 to the real latents, where they are held
FLAGS = ["--objective", "clip", "--l2_on", "x0", "--timestep_weighting", "uniform", "--modules", "painter"]


def gradient_norms(trained: Coordinated, batches: int, timesteps: tuple[int, ...] = TIMESTEPS) -> list[dict]:
    """For each timestep: norms of the terms' gradients in the prediction, `noise` being plain diffusion's L2; the
    cosine of CLIP's gradient and L2's; and CLIP's cosine of the predicted pictures. Means over `batches`."""
    painter, rows = trained.painter, []
    for timestep in timesteps:
        found: dict[str, list[float]] = {}
        for step in range(batches):
            draws = trained.draws(step).painter
            draws.timesteps = torch.full_like(draws.timesteps, timestep)
            batch = painter.batch(draws, slice(0, trained.config.batch_size), seed=step, step=step)
            with painter.accelerator.autocast():
                losses = painter.objective.losses(batch)
                node = painter.objective.prediction
                plain = prediction_loss(node, painter.scheduler, batch.latents, batch.noise, batch.timesteps)
                losses["noise"] = plain
            gradients = {
                name: torch.autograd.grad(loss, [node], retain_graph=True)[0].flatten()
                for name, loss in losses.items()
            }
            values = {f"gradient_{name}": float(gradient.norm()) for name, gradient in gradients.items()}
            if "clip" in gradients:
                values["cosine_clip_l2"] = float(F.cosine_similarity(gradients["clip"], gradients["l2"], dim=0))
                values["clip_cosine"] = painter.objective.terms["clip"].logs["clip_cosine"]
            for name, value in values.items():
                found.setdefault(name, []).append(value)
        rows.append({"timestep": timestep, **{name: float(np.mean(values)) for name, values in found.items()}})
    return rows


def fine_share(pictures: torch.Tensor) -> float:
    """How much of the pictures' variance (B, 3, H, W) lies in what a blur over 5 pixels takes away."""
    smooth = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    return float((pictures - smooth).var() / pictures.var())


def fool(
    painter: Painter, clips: list[str], steps: int, rate: float, held: float, judge: Judge | None = None
) -> list[dict[str, float]]:
    """The latents of real validation frames under gradient ascent on CLIP's cosine, `held` times L2 pulling them back.

    Returns:
        a row every tenth of the way: step, clip_cosine, distance (L1 of the pictures to the real ones), fine_share,
        and char_f1_micro with a judge.
    """
    cache, clip = painter.validation_latents, painter.objective.terms["clip"].clip
    index = torch.tensor([cache.index_of[id] for id in clips])
    real = cache.latents[index, 0].float().to(painter.device)
    latents = real.clone().requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=rate)
    texts = clip.texts([painter.release.clip(id).caption for id in clips])
    with torch.no_grad():
        shown = painter.decode(real)
    rows = []
    for step in range(steps + 1):
        pictures = painter.decode(latents)
        cosine = F.cosine_similarity(clip.images(pictures), texts).mean()
        if step % max(1, steps // 10) == 0:
            row = {"step": step, "clip_cosine": float(cosine.detach()), "fine_share": fine_share(pictures.detach())}
            row["distance"] = float((pictures.detach() - shown).abs().mean())
            if judge is not None:
                seen = judge(to_pictures(pictures.detach().cpu()))[0].numpy() > THRESHOLD
                labels = np.stack([painter.release.labels(id, judge.classes) for id in clips]).astype(bool)
                row["char_f1_micro"] = character_scores(seen, labels, list(judge.classes))["char_f1_micro"]
            rows.append(row)
        optimizer.zero_grad()
        (1 - cosine + held * F.mse_loss(latents, real)).backward()
        optimizer.step()
    return rows


def plot(report: dict, path: Path) -> None:
    drawing, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
    rows = report["gradients"]
    for name in [key for key in rows[0] if key.startswith("gradient_") and key != "gradient_noise"]:
        shares = [row[name] / row["gradient_noise"] for row in rows]
        axes[0].plot([row["timestep"] for row in rows], shares, marker="o", label=name.removeprefix("gradient_"))
    axes[0].set(xlabel="timestep", ylabel="gradient norm, of plain L2's", yscale="log")
    axes[0].legend()
    for name, rows in report["fooled"].items():
        steps = [row["step"] for row in rows]
        axes[1].plot(steps, [row["clip_cosine"] for row in rows], marker="o", label=name)
        axes[2].plot(steps, [row["distance"] for row in rows], marker="o", label=f"{name}: L1 to the real frame")
        axes[2].plot(steps, [row["fine_share"] for row in rows], ls="--", label=f"{name}: share of fine texture")
    axes[1].set(xlabel="steps up CLIP's gradient", ylabel="CLIP cosine")
    axes[2].set(xlabel="steps up CLIP's gradient")
    axes[1].legend()
    axes[2].legend(fontsize="small")
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study_out", type=Path, default=Path("evaluation"), help="folder of the report")
    parser.add_argument("--judge", type=Path, default=None, help="folder of a judge, to say who is still seen")
    parser.add_argument("--batches", type=int, default=8, help="of each timestep")
    parser.add_argument("--fooling_steps", type=int, default=100)
    parser.add_argument("--fooling_rate", type=float, default=0.02)
    parser.add_argument("--frames", type=int, default=16, help="of the validation split, that CLIP is fooled with")
    args, flags = parser.parse_known_args(argv)
    weights = [part for name in ("clip", "char") if f"--l_{name}" not in flags for part in (f"--l_{name}", "1")]
    config = parse_config([*FLAGS, *weights, *flags])
    trained = Coordinated(config, Accelerator(cpu=config.cpu, mixed_precision=config.mixed_precision))
    clips = trained.painter.validation_latents.ids
    clips = clips[:: max(1, len(clips) // args.frames)][: args.frames]
    judge = Judge.load(args.judge) if args.judge is not None else None
    report = {
        "command": "python -m train.clip_study",
        "arguments": {name: str(value) for name, value in vars(args).items()},
        **provenance(),
        "gradients": gradient_norms(trained, args.batches),
        "fooled": {
            name: fool(trained.painter, clips, args.fooling_steps, args.fooling_rate, held, judge)
            for name, held in (("CLIP alone", 0.0), ("CLIP and L2", HELD))
        },
    }
    args.study_out.mkdir(parents=True, exist_ok=True)
    path = args.study_out / "clip_study.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plot(report, path.with_suffix(".png"))
    print(json.dumps({name: rows[-1] for name, rows in report["fooled"].items()}))


if __name__ == "__main__":
    main()
