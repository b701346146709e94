import pytest
from accelerate.state import AcceleratorState
from diffusers import AutoencoderDC
from transformers import CLIPTextModel

from benchmarks.train import as_text, measure
from train.config import TrainingConfig
from train.data.gravel_gulch.release import write_release


ENCODERS = ((AutoencoderDC, "vae"), (CLIPTextModel, "text_encoder"))


@pytest.fixture(scope="module")
def config(tiny_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmark")
    write_release(root / "show", episodes=3, clips=8, size=16)
    AcceleratorState._reset_state(reset_partial_state=True)
    places = {"data": str(root / "show"), "base": str(tiny_base), "out": str(root / "run")}
    return TrainingConfig(**places, modules="painter", batch_size=4, resolution=16, rank=4, cpu=True)


def test_both_train_the_same_and_every_figure_is_there(config, tiny_base):
    said = []
    figures = measure(config, runs=2, report=said.append)
    losses = figures["loss_on_the_same_draws"]
    assert losses["ours"] == pytest.approx(losses["recipe"], rel=1e-3)  # the cache holds fp16
    assert [len(times) for times in figures["seconds"].values()] == [2, 2] and len(said) == 3
    assert figures["ratio"] == figures["medians"]["recipe"] / figures["medians"]["ours"]
    speed = figures["pictures_a_second"]
    assert speed["ours"] == 4 / figures["medians"]["ours"]
    weights = figures["weights_mb"]
    encoders = [kind.from_pretrained(tiny_base / name) for kind, name in ENCODERS]
    size = sum(p.numel() for encoder in encoders for p in encoder.parameters()) * 4 / 1e6  # float32
    assert weights["recipe"] - weights["ours"] == pytest.approx(size)
    operations = figures["operations"]
    assert figures["ratio_of_operations"] == operations["recipe"] / operations["ours"] > 1  # encoders as well
    assert "ratio" in as_text(figures)


def test_runs_below_one_are_refused(config):
    with pytest.raises(ValueError, match="runs"):
        measure(config, runs=0)
