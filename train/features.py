"""f_char: what a character looks like, whatever stands around it; for the character term of the objectives.

    python -m train.features --data DATA/town --probe DATA/gulch --out runs/base/model/features

A small ResNet learns from the town alone that two crops of one person, in different frames and clips of an episode,
are nearer to each other than to anybody else (NT-Xent, SimCLR, arXiv 2002.05709). No word reaches it and no regular:
it is neither the judge nor CLIP. `--probe` then asks how often the nearest crop of another clip is the same regular.
At the size of Stable Diffusion 1.5 a pretrained network does it instead: `train.saganets --char_features` takes the
Hub id of any model that transformers' AutoModel opens, such as facebook/dinov2-small.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel, ResNetConfig, ResNetModel
from transformers.image_processing_base import ImageProcessingMixin

from train.data.annotations import SAMPLED, episode_of
from train.data.flintstones import FlintstonesRelease
from train.loop import Run


SIZE = 64  # pixels of a crop's side
TEMPERATURE = 0.1
MIN_SIDE = 0.05  # of a box, in shares of the picture's sides
MAX_PROBED = 400  # clips


def preprocessing(path: str | os.PathLike) -> tuple[torch.Tensor, torch.Tensor, int | None]:
    """Mean and deviation, (3, 1, 1), by which a model wants pictures in [0, 1] scaled, and their side in pixels; 0.5
    each and None if a folder does not say."""
    try:
        config, _ = ImageProcessingMixin.get_image_processor_dict(path)
    except OSError:
        if not os.path.isdir(path):
            raise
        config = {}
    mean, std = (config.get(name, [0.5] * 3) for name in ("image_mean", "image_std"))
    size = config.get("crop_size") or config.get("size") or {}
    side = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1), side


def scaled(pictures: torch.Tensor, size: int, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as a model of `size` pixels wants them, with gradients."""
    if min(pictures.shape[-2:]) >= size:
        x = F.interpolate(pictures, (size, size), mode="area")
    else:
        x = F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)
    return ((x + 1) / 2 - mean.to(x)) / std.to(x)


class CharacterFeatures:
    """The frozen network.

    Args:
        path (`str` or `os.PathLike`): a folder that `train.features` wrote, or the folder or Hub id of another vision
            model with a `pooler_output`.
        device (`torch.device`): where it runs.

    Raises:
        ValueError: there is no such model.
    """

    def __init__(self, path: str | os.PathLike, device: torch.device | str = "cpu"):
        try:
            self.model = AutoModel.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False).to(device)
            self.mean, self.std, self.size = preprocessing(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`char_features` {str(path)!r} holds no vision model ({' '.join(str(error).split())[:120]}); "
                "`python -m train.features` trains a small one."
            ) from None
        self.size = self.size or getattr(self.model.config, "image_size", SIZE)

    def __call__(self, crops: list[torch.Tensor]) -> torch.Tensor:
        """Features (B, D) of unit length of pictures (3, h, w) in [-1, 1], each of its own size."""
        x = torch.cat([scaled(each[None], self.size, self.mean, self.std) for each in crops])
        return F.normalize(self.model(pixel_values=x).pooler_output.flatten(1).float(), dim=1)


def features_config() -> ResNetConfig:
    """0.3 M weights, 128 features."""
    return ResNetConfig(layer_type="basic", embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1])


class People:
    """Crops of the annotated characters of a split, by whom they show.

    Args:
        release (`FlintstonesRelease`): the show.
        split (`str`): `"train"`, `"val"` or `"test"`.
        ids (`list[str]`, *optional*): only these clips.

    Raises:
        ValueError: no character has a box.
    """

    def __init__(self, release: FlintstonesRelease, split: str, ids: list[str] | None = None):
        self.release = release
        who = defaultdict(list)
        for id in release.splits[split] if ids is None else ids:
            record = release.clip(id)
            for name, boxes in zip(record.characters, record.boxes, strict=False):
                if any(boxes) and record.characters.count(name) == 1:
                    who[(episode_of(id), name)].append(id)
        self.who = sorted(who.items())  # ((episode, name), clips)
        if not self.who:
            raise ValueError(f"{release.root}: no character of the {split} split has a box.")

    def crop(self, id: str, name: str, generator: torch.Generator, jitter: float = 0.1) -> torch.Tensor | None:
        """A character in a random frame of a clip, (3, SIZE, SIZE) in [-1, 1], a little off; None where it is out of
        the picture."""
        frames = self.release.frames(id)
        index = int(torch.randint(len(frames), (1,), generator=generator))
        moment = (SAMPLED[index] if len(frames) == len(SAMPLED) else index * 74 / max(1, len(frames) - 1)) / 74
        box = self.release.boxes(id, moment, [name])[0]
        if min(box[2:] - box[:2]) < MIN_SIDE:
            return None
        side = np.tile(box[2:] - box[:2], 2)
        moved = box + jitter * side * (2 * torch.rand(4, generator=generator).numpy() - 1)
        height, width = frames.shape[1:3]
        left, top, right, bottom = (np.clip(moved, 0, 1) * [width, height, width, height]).round().astype(int)
        cut = frames[index][top : max(bottom, top + 1), left : max(right, left + 1)]
        x = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)[None].float() / 127.5 - 1
        half = torch.full((3, 1, 1), 0.5)
        return scaled(x, SIZE, half, half)[0]

    def pairs(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Two crops each of `count` people: (2 * count, 3, SIZE, SIZE), a person's second `count` after the first;
        and their labels."""
        firsts, seconds, names = [], [], []
        while len(names) < count:
            (_, name), ids = self.who[int(torch.randint(len(self.who), (1,), generator=generator))]
            two = [ids[int(torch.randint(len(ids), (1,), generator=generator))] for _ in range(2)]
            first, second = (self.crop(id, name, generator) for id in two)
            if first is not None and second is not None:
                firsts.append(first)
                seconds.append(second)
                names.append(name)
        return torch.stack(firsts + seconds), names


def roughened(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half mirrored, some softened, recoloured and noisy, as a painter's crops are: (B, 3, H, W)."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand((len(x), *shape), generator=generator)

    x = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, x.flip(-1), x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x + uniform(-1, 1, 1, 1, 1).clamp(min=0) * (soft - x)
    x = x * uniform(0.9, 1.1, 1, 1, 1) + uniform(-0.1, 0.1, 3, 1, 1)
    return (x + uniform(0, 0.1, 1, 1, 1) * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def contrast(features: torch.Tensor, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """NT-Xent of features (2N, D) of unit length, whose rows i and N + i show one person; people of the same label are
    no negatives of each other. The loss, and how often the own second crop is the nearest."""
    count = len(names)
    logits = features @ features.T / TEMPERATURE  # [2N, 2N]
    of = {name: i for i, name in enumerate(dict.fromkeys(names))}
    label = torch.tensor([of[name] for name in names] * 2)
    own = (torch.arange(2 * count) + count) % (2 * count)
    same = label[:, None] == label[None]
    same[torch.arange(2 * count), own] = False
    logits = logits.masked_fill(same, -math.inf)
    return F.cross_entropy(logits, own), (logits.argmax(dim=1) == own).float().mean()


@torch.no_grad()
def probe(features, release: FlintstonesRelease, split: str, seed: int) -> dict[str, float]:
    """How often the nearest crop of another clip shows the same regular, and how often one at random would."""
    ids = release.splits[split]
    generator = torch.Generator().manual_seed(seed)
    ids = [ids[i] for i in torch.randperm(len(ids), generator=generator)[:MAX_PROBED].tolist()]
    crops, names, clips = [], [], []
    people = People(release, split, ids)
    regulars = {name.lower() for name in release.cast}
    for (_, name), own in people.who:
        for id in own if name in regulars else ():
            found = people.crop(id, name, generator, jitter=0.0)
            if found is not None:
                crops.append(found)
                names.append(name)
                clips.append(id)
    found = torch.cat([features(crops[i : i + 64]) for i in range(0, len(crops), 64)])
    near = found @ found.T
    of = {id: i for i, id in enumerate(dict.fromkeys(clips))}
    place = torch.tensor([of[id] for id in clips])
    near[place[:, None] == place[None]] = -math.inf
    nearest = near.argmax(dim=1).tolist()
    hits = sum(names[i] == names[j] for i, j in enumerate(nearest))
    shares = [names.count(name) / len(names) for name in set(names)]
    return {"crops": len(crops), "nearest_is_same": hits / len(crops), "chance": sum(share**2 for share in shares)}


def train(release: FlintstonesRelease, out: Path, steps: int, batch_size: int, rate: float, seed: int) -> None:
    """Train on the release's training split, resuming what `out` holds, and write a transformers folder."""
    people = People(release, "train")
    with torch.random.fork_rng():  # transformers draws the first weights from the global RNG
        torch.manual_seed(seed)
        model = ResNetModel(features_config()).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    run = Run(out, {"features": model}, optimizer, steps, generator, checkpoint_seconds=60.0)

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        x, names = people.pairs(batch_size, generator)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(roughened(x, generator)).pooler_output.flatten(1).float()
        loss, accuracy = contrast(F.normalize(found, dim=1), names)
        return {"loss": loss, "accuracy": accuracy}

    run.train(loss_of_step, description="features")
    model.eval().save_pretrained(out)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": SIZE, "width": SIZE}}
    (out / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release to learn from: the town")
    parser.add_argument("--probe", type=Path, default=None, help="release whose regulars it is tried on")
    parser.add_argument("--out", type=Path, default=Path("runs/features"), help="checkpoint, log, weights and report")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch_size", type=int, default=64, help="people a step, two crops each")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=4321, help="neither the painter's nor the judge's")
    args = parser.parse_args(argv)
    train(FlintstonesRelease(args.data), args.out, args.steps, args.batch_size, args.learning_rate, args.seed)
    report: dict[str, object] = {
        "command": "python -m train.features",
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    if args.probe is not None:
        release = FlintstonesRelease(args.probe)
        report["probe"] = probe(CharacterFeatures(args.out), release, "val", args.seed)
        print(json.dumps(report["probe"]), flush=True)
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
