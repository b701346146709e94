"""How fast frames are read, against the ways of the literature, on the same clips in one process.

    python -m benchmarks.data [--data ROOT] [--out benchmarks/data.json]

A reading is one random frame of one random clip as uint8 (H, W, 3), what a loader does for every picture of a story:

- ours: `FlintstonesRelease.frame`, which reads the header and that frame's bytes;
- StoryDALL-E's, VLC-StoryGAN's and Make-A-Story's: `numpy.load` of the whole clip, then one frame of it;
- AR-LDM's: decoding the PNG strip of all frames of the clip out of the HDF5, then one frame of it (here by Pillow,
  since OpenCV is not among the requirements).

Rounds are interleaved; medians are printed. Then the time to open a release of 25,168 clips, as many as FlintstonesSV
has, and to build its stories; and the growth of memory while all clips are read.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from train.data.annotations import ANNOTATIONS, SPLIT
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.release import write_release


ROUNDS = 9
READS = 400  # of a round
CLIPS = 25_168
CLIPS_AN_EPISODE = 150


def strips(release: FlintstonesRelease, ids: list[str], path: Path) -> None:
    """The clips as AR-LDM keeps them: PNG bytes of all frames one below the other, in one dataset."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("image0", (len(ids),), dtype=h5py.vlen_dtype(np.uint8))
        for row, id in enumerate(ids):
            buffer = io.BytesIO()
            Image.fromarray(np.concatenate(release.frames(id))[..., ::-1]).save(buffer, "PNG")
            images[row] = np.frombuffer(buffer.getvalue(), np.uint8)


def measure_reading(root: Path) -> dict[str, object]:
    """Frames a second of the three ways, medians over interleaved rounds."""
    release = FlintstonesRelease(root)
    ids = release.splits["train"][:300]
    counts = len(release.frames(ids[0]))
    with tempfile.TemporaryDirectory() as folder:
        strips(release, ids, Path(folder) / "arldm.h5")
        with h5py.File(Path(folder) / "arldm.h5") as file:
            images = file["image0"]

            def ours(clip: int, frame: int) -> np.ndarray:
                return release.frame(ids[clip], frame)

            def whole_clip(clip: int, frame: int) -> np.ndarray:
                return np.load(release.layout.folder / f"{ids[clip]}.npy")[frame]

            def png_strip(clip: int, frame: int) -> np.ndarray:
                strip = np.asarray(Image.open(io.BytesIO(images[clip].tobytes())).convert("RGB"))
                side = strip.shape[1]
                return strip[frame * side : (frame + 1) * side, :, ::-1]

            ways = {"ours": ours, "whole clip": whole_clip, "png strip": png_strip}
            for clip, frame in ((0, 0), (7, counts - 1)):
                assert all(np.array_equal(way(clip, frame), ours(clip, frame)) for way in ways.values())
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for round in range(ROUNDS):
                picks = random.Random(round)
                reads = [(picks.randrange(len(ids)), picks.randrange(counts)) for _ in range(READS)]
                for name, way in ways.items():
                    rates[name].append(len(reads) / seconds_of(way, reads))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "frame_shape": list(release.frame(ids[0], 0).shape),
        "frames_a_clip": counts,
        "frames_a_second": {name: round_to(value) for name, value in medians.items()},
        "times_whole_clip": round_to(medians["ours"] / medians["whole clip"]),
        "times_png_strip": round_to(medians["ours"] / medians["png strip"]),
        "memory_growth_mb": round_to(memory_growth(release)),
    }


def seconds_of(way: Callable[[int, int], np.ndarray], reads: list[tuple[int, int]]) -> float:
    total = 0
    start = time.perf_counter()
    for clip, frame in reads:
        total += int(way(clip, frame)[0, 0, 0])  # touch the picture: a lazy one is read by now
    return time.perf_counter() - start


def memory_growth(release: FlintstonesRelease) -> float:
    """Megabytes by which this process grows while it reads a frame of every clip twice, after a first pass."""
    ids = [id for split in release.splits.values() for id in split]
    for id in ids:
        release.frame(id, 0)
    before = resident_mb()
    for id in ids * 2:
        release.frame(id, -1)
    return resident_mb() - before


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_opening(template: Path) -> dict[str, object]:
    """Seconds to open 25,168 clips with whole annotation records and to build the stories of all splits."""
    records = json.loads((template / ANNOTATIONS).read_text())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "video_frames_sampled").mkdir()
        out, split = [], {"test": [], "train": [], "val": []}
        for number in range(CLIPS):
            episode, shot = divmod(number, CLIPS_AN_EPISODE)
            id = f"s_{episode // 28 + 1:02d}_e_{episode % 28 + 1:02d}_shot_{shot * 80:06d}_{shot * 80 + 74:06d}"
            record = copy.deepcopy(records[number % len(records)])
            record["globalID"] = id
            out.append(record)
            split["train" if episode % 10 < 8 else "val" if episode % 10 == 8 else "test"].append(id)
            (root / "video_frames_sampled" / f"{id}.npy").touch()
        (root / ANNOTATIONS).write_text(json.dumps(out, sort_keys=True, indent=4))
        (root / SPLIT).write_text(json.dumps(split, indent=4))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            release = FlintstonesRelease(root)
            opened = time.perf_counter()
            stories = sum(len(release.stories(name)) for name in release.splits)
            times.append((opened - start, time.perf_counter() - opened))
        size = (root / ANNOTATIONS).stat().st_size
    return {
        "clips": CLIPS,
        "annotations_mb": round_to(size / 1e6),
        "stories": stories,
        "open_seconds": round_to(statistics.median(a for a, _ in times)),
        "stories_seconds": round_to(statistics.median(b for _, b in times)),
    }


def round_to(value: float) -> float:
    return float(f"{value:.3g}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a release of npy files; by default our own show is drawn, 128 px")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = args.data
        if root is None:
            root = Path(folder) / "gulch"
            write_release(root, episodes=12, clips=30, size=128)
        report = {
            "command": f"python -m benchmarks.data{' --data ROOT' if args.data else ''}",
            "versions": {name: version(name) for name in ("numpy", "pillow", "h5py")},
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "reading": measure_reading(root),
            "opening": measure_opening(root),
        }
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
