"""Draw and write our own show as a release in FlintstonesSV's layout: `python -m train.data.gravel_gulch OUT`."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from train.data.gravel_gulch.release import frames_of, write_release
from train.data.gravel_gulch.script import WORLDS, episode
from train.data.gravel_gulch.statistics import statistics_table


SHEET_COLUMNS, SHEET_ROWS, SHEET_SIDE, CAPTION_HEIGHT = 6, 6, 256, 64


def contact_sheet(world: str, seed: int) -> Image.Image:
    """36 clips of six episodes with their captions, to look at."""
    count = SHEET_COLUMNS * SHEET_ROWS
    clips = [clip for number in range(6) for clip in episode(world, seed * 100_000 + number, count // 6)]
    cell = SHEET_SIDE + CAPTION_HEIGHT
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_SIDE, SHEET_ROWS * cell), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, clip in enumerate(clips):
        x, y = i % SHEET_COLUMNS * SHEET_SIDE, i // SHEET_COLUMNS * cell
        sheet.paste(Image.fromarray(frames_of(clip, SHEET_SIDE, [39])[0]), (x, y))
        pen.multiline_text((x + 4, y + SHEET_SIDE + 3), textwrap.fill(clip.caption, 38), "black", font, spacing=2)
    return sheet


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.data.gravel_gulch",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="folder of the release; none writes none")
    parser.add_argument("--world", choices=WORLDS, default="gulch", help="the show, or the town without its cast")
    parser.add_argument("--episodes", type=int, default=60, help="the last fifth validates and tests")
    parser.add_argument("--clips", type=int, default=30, help="of an episode")
    parser.add_argument("--seed", type=int, default=0, help="governs everything")
    parser.add_argument("--size", type=int, default=256, help="side of the frames; FlintstonesSV's own is 128")
    parser.add_argument("--workers", type=int, default=None, help="processes that draw; none is one a processor")
    parser.add_argument(
        "--anywhere", type=float, default=0.0, help="share of scenes whose plot may be that of any setting"
    )
    parser.add_argument("--no_pictures", action="store_true", help="annotations alone, for captioners")
    parser.add_argument("--sheet", type=Path, default=None, metavar="PNG", help="write a contact sheet")
    parser.add_argument(
        "--statistics", action="store_true", help="print the captions' statistics beside the real ones"
    )
    args = parser.parse_args(argv)
    if args.out is None and args.sheet is None and not args.statistics:
        parser.error("nothing to do: give OUT, --sheet or --statistics")
    if args.statistics:
        print(statistics_table(args.world, args.seed))
    if args.sheet is not None:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(args.world, args.seed).save(args.sheet)
    if args.out is not None:
        try:
            amounts = (args.episodes, args.clips, args.seed, args.size, args.workers)
            write_release(args.out, args.world, *amounts, anywhere=args.anywhere, pictures=not args.no_pictures)
        except ValueError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
