"""Coordinated training on a base of tiny random networks, saved and opened as the real one."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft.utils import set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, GPT2Tokenizer, pipeline

from train.adapter import LORA_TARGETS, add_lora, git_commit, lora_parameters
from train.captioner import Captioner
from train.config import PRESETS, parse_config
from train.data.flintstones import FlintstonesRelease
from train.data.gravel_gulch.script import told
from train.saganets import OVER, Coordinated, main


ROOT = Path(__file__).parents[2]
RANK, ALPHA, STEPS = 4, 8.0, 6


def arguments(release_folder, base, out, *more: str) -> list[str]:
    lengths = ["--steps", str(STEPS), "--batch_size", "4", "--schedule", "cosine", "--ema_decay", "0.5"]
    adapter = ["--rank", str(RANK), "--alpha", str(ALPHA), "--name", "tiny", "--learning_rate", "0.1"]
    places = ["--data", str(release_folder), "--base", str(base), "--out", str(out), "--cpu"]
    return [*places, *lengths, *adapter, "--captioner_learning_rate", "0.01", *more]


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Each run is a process of its own outside of these tests; accelerate keeps its state for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)


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
    checkpoint = torch.load(out / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == STEPS and set(checkpoint["modules"]) == {"painter", "captioner"}
    assert all(name.isdigit() for name in checkpoint["modules"]["painter"])  # the matrices alone, not the UNet


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
    auto = AutoModelForCausalLM.from_pretrained(out / "captioner", dtype=torch.float16)
    assert all(torch.equal(a, b) for a, b in zip(captioner.parameters(), auto.parameters(), strict=True))
    writer = pipeline("text-generation", model=str(out / "captioner"), dtype=torch.float32)
    (written,) = writer("[S_1] Gus is in the kitchen. [S_NEXT]", max_new_tokens=4, do_sample=False)
    assert written["generated_text"].startswith("[S_1] Gus is in the kitchen. [S_NEXT]")
    base = GPT2LMHeadModel.from_pretrained(tiny_base / "captioner", dtype=torch.float16)
    assert any(not torch.equal(a, b) for a, b in zip(captioner.parameters(), base.parameters(), strict=True))
    (line,) = (out / "run" / "validation.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == STEPS
    assert json.loads(line)["captioner_loss"] > 0 and json.loads(line)["painter_loss"] > 0
    samples = out / "run" / "samples"
    assert (samples / f"{STEPS:06d}.txt").read_text().count("->") == 8
    picture = Image.open(samples / f"{STEPS:06d}.png")
    assert picture.height * 4 == picture.width * 3  # three alphas of a story of four frames
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["rank"] == RANK and config["processes"] == 1 and config["torch"]


def weights(out) -> dict[str, torch.Tensor]:
    return {**load_file(out / "tiny.safetensors"), **load_file(out / "captioner" / "model.safetensors")}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_stopped_and_resumed_is_the_same(trained, show, tiny_base, tmp_path):
    """Stopped by the clock again and again, in the middle of the schedule, each time with new objects."""
    whole, _ = trained
    for _ in range(50):
        main(arguments(show, tiny_base, tmp_path, "--max_seconds", "0.02"))
        over = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == STEPS
        assert (tmp_path / "run" / OVER).exists() == over
        if over:
            break
    assert same(weights(tmp_path), weights(whole))


@pytest.mark.parametrize("module", ["painter", "captioner"])
def test_each_module_alone_learns_the_same(trained, show, tiny_base, tmp_path, module):
    whole, _ = trained
    main(arguments(show, tiny_base, tmp_path, "--modules", module))
    name = "tiny.safetensors" if module == "painter" else "captioner/model.safetensors"
    assert same(load_file(tmp_path / name), load_file(whole / name))
    assert (tmp_path / "tiny.safetensors").exists() == (module == "painter")
    assert (tmp_path / "captioner").exists() == (module == "captioner")


def losses(out) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]


def one_step_further(whole, out) -> list[str]:
    """Flags of a run that goes on from the end of `whole` by one step. Both matrices have moved by then, so that the
    step's gradient norm is of both; Adam would blow rounding up over several, and hide a share that is left out."""
    shutil.copytree(whole / "run", out / "run")
    return ["--steps", str(STEPS + 1)]


@pytest.fixture(scope="module")
def next_step(trained, show, tiny_base, tmp_path_factory):
    """The losses of one more step, in one process and one part."""
    out = tmp_path_factory.mktemp("next_step")
    main(arguments(show, tiny_base, out, *one_step_further(trained[0], out)))
    return losses(out)[-1]


def same_step(a: dict[str, float], b: dict[str, float]) -> bool:
    names = ("step", "painter_loss", "captioner_loss", "grad_norm")
    return a["step"] == STEPS + 1 and all(b[name] == pytest.approx(a[name], rel=2e-5) for name in names)


def test_accumulated_parts_are_the_same_batch(trained, next_step, show, tiny_base, tmp_path):
    more = one_step_further(trained[0], tmp_path)
    main(arguments(show, tiny_base, tmp_path, *more, "--accumulation", "2"))
    assert same_step(next_step, losses(tmp_path)[-1])


def test_two_processes_are_the_same_batch(trained, next_step, show, tiny_base, tmp_path):
    more = one_step_further(trained[0], tmp_path)
    script = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*script, "train.saganets", *arguments(show, tiny_base, tmp_path, *more)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "config.json").read_text())["processes"] == 2
    assert same_step(next_step, losses(tmp_path)[-1])


def child(*flags: str, limit: int | None = None) -> subprocess.Popen:
    """The trainer in a process of its own, with a limit to the size of the files that it may write."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "train.saganets", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=None if limit is None else no_room,
    )


def test_sigterm_leaves_a_checkpoint_and_no_error(show, tiny_base, tmp_path):
    process = child(*arguments(show, tiny_base, tmp_path, "--steps", "100000"))
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 200
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors[-2000:]
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] >= 10


def test_killed_and_resumed_is_the_same(show, tiny_base, tmp_path):
    """kill -9 as soon as there is a checkpoint, somewhere in the run; then on to its end."""
    flags = ["--steps", "40", "--checkpoint_seconds", "0"]
    main(arguments(show, tiny_base, tmp_path / "whole", *flags))
    killed, path = tmp_path / "killed", tmp_path / "killed" / "run" / "checkpoint.pt"
    process = child(*arguments(show, tiny_base, killed, *flags))
    deadline = time.monotonic() + 200
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= torch.load(path, weights_only=True)["step"] < 40
    main(arguments(show, tiny_base, killed, *flags))
    assert same(weights(killed), weights(tmp_path / "whole"))


def test_no_room_for_a_checkpoint_leaves_the_last_one(trained, show, tiny_base, tmp_path):
    whole, _ = trained
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    checkpoint = tmp_path / "run" / "run" / "checkpoint.pt"
    before = checkpoint.read_bytes()
    flags = arguments(show, tiny_base, tmp_path / "run", "--steps", str(STEPS + 20), "--checkpoint_seconds", "0")
    process = child(*flags, limit=len(before) // 2)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1 and "cannot be written" in errors and "the last good one is intact" in errors
    assert checkpoint.read_bytes() == before and list(checkpoint.parent.glob("*.tmp")) == []


def test_the_kohya_file_holds_the_true_alpha_and_paints_the_same(trained, show, tiny_base, tmp_path):
    whole, _ = trained
    main(arguments(show, tiny_base, tmp_path, "--modules", "painter", "--format", "kohya"))
    state = load_file(tmp_path / "tiny.safetensors")
    assert all(name.startswith("lora_unet_") for name in state)
    assert {float(value) for name, value in state.items() if name.endswith(".alpha")} == {ALPHA}
    unet, peft = base_unet(tiny_base), base_unet(tiny_base)
    peft.load_lora_adapter(str(whole), weight_name="tiny.safetensors", prefix="unet")
    converted, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(
        str(tmp_path), weight_name="tiny.safetensors", unet_config=unet.config
    )
    StableDiffusionLoraLoaderMixin.load_lora_into_unet(converted, alphas, unet)
    assert torch.allclose(predict(unet), predict(peft), atol=1e-4)
    assert not torch.allclose(predict(unet), predict(base_unet(tiny_base)), atol=1e-3)


def test_every_story_comes_once_an_epoch_and_draws_follow_from_the_step(show, tiny_base, tmp_path):
    config = parse_config(arguments(show, tiny_base, tmp_path))
    trained = Coordinated(config, Accelerator(cpu=True))
    state = torch.get_rng_state()
    firsts = [e for step in range(trained.steps_per_epoch) for e in trained.draws(step).examples]
    assert torch.equal(state, torch.get_rng_state())
    again = trained.draws(1)
    trained.draws(2)
    assert trained.draws(1).examples == again.examples and torch.equal(
        trained.draws(1).painter.noise, again.painter.noise
    )
    stories = trained.stories.stories
    starts = [story[0] for e in firsts for story in stories if story[len(e.captions)] == e.clip_id]
    assert len(set(starts)) == len(starts) == trained.steps_per_epoch * 4
    lengths = [len(e.captions) for step in range(40) for e in trained.draws(step).examples]
    assert set(lengths) == {0, 1, 2, 3}


def test_targets_with_more_people_are_drawn_oftener(show, tiny_base, tmp_path):
    trained = Coordinated(parse_config(arguments(show, tiny_base, tmp_path, "--crowds", "2")), Accelerator(cpu=True))
    story = trained.stories.stories[0]
    trained.release.clip(story[1]).characters[:] = ["gus", "mabel", "otto"]
    generator = torch.Generator().manual_seed(0)
    share = trained._lengths([0] * 1000, generator).count(1) / 1000
    assert share == pytest.approx(9 / 12, abs=0.04)  # 3 ** 2 against three times 1


def test_targets_with_rare_regulars_are_drawn_oftener(show, tiny_base, tmp_path):
    flags = ("--rare", "1", "--modules", "captioner")
    trained = Coordinated(parse_config(arguments(show, tiny_base, tmp_path, *flags)), Accelerator(cpu=True))
    for clips in trained.stories.stories:
        for id in clips:
            trained.release.clip(id).characters[:] = ["gus"]
    rare = trained.stories.stories[0][1]
    trained.release.clip(rare).characters[:] = ["gus", "pip"]
    trained.rarity = {"gus": 1.0, "pip": 20.0}
    targets = [e.clip_id for step in range(600) for e in trained.draws(step).examples]
    stories = trained.stories.stories
    weights = {
        id: sum(id in story for story in stories) * (20 if id == rare else 1) for story in stories for id in story
    }
    assert targets.count(rare) / len(targets) == pytest.approx(weights[rare] / sum(weights.values()), abs=0.05)
    assert trained.draws(3).examples == trained.draws(3).examples


def test_targets_of_which_something_rare_is_told_are_drawn_oftener(show, tiny_base, tmp_path):
    flags = ("--rare_told", "0.5", "--modules", "captioner")
    trained = Coordinated(parse_config(arguments(show, tiny_base, tmp_path, *flags)), Accelerator(cpu=True))
    said = [told(trained.release.clip(id).caption) for id in trained.release.splits["train"]]
    seen = Counter(name for names in said for name in names)
    assert trained.rarity_told == {name: max(seen.values()) / seen[name] for name in seen}
    stories = trained.stories.stories
    rare = stories[0][1]
    trained.release.records[rare] = replace(trained.release.clip(rare), caption="Gus is sleeping.")
    trained.rarity_told = {"sleeping": 400.0}
    targets = [e.clip_id for step in range(600) for e in trained.draws(step).examples]
    weights = {
        id: sum(id in story for story in stories) * (20 if id == rare else 1) for story in stories for id in story
    }
    assert targets.count(rare) / len(targets) == pytest.approx(weights[rare] / sum(weights.values()), abs=0.05)


def test_what_is_to_be_told_oftener_is(show, tiny_base, tmp_path):
    flags = ("--modules", "captioner", "--oftener")
    trained = Coordinated(
        parse_config(arguments(show, tiny_base, tmp_path, *flags, "sleeping=20, ball=3")), Accelerator(cpu=True)
    )
    stories = trained.stories.stories
    often = stories[0][1]
    trained.release.records[often] = replace(trained.release.clip(often), caption="Gus is sleeping with a ball.")
    targets = [e.clip_id for step in range(600) for e in trained.draws(step).examples]
    weights = {
        id: sum(id in story for story in stories) * (20 if id == often else 1) for story in stories for id in story
    }
    assert targets.count(often) / len(targets) == pytest.approx(weights[often] / sum(weights.values()), abs=0.05)
    for wrong, message in (
        ("sleeping", "each part must be a name, = and a number"),
        ("snoring=2", "names 'snoring'; accepted are standing, talking"),
        ("sleeping=0", "the number must be above 0"),
        ("sleeping=inf", "the number must be above 0"),
    ):
        with pytest.raises(SystemExit):
            parse_config(arguments(show, tiny_base, tmp_path, *flags, wrong))
        with pytest.raises(ValueError, match=message):
            replace(trained.config, oftener=wrong)


def test_how_rare_the_regulars_are(show, tiny_base, tmp_path):
    trained = Coordinated(parse_config(arguments(show, tiny_base, tmp_path)), Accelerator(cpu=True))
    seen = [name for id in trained.release.splits["train"] for name in trained.release.clip(id).characters]
    most = max(seen.count(name.lower()) for name in trained.release.cast)
    assert trained.rarity == {
        name.lower(): most / seen.count(name.lower()) for name in trained.release.cast if name.lower() in seen
    }
    assert min(trained.rarity.values()) == 1


def test_more_of_the_recipe_runs(show, tiny_base, tmp_path, make_release):
    """Prior preservation, noise offset, dropouts, mirroring, checkpointed gradients, bf16, a tracker, epochs."""
    prior = make_release(tmp_path / "town", size=16, clips=6, frames=5)
    more = ["--prior", str(prior), "--noise_offset", "0.1", "--caption_dropout", "0.2", "--lora_dropout", "0.1"]
    more += [
        "--mirror",
        "true",
        "--gradient_checkpointing",
        "--mixed_precision",
        "bf16",
        "--report_to",
        "tensorboard",
    ]
    out = tmp_path / "out"
    main(arguments(show, tiny_base, out, *more, "--epoch_adapters", "--steps", "0", "--epochs", "1"))
    (line,) = losses(out)
    assert line["prior_loss"] > 0 and line["pictures_a_second"] > 0
    assert (out / "epochs" / "01" / "tiny.safetensors").exists()
    assert list((out / "saganets").glob("events.*"))


def test_early_stopping_leaves_the_best(show, tiny_base, tmp_path):
    """At this rate the loss falls for a while, and soon rises by more than it fell."""
    stopping = ["--steps", "400", "--validation_steps", "2", "--patience", "2", "--captioner_learning_rate", "0.1"]
    watch = ["--watch", "captioner_loss", "--schedule", "constant"]
    main(arguments(show, tiny_base, tmp_path, "--modules", "captioner", *watch, *stopping))
    found = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    values = [line["captioner_loss"] for line in found]
    best = values.index(min(values))
    assert len(values) == best + 3  # and two that were no better
    assert json.loads((tmp_path / "run" / OVER).read_text()) == {"step": 2 * len(values), "of": 400}
    config = parse_config(arguments(show, tmp_path, tmp_path, "--captioner", str(tmp_path / "captioner")))
    left = Captioner(config, FlintstonesRelease(show), Accelerator(cpu=True))
    assert left.validate(config.validation_stories) == pytest.approx(values[best], rel=2e-3)  # fp16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "0"], "`batch_size` is 0"),
        (["--alpha", "0"], "`alpha`"),
        (["--caption_dropout", "1"], "`caption_dropout`"),
        (["--modules", "vae"], "--modules"),
        (["--config", "no_such"], "no preset"),
        (["--rank", "many"], "--rank"),
    ],
)
def test_bad_settings_are_named(show, tiny_base, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as failure:
        main(arguments(show, tiny_base, tmp_path, *flags))
    assert failure.value.code == 2 and message in capsys.readouterr().err


def test_a_batch_that_does_not_divide(show, tiny_base, tmp_path):
    with pytest.raises(ValueError, match="`batch_size` 4 does not divide"):
        main(arguments(show, tiny_base, tmp_path, "--accumulation", "3"))
    with pytest.raises(ValueError, match="`batch_size` is 400"):
        main(arguments(show, tiny_base, tmp_path, "--batch_size", "400"))


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharding_is_refused(show, tiny_base, tmp_path, kind):
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type = DistributedType[kind]
    with pytest.raises(ValueError, match=f"`accelerate` is configured for {kind}"):
        Coordinated(parse_config(arguments(show, tiny_base, tmp_path)), accelerator)


def test_a_run_is_not_overwritten(trained, show, tiny_base):
    whole, _ = trained
    with pytest.raises(ValueError, match="'never'"):
        main(arguments(show, tiny_base, whole, "--resume", "never"))


def test_yaml_and_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: a\nbase: b\nrank: 8\nmirror: false\nlearning_rate: 1.0e-3\n")
    config = parse_config(["--config", str(path), "--rank", "16"])
    assert (config.data, config.rank, config.mirror, config.learning_rate) == ("a", 16, False, 1e-3)
    path.write_text("rnak: 8\n")
    with pytest.raises(SystemExit):
        parse_config(["--config", str(path), "--data", "a", "--base", "b"])


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_presets_are_read(preset):
    config = parse_config(["--config", preset, "--data", "a", "--base", "b"])
    assert (config.rank, config.alpha) == (32, 32)
