"""Make a model repository or a Space, and send it to the Hub.

    python -m train.publish model --out DIR [--push USER/NAME [--private]]
    python -m train.publish model --base stable-diffusion-v1-5/stable-diffusion-v1-5 --captioner RUN/captioner \
        --lora RUN/NAME.safetensors --out DIR [--push USER/NAME]
    python -m train.publish space --hardware cpu-basic --out DIR [--push USER/NAME]

`--push` needs a token of the role `write`: `hf auth login`, or the variable HF_TOKEN. With `--dry_run` nothing is
sent, and what would be is listed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from .push import MODEL_FILES, SPACE_FILES, files_to_send, listing, push, reason
from .space import HARDWARE, write_space


ROOT = Path(__file__).resolve().parents[2]
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    model = kinds.add_parser("model", help="a model repository")
    model.add_argument("--model", default="embedded", help="'embedded', or a folder of save_pretrained")
    model.add_argument("--base", help=f"Hub id of a base to name instead of copying a model, such as {SD15}")
    model.add_argument("--base_revision", help="branch, tag or commit of the base; the newest commit is taken down")
    model.add_argument("--captioner", type=Path, help="with --base: folder that train.saganets wrote")
    model.add_argument("--lora", type=Path, nargs="+", default=None, help="adapters; the first is the default")
    model.add_argument(
        "--evaluation", type=Path, help="JSON of train.evaluate; of the embedded model the committed one"
    )
    model.add_argument("--opening", default="Gus is in the kitchen. He is talking to Mabel.", help="of the examples")
    model.add_argument("--license", help="apache-2.0; of a model that names its base creativeml-openrail-m")
    model.add_argument("--datasets", nargs="+", help="Hub ids of the data, for the card")
    model.add_argument(
        "--paint", action="store_true", help="with --base: fetch it and paint a story for the card, on a GPU if any"
    )
    model.add_argument("--no_check", action="store_true", help="do not open the folder in a process of its own")
    space = kinds.add_parser("space", help="a Space")
    space.add_argument("--hardware", choices=list(HARDWARE), default="cpu-basic")
    space.add_argument("--model", help="Hub id of the model that a GPU runs")
    space.add_argument("--base", help="Hub id of the base that the model needs, to be fetched before the start")
    space.add_argument("--lora", help="adapter instead of the model's own: a file, or user/repository/file")
    space.add_argument("--title", default="SAGANets")
    for each in (model, space):
        each.add_argument("--out", type=Path, required=True, help="folder to write; what it holds is replaced")
        each.add_argument("--push", metavar="USER/NAME", help="repository to send it to, made if it is not there")
        each.add_argument("--private", action="store_true", help="make the repository private")
        each.add_argument("--dry_run", action="store_true", help="list what --push would send, and send nothing")
        each.add_argument("--message", help="of the commit")
    return parser.parse_args(argv)


def write_model(args: argparse.Namespace) -> None:
    from sagan_pipeline.loading import EMBEDDED_ADAPTER

    from .card import model_card
    from .model import check_opens, copy_licence, open_written, paint_gallery, write_reference, write_whole

    embedded = args.base is None and args.model == "embedded"
    loras, evaluation, gallery = args.lora or [], args.evaluation, None
    if embedded:
        loras = loras or sorted((ROOT / "lora_weights").glob("*.safetensors"), key=lambda p: p != EMBEDDED_ADAPTER)
        evaluation = evaluation or ROOT / "evaluation" / "embedded.json"
    if args.base is None:
        pipe, adapters = write_whole(args.out, args.model, loras)
        gallery = paint_gallery(args.out, pipe, args.opening)
    elif args.captioner is None:
        raise ValueError("`--captioner` is missing; with `--base` it is the folder that train.saganets wrote.")
    else:
        pipe, adapters = write_reference(args.out, args.base, args.captioner, loras, args.base_revision)
        if args.paint:
            gallery = paint_gallery(args.out, open_written(args.out), args.opening)
    results = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation else None
    card = model_card(
        args.push or f"USER/{args.out.name}",
        adapters,
        default=next(iter(adapters)),
        opening=args.opening,
        evaluation=results,
        gallery=gallery,
        base=(args.base, pipe.config.base_revision) if args.base else None,
        cast=pipe.cast,
        license=args.license or ("creativeml-openrail-m" if args.base else "apache-2.0"),
        datasets=args.datasets,
    )
    (args.out / "README.md").write_text(card, encoding="utf-8")
    copy_licence(args.out)
    if results:
        (args.out / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if args.base is None and not args.no_check:
        check_opens(args.out)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    model = args.kind == "model"
    try:
        _clear(args.out, "model_index.json" if model else "requirements.txt")
        if model:
            write_model(args)
        else:
            write_space(args.out, args.hardware, args.model, args.lora, args.base, args.title)
        patterns = MODEL_FILES if model else SPACE_FILES
        print(listing(args.out, *files_to_send(args.out, patterns)))
        if args.push and not args.dry_run:
            message = args.message or f"{'Model' if model else 'Space'} by train.publish"
            commit = push(args.out, args.push, patterns, message, args.kind, args.private)
            print(f"{args.push} is at commit {commit}")
    except ValueError as error:
        sys.exit(f"train.publish: {error}")
    except OSError as error:  # the Hub's, or this disk's
        sys.exit(f"train.publish: {reason(error) if hasattr(error, 'response') else error}")


def _clear(out: Path, mark: str) -> None:
    """Take away what an earlier call wrote; refuse to take away anything else."""
    if out.is_dir() and any(out.iterdir()):
        if not (out / mark).is_file():
            raise ValueError(f"`--out` {out} is not empty, and was not written by this command; name another folder.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    main()
