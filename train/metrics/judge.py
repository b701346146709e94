"""The judge: a classifier of regulars and settings, trained on real frames of the training episodes and nothing else.

    python -m train.metrics.judge --data DATA/gulch --out runs/judge

It shares neither weights nor seed with any painter it scores. Its own score on real frames of the test episodes, the
ceiling of every Char-F1 here, is printed at the end and kept in `report.json` beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from train.data.flintstones import FlintstonesRelease
from train.loop import Run
from train.metrics.characters import accuracy, character_scores


INPUT_SIZE = 128  # FlintstonesSV's own; larger frames are averaged down to it
THRESHOLD = 0.5
MAX_REPORTED = 1000  # clips of a split, one frame each, in the report
Images = torch.Tensor | np.ndarray | Sequence[Image.Image]


def judge_config(classes: Sequence[str], settings: Sequence[str]) -> ResNetConfig:
    """A small ResNet (1.2 M weights) with one logit for each character, then one for each setting."""
    names = [f"character: {name}" for name in classes] + [f"setting: {name}" for name in settings]
    return ResNetConfig(
        layer_type="basic",
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 1, 1],
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )


def prepare(images: Images, size: int | None = INPUT_SIZE) -> torch.Tensor:
    """Pictures as the judge takes them: float32 (B, 3, size, size) in [-1, 1].

    Args:
        images: uint8 array (B, H, W, 3), float tensor (B, 3, H, W) in [-1, 1], or a list of PIL images of one size.
        size (`int`, *optional*): `None` leaves them at theirs.

    Raises:
        ValueError: another type or shape, or no picture.
    """
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"`images` is {tuple(images.shape)} {images.dtype}, but must be float (B, 3, H, W).")
        x = images.float()
    else:
        if not isinstance(images, np.ndarray):
            if not images or not all(isinstance(image, Image.Image) for image in images):
                raise ValueError("`images` must be a tensor, an array or a list of at least one PIL image.")
            if len({image.size for image in images}) > 1:
                raise ValueError(f"`images` have several sizes: {sorted({image.size for image in images})}.")
            images = np.stack([np.asarray(image.convert("RGB")) for image in images])
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"`images` is {images.shape} {images.dtype}, but must be uint8 (B, H, W, 3).")
        x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if size is None:
        return x
    if min(x.shape[-2:]) >= size:
        return F.interpolate(x, (size, size), mode="area")
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror, shift, scale, recolour, soften and roughen a batch (B, 3, H, W) a little, each picture on its own.

    A painter's frames are softer and noisier than real ones; the judge must not hold that against the characters.
    """
    batch = len(x)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand((batch, *shape), generator=generator)

    turn = torch.zeros(batch, 2, 3)
    scale = uniform(0.9, 1.1)
    mirror = torch.randint(0, 2, (batch,), generator=generator) * 2.0 - 1
    turn[:, 0, 0], turn[:, 1, 1] = scale * mirror, scale
    turn[:, :, 2] = uniform(-0.12, 0.12, 2)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    wide = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    soft = uniform(-1, 1, 1, 1, 1).clamp(min=0)  # half of the pictures stay sharp
    x = x + soft * (wide - x)
    x = x * uniform(0.9, 1.1, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    rough = uniform(-0.1, 0.1, 1, 1, 1).clamp(min=0)
    return (x + rough * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


class Judge:
    """The trained classifier.

    Args:
        model (`ResNetForImageClassification`): one logit for each of `classes`, then one for each of `settings`.
        classes (`Sequence[str]`): the characters it knows, in label order.
        settings (`Sequence[str]`): the settings it knows.
    """

    def __init__(self, model: ResNetForImageClassification, classes: Sequence[str], settings: Sequence[str]):
        if model.config.num_labels != len(classes) + len(settings):
            raise ValueError(
                f"`model` has {model.config.num_labels} logits, but there are {len(classes)} `classes` and "
                f"{len(settings)} `settings`."
            )
        self.model = model.eval().requires_grad_(False)
        self.classes = tuple(classes)
        self.settings = tuple(settings)

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """Open a judge's folder, as `save` writes it.

        Raises:
            ValueError: there is no judge in `folder`.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise ValueError(f"`folder` {folder} holds no judge; train one with `python -m train.metrics.judge`.")
        model = ResNetForImageClassification.from_pretrained(folder, local_files_only=True)
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        classes = [name.removeprefix("character: ") for name in names if name.startswith("character: ")]
        settings = [name.removeprefix("setting: ") for name in names if name.startswith("setting: ")]
        return cls(model, classes, settings)

    def save(self, folder: str | Path) -> None:
        """Write a plain transformers folder; the names of the labels are in its `config.json`."""
        self.model.save_pretrained(folder)

    @torch.inference_mode()
    def __call__(self, images: Images, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Judge pictures (see `prepare` for what they may be).

        Returns:
            Probability of each character (B, C), of each setting (B, S), and the pooled features (B, 256); float32.
        """
        characters, places, features = [], [], []
        for start in range(0, len(images), batch_size):
            x = prepare(images[start : start + batch_size])
            pooled = self.model.resnet(x).pooler_output.flatten(1)
            logits = self.model.classifier(pooled)
            characters.append(logits[:, : len(self.classes)].sigmoid())
            places.append(logits[:, len(self.classes) :].softmax(dim=1))
            features.append(pooled)
        if not features:
            raise ValueError("`images` holds no picture.")
        return torch.cat(characters), torch.cat(places), torch.cat(features)

    @torch.inference_mode()
    def regions(self, images: Images, batch_size: int = 64) -> torch.Tensor:
        """Features of where each character is, as far as the judge can tell: float32 (B, C, D).

        The features of the last map's cells, weighted by how much each speaks for the character (its class
        activation map, softmax over cells): a crop that needs no box, alike on real and painted pictures.
        """
        weight = self.model.classifier[-1].weight[: len(self.classes)]  # [C, D]
        found = []
        for start in range(0, len(images), batch_size):
            x = prepare(images[start : start + batch_size])
            cells = self.model.resnet(x).last_hidden_state.flatten(2)  # [B, D, cells]
            share = torch.einsum("cd,bdn->bcn", weight, cells).softmax(dim=-1)
            found.append(torch.einsum("bcn,bdn->bcd", share, cells))
        if not found:
            raise ValueError("`images` holds no picture.")
        return torch.cat(found)

    def scores(self, images: Images, labels: np.ndarray, settings: Sequence[str]) -> dict[str, object]:
        """Char-F1, Frame-Acc and BG-Acc of pictures against who (N, C) and where (N names) they ought to show."""
        characters, places, _ = self(images)
        seen = [self.settings[i] for i in places.argmax(dim=1).tolist()]
        return {
            **character_scores(characters.numpy() > THRESHOLD, labels, list(self.classes)),
            "bg_acc": accuracy(seen, list(settings)),
            "frames": len(labels),
        }


def real_frames(
    release: FlintstonesRelease, ids: Sequence[str], classes: Sequence[str], seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One random frame of each clip, who is in it and where it is: uint8 (N, H, W, 3), (N, C), N names."""
    generator = np.random.default_rng(seed)
    pictures = []
    for id in ids:
        frames = release.frames(id)
        pictures.append(frames[generator.integers(len(frames))])
    labels = np.stack([release.labels(id, classes) for id in ids])
    return np.stack(pictures), labels, [release.clip(id).setting for id in ids]


def train(
    release: FlintstonesRelease, out: Path, steps: int, batch_size: int, rate: float, seed: int, max_seconds: float
) -> Judge:
    """Train a judge on the release's training split, resuming what `out` holds."""
    classes, settings = release.cast, release.settings
    if not classes or not settings:
        raise ValueError(f"{release.root} names no known cast or no setting; a judge has nothing to learn there.")
    ids = release.splits["train"]
    labels = torch.from_numpy(np.stack([release.labels(id, classes) for id in ids])).float()
    place_of = {name: i for i, name in enumerate(settings)}
    places = torch.tensor([place_of.get(release.clip(id).setting, -100) for id in ids])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():  # transformers draws the first weights from the global RNG
        torch.manual_seed(seed)
        model = ResNetForImageClassification(judge_config(classes, settings)).train()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    run = Run(out, {"judge": model}, optimizer, steps, generator, checkpoint_seconds=60.0)

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        index = torch.randint(len(ids), (batch_size,), generator=generator)
        pictures = []
        for i in index.tolist():
            frames = release.frames(ids[i])
            pictures.append(frames[int(torch.randint(len(frames), (1,), generator=generator))])
        x = augment(prepare(np.stack(pictures)), generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x.contiguous(memory_format=torch.channels_last)).logits
        logits = logits.float()
        who = F.binary_cross_entropy_with_logits(logits[:, : len(classes)], labels[index])
        known = places[index] >= 0
        where = F.cross_entropy(logits[known, len(classes) :], places[index][known]) if known.any() else who * 0
        return {"loss": 4 * who + 0.5 * where, "characters": who, "settings": where}

    run.train(loss_of_step, description="judge", max_seconds=max_seconds)
    judge = Judge(model, classes, settings)
    judge.save(out)
    return judge


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--out", type=Path, default=Path("runs/judge"), help="checkpoint, log, weights and report")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumable) after so long")
    parser.add_argument("--seed", type=int, default=1234, help="not the painter's")
    args = parser.parse_args(argv)
    release = FlintstonesRelease(args.data)
    judge = train(release, args.out, args.steps, args.batch_size, args.learning_rate, args.seed, 60 * args.minutes)
    report = {
        "command": "python -m train.metrics.judge",
        "arguments": {name: str(value) for name, value in vars(args).items()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "parameters": sum(parameter.numel() for parameter in judge.model.parameters()),
    }
    for split in ("train", "val", "test"):
        ids = release.splits[split]
        ids = [ids[i] for i in np.random.default_rng(args.seed).permutation(len(ids))[:MAX_REPORTED]]
        report[split] = judge.scores(*real_frames(release, ids, judge.classes, args.seed))
        figures = {name: round(value, 4) for name, value in report[split].items() if isinstance(value, float)}
        print(split, json.dumps(figures), flush=True)
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
