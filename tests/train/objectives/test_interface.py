"""What all objectives have in common, asked of each."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import load_file

from train.adapter import save_adapter
from train.saganets import main


OBJECTIVES = {
    "gan": "--objective gan --l_adv 1 --l_story 0.5 --l_img 1 --l_clip 0.1 --l_char 0.1 --gan_steps 2".split(),
    "distilled": "--objective gan --l_adv 0.1 --l_dmd 1 --gan_steps 2 --init_lora ADAPTER".split(),
    "combined": "--objective combined --l_adv 0.1 --l_clip 0.1 --l_char 0.1 --l_coher 0.1 --balance gradients".split(),
    "temporal": ["--objective", "temporal", "--l_coher", "0.1"],
    "clip": ["--objective", "clip", "--l_clip", "0.1", "--l_char", "0.1", "--decoded", "4"],
}


@pytest.fixture(params=OBJECTIVES)
def objective(request, tiny_adapter) -> list[str]:
    return [flag.replace("ADAPTER", str(tiny_adapter)) for flag in OBJECTIVES[request.param]]


def weights_in(flags: list[str]) -> list[str]:
    return [flag for flag in flags if flag.startswith("--l_")]


def run(arguments: list[str]) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    main(arguments)


def everything(out) -> dict[str, torch.Tensor]:
    """All tensors of a run's checkpoint and its adapter, by their place."""
    found = dict(load_file(out / "tiny.safetensors"))

    def visit(value, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, (dict, list, tuple)):
            for key, each in value.items() if isinstance(value, dict) else enumerate(value):
                visit(each, f"{name}.{key}")

    visit(torch.load(out / "run" / "checkpoint.pt", weights_only=True), "checkpoint")
    return found


def test_trains_logs_every_term_and_resumes_exactly(flags, tmp_path, objective):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(flags(whole, *objective))
    for seconds in (0.001, 0.1, 1, 60):  # until a step is done, of two
        run(flags(stopped, *objective, "--max_seconds", str(seconds)))
        if torch.load(stopped / "run" / "checkpoint.pt", weights_only=True)["step"]:
            break
    run(flags(stopped, *objective))
    a, b = everything(whole), everything(stopped)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert any(value.any() for key, value in a.items() if ".lora_B." in key)
    with safe_open(whole / "tiny.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["objective"] == objective[1]
    few = {"num_inference_steps": "2", "guidance_scale": "1.0"}
    assert few.items() <= header.items() if objective[1] == "gan" else not few.keys() & header.keys()
    line = json.loads((whole / "run" / "log.jsonl").read_text().splitlines()[-1])
    terms = {f"term_{flag.removeprefix('--l_')}" for flag in weights_in(objective)}
    assert terms <= line.keys() and line["loss"] == line["painter_loss"] != 0


def test_the_base_stays_and_the_adapter_learns(make_coordinated, objective):
    trained = make_coordinated(*objective)
    painter = trained.painter
    before = {name: value.clone() for name, value in painter.unet.state_dict().items()}
    trained.loss(0)["loss"].backward()
    for name, value in painter.unet.state_dict().items():
        assert ".fake." in name or torch.equal(value, before[name]), name
    learning = {id(parameter) for parameter in painter.parameters}
    for parameter_name, parameter in painter.unet.named_parameters():
        if id(parameter) in learning:
            assert parameter.grad is not None, parameter_name
        else:
            assert parameter.grad is None, parameter_name
    assert any(parameter.grad.any() for parameter in painter.parameters)
    if painter._vae is not None:
        assert all(parameter.grad is None for parameter in painter.vae.parameters())


def test_a_weight_of_zero_builds_nothing(make_coordinated, objective):
    weights, name = weights_in(objective), objective[1]
    whole = make_coordinated(*objective).painter.objective
    assert set(whole.terms) == {flag.removeprefix("--l_") for flag in weights}
    if len(weights) > 1:
        less = make_coordinated(*objective, weights[0], "0").painter.objective
        assert set(less.terms) == set(whole.terms) - {weights[0].removeprefix("--l_")}
    with pytest.raises(ValueError, match=f"`objective` '{name}' needs a weight above 0"):
        make_coordinated("--objective", name)


def test_the_log_adds_up(make_coordinated):
    trained = make_coordinated(*OBJECTIVES["clip"])
    losses = trained.loss(0)
    expected = losses["term_l2"] + 0.1 * losses["term_clip"] + 0.1 * losses["term_char"]
    assert float(losses["painter_loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(losses["loss"]) == float(losses["painter_loss"])


def test_the_same_batches_are_watched_at_every_validation(make_coordinated, flags, tmp_path):
    trained = make_coordinated(*OBJECTIVES["clip"])
    found = trained.fixed_losses()
    assert found == trained.fixed_losses()
    expected = found["fixed_term_l2"] + 0.1 * found["fixed_term_clip"] + 0.1 * found["fixed_term_char"]
    assert found["fixed_loss"] == pytest.approx(expected, rel=1e-4)
    assert not any(parameter.grad is not None for parameter in trained.painter.parameters)
    run(flags(tmp_path / "out", *OBJECTIVES["temporal"], "--validation_steps", "1"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "run" / "validation.jsonl").read_text().splitlines()]
    assert lines[0]["fixed_loss"] != lines[1]["fixed_loss"]  # the adapter has moved, nothing else


@pytest.mark.parametrize(("name", "more"), [("combined", []), ("combined", ["--l_adv", "0"]), ("gan", [])])
def test_what_trains_a_network_of_its_own_or_moves_its_weights_is_not_watched(make_coordinated, name, more):
    assert make_coordinated(*OBJECTIVES[name], *more).fixed_losses() == {}


def test_whole_stories_have_to_divide(make_coordinated):
    with pytest.raises(ValueError, match="whole stories of 4"):
        make_coordinated(*OBJECTIVES["temporal"], "--batch_size", "6")
    with pytest.raises(ValueError, match="`decoded` is 3"):
        make_coordinated(*OBJECTIVES["clip"], "--decoded", "3")


def test_stories_are_whole_and_share_a_timestep(make_coordinated):
    trained = make_coordinated(*OBJECTIVES["temporal"])
    batch = trained.painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    stories = trained.stories.stories
    assert batch.clips[:4] in stories and batch.clips[4:] in stories
    assert all(len(set(each)) == 1 for each in batch.timesteps.view(2, 4).tolist())
    assert {round(moment * 74) for moment in batch.moments} <= {24, 54} and not any(batch.mirrored)


def test_begins_from_an_adapter(make_coordinated, flags, tmp_path, tiny_adapter):
    plain = make_coordinated(*OBJECTIVES["temporal"])
    begun = make_coordinated(*OBJECTIVES["temporal"], "--init_lora", str(tiny_adapter))
    state = load_file(tiny_adapter)
    for name, module in begun.painter.unet.named_modules():
        if hasattr(module, "lora_A"):
            # the file was trained at alpha 32, this run at 8: the change of the weights is the same
            assert torch.equal(module.lora_A["default"].weight, state[f"unet.{name}.lora_A.weight"])
            assert torch.allclose(module.lora_B["default"].weight, 4 * state[f"unet.{name}.lora_B.weight"])
    assert float(begun.loss(0)["loss"].detach()) != float(plain.loss(0)["loss"].detach())
    assert begun.facts(1, {})["init_lora"] == tiny_adapter.name and "init_lora" not in plain.facts(1, {})
    for more, message in ((["--rank", "8"], "rank 4"), (["--lora_targets", "to_q"], "leaves out")):
        with pytest.raises(ValueError, match=message):
            make_coordinated(*OBJECTIVES["temporal"], "--init_lora", str(tiny_adapter), *more)
    layers = {name for name, module in begun.painter.unet.named_modules() if hasattr(module, "lora_A")}
    assert layers == {name.split(".", 1)[1].rsplit(".lora_", 1)[0] for name in state}
    with pytest.raises(ValueError, match="no layer whose name ends in 'to_x'"):
        make_coordinated("--lora_targets", "to_q,to_x")


def test_an_adapter_is_widened_and_goes_on_as_wide_as_it_is(make_coordinated, tmp_path, tiny_adapter):
    """Layers that it gets anew change nothing at first; without `lora_targets` the next training has all of them."""
    more = ["--init_lora", str(tiny_adapter), "--lora_targets", "to_q,to_k,to_v,to_out.0,conv1,proj_in"]
    narrow, wide = make_coordinated(*more[:2]), make_coordinated(*more)
    draws = narrow.draws(0).painter
    losses = [float(each.painter.loss(draws, slice(0, 8)).detach()) for each in (narrow, wide)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    with torch.no_grad():
        for parameter in wide.painter.parameters:
            parameter += 0.01
    path = tmp_path / "wide.safetensors"
    save_adapter(wide.painter.unet, wide.painter.lora, path, {})
    shapes = {tensor.dim() for name, tensor in load_file(path).items() if "conv1" in name}
    assert shapes == {4}
    again = make_coordinated("--init_lora", str(path))
    assert len(again.painter.parameters) == len(wide.painter.parameters) > len(narrow.painter.parameters)
    rounded = float(wide.painter.loss(draws, slice(0, 8)).detach())
    assert float(again.painter.loss(draws, slice(0, 8)).detach()) == pytest.approx(rounded, rel=1e-3)


def test_plain_diffusion_is_as_it_was(make_coordinated):
    """The same loss, by the formula of `diffusion_loss` on the same draws."""
    trained = make_coordinated()
    assert trained.painter.objective is None
    losses = trained.loss(0)
    assert set(losses) == {"painter_loss", "loss"}
    assert float(losses["loss"]) == float(trained.painter.loss(trained.draws(0).painter, slice(0, 8)))
