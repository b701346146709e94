import copy
import math

import pytest
import torch
from torch import nn

from train.objectives.discriminator import (
    Discriminator,
    discriminator_loss,
    generator_loss,
    image_loss,
    r1_penalty,
)
from train.objectives.interface import Found


REAL, FAKE = torch.tensor([2.0, -0.5]), torch.tensor([-1.0, 3.0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("kind", ["minmax", "non-saturating"])
def test_discriminator_loss_by_hand(kind):
    sides = [-math.log(sigmoid(x)) for x in (2.0, -0.5)] + [-math.log(1 - sigmoid(x)) for x in (-1.0, 3.0)]
    assert discriminator_loss(REAL, FAKE, kind).item() == pytest.approx(sum(sides) / 4)
    assert discriminator_loss(torch.zeros(2), torch.zeros(2), kind).item() == pytest.approx(math.log(2))
    weighted = discriminator_loss(REAL, FAKE, kind, torch.tensor([1.0, 0.0]))
    assert weighted.item() == pytest.approx((sides[0] + sides[2]) / 4)


def test_hinge_by_hand():
    assert discriminator_loss(REAL, FAKE, "hinge").item() == pytest.approx((0 + 1.5 + 0 + 4) / 4)
    assert generator_loss(FAKE, "hinge").item() == pytest.approx(-1)


def test_generator_losses_by_hand():
    of = [sigmoid(-1.0), sigmoid(3.0)]
    assert generator_loss(FAKE, "minmax").item() == pytest.approx(sum(math.log(1 - p) for p in of) / 2, rel=1e-5)
    expected = sum(-math.log(p) for p in of) / 2
    assert generator_loss(FAKE, "non-saturating").item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="`gan_loss`"):
        generator_loss(FAKE, "wasserstein")


def test_image_loss_by_hand():
    painted, real = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 3.0]]]]), torch.zeros(2, 1, 1, 2)
    assert image_loss(painted, real, torch.tensor([1.0, 0.5])).item() == pytest.approx((1.5 + 0.5 * 3) / 2)


def test_r1_by_hand():
    """The gradient of the sum of w x^2 in x is 2 w x."""

    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(3.0))

        def forward(self, x, text):
            return self.w * x.square().flatten(1).sum(dim=1)

    square, real = Square(), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    penalty = r1_penalty(square, real, torch.zeros(2, 1))
    assert penalty.item() == pytest.approx(0.5 * ((36 + 144) + 36) / 2)
    penalty.backward()
    assert square.w.grad.item() == pytest.approx(0.5 * 2 * 3 * (4 * 5 + 4) / 2)  # of (2 w x)^2 in w


def test_spectral_norms_and_the_caption():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Discriminator(3, 32, text_width=6, width=4)
    x, text = torch.randn(2, 3, 32, 32), torch.randn(2, 6)
    for _ in range(40):  # power iterations
        network(x, text)
    network.eval()
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in network.features if hasattr(m, "weight")]
    assert norms == pytest.approx([1.0] * len(norms), abs=0.05)
    features = network.features(x).mean(dim=(2, 3))
    by_hand = (
        features @ network.score.weight[0] + network.score.bias + (text @ network.caption.weight.T * features).sum(1)
    )
    assert torch.allclose(network(x, text), by_hand, atol=1e-5)
    assert not torch.allclose(network(x, text), network(x, text.flip(0)))


@pytest.mark.parametrize("space", ["pictures", "latents"])
def test_each_side_moves_what_is_its_own(make_coordinated, space):
    """The discriminator learns nothing from the generator's loss, the generator nothing from the discriminator's."""
    trained = make_coordinated("--objective", "gan", "--l_adv", "1", "--gan_space", space, "--gan_steps", "1")
    painter = trained.painter
    term = painter.objective.terms["adv"]
    network = term.learners["discriminator"].module
    batch = painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    latents = batch.noise.clone().requires_grad_()
    found = Found(batch, latents, torch.ones(8), painter.decode, 8)
    before = copy.deepcopy(network.state_dict())
    loss = term(found)
    assert latents.grad is None  # the discriminator's step is over
    after = copy.deepcopy(network.state_dict())
    assert any(not torch.equal(after[name], before[name]) for name in after if name.endswith("original"))
    loss.backward()
    assert latents.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, after[name]) for name, value in network.state_dict().items())


def test_the_discriminator_learns_to_tell(make_coordinated):
    more = ["--objective", "gan", "--l_adv", "1", "--gan_space", "latents", "--discriminator_learning_rate", "0.01"]
    trained = make_coordinated(*more)
    term = trained.painter.objective.terms["adv"]
    batch = trained.painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    batch.latents = torch.ones_like(batch.latents)
    found = Found(batch, -batch.latents.clone(), torch.ones(8), None, 8)
    for _ in range(30):
        term(found)
    assert term.logs["discriminator_accuracy"] == 1 and term.logs["discriminator_loss"] < 0.5
    assert term.logs["discriminator_real"] > 0 > term.logs["discriminator_fake"]
