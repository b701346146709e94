"""Coordinated training on a base of tiny random networks, saved and opened as the real one."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from train.saganets import LORA_TARGETS, add_lora, git_commit, lora_parameters, main


RANK, ALPHA, STEPS = 4, 8.0, 6


def arguments(release_folder, base, out, *more: str) -> list[str]:
    lengths = ["--painter_steps", str(STEPS), "--captioner_steps", str(STEPS), "--batch_size", "4"]
    adapter = ["--rank", str(RANK), "--alpha", str(ALPHA), "--name", "tiny", "--learning_rate", "0.1"]
    return ["--data", str(release_folder), "--base", str(base), "--out", str(out), *lengths, *adapter, *more]


@pytest.fixture(scope="module")
def show(make_release, tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("show") / "gulch", size=16, clips=8, frames=5)


@pytest.fixture(scope="module")
def trained(show, tiny_base, tmp_path_factory):
    """The output of a whole run of both modules, and the base's files before it."""
    before = files(tiny_base)
    out = tmp_path_factory.mktemp("trained")
    main(arguments(show, tiny_base, out))
    return out, before


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def base_unet(base) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32).eval()


@torch.no_grad()
def predict(unet: UNet2DConditionModel) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    x, states = torch.randn((2, 4, 8, 8), generator=draw), torch.randn((2, 5, 16), generator=draw)
    return unet(x, 500, states).sample


def test_lora_is_on_every_projection_of_the_paper_and_nothing_else_learns(tiny_base):
    unet = base_unet(tiny_base)
    state = torch.get_rng_state()
    plain = predict(unet)
    add_lora(unet, RANK, ALPHA, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(predict(unet), plain)  # B is zero
    adapted = {name for name, module in unet.named_modules() if hasattr(module, "lora_A")}
    expected = {name for name, _ in unet.named_modules() if name.rsplit(".", 1)[-1] in LORA_TARGETS}
    assert adapted == expected and any(".attn1." in name for name in adapted) and any(".attn2." in n for n in adapted)
    learning = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert learning and all(".lora_" in name for name in learning) and len(learning) == 2 * len(adapted)
    assert len(lora_parameters(unet)) == len(learning)


def test_b_moved_and_the_base_did_not(trained, tiny_base):
    out, before = trained
    assert files(tiny_base) == before
    state = load_file(out / "tiny.safetensors")
    b = [value for name, value in state.items() if ".lora_B." in name]
    assert b and all(value.abs().sum() > 0 and value.isfinite().all() for value in b)
    assert all(value.shape[1] == RANK and value.dtype == torch.float16 for value in b)
    checkpoint = torch.load(out / "painter_run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == STEPS and set(checkpoint["modules"]) == {"lora"}


def test_the_adapter_opens_in_diffusers_with_its_alpha(trained, tiny_base):
    """A plain load computes W0 + (alpha / r) B A, here written out by hand."""
    out, _ = trained
    unet, by_hand = base_unet(tiny_base), base_unet(tiny_base)
    plain = predict(unet)
    unet.load_lora_adapter(str(out), weight_name="tiny.safetensors", prefix="unet")
    (config,) = unet.peft_config.values()
    assert (config.r, config.lora_alpha) == (RANK, ALPHA)
    state = load_file(out / "tiny.safetensors")
    for name in {name.split(".lora_")[0] for name in state}:
        a, b = (state[f"{name}.lora_{half}.weight"].float() for half in "AB")
        with torch.no_grad():
            by_hand.get_submodule(name.removeprefix("unet.")).weight += ALPHA / RANK * (b @ a)
    assert torch.allclose(predict(unet), predict(by_hand), atol=1e-4)
    assert not torch.allclose(predict(unet), plain, atol=1e-3)


def test_the_adapter_opens_in_peft(trained, tiny_base):
    out, _ = trained
    unet = base_unet(tiny_base)
    add_lora(unet, RANK, ALPHA, seed=5)
    state = {name.removeprefix("unet."): value for name, value in load_file(out / "tiny.safetensors").items()}
    found = set_peft_model_state_dict(unet, state)
    assert not found.unexpected_keys and not [name for name in found.missing_keys if "lora_" in name]


def test_the_header_says_what_made_it(trained, show):
    out, _ = trained
    with safe_open(out / "tiny.safetensors", framework="pt") as file:
        header = file.metadata()
    expected = {"objective": "diffusion", "dataset": show.name, "r": "4", "lora_alpha": "8.0", "steps": str(STEPS)}
    assert expected.items() <= header.items() and header["commit"] == git_commit() and header["torch"]
    metadata = json.loads(header["lora_adapter_metadata"])
    assert metadata["unet.r"] == RANK and metadata["unet.lora_alpha"] == ALPHA
    assert metadata["unet.target_modules"] == sorted(LORA_TARGETS)


def test_the_captioner_learnt_and_opens(trained, tiny_base):
    out, _ = trained
    captioner = GPT2LMHeadModel.from_pretrained(out / "captioner", dtype=torch.float16)
    tokenizer = GPT2Tokenizer.from_pretrained(out / "captioner")
    assert len(tokenizer) == captioner.config.vocab_size
    base = GPT2LMHeadModel.from_pretrained(tiny_base / "captioner", dtype=torch.float16)
    assert any(not torch.equal(a, b) for a, b in zip(captioner.parameters(), base.parameters(), strict=True))
    (line,) = (out / "captioner_run" / "validation.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == STEPS and json.loads(line)["loss"] > 0
    assert (out / "captioner_run" / "samples" / f"{STEPS:06d}.txt").read_text().count("->") == 8
    assert (out / "painter_run" / "samples" / f"{STEPS:06d}.png").stat().st_size > 0


@pytest.mark.parametrize(("module", "result"), [("painter", "tiny.safetensors"), ("captioner", "captioner")])
def test_each_module_alone_stopped_and_resumed_is_the_same(trained, show, tiny_base, tmp_path, module, result):
    """Stopped by the clock again and again, in the middle of the schedule, each time with new objects."""
    whole, _ = trained
    for _ in range(50):
        main(arguments(show, tiny_base, tmp_path, "--modules", module, "--max_seconds", "0.02"))
        if torch.load(tmp_path / f"{module}_run" / "checkpoint.pt", weights_only=True)["step"] == STEPS:
            break
    weights = "tiny.safetensors" if module == "painter" else "captioner/model.safetensors"
    resumed, expected = load_file(tmp_path / weights), load_file(whole / weights)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {f"{module}_run", result}
