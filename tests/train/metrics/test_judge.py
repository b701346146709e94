import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetForImageClassification

from train.data.flintstones import FlintstonesRelease
from train.metrics.judge import Judge, augment, judge_config, main, prepare, real_frames


CLASSES, SETTINGS = ("Gus", "Mabel", "Otto"), ("kitchen", "yard")
SHADES = {"gus": (220, 40, 40), "mabel": (40, 200, 40), "otto": (40, 40, 220)}


@pytest.fixture(scope="module")
def judge():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judge(ResNetForImageClassification(judge_config(CLASSES, SETTINGS)), CLASSES, SETTINGS)


def pictures(count: int = 3, size: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_every_kind_of_picture_is_prepared_alike():
    array = pictures()
    x = prepare(array)
    assert x.shape == (3, 3, 128, 128) and x.dtype == torch.float32 and x.abs().max() <= 1
    assert torch.equal(x, prepare([Image.fromarray(picture) for picture in array]))
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(x, prepare(tensor))
    assert prepare(array[:, :16, :16]).shape == (3, 3, 128, 128)
    white = prepare(np.full((1, 256, 256, 3), 255, np.uint8))
    assert torch.allclose(white, torch.ones_like(white))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        torch.zeros(2, 8, 8, 3),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        [],
        ["picture.png"],
        [Image.new("RGB", (8, 8)), Image.new("RGB", (9, 9))],
    ],
    ids=["float array", "one picture", "channels last", "uint8 tensor", "nothing", "a name", "two sizes"],
)
def test_other_pictures_are_refused(images):
    with pytest.raises(ValueError, match="images"):
        prepare(images)


def test_augment_follows_its_generator():
    x = prepare(pictures())
    state = torch.get_rng_state()
    first = augment(x, torch.Generator().manual_seed(1))
    assert torch.equal(first, augment(x, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, augment(x, torch.Generator().manual_seed(2)))
    assert first.shape == x.shape and first.abs().max() <= 1
    assert torch.equal(state, torch.get_rng_state())


def test_a_judgement_is_probabilities_whatever_the_batch(judge):
    who, where, features = judge(pictures(5), batch_size=2)
    assert who.shape == (5, 3) and where.shape == (5, 2) and features.shape == (5, 256)
    assert ((who >= 0) & (who <= 1)).all() and torch.allclose(where.sum(dim=1), torch.ones(5))
    together, *_ = judge(pictures(5), batch_size=5)
    assert torch.allclose(who, together, atol=1e-5)
    with pytest.raises(ValueError, match="images"):
        judge(pictures(0))


def test_scores_agree_with_the_judgement(judge):
    who, where, _ = judge(pictures(4))
    seen = who.numpy() > 0.5
    places = [SETTINGS[i] for i in where.argmax(dim=1).tolist()]
    right = judge.scores(pictures(4), seen, places)
    assert (right["frame_acc"], right["bg_acc"], right["frames"]) == (1.0, 1.0, 4)
    wrong = judge.scores(pictures(4), ~seen, places[:2] + ["", ""])
    assert (wrong["char_f1_micro"], wrong["frame_acc"], wrong["bg_acc"]) == (0.0, 0.0, 1.0)


def test_save_and_load(judge, tmp_path):
    judge.save(tmp_path / "judge")
    loaded = Judge.load(tmp_path / "judge")
    assert (loaded.classes, loaded.settings) == (CLASSES, SETTINGS)
    for a, b in zip(judge(pictures()), loaded(pictures()), strict=True):
        assert torch.equal(a, b)


def test_a_judge_that_is_none(judge, tmp_path):
    with pytest.raises(ValueError, match="no judge"):
        Judge.load(tmp_path)
    with pytest.raises(ValueError, match="5 logits"):
        Judge(judge.model, CLASSES[:2], SETTINGS)


def test_real_frames_follow_the_seed(release_folder):
    release = FlintstonesRelease(release_folder)
    ids = release.splits["test"]
    frames, labels, settings = real_frames(release, ids, CLASSES, seed=3)
    assert frames.shape == (6, 16, 16, 3) and frames.dtype == np.uint8
    assert labels.sum(axis=1).tolist() == [1] * 6 and set(settings) == {"kitchen", "yard"}
    assert all(frame.tobytes() in {f.tobytes() for f in release.frames(id)} for frame, id in zip(frames, ids))
    assert np.array_equal(frames, real_frames(release, ids, CLASSES, seed=3)[0])


def test_training_learns_who_and_where_and_resumes(release_folder):
    """Pictures whose colour says who and whose brightness says where are told apart after a few steps."""
    release = FlintstonesRelease(release_folder)
    for id in sum(release.splits.values(), []):
        clip = release.clip(id)
        shade = np.array(SHADES[clip.characters[0]]) // (3 if clip.setting == "yard" else 1)
        np.save(release.layout.folder / f"{id}.npy", np.full((2, 16, 16, 3), shade, np.uint8))
    out = release_folder.parent / "judge"
    arguments = ["--data", str(release_folder), "--out", str(out), "--steps", "200", "--batch_size", "8"]
    main([*arguments, "--minutes", "0"])  # stopped after a step, and goes on
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 1
    main(arguments)
    report = json.loads((out / "report.json").read_text())
    assert report["test"]["char_f1_micro"] >= 0.9 and report["test"]["bg_acc"] >= 0.8
    assert report["test"]["frames"] == 6 and report["arguments"]["steps"] == "200"
    loaded = Judge.load(out)
    frames, labels, settings = real_frames(release, release.splits["test"], loaded.classes, 1234)
    assert loaded.scores(frames, labels, settings) == report["test"]
