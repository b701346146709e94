import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from train.objectives.diffusion import diffusion_loss, draw_noise, min_snr_weights


B, C, SIDE, D = 3, 4, 8, 16


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=SIDE,
            in_channels=C,
            out_channels=C,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=D,
            norm_num_groups=4,
        ).eval()


def noise_scheduler(kind: str) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind, clip_sample=False
    )


def kept_signal(timesteps: torch.Tensor) -> torch.Tensor:
    """Product of 1 - beta up to each timestep, from the schedule's own definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0)[timesteps]


def by_hand(kind: str, timestep: int, gamma: float) -> float:
    keep = float(kept_signal(torch.tensor(timestep)))
    snr = keep / (1 - keep)
    return min(snr, gamma) / (snr + 1 if kind == "v_prediction" else snr)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_by_hand(kind):
    timesteps = [0, 100, 400, 999]
    weights = min_snr_weights(noise_scheduler(kind), torch.tensor(timesteps), 5.0)
    assert weights.tolist() == pytest.approx([by_hand(kind, t, 5.0) for t in timesteps], rel=1e-3)
    if kind == "epsilon":  # under the cap nothing is weighed, at a thousandth of the noise nearly nothing counts
        assert weights[3] == 1 and weights[0] < 0.01


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_by_hand(unet, kind, gamma):
    draw = torch.Generator().manual_seed(3)
    latents = torch.randn((B, C, SIDE, SIDE), generator=draw)
    states = torch.randn((B, 5, D), generator=draw)
    state = torch.get_rng_state()
    draws = draw_noise(noise_scheduler(kind), latents.shape, torch.Generator().manual_seed(7))
    loss = diffusion_loss(unet, noise_scheduler(kind), latents, states, *draws, snr_gamma=gamma)
    assert torch.equal(state, torch.get_rng_state())

    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(0, 1000, (B,), generator=generator)
    expected = 0.0
    for i, timestep in enumerate(timesteps.tolist()):
        keep = kept_signal(timesteps[i]).float()
        noisy = keep.sqrt() * latents[i] + (1 - keep).sqrt() * noise[i]
        target = noise[i] if kind == "epsilon" else keep.sqrt() * noise[i] - (1 - keep).sqrt() * latents[i]
        prediction = unet(noisy[None], timestep, states[i : i + 1]).sample[0]
        weight = 1.0 if gamma is None else by_hand(kind, timestep, gamma)
        expected += weight * float((prediction - target).square().mean().detach()) / B
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_loss_reaches_the_unet(unet):
    loss = diffusion_loss(
        unet,
        noise_scheduler("epsilon"),
        torch.zeros(B, C, SIDE, SIDE),
        torch.zeros(B, 5, D),
        torch.ones(B, C, SIDE, SIDE),
        torch.full((B,), 500),
    )
    (gradient,) = torch.autograd.grad(loss, [unet.conv_out.weight])
    assert gradient.abs().sum() > 0


def test_other_predictions_are_refused(unet):
    with pytest.raises(ValueError, match="prediction_type"):
        diffusion_loss(
            unet,
            noise_scheduler("sample"),
            torch.zeros(B, C, SIDE, SIDE),
            torch.zeros(B, 5, D),
            torch.zeros(B, C, SIDE, SIDE),
            torch.full((B,), 500),
        )


def test_offset_noise_is_one_value_a_channel_of_a_picture():
    shape, scheduler = (4, C, SIDE, SIDE), noise_scheduler("epsilon")
    plain, timesteps = draw_noise(scheduler, shape, torch.Generator().manual_seed(1))
    shifted, same = draw_noise(scheduler, shape, torch.Generator().manual_seed(1), offset=0.5)
    added = shifted - plain
    assert torch.equal(timesteps, same) and added.std(dim=(2, 3)).max() < 1e-5
    assert 0.2 < float(added.mean(dim=(2, 3)).std()) < 0.9


def test_timesteps_have_the_density_asked_for():
    scheduler, shape = noise_scheduler("epsilon"), (20_000, 1, 1, 1)
    count = scheduler.config.num_train_timesteps
    noise, even = draw_noise(scheduler, shape, torch.Generator().manual_seed(1))
    same_noise, late = draw_noise(scheduler, shape, torch.Generator().manual_seed(1), power=1.5)
    assert torch.equal(noise, same_noise) and late.dtype == torch.int64
    assert late.min() >= 0 and late.max() == count - 1
    for part in (0.25, 0.5, 0.75):  # the share of timesteps below a part of all is that part to the power
        assert abs(float((even < part * count).double().mean()) - part) < 0.02
        assert abs(float((late < part * count).double().mean()) - part**1.5) < 0.02
