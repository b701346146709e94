"""What diffusers asks of every pipeline (`PipelineTesterMixin` and its LoRA part), asked of ours."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from sagan_pipeline import SAGANetsPipeline, Story


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard."]
FILE = "pytorch_lora_weights.safetensors"


def latents(pipe: SAGANetsPipeline, captions: list[str] = CAPTIONS, **arguments) -> torch.Tensor:
    arguments = {"num_inference_steps": 2, "output_type": "latent"} | arguments
    out = pipe.paint(captions, generator=torch.Generator().manual_seed(1), **arguments)
    return torch.stack(list(out.images[0]))


# The pipeline


def test_what_a_call_and_a_pipeline_take(pipe):
    call = inspect.signature(pipe.__call__).parameters
    for name in ("prefix", "generator", "num_inference_steps", "guidance_scale", "negative_prompt", "height", "width"):
        assert call[name].default is None, name
    assert call["return_dict"].default is True and call["output_type"].default == "pil"
    made = set(inspect.signature(SAGANetsPipeline.__init__).parameters) - {"self"}
    settings = {name for name in made if name.startswith("default_") or name.startswith("base")}
    settings |= {"cast", "places", "vocabulary", "adapter_file"}
    assert set(pipe.components) == made - settings


def test_stories_of_unequal_length_and_one_very_long_caption_in_a_batch(pipe):
    stories = [Story.from_captions(CAPTIONS[:1]), Story.from_captions([*CAPTIONS, "Gus " * 400]), Story()]
    out = pipe(stories, num_frames=4, num_inference_steps=1, generator=torch.Generator().manual_seed(1))
    assert [len(images) for images in out.images] == [4, 4, 4]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_frame_of_a_batch_is_the_frame_alone(pipe, count):
    batch = latents(pipe, [CAPTIONS[0]] * count)
    assert batch.shape[0] == count and torch.allclose(batch[0], latents(pipe, CAPTIONS[:1])[0], atol=1e-4)


def test_with_and_without_guidance_the_shape_is_the_same(pipe):
    guided, plain = latents(pipe, guidance_scale=5.0), latents(pipe, guidance_scale=1.0)
    assert guided.shape == plain.shape == (2, 4, 8, 8) and not torch.allclose(guided, plain, atol=1e-3)


def test_a_callback_gets_what_it_asks_for_and_nothing_else(pipe):
    seen = []

    def callback(pipe, step, timestep, values):
        seen.append(set(values))
        return values

    for asked in ([], ["latents"]):
        latents(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=asked)
        assert seen == [set(asked)] * 2
        seen.clear()


def test_the_prompt_can_be_encoded_apart(build_pipe):
    whole = build_pipe()
    nothing = dict.fromkeys(whole.components)
    reader = SAGANetsPipeline(**nothing | {"text_encoder": whole.text_encoder, "tokenizer": whole.tokenizer})
    states = reader.encode_prompt(CAPTIONS)
    assert torch.equal(states, whole.encode_prompt(CAPTIONS))
    with pytest.raises(ValueError, match="no `unet`"):
        reader.paint(CAPTIONS)

    class Read(torch.nn.Module):  # what was read, in the place of the reader
        device = torch.device("cpu")

        def forward(self, ids):
            return (torch.cat([states] * 2)[-len(ids) :],)

    expected = latents(whole, guidance_scale=1.0)
    whole.text_encoder = Read()
    assert torch.equal(latents(whole, guidance_scale=1.0), expected)


def test_parts_that_may_be_left_out_stay_out_through_saving(build_pipe, tmp_path):
    pipe = build_pipe()
    names = ("captioner", "captioner_tokenizer", "safety_checker", "feature_extractor")
    pipe.register_modules(**dict.fromkeys(names))
    pipe.save_pretrained(tmp_path)
    opened = SAGANetsPipeline.from_pretrained(tmp_path)
    assert all(getattr(opened, name) is None for name in names) and torch.equal(latents(opened), latents(pipe))


def test_a_pipeline_of_another_ones_parts(pipe):
    other = SAGANetsPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet and other.config.cast == pipe.config.cast
    assert torch.equal(latents(other, lora_alpha=0), latents(pipe, lora_alpha=0))


def test_moves_to_a_device_and_a_type(build_pipe, tmp_path):
    pipe = build_pipe()
    pipe.register_modules(captioner=None, captioner_tokenizer=None)  # they are those of all tests
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    pipe.to(torch.bfloat16)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    painted = latents(pipe)
    assert painted.isfinite().all()
    pipe.save_pretrained(tmp_path)
    assert torch.equal(latents(SAGANetsPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)), painted)
    pipe.to("meta")
    assert {part.device.type for part in parts} == {"meta"}


# Adapters of the stock kind, beside which ours works


@pytest.fixture(scope="module")
def adapter(tiny_base, tmp_path_factory):
    """Writes an adapter of peft's as diffusers does; returns its folder."""

    def write(seed: int = 0, targets=("to_q", "to_k", "to_v"), alpha: int = 4, factor: float = 1.0):
        unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32)
        config = LoraConfig(r=4, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet.add_adapter(config)
        state = {name: factor * value for name, value in get_peft_model_state_dict(unet).items()}
        folder = tmp_path_factory.mktemp("stock")
        settings = config.to_dict()
        SAGANetsPipeline.save_lora_weights(folder, unet_lora_layers=state, unet_lora_adapter_metadata=settings)
        return folder

    return write


def load(pipe: SAGANetsPipeline, folder, name: str = "one") -> None:
    pipe.load_lora_weights(str(folder), weight_name=FILE, adapter_name=name)


def test_an_adapter_changes_the_picture_and_unloading_restores_it(build_pipe, adapter):
    pipe = build_pipe()
    base = latents(pipe)
    for targets in (("to_q", "to_k", "to_v"), ("to_v",)):
        load(pipe, adapter(targets=targets))
        assert (latents(pipe) - base).abs().max() > 1e-3
        pipe.unload_lora_weights()
        assert torch.equal(latents(pipe), base)
    load(pipe, adapter(factor=0.0))
    assert torch.allclose(latents(pipe), base, atol=1e-6)


@pytest.mark.parametrize("alpha", [4, 8, 16])
def test_alpha_is_the_weight_that_others_set_and_fuse(build_pipe, adapter, alpha):
    folder, stock, fused, ours = adapter(alpha=alpha), build_pipe(), build_pipe(), build_pipe()
    load(stock, folder)
    assert {layer.scaling["one"] for layer in stock.unet.modules() if hasattr(layer, "scaling")} == {alpha / 4}
    ours.load_adapter(folder)
    assert ours.trained_lora_alpha == alpha
    load(fused, folder)
    for weight in (1.0, 0.5):
        stock.set_adapters("one", weight)
        assert torch.allclose(latents(stock), latents(ours, lora_alpha=alpha * weight), atol=1e-4)
    base = latents(ours, lora_alpha=0)
    fused.fuse_lora(components=["unet"], lora_scale=0.5)
    assert torch.allclose(latents(fused), latents(ours, lora_alpha=alpha * 0.5), atol=1e-4)
    fused.unfuse_lora(components=["unet"])
    fused.unload_lora_weights()
    assert torch.allclose(latents(fused), base, atol=1e-4)


def test_several_adapters_are_chosen_weighed_and_deleted(build_pipe, adapter):
    pipe, one, two = build_pipe(), adapter(seed=0), adapter(seed=1)
    load(pipe, one, "one")
    alone = latents(pipe)
    load(pipe, two, "two")
    pipe.set_adapters("two")
    other = latents(pipe)
    pipe.set_adapters(["one", "two"], [0.6, 0.3])
    mixed = latents(pipe)
    assert len({tuple(t.flatten()[:4].tolist()) for t in (alone, other, mixed)}) == 3
    pipe.set_adapters("one", {"unet": {"down": 0.5, "mid": 0.0, "up": 1.0}})
    assert not torch.equal(latents(pipe), alone)
    pipe.set_adapters("one")
    assert torch.equal(latents(pipe), alone)
    for wrong in ("three", ["one", "three"]):
        with pytest.raises(ValueError, match="three"):
            pipe.set_adapters(wrong)
    pipe.delete_adapters("two")
    assert pipe.get_list_adapters() == {"unet": ["one"]}
    load(pipe, two, "two")
    pipe.set_adapters("two")
    assert torch.equal(latents(pipe), other)
    pipe.disable_lora()
    assert torch.equal(latents(pipe), latents(build_pipe()))


def test_a_stock_round_trip_and_a_half_memory_load_paint_the_same(build_pipe, adapter, tmp_path):
    pipe, folder = build_pipe(), adapter()
    load(pipe, folder)
    expected = latents(pipe)
    state = get_peft_model_state_dict(pipe.unet, adapter_name="one")
    settings = pipe.unet.peft_config["one"].to_dict()
    SAGANetsPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=settings)
    for light in (True, False):
        again = build_pipe()
        again.load_lora_weights(str(tmp_path), weight_name=FILE, adapter_name="one", low_cpu_mem_usage=light)
        assert torch.equal(latents(again), expected)
