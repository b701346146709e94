"""Painters over `tiny_base`, as `train.saganets` builds them, and runs of it."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from train.config import parse_config
from train.saganets import Coordinated


BOX = (160, 120, 480, 400)  # of the 640 x 480 original
FLAGS = ["--steps", "2", "--batch_size", "8", "--rank", "4", "--alpha", "8", "--name", "tiny", "--modules", "painter"]
FLAGS += ["--learning_rate", "0.01", "--validation_stories", "2", "--validation_inference_steps", "1"]


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Each run is a process of its own outside of these tests; accelerate keeps its state for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def gus_show(make_release, tmp_path_factory):
    """A release with boxes in which everybody is Gus, and the place changes with every clip."""
    folder = tmp_path_factory.mktemp("gus") / "gulch"
    return make_release(folder, size=16, clips=8, frames=5, names=("Gus",), boxes=(BOX, BOX, BOX))


@pytest.fixture
def flags(gus_show, tiny_base, tiny_clip, tiny_features):
    """A function that gives the flags of a run into a folder."""
    parts = ["--data", gus_show, "--base", tiny_base, "--clip", tiny_clip, "--char_features", tiny_features, "--cpu"]

    def of(out, *more: str) -> list[str]:
        return [*map(str, parts), "--cache", str(gus_show.parent / "cache"), "--out", str(out), *FLAGS, *more]

    return of


@pytest.fixture
def make_coordinated(flags, tmp_path):
    """A function that opens a training with more flags."""

    def make(*more: str) -> Coordinated:
        config = parse_config(flags(tmp_path, *more))
        return Coordinated(config, Accelerator(cpu=True, mixed_precision=config.mixed_precision))

    return make
