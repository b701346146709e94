import numpy as np
import pytest
import torch
from torch import nn

from train.metrics.inception import FidFeatures, InceptionV3, PublishedJudge, enlarged


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights as the published files hold them: of torchvision with its auxiliary head, and of pytorch-fid."""
    folder = tmp_path_factory.mktemp("inception")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        three, fid = InceptionV3(3).state_dict(), InceptionV3(1008, fid=True).state_dict()
    head = {"AuxLogits.fc.weight": torch.zeros(3, 768), "AuxLogits.fc.bias": torch.zeros(3)}
    torch.save({f"module.{name}": value for name, value in (three | head).items()}, folder / "three.pt")
    torch.save(fid, folder / "fid.pth")
    return folder


def pictures(count: int = 2, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_it_is_torchvisions_network():
    """27,161,264 weights with the auxiliary head of 1,000 classes, as torchvision's documentation says; its names."""
    with torch.device("meta"):
        model = InceptionV3(1000)
    auxiliary = 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 768 * 1000 + 1000
    assert sum(parameter.numel() for parameter in model.parameters()) + auxiliary == 27_161_264
    names = set(model.state_dict())
    for name in ("Mixed_5b.branch5x5_2.conv.weight", "Mixed_6e.branch7x7dbl_5.bn.running_var", "fc.bias"):
        assert name in names
    assert "Mixed_7c.branch3x3dbl_3b.conv.weight" in names and "Mixed_7a.branch_pool.conv.weight" not in names
    assert model.Mixed_6b.branch7x7_2.conv.kernel_size == (1, 7) and model.Mixed_6b.branch7x7_2.conv.padding == (0, 3)


def test_shapes_and_pooling(files):
    model = InceptionV3.load(files / "three.pt")
    x = enlarged(pictures(1))
    assert x.shape == (1, 3, 299, 299) and x.abs().max() <= 1
    assert model.cells(x).shape == (1, 2048, 8, 8)
    other = InceptionV3.load(files / "three.pt", fid=True)
    assert not torch.equal(model(x)[0], other(x)[0])  # pytorch-fid pools otherwise


def test_features_for_fid(files):
    features = FidFeatures(files / "fid.pth")
    found = features(pictures(3), batch_size=2)
    assert found.shape == (3, 2048) and found.dtype == np.float32
    assert np.allclose(found[2:], features(pictures(3)[2:]), atol=1e-5)


def test_published_classifiers_judge(files):
    model = InceptionV3.load(files / "three.pt")
    judge = PublishedJudge(model, ("Fred", "Wilma", "Dino"), model, ("yard", "car", "cave"))
    who, where, features = judge(pictures())
    assert who.shape == (2, 3) and torch.allclose(where.sum(dim=1), torch.ones(2)) and features.shape == (2, 2048)
    assert judge.regions(pictures()).shape == (2, 3, 2048)
    assert PublishedJudge(model, ("Fred", "Wilma", "Dino"))(pictures())[1].shape == (2, 0)
    with pytest.raises(ValueError, match="`classes` are 2"):
        PublishedJudge(model, ("Fred", "Wilma"))
    with pytest.raises(ValueError, match="`settings` are 1"):
        PublishedJudge(model, ("Fred", "Wilma", "Dino"), None, ("yard",))


class Loud(nn.Module):
    def __reduce__(self):
        return (print, ("run",))


def test_files_that_hold_no_plain_weights_are_refused(files, tmp_path, capsys):
    torch.save(Loud(), tmp_path / "loud.pt")
    torch.save({"fc.weight": torch.zeros(3, 7)}, tmp_path / "other.pt")
    torch.save({"fc.weight": torch.zeros(3, 2048)}, tmp_path / "half.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in (("loud", "plain"), ("other", "Inception"), ("half", "another network"), ("text", "plain")):
        with pytest.raises(ValueError, match=message):
            InceptionV3.load(tmp_path / f"{name}.pt")
    assert "run" not in capsys.readouterr().out
