import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm
from transformers import ResNetForImageClassification

from sagan_pipeline.captioner import training_example
from train.captioner import Example, StoryCaptions
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.world import REGULARS
from train.evaluate import caption_figures, main, micro_f1_interval, paint, perplexity_by_k, rounded
from train.metrics.characters import character_scores
from train.metrics.judge import Judge, judge_config


CLASSES = ("Gus", "Mabel", "Otto")
PLACES = ("kitchen", "yard")


def test_the_interval_holds_the_score_and_narrows_with_more_frames():
    generator = np.random.default_rng(0)
    actual = generator.random((400, 3)) < 0.4
    predicted = actual ^ (generator.random((400, 3)) < 0.2)
    score = character_scores(predicted, actual, list(CLASSES))["char_f1_micro"]
    low, high = micro_f1_interval(predicted, actual, seed=0)
    assert low < score < high and high - low < 0.12
    assert micro_f1_interval(predicted, actual, seed=0) == [low, high]
    narrow, wide = (np.diff(micro_f1_interval(predicted[:n], actual[:n], seed=0)) for n in (400, 40))
    assert narrow < wide
    assert micro_f1_interval(actual, actual, seed=0) == [1.0, 1.0]


def test_caption_figures_by_hand():
    examples = [
        Example(["Gus is in the yard."], "Gus laughs.", "a"),
        Example(["Gus is in the yard."], "Gus waves.", "b"),
        Example(["A man waves."], "Otto laughs.", "c"),
        Example([], "Gus laughs.", "d"),
    ]
    sampled = ["Gus is in the yard.", "Mabel and", "Otto laughs.", "Gus laughs."]
    figures = caption_figures(examples, sampled, CLASSES, PLACES)
    assert figures == {
        "complete": 0.75,
        "keeps_a_character": 0.5,  # of the two prefixes that name one
        "prefixes_naming_a_character": 2,
        "keeps_a_place": 0.5,
        "prefixes_naming_a_place": 2,
        "repeats_a_prefix_caption": 1 / 3,  # of the three prefixes that hold a caption
        "distinct_2": 1.0,  # seven pairs of words, all different
    }
    real = caption_figures(examples, [e.target for e in examples], CLASSES, PLACES)
    assert real["keeps_a_character"] == 1.0 and real["repeats_a_prefix_caption"] == 0.0
    assert real["distinct_2"] == 0.75


def test_rounded():
    assert rounded({"a": [0.123456, 2], "b": "0.123456"}) == {"a": [0.1235, 2], "b": "0.123456"}


@pytest.fixture(scope="module")
def show(make_release, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("evaluate") / "gulch", size=16, clips=10)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    """An untrained judge of the show's cast: its figures mean nothing, but they are figures."""
    settings = ("kitchen", "yard")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        judge = Judge(ResNetForImageClassification(judge_config(REGULARS, settings)), REGULARS, settings)
    folder = tmp_path_factory.mktemp("judge")
    judge.save(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(show, judge_folder, tiny_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "new"
    common = ["--data", str(show), "--judge", str(judge_folder), "--model", str(tiny_folder), "--out", str(out)]
    counts = ["--num_captions", "9", "--sampled_captions", "12"]
    main([*common, *counts, "--alphas", "0", "32", "--name", "tiny"])
    main([*common, "--num_captions", "4", "--sweep", "steps", "--steps", "1", "3", "--name", "tiny-sweep-steps"])
    return out


def test_the_report_says_what_was_measured_and_how(evaluated):
    report = json.loads((evaluated / "tiny.json").read_text())
    assert report["command"].startswith("python -m train.evaluate --data") and report["seed"] == 0
    assert report["commit"] and report["versions"]["torch"] and report["hardware"]["threads"] >= 1
    frames = report["frames"]
    assert (frames["split"], frames["clips"]) == ("test", 9)
    assert [row["lora_alpha"] for row in frames["painted"]] == [0, 32] and frames["best"] in (0, 32)
    for row in (frames["real_frames"], *frames["painted"]):
        assert all(0 <= row[name] <= 1 for name in ("char_f1_micro", "char_f1_macro", "frame_acc", "bg_acc"))
        low, high = row["char_f1_micro_95"]
        assert 0 <= low <= high <= 1
        assert row["fjd"] >= 0
    assert frames["fjd_reference"] == 30  # a frame of every training clip
    captions = report["captions"]
    assert (captions["split"], captions["count"]) == ("test", 12)
    assert captions["sampled"]["complete"] == 1 and captions["real"]["complete"] == 1
    assert captions["real"]["prefixes_naming_a_character"] == 9  # all but the empty ones
    assert 0 <= captions["bleu_4"] <= 1
    assert list(captions["perplexity_by_k"]) == ["0", "1", "2", "3"]


def test_a_sweep_uses_the_validation_split(evaluated):
    report = json.loads((evaluated / "tiny-sweep-steps.json").read_text())
    assert report["frames"]["split"] == "val" and "captions" not in report
    assert [row["num_inference_steps"] for row in report["frames"]["painted"]] == [1, 3]


def test_sheets_and_tables_are_whole(evaluated):
    assert Image.open(evaluated / "tiny-sheet.png").size == (3 * 128, 8 * 128)
    assert Image.open(evaluated / "tiny-worst.png").size == (3 * 128, 8 * 128)
    text = (evaluated / "README.md").read_text()
    assert text.count("| real frames |") == 2 and "## tiny-sweep-steps" in text and "| distinct-2 |" in text
    names = ["README.md", *(f"tiny{k}" for k in ("-sheet.png", "-worst.png", ".json"))]
    names += [f"tiny-sweep-steps{kind}" for kind in ("-sheet.png", "-worst.png", ".json")]
    assert sorted(path.name for path in evaluated.iterdir()) == sorted(names)  # nothing left aside


def test_perplexity_by_hand(tiny_pipe, show):
    """exp of the mean of -log p over the target's tokens and the end of text, story by story."""
    stories = StoryCaptions(FlintstonesRelease(show), "test")
    stories.stories = stories.stories[:5]
    tokenizer, model, sums = tiny_pipe.captioner_tokenizer, tiny_pipe.captioner, {}
    for k in (0, 3):
        losses = []
        for story in range(5):
            example = stories.example(story, k)
            ids, labels = training_example(example.captions, example.target, tokenizer, model.config.n_positions)
            with torch.no_grad():
                chances = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            losses += [-float(chances[i - 1, t]) for i, t in enumerate(labels) if t != -100]
        sums[str(k)] = float(np.exp(np.mean(losses)))
    found = perplexity_by_k(model, tokenizer, stories)
    assert {k: found[k] for k in sums} == pytest.approx(sums, rel=1e-4)


def test_another_adapter_and_another_scheduler(show, judge_folder, tiny_folder, tiny_adapter, tmp_path):
    """Given by file it takes the place of the model's own; this one is the model's own, painted again."""
    common = ["--data", str(show), "--judge", str(judge_folder), "--model", str(tiny_folder), "--out", str(tmp_path)]
    counts = ["--num_captions", "3", "--sampled_captions", "1", "--alphas", "32"]
    main([*common, *counts, "--name", "own"])
    main([*common, *counts, "--name", "given", "--lora", str(tiny_adapter)])
    main([*common, *counts, "--name", "unipc", "--scheduler", "unipc"])
    own, given, unipc = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("own", "given", "unipc"))
    assert (own["model"]["lora"], given["model"]["lora"]) == (None, tiny_adapter.name)
    assert own["frames"]["painted"][0]["fjd"] == given["frames"]["painted"][0]["fjd"]
    assert unipc["model"]["scheduler"] == "UniPCMultistepScheduler" != own["model"]["scheduler"]
    assert unipc["frames"]["painted"][0]["fjd"] != own["frames"]["painted"][0]["fjd"]


def test_alphas_share_captions_and_noise(tiny_pipe):
    captions = [f"Gus is in the kitchen. He has {n} bones." for n in range(10)]
    with tqdm(disable=True) as bar:
        a, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=0)
        b, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=0)
        c, _ = paint(tiny_pipe, captions, 4, bar, lora_alpha=0)
        d, _ = paint(tiny_pipe, captions, 3, bar, lora_alpha=32)
    assert len(a) == 10 and np.array_equal(a, b)
    assert not np.array_equal(a, c) and not np.array_equal(a, d)


def test_a_judge_of_another_cast_is_refused(show, tmp_path, capsys):
    settings = ("kitchen",)
    Judge(ResNetForImageClassification(judge_config(CLASSES, settings)), CLASSES, settings).save(tmp_path)
    with pytest.raises(SystemExit):
        main(["--data", str(show), "--judge", str(tmp_path), "--out", str(Path(tmp_path) / "out")])
    assert "Mr Flagg" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--num_captions", "--sampled_captions"])
def test_nothing_to_measure_is_refused(show, judge_folder, capsys, flag):
    with pytest.raises(SystemExit):
        main(["--data", str(show), "--judge", str(judge_folder), flag, "0"])
    assert flag in capsys.readouterr().err
