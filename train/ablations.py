"""Trains the painter by the `better` recipe and by every variant of it that differs in one thing.

    python -m train.ablations --data DATA/gulch --town DATA/town --base runs/base/model --out runs/ablations
    python -m train.study --data DATA/gulch --judge runs/judge --runs runs/ablations/* \\
        --alphas trained --name ablations

Same seed, same data, same number of steps. Each row is a run of `train.saganets` in a folder of its own; one that is
over is not run again, one that was stopped goes on. The second command judges what they paint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from train.study import adapters_of


TOWN = "{town}"
ALL_LAYERS = "to_q,to_k,to_v,to_out.0,ff.net.0.proj,ff.net.2,proj_in,proj_out,conv1,conv2"  # of a UNet's blocks
# a row's name: what it changes; a number after the name `better` is a seed
ROWS: dict[str, dict[str, object]] = {
    "paper": {"config": "paper"},
    "better": {},
    "better-seed1": {"seed": 1},
    "better-seed2": {"seed": 2},
    "paper-seed1": {"config": "paper", "seed": 1},
    "paper-seed2": {"config": "paper", "seed": 2},
    "rate-1e-3": {"learning_rate": 1e-3},
    "rate-2e-3": {"learning_rate": 2e-3},
    "rate-8e-3": {"learning_rate": 8e-3},
    "constant-rate": {"schedule": "constant"},
    "decay-1e-2": {"weight_decay": 1e-2},
    "no-caption-dropout": {"caption_dropout": 0.0},
    "no-average": {"ema_decay": 0.0},
    "min-snr-5": {"snr_gamma": 5.0},
    "noise-offset": {"noise_offset": 0.05},
    "late-timesteps": {"timestep_power": 1.5},
    "lora-dropout": {"lora_dropout": 0.1},
    "localized": {"l_local": 0.02},
    "rank-8": {"rank": 8, "alpha": 8.0},
    "rank-64": {"rank": 64, "alpha": 64.0},
    "all-layers": {"lora_targets": ALL_LAYERS},
    "mirrored": {"mirror": True},
    "no-crowds": {"crowds": 0.0},
    "rare": {"rare": 1.0},
    "rare-told": {"rare_told": 0.75},
    "prior": {"prior": TOWN},
}


def is_over(run: Path) -> bool:
    """Whether a run has come to its end."""
    try:
        adapters_of(run)
    except ValueError:
        return False
    return True


def command_of(name: str, args: argparse.Namespace) -> list[str]:
    """The training of a row, as it is typed after `python`."""
    changes = {"config": "better", **ROWS[name]}
    flags = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    flags = [str(args.town) if flag == TOWN else flag for flag in flags]
    places = ["--data", str(args.data), "--base", str(args.base), "--out", str(args.out / name)]
    shared = ["--cache", str(args.cache or args.out / "cache"), "--modules", "painter"]
    return ["-m", "train.saganets", *flags, *places, *shared, *args.more]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Further flags go to every training: --cpu --mixed_precision bf16, for instance.",
    )
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--base", type=Path, required=True, help="the base's folder")
    parser.add_argument("--town", type=Path, default=None, help="release of generic pictures, for the row `prior`")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of the runs' folders")
    parser.add_argument("--cache", type=Path, default=None, help="of latents and text states; default: in --out")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=None, help="only these; default: all")
    args, args.more = parser.parse_known_args(argv)
    rows = args.rows or [name for name, changes in ROWS.items() if args.town or TOWN not in changes.values()]
    if args.town is None and any(TOWN in ROWS[name].values() for name in rows):
        parser.error("--town is needed for the row `prior`")
    for name in tqdm([name for name in rows if not is_over(args.out / name)], desc="rows"):
        done = subprocess.run([sys.executable, *command_of(name, args)])
        if done.returncode:
            sys.exit(f"{name}: the training ended with status {done.returncode}; see above")
        if not is_over(args.out / name):
            sys.exit(f"{name}: stopped; the same command goes on")


if __name__ == "__main__":
    main()
