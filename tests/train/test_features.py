import json
import math

import pytest
import torch

from train.data.flintstones import FlintstonesRelease
from train.features import CharacterFeatures, People, contrast, main, preprocessing, scaled


BOX = (160, 120, 480, 400)


@pytest.fixture(scope="module")
def show(make_release, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("show") / "town", size=16, clips=8, frames=5, boxes=(BOX, BOX, BOX))


def test_nt_xent_by_hand():
    """Three people; the first two bear one label and are no negatives of each other."""
    rows = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    names = ["man", "man", "woman"]
    loss, accuracy = contrast(rows, names)
    expected, hits = 0.0, 0
    for i in range(6):
        own = (i + 3) % 6
        others = [j for j in range(6) if j == own or names[j % 3] != names[i % 3]]
        logits = {j: float(rows[i] @ rows[j]) / 0.1 for j in others}
        expected += math.log(sum(map(math.exp, logits.values()))) - logits[own]
        hits += max(logits, key=logits.get) == own
    assert float(loss) == pytest.approx(expected / 6, rel=1e-4)
    assert float(accuracy) == pytest.approx(hits / 6)


def test_pictures_are_scaled_as_the_model_wants_them(tmp_path):
    settings = {
        "image_mean": [0.4] * 3,
        "image_std": [0.2] * 3,
        "size": {"shortest_edge": 9},
        "crop_size": {"height": 2},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    mean, std, size = preprocessing(tmp_path)
    assert size == 2
    x = scaled(torch.full((1, 3, 4, 4), -0.2), 2, mean, std)
    assert x.shape == (1, 3, 2, 2) and x.abs().max() < 1e-6  # -0.2 is 0.4 of [0, 1]
    (tmp_path / "preprocessor_config.json").unlink()
    pictures = torch.rand(1, 3, 8, 8)
    assert torch.allclose(scaled(pictures, 8, *preprocessing(tmp_path)[:2]), pictures, atol=1e-6)


def test_trained_probed_and_opened(show, tmp_path):
    state = torch.get_rng_state()
    arguments = ["--data", str(show), "--probe", str(show), "--batch_size", "3"]
    main([*arguments, "--out", str(tmp_path / "a"), "--steps", "3"])
    assert torch.equal(state, torch.get_rng_state())
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert 0 <= report["probe"]["nearest_is_same"] <= 1 and 0 < report["probe"]["chance"] < 1
    features = CharacterFeatures(tmp_path / "a")
    crops = [torch.zeros(3, 70, 90, requires_grad=True), torch.ones(3, 10, 12)]
    found = features(crops)
    assert found.shape == (2, 128) and torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    found[0, 0].backward()
    assert crops[0].grad.abs().sum() > 0
    assert torch.allclose(found[1], features(crops[1:])[0], atol=1e-5)  # each crop by itself


def test_crops_are_of_the_box(show):
    release = FlintstonesRelease(show)
    people = People(release, "train")
    (_, name), ids = people.who[0]
    cut = people.crop(ids[0], name, torch.Generator().manual_seed(0), jitter=0.0)
    index = int(torch.randint(5, (1,), generator=torch.Generator().manual_seed(0)))
    frame = torch.from_numpy(release.frames(ids[0])[index].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    left, top, right, bottom = (round(side) for side in (4.0, 4.0, 12.0, 400 / 480 * 16))
    expected = torch.nn.functional.interpolate(frame[..., top:bottom, left:right], (64, 64), mode="bilinear")
    assert torch.allclose(cut, expected[0], atol=1e-5)


def test_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="`char_features` .* holds no vision model"):
        CharacterFeatures(tmp_path)


def test_a_show_without_boxes_is_named(make_release, tmp_path):
    with pytest.raises(ValueError, match="no character of the train split has a box"):
        People(FlintstonesRelease(make_release(tmp_path / "show")), "train")
