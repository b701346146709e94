"""Round trips: our class, diffusers alone in a fresh process, the adapter's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.lora import Adapter


PREFIX = ["Gus is in the kitchen."]
ELSEWHERE = """
import sys, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
out = pipe(["Gus is in the kitchen."], num_frames=3, generator=torch.Generator().manual_seed(7), output_type="latent")
torch.save({"images": torch.stack(out.images[0]), "captions": out.captions[0]}, sys.argv[2])
custom = DiffusionPipeline.from_pretrained(sys.argv[3], custom_pipeline=sys.argv[1], trust_remote_code=True)
assert type(custom).__name__ == "SAGANetsPipeline" and custom.safety_checker is not None and custom.lora_rank == 0
assert "sagan_pipeline" not in sys.modules
"""


def tell(pipe: SAGANetsPipeline):
    return pipe(PREFIX, num_frames=3, generator=torch.Generator().manual_seed(7), output_type="latent")


def fresh(code: str, *arguments: Path, cwd: Path, modules: Path) -> None:
    """Run `code` in a process of its own that cannot see this repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment | {"HF_MODULES_CACHE": str(modules), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def test_round_trip_is_bit_equal(either_pipe, tmp_path):
    either_pipe.save_pretrained(tmp_path / "saved")
    opened = SAGANetsPipeline.from_pretrained(tmp_path / "saved")
    before, after = tell(either_pipe), tell(opened)
    assert before.captions == after.captions
    assert torch.equal(torch.stack(before.images[0]), torch.stack(after.images[0]))
    assert opened.trained_lora_alpha == 32 and opened.lora_rank == 4
    assert opened.cast == ["Gus", "Mabel", "Otto"]
    opened.save_pretrained(tmp_path / "again")
    assert Adapter.load(tmp_path / "again" / "lora.safetensors").header == (
        Adapter.load(tmp_path / "saved" / "lora.safetensors").header
    )


def test_without_adapter_and_captioner(build_pipe, tmp_path):
    pipe = build_pipe()
    pipe.register_modules(captioner=None, captioner_tokenizer=None)
    pipe.save_pretrained(tmp_path)
    opened = SAGANetsPipeline.from_pretrained(tmp_path)
    assert opened.captioner is None and opened.lora_rank == 0


def test_parts_alone_open(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    reader = SAGANetsPipeline.from_pretrained(tmp_path, unet=None, vae=None, captioner=None, captioner_tokenizer=None)
    assert torch.equal(reader.encode_prompt(PREFIX), pipe.encode_prompt(PREFIX))


def test_half_precision_files_open_in_float32(build_pipe, adapter_path, tmp_path):
    build_pipe(adapter=adapter_path).to(torch.float16).save_pretrained(tmp_path)
    for given, expected in (({}, torch.float32), ({"dtype": torch.bfloat16}, torch.bfloat16)):
        opened = SAGANetsPipeline.from_pretrained(tmp_path, **given)
        modules = [part for part in opened.components.values() if isinstance(part, torch.nn.Module)]
        assert len(modules) == 4 and {part.dtype for part in modules} == {expected}
        assert len(tell(opened).captions[0]) == 3


def test_the_adapter_comes_along_wherever_one_goes(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    code = (
        "import os, sys; from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained('saved', trust_remote_code=True); os.chdir('/')\n"
        "assert pipe.lora_rank == 4; pipe.save_pretrained(sys.argv[1])"
    )
    fresh(code, tmp_path / "again", cwd=tmp_path, modules=tmp_path / "modules")
    again = SAGANetsPipeline.from_pretrained(tmp_path / "again")
    assert torch.equal(torch.stack(tell(again).images[0]), torch.stack(tell(pipe).images[0]))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(tmp_path / "again")


@pytest.mark.parametrize(("header", "config", "expected"), [("8", 10.0, 8), (None, 10.0, 10), (None, None, 32)])
def test_the_default_alpha(adapter_path, build_pipe, tmp_path, header, config, expected):
    facts = Adapter.load(adapter_path).header | ({"default_lora_alpha": header} if header else {})
    save_file(load_file(adapter_path), tmp_path / "default.safetensors", metadata=facts)
    pipe = build_pipe(adapter=tmp_path / "default.safetensors")
    pipe.register_to_config(default_lora_alpha=config)
    assert pipe.default_lora_alpha == expected
    assert pipe.paint(PREFIX, num_inference_steps=1).stories[0].frames[0].lora_alpha == expected


def test_the_folder_opens_with_diffusers_alone(pipe, base, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    lists = {name for name, value in index.items() if isinstance(value, list)} - {"_class_name"}
    assert lists == set(pipe.components)  # anything else would be taken for one
    assert index["_class_name"] == ["pipeline_saganets", "SAGANetsPipeline"]
    (tmp_path / "elsewhere").mkdir()
    elsewhere = {"cwd": tmp_path / "elsewhere", "modules": tmp_path / "modules"}
    fresh(ELSEWHERE, tmp_path / "saved", tmp_path / "out.pt", base, **elsewhere)
    theirs, ours = torch.load(tmp_path / "out.pt", weights_only=True), tell(pipe)
    assert theirs["captions"] == ours.captions[0]
    assert torch.equal(theirs["images"], torch.stack(ours.images[0]))


def test_adapter_files_that_are_none(adapter_path, tmp_path, pipe):
    header, tensors = Adapter.load(adapter_path).header, load_file(adapter_path)
    bad = tmp_path / "bad.safetensors"
    for state, facts in (
        (tensors, header | {"lora_adapter_metadata": "[]"}),
        (tensors, header | {"default_lora_alpha": "ten"}),
        ({}, header),
        (dict(list(tensors.items())[:1]), header),
        ({"unet.x.alpha": torch.ones(1)} | tensors, header),
    ):
        save_file(state, bad, metadata=facts)
        with pytest.raises(ValueError, match="bad.safetensors"):
            Adapter.load(bad)
    bad.write_bytes(adapter_path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="bad.safetensors"):
        Adapter.load(bad)
    for path in ("nowhere.safetensors", str(tmp_path / "nowhere"), __file__):
        with pytest.raises(ValueError, match="path"):
            pipe.load_adapter(path)


def test_an_adapter_of_another_base_is_refused(adapter_path, tmp_path, pipe):
    other = {name.replace("attn1", "attn9"): value for name, value in load_file(adapter_path).items()}
    save_file(other, tmp_path / "other.safetensors", metadata=Adapter.load(adapter_path).header)
    before = pipe.lora_rank
    with pytest.raises(ValueError, match="another base"):
        pipe.load_adapter(tmp_path / "other.safetensors")
    assert pipe.lora_rank == before
