import numpy as np
import pytest
import torch
from PIL import Image

from train.baselines.storygan import Discriminators, Generator, StoryGAN, main
from train.data.flintstones import FlintstonesRelease
from train.evaluation.painting import story_generator


CAPTIONS = ["Gus is in the yard.", "Mabel waves.", "Otto sleeps.", "xyzzy"]


def test_a_story_is_painted_from_its_own_noise(release_folder, tmp_path):
    """A training of two steps, stopped after one, and its model: same noise, same story."""
    arguments = ["--data", str(release_folder), "--out", str(tmp_path), "--steps", "2", "--width", "8"]
    state = torch.get_rng_state()
    main([*arguments, "--batch_size", "2", "--minutes", "0"])
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1
    main([*arguments, "--batch_size", "2"])
    assert torch.equal(state, torch.get_rng_state())
    held = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert held["step"] == 2 and set(held["modules"]) == {"generator", "judges"}
    assert Image.open(tmp_path / "samples" / "000002.png").size[0] == 4 * 64
    model = StoryGAN.load(tmp_path)
    first = model.paint(CAPTIONS, story_generator(0, 1))
    assert first.shape == (4, 64, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, StoryGAN.load(tmp_path).paint(CAPTIONS, story_generator(0, 1)))
    assert not np.array_equal(first, model.paint(CAPTIONS, story_generator(1, 1)))
    assert not np.array_equal(first, model.paint(CAPTIONS[::-1], story_generator(0, 1))[::-1])
    with pytest.raises(ValueError, match="holds no StoryGAN"):
        StoryGAN.load(tmp_path / "samples")


def test_each_side_learns_from_its_own_loss_alone(release_folder, tmp_path, monkeypatch):
    """One backward pass: the painter's wish to please must not teach the judges to be pleased."""
    from train.baselines import storygan

    caught = {}

    def once(run, loss_of_step, *args, **kwargs):
        losses = loss_of_step(0)
        generator, judges = run.modules["generator"], run.modules["judges"]
        weights = [list(m.parameters()) for m in (generator, judges)]
        for name in ("judging", "painting"):
            grads = [torch.autograd.grad(losses[name], w, retain_graph=True, allow_unused=True) for w in weights]
            caught[name] = [any(g is not None and g.abs().sum() > 0 for g in side) for side in grads]

    monkeypatch.setattr(storygan.Run, "train", once)
    storygan.train(FlintstonesRelease(release_folder), tmp_path, 1, 2, 0, 1.0, width=8)
    assert caught == {"judging": [False, True], "painting": [True, False]}


def test_the_context_reaches_later_frames_and_the_judges_read_the_captions():
    torch.manual_seed(0)
    words = ["gus", "is", "in", "the", "yard", "mabel", "waves", "otto", "sleeps"]
    generator, judges = Generator(words, 8).eval(), Discriminators(words, 8).eval()
    noise = torch.randn(1, 5, 128)
    told = generator.captions(*generator.captions.tokens(CAPTIONS))[None]
    other = generator.captions(*generator.captions.tokens(["Otto sleeps.", *CAPTIONS[1:]]))[None]
    with torch.no_grad():
        a, b = generator(told, noise)[0], generator(other, noise)[0]
        assert a.shape == (1, 4, 3, 64, 64) and not torch.equal(a[:, 3], b[:, 3])
        scores = judges(a, *judges.captions.tokens(CAPTIONS))
        wrong = judges(a, *judges.captions.tokens(CAPTIONS[::-1]))
    assert scores[0].shape == (1, 4) and scores[1].shape == (1,)
    assert not torch.equal(scores[0], wrong[0])


def test_what_cannot_be_trained_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--data", "d", "--width", "9"])
    assert "--width" in capsys.readouterr().err
