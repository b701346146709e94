"""The whole way: published to a Hub on loopback, and opened by id in processes of their own with an empty cache."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from hub_server import Fault, HubServer
from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.lora import Adapter
from train.publish.__main__ import main
from train.publish.push import MODEL_FILES, push


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# the lines for other people's code, and the id that they name
(LINES,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "DiffusionPipeline.from" in code]
(GULCH,) = re.findall(r'from_pretrained\("([^"]+)"', LINES)
PREFIX = ["Gus is in the kitchen."]
TELL = """
import sys, torch

def tell(pipe, prefix=["Gus is in the kitchen."], **arguments):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(7)
    out = pipe(prefix, num_frames=2, num_inference_steps=2, generator=generator, output_type="latent", **arguments)
    return {"images": torch.stack(out.images[0]), "captions": out.captions[0]}

"""
# nothing of this repository is there
STOCK = """
from diffusers import DiffusionPipeline

new = DiffusionPipeline.from_pretrained(GULCH, trust_remote_code=True)
old = DiffusionPipeline.from_pretrained(GULCH, revision=sys.argv[2], trust_remote_code=True)
full = {"dtype": torch.float32}  # the base's files are in half precision
custom = DiffusionPipeline.from_pretrained("tester/sd", custom_pipeline=GULCH, trust_remote_code=True, **full)
custom.load_adapter("tester/tiny/lora_weights/tiny.safetensors")
named = DiffusionPipeline.from_pretrained("tester/tiny", trust_remote_code=True)
assert type(named.safety_checker).__name__ == "StableDiffusionSafetyChecker" and "sagan_pipeline" not in sys.modules
told = {"new": tell(new), "old": tell(old), "named": tell(named)}
told["custom"] = tell(custom, told["named"]["captions"])
torch.save(told, sys.argv[1])

exec(sys.argv[3])
assert [frame.image.size for frame in story.frames] == [(256, 256)] * 4
"""
OURS = """
from sagan_pipeline import SAGANetsPipeline

named = SAGANetsPipeline.from_pretrained("tester/tiny")
lora = "tester/tiny/lora_weights/tiny.safetensors"
built = SAGANetsPipeline.from_base("tester/sd", captioner="tester/captioner", lora=lora)
told = {"new": tell(SAGANetsPipeline.from_pretrained(GULCH)), "named": tell(named), "built": tell(built)}
from huggingface_hub import constants
constants.HF_HUB_OFFLINE = True
told["offline"] = tell(SAGANetsPipeline.from_pretrained("tester/tiny"))
torch.save(told, sys.argv[1])
"""


def tell(pipe: SAGANetsPipeline) -> dict:
    generator = torch.Generator().manual_seed(7)
    out = pipe(PREFIX, num_frames=2, num_inference_steps=2, generator=generator, output_type="latent")
    return {"images": torch.stack(out.images[0]), "captions": out.captions[0]}


def same(a: dict, b: dict) -> bool:
    return a["captions"] == b["captions"] and torch.equal(a["images"], b["images"])


def fresh(hub: HubServer, code: str, work: Path, *arguments: str, path: str | None = None) -> dict:
    """What `code` tells in a process of its own, with an empty cache and no token."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    environment |= hub.environment(work / "home") | ({"PYTHONPATH": path} if path else {})
    run = subprocess.run(
        [sys.executable, "-c", TELL + code, str(work / "told.pt"), *arguments],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return torch.load(work / "told.pt", weights_only=True)


@pytest.fixture
def named(hub, base, captioner, tiny_adapter, tmp_path) -> HubServer:
    """A Hub with a plain base, a captioner, and a model that names that base."""
    api = HfApi()
    for name, folder in {"tester/sd": base, "tester/captioner": captioner}.items():
        api.create_repo(name)
        api.upload_folder(repo_id=name, folder_path=folder)
    arguments = ["--base", "tester/sd", "--captioner", str(captioner), "--lora", str(tiny_adapter)]
    main(["model", *arguments, "--out", str(tmp_path / "tiny"), "--push", "tester/tiny"])
    return hub


def publish_twice(hub: HubServer, out: Path) -> tuple[str, Path]:
    """The embedded model, and then with a weaker adapter: the first commit, and that adapter."""
    main(["model", "--out", str(out), "--push", GULCH, "--no_check"])
    older = hub.repository(GULCH).at("main")[0]
    header = Adapter.load(out / "lora.safetensors").header
    weaker = {name: 0.5 * value for name, value in load_file(out / "lora.safetensors").items()}
    save_file(weaker, out / "lora.safetensors", metadata=header)
    push(out, GULCH, MODEL_FILES, "A weaker adapter")
    return older, out / "lora.safetensors"


def test_four_ways_to_load_by_id(named, base, captioner, tiny_adapter, tmp_path):
    hub = named
    older, weaker = publish_twice(hub, tmp_path / "gulch")
    embedded = SAGANetsPipeline.from_embedded()
    old = tell(embedded)
    embedded.load_adapter(weaker)
    new = tell(embedded)
    tiny = SAGANetsPipeline.from_base(base, captioner=captioner, lora=tiny_adapter)
    expected = tell(tiny)
    assert not same(old, new)

    (tmp_path / "stock").mkdir()
    told = fresh(hub, STOCK.replace("GULCH", repr(GULCH)), tmp_path / "stock", older, LINES)
    assert sorted(path.name for path in (tmp_path / "stock").glob("*.png")) == [f"frame-{i}.png" for i in range(1, 5)]
    assert same(told["new"], new) and same(told["old"], old) and same(told["named"], expected)
    assert told["custom"]["captions"] == expected["captions"]  # the base's own solver paints: no other is asked for
    tiny.scheduler = SAGANetsPipeline.from_pretrained(base).scheduler
    out = tiny.paint(
        expected["captions"],
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    )
    assert torch.equal(told["custom"]["images"], torch.stack(out.images[0]))

    (tmp_path / "ours").mkdir()
    told = fresh(hub, OURS.replace("GULCH", repr(GULCH)), tmp_path / "ours", path=str(ROOT))
    assert same(told["new"], new)
    assert all(same(told[way], expected) for way in ("named", "built", "offline"))


def test_the_model_that_names_its_base_holds_no_weights_of_it(named):
    files = named.repository("tester/tiny").at("main")[2]
    held = {path.partition("/")[0] for path in files}
    assert {"captioner", "captioner_tokenizer", "lora.safetensors", "lora_weights"} <= held
    assert not held & {"unet", "vae", "text_encoder", "safety_checker"}
    card = files["README.md"].content.decode()
    commit = named.repository("tester/sd").at("main")[0]
    assert "base_model: tester/sd\n" in card and "base_model_relation: adapter\n" in card and commit in card
    index = json.loads(files["model_index.json"].content)
    assert (index["base"], index["base_revision"], index["unet"]) == ("tester/sd", commit, [None, None])
    assert index["_class_name"] == ["pipeline_saganets", "SAGANetsPipeline"]


def test_the_card_of_a_model_that_names_its_base_may_show_a_story(named, captioner, tiny_adapter, tmp_path):
    command = [sys.executable, "-m", "train.publish", "model", "--base", "tester/sd", "--captioner", str(captioner)]
    command += ["--lora", str(tiny_adapter), "--paint", "--out", str(tmp_path / "painted")]
    environment = os.environ | named.environment(tmp_path / "home")
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-4000:]
    card = (tmp_path / "painted" / "README.md").read_text(encoding="utf-8")
    for i in range(1, 5):
        assert f"(images/frame-{i}.png)" in card and (tmp_path / "painted" / "images" / f"frame-{i}.png").is_file()


def test_what_the_hub_does_not_give_is_said_by_its_name(named, pipe):
    for path in ("tester/nowhere", "tester/tiny/none.safetensors", "tester/sd"):
        with pytest.raises(ValueError, match=f"`path` '{path}'"):
            pipe.load_adapter(path)


def test_a_hub_that_fails_is_one_error_and_then_works_again(named, tmp_path):
    for status in (401, 429, 500):
        named.faults.append(Fault("HEAD", "/resolve/", status, times=1000))
        with pytest.raises(OSError, match="tester/tiny"):
            SAGANetsPipeline.from_pretrained("tester/tiny")
        named.faults.clear()
    with pytest.raises(OSError, match="tester/none"):
        SAGANetsPipeline.from_pretrained("tester/none")
    with pytest.raises(SystemExit, match="there is no such repository"):
        main(["model", "--base", "tester/none", "--captioner", "x", "--lora", "y", "--out", str(tmp_path / "none")])
