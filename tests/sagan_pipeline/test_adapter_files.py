"""Adapters of every writer: painted as strong as the writer's own reader paints them."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.adapter_files import find_adapter
from sagan_pipeline.lora import Adapter


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard."]
LINEAR = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = ["proj_in", "proj_out", "conv1"]


def latents(pipe: SAGANetsPipeline, **arguments) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.stack(
        pipe.paint(CAPTIONS, num_inference_steps=2, generator=generator, output_type="latent", **arguments).images[0]
    )


@pytest.fixture(scope="module")
def train(tiny_base):
    """A UNet with an adapter of peft's as if it was trained, its settings and its state."""

    def make(**settings):
        unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32)
        config = LoraConfig(init_lora_weights=False, **settings)
        with torch.random.fork_rng():
            torch.manual_seed(8)
            unet.add_adapter(config)
        return unet, config, {name: 0.3 * value for name, value in get_peft_model_state_dict(unet).items()}

    return make


def metadata(config: LoraConfig, prefix: str = "unet.") -> dict[str, str]:
    values = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    keep = {
        f"{prefix}{k}": v for k, v in values.items() if isinstance(v, (str, int, float, bool, list, dict, type(None)))
    }
    return {"format": "pt", "lora_adapter_metadata": json.dumps(keep)}


def check(build_pipe, path, alpha: float, rank: int) -> None:
    """Ours at the trained alpha is what diffusers makes of the file; half of it is half of diffusers' weight."""
    stock = build_pipe()
    stock.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="it")
    assert stock.get_list_adapters() == {"unet": ["it"]}
    ours = build_pipe(adapter=path)
    assert (ours.trained_lora_alpha, ours.lora_rank) == (alpha, rank)
    base = latents(ours, lora_alpha=0)
    for weight in (1.0, 0.5):
        stock.set_adapters("it", weight)
        theirs, mine = latents(stock, lora_alpha=0), latents(ours, lora_alpha=alpha * weight)
        assert (mine - theirs).abs().max() < 5e-5
        assert (theirs - base).abs().max() > 1e-3


@pytest.mark.parametrize("alpha", [4, 8, 16])
def test_diffusers_with_metadata(train, build_pipe, tmp_path, alpha):
    _, config, state = train(r=4, lora_alpha=alpha, target_modules=LINEAR[:3])
    SAGANetsPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=config.to_dict())
    check(build_pipe, tmp_path / "pytorch_lora_weights.safetensors", alpha, 4)


def test_diffusers_without_metadata_was_trained_at_alpha_r(train, build_pipe, tmp_path):
    _, _, state = train(r=4, lora_alpha=4, target_modules=LINEAR)
    SAGANetsPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    check(build_pipe, tmp_path / "pytorch_lora_weights.safetensors", 4, 4)


def test_a_unets_own_file_has_no_prefix(train, tmp_path, build_pipe):
    unet, config, state = train(r=4, lora_alpha=8, target_modules=LINEAR[:3])
    unet.save_lora_adapter(tmp_path)
    adapter = Adapter.load(find_adapter(tmp_path))
    assert (adapter.rank, adapter.lora_alpha) == (4, 8)
    adapter.check_fits(build_pipe().unet)


def test_old_names_of_diffusers(train, build_pipe, tmp_path):
    _, _, state = train(r=4, lora_alpha=4, target_modules=LINEAR[:3])
    names = {"lora_A.weight": "down.weight", "lora_B.weight": "up.weight"}
    old = {}
    for name, value in state.items():
        layer, _, matrix = name.partition(".lora_")
        attention, _, projection = layer.rpartition(".")
        old[f"unet.{attention}.processor.{projection}_lora.{names['lora_' + matrix]}"] = value
    save_file(old, tmp_path / "old.safetensors")
    check(build_pipe, tmp_path / "old.safetensors", 4, 4)


def kohya(state: dict, alphas: dict[str, float] | float) -> dict:
    """As sd-scripts writes it, every layer's alpha in a tensor of its own."""
    file = convert_state_dict_to_kohya({f"unet.{name}": value for name, value in state.items()})
    for name in file:
        if name.endswith(".alpha"):
            own = alphas if isinstance(alphas, float) else next((v for k, v in alphas.items() if k in name), 2.0)
            file[name] = torch.tensor(own)
    return file


@pytest.mark.parametrize("alpha", [1.0, 4.0, 16.0])
def test_kohya(train, build_pipe, tmp_path, alpha):
    _, _, state = train(r=4, lora_alpha=4, target_modules=LINEAR)
    save_file(kohya(state, alpha), tmp_path / "kohya.safetensors")
    check(build_pipe, tmp_path / "kohya.safetensors", alpha, 4)


def test_kohya_with_convolutions_ranks_and_alphas_of_their_own(train, build_pipe, tmp_path):
    _, _, state = train(
        r=4, lora_alpha=4, target_modules=LINEAR[:3] + CONVOLUTIONS, rank_pattern={"conv1": 2, "proj_in": 2}
    )
    file, path = kohya(state, {"conv1": 1.0, "attn2": 8.0}), tmp_path / "kohya.safetensors"
    save_file(file, path)
    ours = build_pipe(adapter=path)
    assert (ours.lora_rank, ours.trained_lora_alpha) == (4, 2)  # the commonest
    # diffusers 0.42 loses the alphas of attention layers where they differ, so by the formula
    twin, checked = ours._adapted.under(ours.unet, 2.0), 0
    for layer, module in ours.unet.named_modules():
        name = "lora_unet_" + layer.replace(".", "_")
        if f"{name}.alpha" in file:
            a, b = file[f"{name}.lora_down.weight"], file[f"{name}.lora_up.weight"]
            change = float(file[f"{name}.alpha"]) / a.shape[0] * (b.flatten(1) @ a.flatten(1)).view_as(module.weight)
            assert torch.allclose(twin.get_submodule(layer).weight, module.weight + change, atol=1e-6), layer
            checked += 1
    assert checked == len(file) // 3
    ours._adapted.adapter.save(tmp_path / "again.safetensors")  # as a file of ours, every layer still as strong
    assert torch.equal(latents(build_pipe(adapter=tmp_path / "again.safetensors")), latents(ours))
    check(build_pipe, tmp_path / "again.safetensors", 2, 4)


def test_rank_stabilised_and_patterns(train, build_pipe, tmp_path):
    for settings in ({"use_rslora": True}, {"alpha_pattern": {"attn2.to_k": 2}, "rank_pattern": {"attn1.to_q": 8}}):
        _, config, state = train(r=4, lora_alpha=8, target_modules=LINEAR[:3], **settings)
        path = tmp_path / "patterned.safetensors"
        save_file({f"unet.{k}": v for k, v in state.items()}, path, metadata=metadata(config))
        adapter = Adapter.load(path)
        check(build_pipe, path, adapter.lora_alpha, adapter.rank)


def test_a_folder_an_id_and_what_is_neither(adapter_path, tmp_path):
    state = load_file(adapter_path)
    save_file(state, tmp_path / "one.safetensors")
    assert find_adapter(tmp_path) == tmp_path / "one.safetensors" == find_adapter(tmp_path / "one.safetensors")
    save_file(state, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="one.safetensors, two.safetensors"):
        find_adapter(tmp_path)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")
    assert find_adapter(tmp_path).name == "pytorch_lora_weights.safetensors"
    (tmp_path / "empty").mkdir()
    for path in (
        tmp_path / "empty",
        "a.safetensors",
        "a/b.safetensors",
        "./a/b",
        "/a/b/c.safetensors",
        "a/b/c.bin",
        "",
    ):
        with pytest.raises(ValueError, match="`path`"):
            find_adapter(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text encoder"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "text encoder"),
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "plain LoRA"),
        ("unet.mid_block.attentions.0.proj_in.lora_magnitude_vector", "plain LoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.diff", "kohya"),
        ("conv.weight", "accepted are"),
    ],
)
def test_what_is_no_lora_of_the_unet_alone_is_refused(tmp_path, name, message):
    save_file({name: torch.ones(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        Adapter.load(tmp_path / "other.safetensors")


def test_an_alpha_of_zero_is_refused(train, tmp_path):
    _, _, state = train(r=4, lora_alpha=4, target_modules=LINEAR[:3])
    save_file(kohya(state, 0.0), tmp_path / "zero.safetensors")
    with pytest.raises(ValueError, match="alpha"):
        Adapter.load(tmp_path / "zero.safetensors")
