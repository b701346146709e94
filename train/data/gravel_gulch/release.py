"""Writes episodes of Gravel Gulch, or of generic town, in the layout of FlintstonesSV."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

from train.data.annotations import ANNOTATIONS, KEY_FRAMES, SAMPLED, SPLIT
from train.data.gravel_gulch.drawing import FRAMES, draw, render
from train.data.gravel_gulch.script import episode
from train.data.gravel_gulch.world import Clip, Look


EPISODES_A_SEASON = 25
DIRTY = 0.06  # share of records with stray blanks, a line break or no entity span, as the real ones have
LOST = 0.003  # share of the training clips without frames, as a real download has


def clip_ids(number: int, clips: int, rng: random.Random) -> list[str]:
    """Ids of the clips of episode `number` (from 0): frames never overlap, 28% follow without a gap."""
    season, in_season = divmod(number, EPISODES_A_SEASON)
    ids, first = [], rng.randrange(200, 900)
    for _ in range(clips):
        ids.append(f"s_{season + 1:02d}_e_{in_season + 1:02d}_shot_{first:06d}_{first + FRAMES - 1:06d}")
        first += FRAMES + (0 if rng.random() < 0.28 else min(int(rng.expovariate(1 / 150)) + 1, 4108))
    return ids


def label_of(look: Look) -> str:
    """The annotation's entity label: a regular's name, or what a person without one is called."""
    if look.name:
        return look.name.lower()
    return (
        f"{look.garment_color} dinosaur"
        if look.kind == "dinosaur"
        else f"{look.hair_style} {look.hair_color} {look.kind}"
    )


def record_of(id: str, clip: Clip, rng: random.Random) -> dict[str, object]:
    """A clip's annotation, with every key that the real ones have."""
    boxes = [draw(clip, frame)[1] for frame in KEY_FRAMES]
    tokens = [(match.group(), match.start(), match.end()) for match in re.finditer(r"\w+|[^\w\s]", clip.caption)]
    lower = [token.lower() for token, _, _ in tokens]
    characters = []
    for i, actor in enumerate(clip.actors):
        label = label_of(actor.look)
        words = label.split() if actor.look.name else [label.split()[-1]]
        span = [lower.index(words[0]), lower.index(words[0]) + len(words)] if words[0] in lower else None
        characters.append(
            {
                "entityLabel": label,
                "entitySpan": span,
                "labelNPC": label if actor.look.name else f"a {label}",
                "rectangles": [boxes[k][i] for k in range(len(KEY_FRAMES))],
            }
        )
    characters.sort(key=lambda c: -_area(c["rectangles"][1]))
    for i, character in enumerate(characters):
        character["globalID"] = f"{id}_char_{i}"
    props = [(actor.holding, i) for i, actor in enumerate(clip.actors) if actor.holding]
    objects = [
        {
            "entityLabel": name,
            "entitySpan": None,
            "globalID": f"{id}_{name}_0_{i}",
            "labelNPC": f"a {name}",
            "rectangles": [[], [], []],
        }
        for name, i in props
    ]
    description = clip.caption
    if rng.random() < DIRTY:
        description = rng.choice(
            (description + " ", description.replace(". ", ".  "), description + "\n", " " + description)
        )
        for character in characters:
            character["entitySpan"] = None
    return {
        "globalID": id,
        "keyFrames": [f"{id}_{frame + 1}.png" for frame in KEY_FRAMES],
        "setting": clip.setting,
        "description": description,
        "characters": characters,
        "objects": objects,
        "parse": {
            "coref": {"clusters": [], "named_clusters": []},
            "noun_phrase_chunks": {
                "aligned_description": clip.caption,
                "chunks": [c["entitySpan"] for c in characters if c["entitySpan"]],
                "named_chunks": [c["labelNPC"] for c in characters if c["entitySpan"]],
                "token_spans": [list(token) for token in tokens],
            },
            "pos_tags": [],
        },
    }


def _area(box: list[int]) -> int:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def split_of(number: int, episodes: int) -> str:
    """Whole episodes: the last tenth tests, the tenth before validates, at least one each."""
    tenth = max(1, episodes // 10)
    if number >= episodes - tenth:
        return "test"
    return "val" if number >= episodes - 2 * tenth else "train"


def write_release(
    out: str | os.PathLike,
    world: str = "gulch",
    episodes: int = 60,
    clips: int = 30,
    seed: int = 0,
    size: int = 256,
    workers: int | None = None,
    anywhere: float = 0.0,
    pictures: bool = True,
) -> None:
    """Write a release; frames that are there already are kept, so that an interrupted call can be made again.

    Args:
        out (`str | os.PathLike`): the release's folder.
        world (`str`): `"gulch"` or `"town"`.
        episodes (`int`): at least 3, one for each split.
        clips (`int`): of an episode, at least 5, so that it holds a story.
        seed (`int`): governs everything.
        size (`int`): side of the frames in pixels, 16 to 1024; FlintstonesSV's own is 128.
        workers (`int`, *optional*): processes that draw; as many as there are processors by default.
        anywhere (`float`): 0 to 1, share of the scenes whose plot may be that of any setting, as in `episode`.
        pictures (`bool`): without them a release of annotations alone, for captioners.

    Raises:
        ValueError: an argument is outside what is said above, or `out` holds a release of other arguments.
    """
    for name, value, low, high in (
        ("episodes", episodes, 3, 99 * EPISODES_A_SEASON),
        ("clips", clips, 5, 200),
        ("size", size, 16, 1024),
        ("anywhere", anywhere, 0, 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"`{name}` is {value}, but must be between {low} and {high}.")
    out = Path(out)
    folder = out / "video_frames_sampled"
    (folder if pictures else out).mkdir(parents=True, exist_ok=True)
    made_by = {"world": world, "episodes": episodes, "clips": clips, "seed": seed, "size": size}
    made_by |= ({"anywhere": anywhere} if anywhere else {}) | ({} if pictures else {"pictures": False})
    _claim(out / "made_by.json", made_by)
    split: dict[str, list[str]] = {"test": [], "train": [], "val": []}
    jobs: list[tuple[str, Clip]] = []
    records = []
    for number in range(episodes):
        rng = random.Random(f"{world} {seed} {number} release")
        shot = episode(world, seed * 100_000 + number, clips, anywhere)
        part = split_of(number, episodes)
        for id, clip in zip(clip_ids(number, clips, rng), shot, strict=True):
            records.append(record_of(id, clip, rng))
            split[part].append(id)
            if part != "train" or rng.random() >= LOST:
                jobs.append((id, clip))
    random.Random(seed).shuffle(split["train"])  # the real lists are not sorted either
    _write_json(out / ANNOTATIONS, records)
    _write_json(out / SPLIT, split)
    if not pictures:
        return
    missing = [(id, clip) for id, clip in jobs if not (folder / f"{id}.npy").exists()]
    for path in folder.glob("*.tmp"):
        path.unlink()  # left by a call that was killed
    with (
        ProcessPoolExecutor(workers or os.cpu_count()) as pool,
        tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=f"{world}: clips", mininterval=1.0) as bar,
    ):
        for _ in pool.map(_write_frames, missing, repeat(folder), repeat(size), chunksize=8):
            bar.update()


def frames_of(clip: Clip, size: int, frames: Iterable[int] = SAMPLED) -> np.ndarray:
    """Drawn frames of a clip: uint8 (n, size, size, 3)."""
    return np.stack([render(draw(clip, frame)[0], size) for frame in frames])


def _write_frames(job: tuple[str, Clip], folder: Path, size: int) -> None:
    id, clip = job
    aside = folder / f"{id}.npy.tmp"
    with open(aside, "wb") as file:
        np.save(file, frames_of(clip, size))
    os.replace(aside, folder / f"{id}.npy")


def _claim(path: Path, made_by: dict[str, object]) -> None:
    """Refuse to mix two releases in one folder."""
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != made_by:
            raise ValueError(f"`out` {path.parent} holds a release made by {before}; choose another folder.")
    else:
        _write_json(path, made_by)


def _write_json(path: Path, value: object) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(value, sort_keys=True, indent=4), encoding="utf-8")
    os.replace(aside, path)
