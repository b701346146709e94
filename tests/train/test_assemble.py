"""The parts of a training become a model that opens and tells a story."""

from __future__ import annotations

import json
import shutil

import torch

from sagan_pipeline import SAGANetsPipeline
from train.assemble import main


def test_trained_parts_become_the_embedded_model(tiny_base, tiny_adapter, make_release, tmp_path):
    release = make_release(tmp_path / "show", size=16, clips=8, frames=3)
    tuned, captioner = tmp_path / "tuned", tmp_path / "words"  # of a run of its own
    tuned.mkdir()
    shutil.copytree(tiny_base / "captioner", captioner)
    shutil.copytree(tiny_base / "captioner_tokenizer", captioner, dirs_exist_ok=True)
    shutil.copyfile(tiny_adapter, tuned / "show.safetensors")
    common = ["--base", str(tiny_base), "--tuned", str(tuned), "--town", str(release), "--gulch", str(release)]
    common += ["--captioner", str(captioner)]
    main([*common, "--name", "show", "--num_inference_steps", "2", "--lora_alpha", "40", "--out", str(tmp_path)])
    folder = tmp_path / "sagan_pipeline" / "embedded"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "SAGANetsPipeline" and not list(folder.glob("*.py"))
    pipe = SAGANetsPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.load_adapter(tmp_path / "lora_weights" / "show.safetensors")
    assert (pipe.default_lora_alpha, pipe.trained_lora_alpha) == (40, 32)
    assert pipe.cast[:3] == ["Gus", "Mabel", "Otto"] and pipe.places == ["kitchen", "yard"]
    assert {"gus", "kitchen", "talking"} <= set(pipe.vocabulary)
    out = pipe(num_frames=2, generator=torch.Generator().manual_seed(0))
    assert len(out.captions[0]) == 2 and out.stories[0].frames[0].num_inference_steps == 2
