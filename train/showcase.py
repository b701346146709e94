"""The pictures of the README, painted by the embedded model: `python -m train.showcase`.

`assets/story.png` is one story, `assets/stories.png` eight, `assets/alpha.png` one at alpha 0, 10 and 32, and
`assets/unseen.jpg` one frame each of fifty captions written by hand, none of which is in the training data;
`lora_weights/sheet.png` has a row for each adapter there, under the same captions and seeds.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from sagan_pipeline import Frame, SAGANetsPipeline, fastest_dtype


ROOT = Path(__file__).resolve().parents[1]
ASSETS, ADAPTERS = ROOT / "assets", ROOT / "lora_weights"
SEED = 7
COMPARED = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Rumble and Gus are on the beach and they are waving.",
    "Nell and Otto are driving in the car.",
    "Otto is standing in the living room.",
]
OPENINGS = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Nell and Otto are driving in the car.",
    "Rumble is sleeping in the bedroom.",
    "Mr Flagg is in his office. He is angry.",
    "Pip is holding a flower in the park.",
    "Mabel and Nell are talking in the diner.",
    "Otto is working at the quarry.",
    "Gus and Otto are dancing at the bowling alley.",
]
UNSEEN = [
    "Gus is on the beach and he is very happy.",
    "Mabel is in a cave, thinking.",
    "Otto sits quietly in the living room.",
    "Nell is reading her book on the street.",
    "Pip is crying in the kitchen.",
    "Rumble is running through the park.",
    "Mr Flagg is driving his car.",
    "Gus and Mabel are in the diner. They are eating.",
    "Otto and Rumble are in the yard. Otto is laughing.",
    "Nell is talking to Mr Flagg in the office.",
    "Pip and Mabel are in the bedroom and they look surprised.",
    "Gus is sleeping on the beach.",
    "Rumble holds a bone in the living room.",
    "Mr Flagg is at the quarry. He is angry with Gus.",
    "Nell waves to Otto on the road.",
    "Mabel is dancing in the dining room.",
    "Gus, Otto and Nell are at the bowling alley.",
    "Pip is jumping in the yard.",
    "A woman with long blond hair in a red dress is in the park.",
    "Otto points at a man with a beard in a green suit in the street.",
    "Gus is working in the yard with his hammer.",
    "Mabel is driving and she looks worried.",
    "Otto is eating a drumstick in the park.",
    "Nell is sad. She sits in the bedroom.",
    "Pip is sleeping in the car.",
    "Rumble is in the office, and he looks confused.",
    "Mr Flagg is dancing on the beach.",
    "Gus stands in the quarry and scratches his head. He is thinking.",
    "Mabel holds a flower in the cave.",
    "Otto is angry. He is pointing at something on the street.",
    "Nell jumps up and down in the bowling alley.",
    "Rumble is laughing in the diner.",
    "Mr Flagg is reading a book in the living room.",
    "Pip waves hello in the park.",
    "Gus is in the office and he cries quietly.",
    "Mabel and Pip are eating in the kitchen.",
    "Gus and Mr Flagg are at the quarry and both are angry.",
    "Otto is talking to Nell on the beach.",
    "Nell and Mabel are reading in the living room.",
    "Rumble is sleeping in the yard and Pip is laughing.",
    "Mr Flagg is pointing at Otto in the office.",
    "Gus holds a ball and Otto is waving in the bowling alley.",
    "Mabel is talking to Rumble in the dining room.",
    "Otto and Mr Flagg are driving down the road in a car.",
    "Pip and Rumble are running on the street.",
    "Nell is dancing in the diner while Gus is sitting.",
    "Mabel, Gus and Pip are in the kitchen.",
    "A boy in a blue shirt is running in the park.",
    "A woman with red hair in a green dress talks to Gus in the diner.",
    "A big green dinosaur is standing in the quarry.",
]


def titled(rows: list[list[Frame]], side: int = 256, letters: int = 14) -> Image.Image:
    """Frames side by side, row by row, each with its caption under it."""
    font = ImageFont.load_default(letters)
    wrapped = [[textwrap.wrap(frame.caption, int(side / letters * 1.95)) for frame in row] for row in rows]
    heights = [side + 12 + (letters + 4) * max(len(lines) for lines in row) for row in wrapped]
    sheet = Image.new("RGB", (max(map(len, rows)) * (side + 8) - 8, sum(heights)), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for row, captions, height in zip(rows, wrapped, heights, strict=True):
        for i, (frame, lines) in enumerate(zip(row, captions, strict=True)):
            sheet.paste(frame.image.resize((side, side)), (i * (side + 8), y))
            pen.multiline_text((i * (side + 8) + 2, y + side + 3), "\n".join(lines), "#222", font, spacing=4)
        y += height
    return sheet


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = SAGANetsPipeline.from_embedded(fastest_dtype())

    def seeded(offset: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(args.seed + offset)

    stories = [pipe(opening, num_frames=4, generator=seeded(i)).stories[0] for i, opening in enumerate(OPENINGS)]
    titled([stories[0].frames]).save(args.out / "story.png", optimize=True)
    titled([story.frames for story in stories], side=224).save(args.out / "stories.png", optimize=True)
    alphas = pipe(OPENINGS[0], num_frames=4, lora_alpha=[0, 10, 32], generator=seeded()).stories
    titled([story.frames for story in alphas], side=224).save(args.out / "alpha.png", optimize=True)
    unseen = pipe.paint(UNSEEN, generator=seeded()).stories[0].frames
    titled([unseen[i : i + 5] for i in range(0, len(unseen), 5)], side=224).save(args.out / "unseen.jpg", quality=88)
    rows = []
    for path in sorted(ADAPTERS.glob("*.safetensors")):
        pipe.load_adapter(path)
        rows.append(pipe.paint(COMPARED, generator=seeded()).stories[0].frames)
    sheet = ADAPTERS if args.out == ASSETS else args.out
    titled(rows, side=224).save(sheet / "sheet.png", optimize=True)


if __name__ == "__main__":
    main()
