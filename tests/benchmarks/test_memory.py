import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.autograd.graph import saved_tensors_hooks
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.memory import LiveBytes, as_text, main, measure, measure_painting, sd15_parts
from train.adapter import add_lora, lora_parameters


SIZE = {"resolution": 16, "rank": 4, "vae_scale_factor": 2, "tokens": 5}


@pytest.fixture(scope="module")
def config(tiny_base):
    return UNet2DConditionModel.load_config(tiny_base / "unet")


def test_sizes_are_those_of_a_real_step(config, tiny_base):
    """The same step on real tensors: what autograd keeps, weights apart."""
    unet = UNet2DConditionModel.from_config(config).to(torch.bfloat16)
    frozen = sum(p.numel() for p in unet.parameters()) * 2
    add_lora(unet, 4, 4, seed=0)
    trained = lora_parameters(unet)
    for parameter in trained:
        parameter.data = parameter.data.float()
    owned, kept, alive = {p.data_ptr() for p in unet.parameters()}, {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        latents, states = torch.randn(3, 4, 8, 8), torch.randn(3, 5, 16, dtype=torch.bfloat16)
        prediction = unet.train()(latents, torch.zeros(3, dtype=torch.long), states).sample.float()
        torch.nn.functional.mse_loss(prediction, latents, reduction="none").mean(dim=(1, 2, 3)).mean()
    found = measure(config, batch_size=3, **SIZE)
    assert found["frozen"] == frozen
    assert found["parameters"] == sum(p.numel() for p in trained) and found["trained"] == 16 * found["parameters"]
    assert found["kept"] == pytest.approx(sum(kept.values()), rel=0.05)
    assert found["total"] == found["frozen"] + found["trained"] + found["kept"]


def test_work_grows_with_the_batch_and_checkpointing_trades_it_for_memory(config):
    one, four = (measure(config, batch_size=size, **SIZE) for size in (1, 4))
    saved = measure(config, batch_size=4, checkpointing=True, **SIZE)
    assert four["flops"] == pytest.approx(4 * one["flops"], rel=0.05) and one["flops"] > 0
    assert 3 * one["kept"] < four["kept"] < 4.1 * one["kept"]
    assert saved["kept"] < 0.5 * four["kept"] and saved["flops"] > 1.2 * four["flops"]


def tiny_parts(config) -> dict[str, torch.nn.Module]:
    """On the device of the context that it is called in."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    parts = {
        "text_encoder": CLIPTextModel(CLIPTextConfig(**text, vocab_size=100, max_position_embeddings=9)),
        "unet": UNet2DConditionModel.from_config(config),
        "vae": AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
    }
    return {name: part.half().eval() for name, part in parts.items()}


@pytest.mark.parametrize("frames", [1, 3])
def test_painting_takes_what_real_tensors_take(config, frames):
    with torch.device("meta"):
        parts = tiny_parts(config)
    found = measure_painting(parts, resolution=32, frames=frames)
    real = tiny_parts(config)
    noisy = torch.randn(2 * frames, 4, 16, 16, dtype=torch.float16)
    states = torch.randn(2 * frames, 9, 16, dtype=torch.float16)
    runs = {
        "text_encoder": lambda: real["text_encoder"](torch.zeros(frames + 1, 9, dtype=torch.long))[0],
        "unet": lambda: real["unet"](noisy, torch.zeros((), dtype=torch.long), states, return_dict=False),
        "vae": lambda: real["vae"].decode(noisy[:frames], return_dict=False)[0].float(),
    }
    for name, run in runs.items():
        with torch.no_grad(), LiveBytes(real[name]) as alive:
            run()
        assert found[name] == sum(p.numel() * 2 for p in real[name].parameters())
        assert found[f"{name}_peak"] == pytest.approx(alive.peak, rel=0.1)
    assert found["offloaded"] < found["together"]


def test_stable_diffusion_in_half_precision_fits_four_gigabytes():
    parts = sd15_parts()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert (counts["unet"], counts["vae"], counts["text_encoder"]) == (859_520_964, 83_653_863, 123_060_480)
    found = measure_painting(parts, resolution=512)
    assert found["unet"] == 2 * counts["unet"] and found["adapted"] > 2 * 60e6
    # 0.7 GB for the GPU's context and its kernels' workspaces
    assert found["offloaded"] + 0.7e9 < 4e9 and found["offloaded"] < 0.75 * found["together"]


def test_a_table_and_a_file(tiny_base, tmp_path, capsys):
    arguments = ["--configs", str(tiny_base), "--resolution", "64", "--batch_sizes", "1", "2", "--rank", "4"]
    main([*arguments, "--json", str(tmp_path / "memory.json")])
    rows = json.loads((tmp_path / "memory.json").read_text())
    assert [(row["batch_size"], row["checkpointing"]) for row in rows] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
    ]
    assert as_text(rows) in capsys.readouterr().out
