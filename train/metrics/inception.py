"""Inception-v3, for FID and for the published classifiers of FlintstonesSV, where their weights are given.

The layers carry torchvision's names, so that the files load as they are: `pt_inception-2015-12-05-6726825d.pth` of
pytorch-fid, whose pooling differs in places as TensorFlow's does, and `inception_v3` fine-tuned by StoryViz,
StoryDALL-E and StoryGPT-V. Architecture: Szegedy et al. 2016, as in torchvision's `models/inception.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from train.metrics.judge import Images, prepare


SIDE = 299
FID_CLASSES = 1008


class BasicConv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class InceptionBlock(nn.Module):
    """Branches of convolutions and one of pooling, side by side.

    Args:
        branches (`list[list[tuple[str, dict]]]`): for each branch the layers' names and `BasicConv2d` arguments; a
            last entry that is a list forks.
        inputs (`int`): channels.
        pool (`str`): `"average"`, `"average_inside"` (padding does not count), `"max"` (both of stride 1, followed by
            `branch_pool`), or `"max_half"`, stride 2 and nothing after.
        pooled (`int`): channels of `branch_pool`.
    """

    def __init__(self, inputs: int, branches: Sequence[Sequence], pool: str, pooled: int = 0):
        super().__init__()
        self.pool, self.paths = pool, []
        for branch in branches:
            channels, path = inputs, []
            for step in branch:
                forks = step if isinstance(step, list) else [step]
                for name, outputs, kernel in forks:
                    self.add_module(name, BasicConv2d(channels, outputs, **_shape(kernel)))
                path.append([name for name, _, _ in forks])
                channels = forks[0][1]
            self.paths.append(path)
        if pooled:
            self.branch_pool = BasicConv2d(inputs, pooled, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for path in self.paths:
            y = [x]
            for names in path:
                y = [getattr(self, name)(y[0]) for name in names]
            outputs += y
        if self.pool == "max_half":
            return torch.cat([*outputs, F.max_pool2d(x, 3, stride=2)], dim=1)
        if self.pool == "max":
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=self.pool == "average")
        return torch.cat([*outputs, self.branch_pool(x)], dim=1)


def _shape(kernel: str) -> dict[str, object]:
    """`"3"`, `"1x7"`: padded so that the size stays; `"3/2"`: stride 2, no padding."""
    sides, _, stride = kernel.partition("/")
    size = tuple(int(side) for side in sides.split("x")) * (1 if "x" in sides else 2)
    if stride:
        return {"kernel_size": size, "stride": int(stride)}
    return {"kernel_size": size, "padding": tuple(side // 2 for side in size)}


def _a(inputs: int, pooled: int, pool: str) -> InceptionBlock:
    branches = [
        [("branch1x1", 64, "1")],
        [("branch5x5_1", 48, "1"), ("branch5x5_2", 64, "5")],
        [("branch3x3dbl_1", 64, "1"), ("branch3x3dbl_2", 96, "3"), ("branch3x3dbl_3", 96, "3")],
    ]
    return InceptionBlock(inputs, branches, pool, pooled)


def _b(inputs: int) -> InceptionBlock:
    branches = [
        [("branch3x3", 384, "3/2")],
        [("branch3x3dbl_1", 64, "1"), ("branch3x3dbl_2", 96, "3"), ("branch3x3dbl_3", 96, "3/2")],
    ]
    return InceptionBlock(inputs, branches, "max_half")


def _c(inputs: int, narrow: int, pool: str) -> InceptionBlock:
    branches = [
        [("branch1x1", 192, "1")],
        [("branch7x7_1", narrow, "1"), ("branch7x7_2", narrow, "1x7"), ("branch7x7_3", 192, "7x1")],
        [
            ("branch7x7dbl_1", narrow, "1"),
            ("branch7x7dbl_2", narrow, "7x1"),
            ("branch7x7dbl_3", narrow, "1x7"),
            ("branch7x7dbl_4", narrow, "7x1"),
            ("branch7x7dbl_5", 192, "1x7"),
        ],
    ]
    return InceptionBlock(inputs, branches, pool, 192)


def _d(inputs: int) -> InceptionBlock:
    branches = [
        [("branch3x3_1", 192, "1"), ("branch3x3_2", 320, "3/2")],
        [
            ("branch7x7x3_1", 192, "1"),
            ("branch7x7x3_2", 192, "1x7"),
            ("branch7x7x3_3", 192, "7x1"),
            ("branch7x7x3_4", 192, "3/2"),
        ],
    ]
    return InceptionBlock(inputs, branches, "max_half")


def _e(inputs: int, pool: str) -> InceptionBlock:
    branches = [
        [("branch1x1", 320, "1")],
        [("branch3x3_1", 384, "1"), [("branch3x3_2a", 384, "1x3"), ("branch3x3_2b", 384, "3x1")]],
        [
            ("branch3x3dbl_1", 448, "1"),
            ("branch3x3dbl_2", 384, "3"),
            [("branch3x3dbl_3a", 384, "1x3"), ("branch3x3dbl_3b", 384, "3x1")],
        ],
    ]
    return InceptionBlock(inputs, branches, pool, 192)


class InceptionV3(nn.Module):
    """The network.

    Args:
        num_classes (`int`): outputs of `fc`.
        fid (`bool`): pool as the weights of pytorch-fid were trained.
    """

    def __init__(self, num_classes: int, fid: bool = False):
        super().__init__()
        pool = "average_inside" if fid else "average"
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32, pool), _a(256, 64, pool), _a(288, 64, pool)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128, pool), _c(768, 160, pool)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160, pool), _c(768, 192, pool)
        self.Mixed_7a, self.Mixed_7b = _d(768), _e(1280, pool)
        self.Mixed_7c = _e(2048, "max" if fid else pool)
        self.fc = nn.Linear(2048, num_classes)

    def cells(self, x: torch.Tensor) -> torch.Tensor:
        """The last map, (B, 2048, 8, 8), of pictures (B, 3, 299, 299) in [-1, 1]."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (B, 2048) and logits (B, classes)."""
        features = self.cells(x).mean(dim=(2, 3))
        return features, self.fc(features)

    @classmethod
    def load(cls, path: str | Path, fid: bool = False) -> InceptionV3:
        """Weights from a file of tensors; nothing else in it is run.

        Raises:
            ValueError: the file cannot be read as such, or holds another network.
        """
        path = Path(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and OS errors alike
            raise ValueError(f"`path` {path.name} holds no plain weights ({type(error).__name__}: {error}).") from None
        for name in ("state_dict", "model_state", "model"):
            state = state.get(name, state) if isinstance(state, dict) else state
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise ValueError(f"`path` {path.name} holds no state dict of tensors.")
        state = {name.removeprefix("module."): value for name, value in state.items()}
        state = {name: value for name, value in state.items() if not name.startswith("AuxLogits.")}  # training alone
        if "fc.weight" not in state or state["fc.weight"].shape[1:] != (2048,):
            raise ValueError(f"`path` {path.name} holds no Inception-v3: there is no `fc.weight` of width 2048.")
        with torch.device("meta"):  # nothing is drawn for weights that are about to be given
            model = cls(len(state["fc.weight"]), fid)
        wanted = {n for n in model.state_dict() if not n.endswith("num_batches_tracked")}
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        if set(state) != wanted:
            odd = sorted(set(state) ^ wanted)[:3]
            raise ValueError(f"`path` {path.name} holds another network than Inception-v3: {', '.join(odd)}.")
        model.to_empty(device="cpu").load_state_dict(state, strict=False)
        return model.float().eval().requires_grad_(False)


class FidFeatures:
    """Features for FID: uint8 (N, H, W, 3) to float32 (N, 2048), as pytorch-fid computes them.

    Args:
        path: its weights.
    """

    def __init__(self, path: str | Path):
        self.model = InceptionV3.load(path, fid=True)

    @torch.inference_mode()
    def __call__(self, pictures: np.ndarray, batch_size: int = 32) -> np.ndarray:
        parts = (pictures[i : i + batch_size] for i in range(0, len(pictures), batch_size))
        return torch.cat([self.model(enlarged(part))[0] for part in parts]).numpy()


def enlarged(images: Images) -> torch.Tensor:
    """Pictures, of any kind that a judge takes, as Inception-v3 does: float32 (B, 3, 299, 299) in [-1, 1]."""
    x = prepare(images, size=None)
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)


class PublishedJudge:
    """The published classifiers in the place of a judge of our own. They saw ImageNet's mean and deviation, which
    torchvision's network turns back into [-1, 1] by itself.

    Args:
        characters (`InceptionV3`): a logit for each of `classes`.
        classes (`Sequence[str]`): in label order.
        places (`InceptionV3`, *optional*): a logit for each of `settings`.
        settings (`Sequence[str]`): in label order; empty without `places`, and then there is no BG-Acc.
    """

    def __init__(
        self,
        characters: InceptionV3,
        classes: Sequence[str],
        places: InceptionV3 | None = None,
        settings: Sequence[str] = (),
    ):
        self.characters, self.classes = characters, tuple(classes)
        self.places, self.settings = places, tuple(settings)
        for name, model, names in (("classes", characters, self.classes), ("settings", places, self.settings)):
            outputs = model.fc.out_features if model is not None else 0
            if outputs != len(names):
                raise ValueError(f"`{name}` are {len(names)}, but their classifier tells {outputs} apart.")

    @torch.inference_mode()
    def __call__(self, images: Images, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Judge`: probability of each character (B, C), of each setting (B, S), and features (B, 2048)."""
        who, where, features = [], [], []
        for start in range(0, len(images), batch_size):
            x = enlarged(images[start : start + batch_size])
            pooled, logits = self.characters(x)
            who.append(logits.sigmoid())
            where.append(self.places(x)[1].softmax(dim=1) if self.places else logits[:, :0])
            features.append(pooled)
        return torch.cat(who), torch.cat(where), torch.cat(features)

    @torch.inference_mode()
    def regions(self, images: Images, batch_size: int = 32) -> torch.Tensor:
        """As `Judge.regions`: float32 (B, C, 2048)."""
        found = []
        for start in range(0, len(images), batch_size):
            cells = self.characters.cells(enlarged(images[start : start + batch_size])).flatten(2)
            share = torch.einsum("cd,bdn->bcn", self.characters.fc.weight, cells).softmax(dim=-1)
            found.append(torch.einsum("bcn,bdn->bcd", share, cells))
        return torch.cat(found)
