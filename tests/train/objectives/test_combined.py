import pytest
import torch

from train.objectives.combined import BALANCE_EVERY


FLAGS = "--objective combined --l_adv 0.5 --l_clip 0.25 --l_char 0.1 --l_coher 2 --balance gradients".split()


def test_balanced_gradients_are_as_strong_as_their_weights(make_coordinated):
    """On the first step the scales are not averaged yet: each term's gradient is its weight times L2's."""
    trained = make_coordinated(*FLAGS)
    painter = trained.painter
    objective = painter.objective
    losses = objective.losses(painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0))
    node = objective.prediction
    gradients = {name: torch.autograd.grad(loss, [node], retain_graph=True)[0] for name, loss in losses.items()}
    total = objective.total(losses)
    weights = {"l2": 1.0, **{name: objective.logs[f"weight_{name}"] for name in objective.terms}}
    assert float(total) == pytest.approx(sum(weights[name] * float(loss) for name, loss in losses.items()), rel=1e-4)
    for name, weight in objective.weights.items():
        share = weights[name] * gradients[name].norm() / gradients["l2"].norm()
        assert float(share) == pytest.approx(weight, rel=1e-3)
    (gradient,) = torch.autograd.grad(total, [node], retain_graph=True)
    expected = sum(weights[name] * gradients[name] for name in gradients)
    assert torch.allclose(gradient, expected, atol=1e-6, rtol=1e-3)


def test_between_two_looks_at_the_gradients_the_weights_stay(make_coordinated):
    trained = make_coordinated(*FLAGS)
    painter, objective = trained.painter, trained.painter.objective

    def losses(step: int) -> dict[str, torch.Tensor]:
        return objective.losses(painter.batch(trained.draws(step).painter, slice(0, 8), seed=1, step=step))

    objective.total(losses(0))
    scales = dict(objective.scales)
    assert len(scales) == 4 and "gradient_adv" in objective.logs
    found = losses(1)
    total = objective.total(found)
    assert objective.scales == scales and "gradient_adv" not in objective.logs
    weighted = {name: objective.weights[name] * scale * float(found[name]) for name, scale in scales.items()}
    assert float(total) == pytest.approx(float(found["l2"]) + sum(weighted.values()), rel=1e-4)
    (gradient,) = torch.autograd.grad(total, [objective.prediction])
    assert gradient.abs().sum() > 0
    objective.total(losses(BALANCE_EVERY))
    assert objective.scales != scales


def test_fixed_weights_are_the_sum(make_coordinated):
    trained = make_coordinated(*FLAGS, "--balance", "fixed")
    objective = trained.painter.objective
    losses = {name: torch.tensor(float(i)) for i, name in enumerate(("l2", "adv", "clip", "char", "coher"))}
    assert float(objective.total(losses)) == pytest.approx(0 + 0.5 * 1 + 0.25 * 2 + 0.1 * 3 + 2 * 4)
