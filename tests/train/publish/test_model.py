"""The model's folder and its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.lora import Adapter
from train.publish.__main__ import main
from train.publish.card import model_card
from train.publish.push import MODEL_FILES, files_to_send


ROOT = Path(__file__).parents[3]
EVALUATION = ROOT / "evaluation" / "embedded.json"


@pytest.fixture(scope="module")
def written(tiny_pipe, tiny_adapter, tmp_path_factory) -> Path:
    """A whole model of the tiny networks with two adapters, as the command writes it, opened by it once."""
    work = tmp_path_factory.mktemp("publish")
    tiny_pipe.save_pretrained(work / "saved")
    other = work / "other.safetensors"
    save_file(
        {k: 2 * v for k, v in load_file(tiny_adapter).items()}, other, metadata=Adapter.load(tiny_adapter).header
    )
    arguments = ["--model", str(work / "saved"), "--lora", str(tiny_adapter), str(other), "--datasets", "me/show"]
    main(["model", *arguments, "--out", str(work / "show"), "--evaluation", str(EVALUATION)])
    return work / "show"


def test_the_folder_holds_every_adapter_and_no_path_of_this_machine(written):
    sent, left = files_to_send(written, MODEL_FILES)
    assert left == [] and {
        "lora.safetensors",
        "lora_weights/tiny.safetensors",
        "lora_weights/other.safetensors",
    } <= set(sent)
    for path in written.rglob("*.json"):
        assert "/tmp" not in path.read_text() and "_name_or_path" not in path.read_text(), path
    pipe = SAGANetsPipeline.from_pretrained(written)
    first, second = (load_file(written / "lora_weights" / f"{name}.safetensors") for name in ("tiny", "other"))
    opened = load_file(written / "lora.safetensors")
    assert all((opened[name] == first[name]).all() for name in opened) and pipe.lora_rank == 4
    assert any((first[name] != second[name]).any() for name in first)
    assert json.loads((written / "evaluation.json").read_text()) == json.loads(EVALUATION.read_text())


def test_the_card_says_what_was_measured(written):
    card, figures = ModelCard.load(written / "README.md"), json.loads(EVALUATION.read_text())
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "diffusers", "text-to-image")
    assert data.datasets == ["me/show"] and "lora" in data.tags and data.base_model is None
    assert [entry["output"]["url"] for entry in data.widget] == [f"images/frame-{i}.png" for i in range(1, 5)]
    row = next(row for row in figures["rows"] if row.get("lora_alpha") == 32)
    measured = {result.metric_name: result.metric_value for result in data.eval_results}
    assert measured["Char-F1 (micro), alpha 32"] == row["char_f1_micro"] and measured["FJD, alpha 32"] == row["fjd"]
    for text in (
        figures["command"],
        figures["commit"][:12],
        f"{row['char_f1_micro']:.1%}",
        "What it cannot do",
        "r = 4",
    ):
        assert text in card.text
    for file in data.widget:
        assert (written / file["output"]["url"]).is_file()


def test_the_cards_lines_run_with_its_own_id_and_alpha(tiny_adapter):
    card = model_card("me/show", {"a": Adapter.load(tiny_adapter)}, "a", "Gus is in the yard.")
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert len(code.splitlines()) == 5 and '"me/show", trust_remote_code=True' in code and "lora_alpha=32," in code
    assert "Nothing yet." in card and "model-index" not in card


def test_what_cannot_be_published_is_refused(tiny_adapter, tmp_path):
    other = {name.replace("attn1", "attn9"): value for name, value in load_file(tiny_adapter).items()}
    save_file(other, tmp_path / "other.safetensors", metadata=Adapter.load(tiny_adapter).header)
    for arguments, message in (
        (["--lora", str(tmp_path / "other.safetensors")], "another base"),
        (["--base", "tester/sd"], "--captioner"),
        (["--lora", str(tmp_path / "none.safetensors")], "`path`"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["model", *arguments, "--out", str(tmp_path / "out")])
