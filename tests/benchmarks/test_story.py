import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.story import as_text, base_weights, measure, paint_stock, stock_pipeline


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard. She is talking."]


@pytest.fixture(scope="module")
def figures(tiny_pipe, tiny_adapter):
    said = []
    return measure(tiny_pipe, tiny_adapter, runs=1, captions=CAPTIONS, stock_steps=2, report=said.append), said


def test_every_figure_is_there(figures):
    figures, said = figures
    assert (figures["frames"], figures["runs"], figures["alpha"]) == (2, 1, 32.0)
    assert figures["stock"]["steps"] == 2 and figures["ours"]["steps"] == 3
    assert len(figures["stock"]["seconds"]) == len(figures["ours"]["seconds"]) == 1
    assert figures["ratio"] == figures["stock"]["median"] / figures["ours"]["median"]
    assert all(figures["first_frame"][side] > 0 for side in ("stock", "ours"))
    assert figures["first_frame"]["stock"] < figures["stock"]["median"]
    assert 50 < figures["ours"]["peak_mb"] < 100_000
    unet = figures["unet"]
    assert 0 < unet["share_of_matmul_rate"] < 1 and unet["unet_gflop"] > 0 and unet["dtype"] == "float32"
    assert len(said) == 1 and "times faster" in as_text(figures)


def test_runs_below_one_are_refused(tiny_pipe, tiny_adapter):
    with pytest.raises(ValueError, match="runs"):
        measure(tiny_pipe, tiny_adapter, runs=0)


def test_base_weights_are_the_bases_own(tiny_pipe, tiny_adapter):
    """Also of a UNet that carries an adapter: without its matrices, under the plain names."""
    plain = tiny_pipe.unet.state_dict()
    unet = type(tiny_pipe.unet).from_config(tiny_pipe.unet.config)
    unet.load_state_dict(base_weights(tiny_pipe.unet))
    unet.load_lora_adapter(str(tiny_adapter.parent), weight_name=tiny_adapter.name, prefix="unet")
    assert any(".lora_" in name for name in unet.state_dict())
    found = base_weights(unet)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@torch.no_grad()
def test_both_sides_paint_with_the_same_weights(tiny_pipe, tiny_adapter):
    """Stock's adapter by `set_adapters` and ours, merged, give one prediction; at strength 0 both are the base."""
    draw = torch.Generator().manual_seed(0)
    x, states = torch.randn((1, 4, 8, 8), generator=draw), torch.randn((1, 5, 16), generator=draw)
    base = tiny_pipe.unet(x, 500, states).sample
    stock = stock_pipeline(tiny_pipe, tiny_adapter, strength=1.0)
    theirs = stock.unet(x, 500, states).sample
    ours = tiny_pipe._adapted_unets().under(tiny_pipe.unet, tiny_pipe.trained_lora_alpha)(x, 500, states).sample
    assert torch.allclose(theirs, ours, atol=1e-4) and not torch.allclose(theirs, base, atol=1e-3)
    stock.set_adapters("show", 0.0)
    assert torch.allclose(stock.unet(x, 500, states).sample, base, atol=1e-6)


def test_stock_paints_one_frame_a_call(tiny_pipe, tiny_adapter):
    stock = stock_pipeline(tiny_pipe, tiny_adapter, strength=1.0)
    ready = paint_stock(tiny_pipe, stock, CAPTIONS, steps=2)
    assert len(ready) == 2 and 0 < ready[0] < ready[1]


def test_a_few_step_adapter_has_a_row(tiny_pipe, tiny_adapter, tmp_path):
    path = tmp_path / "few.safetensors"
    with safe_open(tiny_adapter, framework="pt") as file:
        header = {**file.metadata(), "objective": "gan", "num_inference_steps": "1", "guidance_scale": "1"}
    save_file(load_file(tiny_adapter), path, metadata=header)
    arguments = {"runs": 1, "captions": CAPTIONS, "stock_steps": 2, "report": lambda line: None}
    figures = measure(tiny_pipe, tiny_adapter, few_step=path, **arguments)
    few = figures["few_step"]
    assert few["steps"] == 1 and len(few["seconds"]) == 1 and "few-step adapter, 1 steps" in as_text(figures)
    assert few["ratio"] == figures["stock"]["median"] / few["median"]
    plain = figures["plain"]
    assert plain["steps"] == 20 and len(plain["seconds"]) == 1 and "than 20 steps of ours" in as_text(figures)
    assert few["ratio_to_plain"] == plain["median"] / few["median"]
    assert tiny_pipe._adapted_unets().adapter.num_inference_steps is None  # its own adapter is as it was
    with pytest.raises(ValueError, match="does not say in how many steps"):
        measure(tiny_pipe, tiny_adapter, few_step=tiny_adapter, **arguments)
