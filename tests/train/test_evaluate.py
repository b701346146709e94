"""The whole command, on a model of tiny random networks: figures that mean nothing, but are figures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import ResNetForImageClassification

from sagan_pipeline.lora import Adapter
from train.baselines.storygan import main as storygan
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.world import REGULARS
from train.evaluate import main
from train.evaluation.report import compare, rounded, shown
from train.metrics.judge import Judge, judge_config
from train.publish.card import model_card
from train.saganets import OVER


ROOT = Path(__file__).resolve().parents[2]
PLACES = ("kitchen", "yard")
BASELINES = ("base", "paper", "storygan", "reconstructed", "nearest", "shuffled")
TOP = ("char_f1_micro", "frame_acc", "bg_acc", "fjd", "fjd_floor", "captions_complete", "judge_ceiling", "num_stories")


@pytest.fixture(scope="module")
def show(make_release, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("evaluate") / "gulch", size=16, clips=10)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    """An untrained judge of the show's cast."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(ResNetForImageClassification(judge_config(REGULARS, PLACES)), REGULARS, PLACES)
    folder = tmp_path_factory.mktemp("judge")
    judge.save(folder)
    return folder


@pytest.fixture(scope="module")
def common(show, judge_folder, tiny_folder):
    return ["--data", str(show), "--judge", str(judge_folder), "--model", str(tiny_folder)]


@pytest.fixture(scope="module")
def evaluated(common, show, tiny_adapter, tmp_path_factory):
    """One command with every baseline, two seeds and captions, and its report."""
    root = tmp_path_factory.mktemp("evaluation")
    places = ["--out", str(root / "out"), "--work", str(root / "work")]
    storygan(["--data", str(show), "--out", str(root / "storygan"), "--steps", "1", "--width", "8"])
    rows = ["--baselines", *BASELINES, "--paper_lora", str(tiny_adapter), "--storygan", str(root / "storygan")]
    counts = ["--num_stories", "6", "--sampled_captions", "8", "--page_frames", "5", "--seeds", "0", "1"]
    main([*common, *places, *rows, *counts, "--name", "tiny"])
    return root, [*common, *places, *rows, *counts, "--name", "tiny"]


def report_of(root, name="tiny"):
    return json.loads((root / "out" / f"{name}.json").read_text())


def without_times(report):
    """What must be the same whenever and on however many processes it is run."""
    report = json.loads(json.dumps(report))
    for key in ("command", "hardware"):
        report.pop(key)
    for row in report["rows"]:
        row.pop("seconds_a_frame", None)
    return report


def test_the_report_says_what_was_measured_and_how(evaluated):
    report = report_of(evaluated[0])
    assert report["command"].startswith("python -m train.evaluate --data gulch --judge judge")
    assert "/" not in report["command"].replace("--", "")  # no folder of this machine
    assert report["commit"] and report["versions"]["sacrebleu"] and report["hardware"]["threads"] >= 1
    assert (report["seeds"], report["num_stories"], report["num_frames"]) == ([0, 1], 6, 4)
    assert (report["split"], report["mode"], report["protocol"]) == ("test", "visualisation", "embedded")
    assert all(isinstance(report[key], (int, float)) for key in TOP)
    assert [row["name"] for row in report["rows"]] == ["real", "model", *BASELINES]
    for row in report["rows"]:
        for figure in ("char_f1_micro", "frame_acc", "bg_acc", "fjd", "consistency"):
            low, high = row["intervals"][figure]
            assert low - 1e-3 <= row[figure] <= high + 1e-3
        assert set(row["char_f1"]) == set(REGULARS)
    real, model, base, paper, storygan, *_ = report["rows"]
    assert len({row["fjd"] for row in (real, model, base, storygan)}) == 4
    assert report["fjd_floor"] == real["fjd"] and report["judge_ceiling"] == real["char_f1_micro"]
    assert len(model["per_seed"]) == 2 and model["per_seed"][0]["fjd"] != model["per_seed"][1]["fjd"]
    assert model["seconds_a_frame"] > 0
    assert base["fjd"] != model["fjd"] == paper["fjd"]  # the adapter that was given is the model's own
    (copied,) = [row for row in report["rows"] if "psnr" in row]
    low, high = copied["intervals"]["psnr"]
    assert copied["name"] == "reconstructed" and 5 < low <= copied["psnr"] <= high < 40  # tiny, untrained
    assert report["captions"]["count"] == 8 and report["captions_complete"] == 1


def test_tables_and_pictures_are_whole(evaluated):
    root, _ = evaluated
    text = (root / "out" / "README.md").read_text()
    for row in ("real", "model", *BASELINES):
        assert f"\n| {row} |" in text
    assert "| distinct-2 |" in text and "tiny.html" in text
    page = (root / "out" / "tiny.html").read_text()
    assert page.count("<section>") == 5 and page.count("data:image/jpeg;base64,") == 5 * (2 + len(BASELINES))
    assert "http" not in page and 'src="data:' in page
    assert sorted(path.name for path in (root / "out").iterdir()) == ["README.md", "tiny.html", "tiny.json"]


def test_it_goes_on_where_it_was_stopped(evaluated):
    """A part of the painted frames is lost: only that is painted again, and every figure is the same."""
    root, command = evaluated
    before = report_of(root)
    (folder,) = (root / "work").glob("model-*-seed0")
    kept, lost = folder / "00000.json", folder / "00001.json"
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    for story in (4, 5):
        (folder / f"{story:05d}.png").unlink()
    main(command)
    assert kept.stat().st_mtime_ns == stamp and lost.exists()
    assert without_times(report_of(root)) == without_times(before)


def test_two_processes_find_the_same(evaluated, tmp_path):
    root, command = evaluated
    rows = command.index("--baselines")
    command = command[:rows] + command[command.index("--num_stories") :]  # the model alone
    command = [str(tmp_path / "work") if part == str(root / "work") else part for part in command]
    command = [str(tmp_path / "out") if part == str(root / "out") else part for part in command]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, "-m", "train.evaluate", *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = without_times(report_of(root)), without_times(report_of(tmp_path))
    assert one["rows"][:2] == two["rows"] and one["captions"] == two["captions"]
    assert {key: one[key] for key in TOP} == {key: two[key] for key in TOP}
    for strip in (root / "work").glob("model-*-seed1/*.png"):
        assert strip.read_bytes() == (tmp_path / "work" / strip.parent.name / strip.name).read_bytes()


def test_generated_captions_and_continuation(common, tmp_path):
    """Both further ways, in one command: the first caption and the first picture are given."""
    ways = ["--captions", "generated", "--mode", "continuation", "--num_frames", "5", "--resolution", "8"]
    ways += ["--baselines", "continuation"]
    counts = ["--num_stories", "3", "--sampled_captions", "0", "--page_frames", "2"]
    main([*common, *ways, *counts, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--name", "tiny"])
    report = report_of(tmp_path)
    assert (report["mode"], report["captions_from"], report["resolution"]) == ("continuation", "generated", 8)
    assert report["rows"][1]["cases"]["frames"] == 3 * 4  # the first of five is given
    assert report["caption_agreement"]["characters"] == 1.0  # these captions name everybody
    assert report["captions_complete"] is None
    (strip,) = (tmp_path / "work").glob("model-*/00000.png")
    assert Image.open(strip).size == (5 * 16, 16)
    model, continued = report["rows"][1:]
    assert continued["name"] == "continuation" and continued["fjd"] != model["fjd"]


def test_a_sweep_uses_the_validation_split(common, tmp_path):
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    main([*common, *places, "--num_stories", "3", "--sweep", "steps", "1", "3", "--name", "steps"])
    main([*common, *places, "--sampled_captions", "6", "--sweep", "prompting", "all", "last", "--name", "put"])
    main([*common, *places, "--sampled_captions", "6", "--sweep", "temperature", "0", "2", "--name", "warm"])
    steps, put, warm = (report_of(tmp_path, name) for name in ("steps", "put", "warm"))
    cold, hot = warm["captions_of"]
    assert (cold["temperature"], hot["temperature"]) == (0, 2) and cold["sampled"] != hot["sampled"]
    assert steps["split"] == put["split"] == "val" and "captions" not in steps
    assert [row["value"] for row in steps["rows"][1:]] == [1, 3] == steps["sweep"]["values"]
    assert steps["rows"][1]["fjd"] != steps["rows"][2]["fjd"]
    assert [captions["prompting"] for captions in put["captions_of"]] == ["all", "last"]
    assert "|  | temperature 0.0 | temperature 2.0 | real |" in (tmp_path / "out/README.md").read_text()
    for name in ("steps", "put", "warm"):
        assert Image.open(tmp_path / "out" / f"{name}.png").width > 200
        assert (
            f"![{report_of(tmp_path, name)['sweep']['name']}]({name}.png)" in (tmp_path / "out/README.md").read_text()
        )


@pytest.fixture
def finished(show, tiny_adapter, tmp_path) -> Path:
    """A run as `train.saganets` leaves it, with the adapters of its two epochs."""
    run = tmp_path / "first"
    for folder in (run, run / "epochs" / "1", run / "epochs" / "2"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_adapter, folder / "tiny.safetensors")
    (run / "config.json").write_text(json.dumps({"config": {"name": "tiny", "data": str(show)}}))
    (run / "run").mkdir()
    (run / "run" / OVER).write_text("{}")
    return run


def test_adapters_of_epochs_and_of_smaller_data_are_swept(common, show, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "second", ignore=shutil.ignore_patterns("epochs"))
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--num_stories", "2"]
    main([*common, *places, "--sweep", "epochs", str(tmp_path / "first"), "--name", "epochs"])
    main([*common, *places, "--sweep", "data_size", str(tmp_path / "second"), "--name", "size"])
    epochs, size = report_of(tmp_path, "epochs"), report_of(tmp_path, "size")
    assert [row["value"] for row in epochs["rows"][1:]] == [1, 2]
    assert size["rows"][1]["value"] == len(FlintstonesRelease(show).stories("train", 4)) == 21
    assert size["rows"][1]["fjd"] == epochs["rows"][1]["fjd"]  # the same adapter everywhere
    assert (tmp_path / "out" / "size.png").exists()


def test_adapters_are_set_beside_each_other(common, tiny_adapter, finished, tmp_path, capsys):
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--num_stories", "2"]
    files = [str(tiny_adapter), str(finished)]
    main([*common, *places, "--split", "test", "--sweep", "adapters", *files, "--name", "adapters"])
    report = report_of(tmp_path, "adapters")
    assert [row["name"] for row in report["rows"]] == ["real", tiny_adapter.stem, "first"]
    assert report["rows"][1]["char_f1_micro"] == report["rows"][2]["char_f1_micro"]  # the same file
    assert report["split"] == "test" and (tmp_path / "out" / "adapters.png").exists()
    with pytest.raises(SystemExit):
        main([*common, *places, "--sweep", "adapters", files[0], files[0]])
    assert "same name" in capsys.readouterr().err


def test_two_reports_are_compared_and_nothing_is_called_better_too_early(evaluated, tmp_path, capsys):
    root, _ = evaluated
    report = report_of(root)
    better = json.loads(json.dumps(report))
    better["rows"][1] |= {"frame_acc": 0.9}
    better["rows"][1]["intervals"]["frame_acc"] = [0.85, 0.95]
    report["rows"][1] |= {"frame_acc": 0.1}
    report["rows"][1]["intervals"]["frame_acc"] = [0.05, 0.15]
    table = compare(report, better, ("a", "b"))
    assert "3 seeds each are needed" in table and "is better" not in table and "+80.0 points" in table
    report["seeds"] = better["seeds"] = [0, 1, 2]
    assert "b is better" in compare(report, better, ("a", "b"))
    assert "a is better" in compare(better, report, ("a", "b"))
    better["num_frames"] = 5
    table = compare(report, better, ("a", "b"))
    assert "is better" not in table and "Measured differently" in table
    path = root / "out" / "tiny.json"
    main(["--compare", str(path), str(path)])
    assert "not told apart" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["--compare", str(path), str(tmp_path / "other.json")])
    assert "no report" in capsys.readouterr().err


def test_the_card_and_the_report_say_the_same(evaluated, tiny_adapter):
    report = report_of(evaluated[0])
    card = model_card("me/show", {"tiny": Adapter.load(tiny_adapter)}, "tiny", "Gus waves.", report)
    model = report["rows"][1]
    low, high = model["intervals"]["char_f1_micro"]
    assert f"| model | {model['char_f1_micro']:.1%} ({low:.1%} to {high:.1%}) |" in card
    assert "6 stories of 4 frames" in card and f"halves of {report['fjd_frames']}" in card
    measured = {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}
    assert measured["Frame-Acc, alpha 32"] == model["frame_acc"] and measured["FJD, alpha 32"] == model["fjd"]


def test_paths_of_this_machine_are_not_published(tmp_path):
    assert shown(str(tmp_path / "gulch")) == "gulch" == shown("gulch")
    assert shown(f"--data={tmp_path / 'gulch'}") == "--data=gulch"
    assert shown(str(Path.cwd() / "runs" / "judge")) == "runs/judge"
    assert shown("--seeds") == "--seeds" and shown("3") == "3"


def test_rounded():
    assert rounded({"a": [0.123456, 2], "b": "0.123456", "c": float("nan")}) == {
        "a": [0.1235, 2],
        "b": "0.123456",
        "c": None,
    }


def test_a_judge_of_another_cast_is_refused(show, tmp_path, capsys):
    Judge(ResNetForImageClassification(judge_config(("Gus",), PLACES)), ("Gus",), PLACES).save(tmp_path)
    with pytest.raises(SystemExit):
        main(["--data", str(show), "--judge", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "Mr Flagg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--num_stories", "1"], "--num_stories"),
        (["--sampled_captions", "-1"], "--sampled_captions"),
        (["--seeds", "1", "1"], "--seeds"),
        (["--resolution", "2"], "--resolution"),
        (["--baselines", "paper"], "--paper_lora"),
        (["--baselines", "storygan"], "--storygan"),
        (["--baselines", "continuation"], "--mode continuation"),
        (["--lora", "nothing.safetensors"], "--lora"),
        (["--sweep", "steps"], "--sweep"),
        (["--sweep", "steps", "many"], "numbers"),
        (["--sweep", "prompting", "loudly"], "loudly"),
        (["--sweep", "temperature", "0.5", "-1"], "0 to 10"),
        (["--sweep", "colour", "1"], "--sweep"),
        (["--sweep", "epochs", "nowhere"], "no run"),
    ],
)
def test_what_cannot_be_measured_is_refused(common, capsys, flags, named):
    with pytest.raises(SystemExit):
        main([*common, *flags])
    assert named in capsys.readouterr().err


def test_data_and_judge_are_needed(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "--data" in capsys.readouterr().err
