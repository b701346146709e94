"""What belongs to Stable Diffusion 1.5: its checker, its limits, its community's adapters and its small memory."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, LCMScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from sagan_pipeline import SAGANetsPipeline


CAPTIONS = ["Gus is in the kitchen.", "Mabel is in the yard.", "Otto is in the kitchen."]


def paint(pipe: SAGANetsPipeline, captions: list[str] = CAPTIONS, **arguments):
    pipe.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 2, "output_type": "pt"} | arguments
    return pipe.paint(captions, generator=torch.Generator().manual_seed(1), **arguments)


def pictures(*arguments, **keywords) -> torch.Tensor:
    return torch.stack(paint(*arguments, **keywords).images[0])


@pytest.fixture
def sd(base) -> SAGANetsPipeline:
    """Fresh, for what is changed on it."""
    return SAGANetsPipeline.from_base(base)


@pytest.fixture
def community(tiny_base, tmp_path):
    """A LoRA of somebody else's, for the UNet, and its folder."""
    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", torch_dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "ff.net.2"], init_lora_weights=False))
    SAGANetsPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(unet))
    return tmp_path


# The safety checker


def test_the_checker_comes_along_and_withholds_frame_by_frame(sd, base, caplog):
    clean = paint(sd)
    assert [frame.flagged for frame in clean.stories[0].frames] == [False] * 3
    off = SAGANetsPipeline.from_base(base, safety_checker=None)
    assert off.safety_checker is None and torch.equal(pictures(off), torch.stack(clean.images[0]))

    seen = sd.feature_extractor(
        sd.image_processor.numpy_to_pil(torch.stack(clean.images[0]).permute(0, 2, 3, 1).numpy()), return_tensors="pt"
    )
    with torch.no_grad():
        state = sd.safety_checker.vision_model(seen.pixel_values)[1]
        near = torch.nn.functional.normalize(sd.safety_checker.visual_projection(state))
        # one thing to find, and it is the second picture
        sd.safety_checker.concept_embeds[0] = near[1]
        others = max(float(near[1] @ near[0]), float(near[1] @ near[2]))
        assert others < 1 - 1e-4
        sd.safety_checker.concept_embeds_weights[0] = (1 + others) / 2
    out = paint(sd)
    assert [frame.flagged for frame in out.stories[0].frames] == [False, True, False]
    assert out.captions[0] == CAPTIONS and out.stories[0].facts()["frames"][1]["flagged"]
    for index in (0, 2):
        assert torch.equal(out.images[0][index], clean.images[0][index])
    blank = out.images[0][1]
    assert blank.unique().numel() == 2 and not torch.equal(blank, clean.images[0][1])  # grey, and the mark
    as_pil = paint(sd, output_type="pil").stories[0].frames[1]
    assert as_pil.flagged and np.unique(np.asarray(as_pil.image)).size == 2
    streamed = list(
        sd.stream(CAPTIONS, num_frames=3, num_inference_steps=2, generator=torch.Generator().manual_seed(1))
    )
    assert [frame.caption for frame in streamed] == CAPTIONS and len(streamed) == 3
    assert not any(frame.flagged for frame in paint(sd, output_type="latent").stories[0].frames)


def test_a_checker_without_eyes_is_refused(sd):
    with pytest.raises(ValueError, match="feature_extractor"):
        SAGANetsPipeline(**{**sd.components, "feature_extractor": None})


def test_the_checker_is_saved_and_opened_again(sd, tmp_path):
    sd.save_pretrained(tmp_path)
    opened = SAGANetsPipeline.from_pretrained(tmp_path)
    assert type(opened.safety_checker) is type(sd.safety_checker)
    assert torch.equal(pictures(opened), pictures(sd))


# Names and limits


def test_the_old_id_is_answered_with_the_new_one(caplog, monkeypatch):
    asked = []
    monkeypatch.setattr(SAGANetsPipeline, "load_config", lambda name, **_: asked.append(name) or {}["stop"])
    with pytest.raises(KeyError, match="stop"), caplog.at_level(logging.WARNING):
        SAGANetsPipeline.from_base("runwayml/stable-diffusion-v1-5")
    assert asked == ["stable-diffusion-v1-5/stable-diffusion-v1-5"]
    assert "runwayml/stable-diffusion-v1-5 is no longer on the Hub; stable-diffusion-v1-5" in caplog.text


def test_the_cut_words_are_shown_and_the_captioner_is_safe(sd, pipe, caplog):
    limit = sd.tokenizer.model_max_length
    long = "Gus is in the kitchen " + "and he is talking " * limit + "to a zebra."
    with caplog.at_level(logging.WARNING):
        out = paint(sd, [long])
        assert f"reads {limit} tokens only" in caplog.text and "zebra" in caplog.text
        assert out.captions[0] == [long]  # the story keeps what was given
        caplog.clear()
        told = pipe([long[:1900]] * 6, num_frames=7, num_inference_steps=1, generator=torch.Generator().manual_seed(1))
    assert "too long for the captioner" in caplog.text and len(told.captions[0]) == 7


# Others' parts


def test_adapters_of_the_community_stack_and_alpha_is_of_ours_alone(build_pipe, adapter_path, community):
    both, ours, theirs = build_pipe(adapter=adapter_path), build_pipe(adapter=adapter_path), build_pipe()
    for stacked in (both, theirs):
        stacked.load_lora_weights(str(community), weight_name="pytorch_lora_weights.safetensors", adapter_name="style")
        stacked.set_adapters("style", 0.7)
    assert torch.equal(pictures(both, lora_alpha=0), pictures(theirs, lora_alpha=0))
    assert not torch.equal(pictures(both, lora_alpha=10), pictures(both, lora_alpha=32))
    together = pictures(both, lora_alpha=32)
    assert not torch.equal(together, pictures(ours, lora_alpha=32))
    both.set_adapters("style", 0.0)
    assert torch.allclose(pictures(both, lora_alpha=32), pictures(ours, lora_alpha=32), atol=1e-5)
    both.set_adapters("style", 0.7)
    assert torch.equal(pictures(both, lora_alpha=32), together)
    # peft, with both as adapters of its own, paints the same
    stock = build_pipe()
    stock.load_lora_weights(str(adapter_path.parent), weight_name=adapter_path.name, adapter_name="show")
    stock.load_lora_weights(str(community), weight_name="pytorch_lora_weights.safetensors", adapter_name="style")
    stock.set_adapters(["show", "style"], [10 / 32, 0.7])
    assert torch.allclose(pictures(stock, lora_alpha=0), pictures(both, lora_alpha=10), atol=1e-3)
    both.unload_lora_weights()
    assert torch.equal(pictures(both, lora_alpha=32), pictures(ours, lora_alpha=32))


def test_four_steps_of_lcm(build_pipe, adapter_path, community):
    pipe = build_pipe(adapter=adapter_path)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe.load_lora_weights(str(community), weight_name="pytorch_lora_weights.safetensors", adapter_name="lcm")
    steps = []

    def seen(pipe, step, timestep, values):
        steps.append(int(timestep))
        return values

    few = {"num_inference_steps": 4, "guidance_scale": 1.0, "lora_alpha": 32}
    state = torch.get_rng_state()
    first = pictures(pipe, callback_on_step_end=seen, **few)
    assert len(steps) == 4 and torch.equal(first, pictures(pipe, **few)) and torch.equal(state, torch.get_rng_state())
    assert first.isfinite().all() and not torch.equal(first, pictures(pipe, **few | {"lora_alpha": 0}))


def test_a_tiny_autoencoder_in_its_place(build_pipe):
    pipe = build_pipe()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        tiny = AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    pipe.vae = tiny
    assert pipe.vae_scale_factor == 2 and pictures(pipe).shape == (3, 3, 16, 16)
    images = pictures(pipe)
    assert 0 <= images.min() and images.max() <= 1
    assert [image.size for image in paint(pipe, output_type="pil").images[0]] == [(16, 16)] * 3


# Small memory


@pytest.mark.parametrize("kind", ["dc", "kl"])
def test_slicing_and_tiling_of_the_autoencoder(build_pipe, kind):
    pipe = build_pipe(kind)
    whole = pictures(pipe)
    pipe.enable_vae_slicing()
    assert pipe.vae.use_slicing and torch.allclose(pictures(pipe), whole, atol=1e-5)
    pipe.disable_vae_slicing()
    pipe.enable_vae_tiling()
    assert not pipe.vae.use_slicing and pipe.vae.use_tiling
    pipe.disable_vae_tiling()
    assert torch.equal(pictures(pipe), whole)


def test_offload_paints_the_same_twice_and_copies_no_other_part(build_pipe, adapter_path):
    pipe, plain = build_pipe(adapter=adapter_path), build_pipe(adapter=adapter_path)
    expected = {alpha: pictures(plain, lora_alpha=alpha) for alpha in (0, 10, 32)}
    pipe.enable_model_cpu_offload(device="cpu")  # where there is no GPU, the hooks alone
    for _ in range(2):
        for alpha, images in expected.items():
            assert torch.equal(pictures(pipe, lora_alpha=alpha), images)
    twin = pipe._adapted.under(pipe.unet, 32.0)
    assert twin is not pipe.unet and twin._hf_hook.prev_module_hook.model is pipe.text_encoder
    told = pipe(CAPTIONS[:1], num_frames=2, num_inference_steps=1, generator=torch.Generator().manual_seed(1))
    assert len(told.captions[0]) == 2
    pipe.remove_all_hooks()  # the captioner is that of all tests


def test_what_takes_the_weights_away_is_refused_by_its_name(build_pipe, adapter_path):
    pipe = build_pipe(adapter=adapter_path)
    expected = pictures(pipe, lora_alpha=0)
    pipe.register_modules(captioner=None, captioner_tokenizer=None)  # they are those of all tests
    pipe.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(pictures(pipe, lora_alpha=0), expected)
    other = build_pipe(adapter=adapter_path)
    other.register_modules(captioner=None, captioner_tokenizer=None)
    other.enable_sequential_cpu_offload(device="cpu")
    for taken in (pipe, other):
        with pytest.raises(ValueError, match="enable_model_cpu_offload"):
            paint(taken, lora_alpha=32)


def test_a_compiled_unet_paints_under_alpha(build_pipe, adapter_path):
    one = {"num_inference_steps": 1, "lora_alpha": 32}
    expected = pictures(build_pipe(adapter=adapter_path), **one)
    outer, inner = build_pipe(adapter=adapter_path), build_pipe(adapter=adapter_path)
    outer.unet = torch.compile(outer.unet, backend="eager")
    inner.unet.compile(backend="eager")  # in its place: the copy under an alpha is not compiled
    for pipe in (outer, inner):
        assert torch.allclose(pictures(pipe, **one), expected, atol=1e-5)
    assert type(outer._adapted.under(outer.unet, 32.0)) is type(outer.unet)


def test_variants_and_types(build_pipe, adapter_path, tmp_path):
    build_pipe(adapter=adapter_path).to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    for name in ("dtype", "torch_dtype"):
        pipe = SAGANetsPipeline.from_pretrained(tmp_path, variant="fp16", **{name: torch.bfloat16})
        assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    kinds = {"unet": torch.float16, "default": torch.float32}
    assert SAGANetsPipeline.from_pretrained(tmp_path, variant="fp16", dtype=kinds).unet.dtype == torch.float16
    with pytest.raises(ValueError, match="variant=bf16"):
        SAGANetsPipeline.from_pretrained(tmp_path, variant="bf16")


def test_a_device_map(build_pipe, adapter_path, tmp_path):
    plain = build_pipe(adapter=adapter_path)
    plain.save_pretrained(tmp_path)
    mapped = SAGANetsPipeline.from_pretrained(tmp_path, device_map="cpu")
    assert mapped.hf_device_map == "cpu" or set(mapped.hf_device_map.values()) == {"cpu"}
    assert torch.equal(pictures(mapped, lora_alpha=32), pictures(plain, lora_alpha=32))
    with pytest.raises(NotImplementedError, match="not supported"):
        SAGANetsPipeline.from_pretrained(tmp_path, device_map="auto")
