"""Two short trainings on the tiny base, compared."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from transformers import ResNetForImageClassification

from train.data.gravel_gulch.world import REGULARS
from train.metrics.judge import Judge, judge_config
from train.saganets import main as train
from train.study import adapters_of, as_markdown, main


@pytest.fixture(scope="module")
def studied(make_release, tiny_base, tiny_folder, tmp_path_factory):
    """Two runs of two epochs, one of which learns nothing, and the report on both."""
    root = tmp_path_factory.mktemp("study")
    show = make_release(root / "gulch", size=16, clips=8, frames=5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = ("kitchen", "yard")
        Judge(ResNetForImageClassification(judge_config(REGULARS, settings)), REGULARS, settings).save(root / "judge")
    for name, rate in (("fast", "0.1"), ("still", "0")):
        AcceleratorState._reset_state(reset_partial_state=True)
        places = ["--data", str(show), "--base", str(tiny_base), "--out", str(root / name), "--cpu"]
        recipe = ["--modules", "painter", "--config", "paper", "--epochs", "2", "--batch_size", "4", "--rank", "4"]
        train([*places, *recipe, "--learning_rate", rate, "--alpha", "8", "--validation_inference_steps", "1"])
    arguments = ["--data", str(show), "--judge", str(root / "judge"), "--model", str(tiny_folder)]
    arguments += ["--runs", str(root / "fast"), str(root / "still"), "--num_captions", "5", "--alphas", "0", "trained"]
    main([*arguments, "--epochs", "--out", str(root / "out"), "--name", "both"])
    return root, json.loads((root / "out" / "both.json").read_text())


def test_every_epoch_and_alpha_is_judged(studied):
    _, report = studied
    assert (report["split"], report["captions"], list(report["runs"])) == ("val", 5, ["fast", "still"])
    assert report["command"].startswith("python -m train.study") and report["real_frames"]["fjd"] >= 0
    for run in report["runs"].values():
        assert [row["epoch"] for row in run["epochs"]] == [1, 2]
        assert [row["epoch"] for row in run["validations"]] == [1, 2]  # once an epoch
        assert {row["lora_alpha"] for row in run["epochs"]} == {8}
        assert [row["lora_alpha"] for row in run["alphas"]] == [0, 8]
        assert run["config"]["rank"] == 4


def test_what_is_painted_follows_from_the_adapter_and_alpha(studied):
    """Distances of the pictures say whether they are the same: alpha 0 is the base, and so is a run without a rate."""
    fast, still = (studied[1]["runs"][name] for name in ("fast", "still"))
    base = fast["alphas"][0]["fjd"]
    assert fast["alphas"][1]["fjd"] != base
    assert [row["fjd"] for row in still["alphas"]] == [base, base]
    assert fast["epochs"][1]["fjd"] == fast["alphas"][1]["fjd"]  # the last epoch's adapter is the final one
    assert fast["epochs"][0]["fjd"] != fast["epochs"][1]["fjd"]


def test_the_table_and_the_plots_are_there(studied):
    root, report = studied
    table = as_markdown(report)
    assert table.count("\n| fast |") == table.count("\n| still |") == 4
    losses = [row["painter_loss"] for row in report["runs"]["fast"]["validations"]]
    assert f"| {losses[0]:.4f} |" in table and f"| {losses[1]:.4f} |" in table
    assert sorted(path.name for path in (root / "out").iterdir()) == [
        "both-alphas.png",
        "both-epochs.png",
        "both.json",
    ]
    assert Image.open(root / "out" / "both-epochs.png").width > Image.open(root / "out" / "both-alphas.png").width


def test_a_folder_that_holds_no_finished_run_is_named(studied, tmp_path):
    root, _ = studied
    with pytest.raises(ValueError, match="no config.json"):
        adapters_of(tmp_path)
    (tmp_path / "config.json").write_bytes((root / "fast" / "config.json").read_bytes())
    with pytest.raises(ValueError, match="not over"):
        adapters_of(tmp_path)


def test_two_runs_of_one_name_are_refused(studied, capsys):
    root, _ = studied
    with pytest.raises(SystemExit):
        main(["--data", "d", "--judge", "j", "--runs", str(root / "fast"), str(root / "out" / ".." / "fast")])
    assert "different names" in capsys.readouterr().err
