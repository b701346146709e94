import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.memory import as_text, main, measure
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
