import pytest
import torch
from diffusers import DDPMScheduler, LCMScheduler

from sagan_pipeline.few_steps import generator_scheduler, trailing_timesteps
from train.adapter import under_adapter
from train.base import NOISE_CONFIG
from train.objectives.diffusion import kept_signal, predicted_latents
from train.objectives.distribution import DistributionTerm, distribution_loss
from train.objectives.few_step import generate
from train.objectives.interface import Found


def scheduler(kind: str = "v_prediction") -> DDPMScheduler:
    return DDPMScheduler(**{**NOISE_CONFIG, "prediction_type": kind})


def test_trailing_timesteps():
    assert trailing_timesteps(1000, 1) == [999]
    assert trailing_timesteps(1000, 4) == [999, 749, 499, 249]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_predicted_latents_undo_the_noise(kind):
    draw = torch.Generator().manual_seed(0)
    x, noise = torch.randn((3, 2, 4, 4), generator=draw), torch.randn((3, 2, 4, 4), generator=draw)
    t = torch.tensor([0, 400, 999])
    noisy = scheduler().add_noise(x, noise, t)
    target = noise if kind == "epsilon" else scheduler().get_velocity(x, noise, t)
    assert torch.allclose(predicted_latents(scheduler(kind), target, noisy, t), x, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_steps_are_those_of_diffusers(kind):
    """By `LCMScheduler`, which the pipeline paints with."""
    noise = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x) * (t / 1000).view(-1, 1, 1, 1)

    timesteps = trailing_timesteps(1000, 4)
    ours = generate(predict, scheduler(kind), noise, timesteps, torch.Generator().manual_seed(1))
    theirs = generator_scheduler(scheduler(kind).config, 4, "cpu")
    assert isinstance(theirs, LCMScheduler)
    latents, generator = noise, torch.Generator().manual_seed(1)
    for t in theirs.timesteps:
        latents = theirs.step(predict(latents, t[None]), t, latents, generator=generator).prev_sample
    assert torch.allclose(ours, latents, atol=1e-3)


def test_only_the_last_step_learns():
    seen = []

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_grad_enabled())
        return weight * x

    weight = torch.tensor(0.5, requires_grad=True)
    noise = torch.ones(1, 1, 2, 2)
    latents = generate(predict, scheduler(), noise, [999, 499], torch.Generator().manual_seed(0))
    assert seen == [False, True]
    keep = kept_signal(scheduler(), torch.tensor([999, 499]))
    fresh = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
    first = keep[0].sqrt() * noise - (1 - keep[0]).sqrt() * 0.5 * noise
    noisy = keep[1].sqrt() * first + (1 - keep[1]).sqrt() * fresh
    (gradient,) = torch.autograd.grad(latents.sum(), [weight])
    assert gradient.item() == pytest.approx((-(1 - keep[1]).sqrt() * noisy).sum().item(), rel=1e-4)


def test_distribution_loss_by_hand():
    latents = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
    of_fake, of_teacher = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    loss = distribution_loss(latents, of_fake, of_teacher)
    # the teacher's is 1 away on the mean: the direction is (2, -1), half of its mean square 2.5
    assert loss.item() == pytest.approx(1.25)
    (gradient,) = torch.autograd.grad(loss, [latents])
    assert gradient.flatten().tolist() == pytest.approx([2 / 2, -1 / 2])


@pytest.fixture
def distilled(make_coordinated, tiny_adapter):
    return make_coordinated("--objective", "gan", "--l_dmd", "1", "--init_lora", str(tiny_adapter))


def lora(unet, name: str) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in unet.named_parameters() if f".{name}." in key}


def test_the_fake_score_learns_by_itself(distilled):
    """Its step moves it alone, teacher and generator stay; the generator's gradient reaches the latents."""
    painter = distilled.painter
    term = painter.objective.terms["dmd"]
    assert isinstance(term, DistributionTerm)
    before = {name: lora(painter.unet, name) for name in ("default", "teacher", "fake")}
    assert before["fake"].keys() and all(
        torch.equal(value, before["teacher"][key.replace(".fake.", ".teacher.")])
        for key, value in before["fake"].items()
    )
    batch = painter.batch(distilled.draws(0).painter, slice(0, 8), seed=1, step=0)
    latents = batch.latents.clone().requires_grad_()
    term(Found(batch, latents, torch.ones(8), painter.decode, 8)).backward()
    assert latents.grad.abs().sum() > 0
    after = {name: lora(painter.unet, name) for name in before}
    for name in ("default", "teacher"):
        assert all(torch.equal(value, before[name][key]) for key, value in after[name].items())
    assert any(not torch.equal(value, before["fake"][key]) for key, value in after["fake"].items())
    assert {id(p) for p in painter.parameters} == {
        id(p) for key, p in painter.unet.named_parameters() if ".default." in key
    }
    assert all(parameter.grad is None for parameter in painter.unet.parameters())


def test_the_generator_paints_with_its_own_adapter(distilled):
    """The other LoRAs are at work for their scores only."""
    active = {tuple(m.active_adapters) for m in distilled.painter.unet.modules() if hasattr(m, "lora_A")}
    distilled.loss(0)
    assert (
        active
        == {("default",)}
        == {tuple(m.active_adapters) for m in distilled.painter.unet.modules() if hasattr(m, "lora_A")}
    )


def test_in_bfloat16_a_step_is_seen_at_once(make_coordinated, tiny_adapter):
    """autocast keeps casts of the weights; those from before a learner's step must not come back."""
    more = ["--objective", "gan", "--l_dmd", "1", "--init_lora", str(tiny_adapter), "--mixed_precision", "bf16"]
    trained = make_coordinated(*more, "--dmd_learning_rate", "0.1", "--dmd_fake_steps", "2")
    painter = trained.painter
    term = painter.objective.terms["dmd"]
    batch = painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    with painter.accelerator.autocast(), under_adapter(painter.unet, "fake"):
        before = term._predict(batch.noise, batch.timesteps, batch.states)
        term.learners["fake_score"].step(before.square().mean())
        after = term._predict(batch.noise, batch.timesteps, batch.states)
    assert not torch.equal(before, after)
    trained.loss(0)["loss"].backward()
    assert all(parameter.grad is not None for parameter in painter.parameters)


def test_distillation_needs_an_adapter(make_coordinated):
    with pytest.raises(ValueError, match="`l_dmd` needs `init_lora`"):
        make_coordinated("--objective", "gan", "--l_dmd", "1")
