"""Sending a folder: real HTTP to a Hub on loopback, and whatever can go wrong on the way."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

from hub_server import Fault
from train.publish.push import MODEL_FILES, SPACE_FILES, files_to_send, listing, push


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder with things in it that are nobody's business."""
    root = tmp_path / "model"
    for name in ("unet", "captioner", "tokenizer", "images", "checkpoint-5", ".cache", "studio/__pycache__"):
        (root / name).mkdir(parents=True)
    for name in ("unet/diffusion_pytorch_model", "captioner/model", "lora", "checkpoint-5/optimizer"):
        save_file({"x": torch.randn(64, 64)}, root / f"{name}.safetensors")
    for name in ("README.md", "model_index.json", "unet/config.json", "tokenizer/tokenizer.json", "pipeline.py"):
        (root / name).write_text(name)
    for name in (".env", "hf_token", "notes.txt", "run.log", ".cache/x.json", "unet/notes.md", "captioner/model.bin"):
        (root / name).write_text("secret")
    os.symlink("/etc/hostname", root / "LICENSE")
    return root


SENT = {
    *("README.md", "model_index.json", "unet/config.json", "tokenizer/tokenizer.json", "pipeline.py"),
    *("unet/diffusion_pytorch_model.safetensors", "captioner/model.safetensors", "lora.safetensors"),
}


def send(hub, folder: Path, name: str = "tester/show", **arguments) -> str:
    return push(folder, name, MODEL_FILES, "The model", **arguments)


def contents(hub, name: str = "tester/show", kind: str = "model") -> dict[str, bytes]:
    files = hub.repository(name, kind).at("main")[2]
    return {path: blob.content for path, blob in files.items() if path != ".gitattributes"}


def test_only_what_belongs_there_goes_in_one_commit(hub, folder):
    commit = send(hub, folder)
    repository = hub.repository("tester/show")
    assert [message for _, message, _ in repository.commits] == ["initial commit", "The model"]
    assert repository.at("main")[0] == commit and not repository.private
    assert contents(hub) == {name: (folder / name).read_bytes() for name in SENT}
    lfs = {path for path, blob in repository.at("main")[2].items() if blob.lfs}
    assert lfs == {name for name in SENT if name.endswith(".safetensors")}


def test_the_list_says_what_goes_and_what_stays(folder):
    sent, left = files_to_send(folder, MODEL_FILES)
    assert set(sent) == SENT and {".env", "hf_token", "LICENSE", "checkpoint-5/optimizer.safetensors"} <= set(left)
    text = listing(folder, sent, left)
    size = (folder / "lora.safetensors").stat().st_size
    assert f"{size:,}  lora.safetensors" in text and "left out  hf_token" in text and f"in {len(SENT)} files" in text


def test_a_private_repository_is_private_and_a_public_one_is_not_taken_for_one(hub, folder):
    send(hub, folder, "tester/hidden", private=True)
    assert hub.repository("tester/hidden").private
    send(hub, folder, "tester/open")
    with pytest.raises(ValueError, match="public; nothing was sent"):
        send(hub, folder, "tester/open", private=True)


def test_a_space_is_made_as_one(hub, tmp_path):
    (tmp_path / "app.py").write_text("print()")
    push(tmp_path, "tester/studio", SPACE_FILES, "The Space", repo_type="space")
    assert hub.repository("tester/studio", "space").created_with["sdk"] == "gradio"
    assert contents(hub, "tester/studio", "space") == {"app.py": b"print()"}


def test_an_upload_that_breaks_goes_on_where_it_stopped(hub, folder):
    oids = {sha256((folder / name).read_bytes()).hexdigest() for name in SENT if name.endswith(".safetensors")}
    hub.faults.append(Fault("PUT", f"/lfs/{min(oids)}", times=100, cut=1000))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="was not changed: the connection broke.*same command goes on"):
        send(hub, folder)
    assert [message for _, message, _ in hub.repository("tester/show").commits] == ["initial commit"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    arrived = set(hub.uploaded)
    assert arrived and min(oids) not in arrived
    hub.faults.clear()
    hub.requests.clear()
    send(hub, folder)
    assert hub.sent("PUT", "/lfs/") == len(oids - arrived)
    assert contents(hub) == {name: (folder / name).read_bytes() for name in SENT}


def test_one_bad_moment_is_waited_out(hub, folder):
    hub.faults += [Fault("POST", "/preupload/", 429), Fault("PUT", "/lfs/", 500), Fault("PUT", "/lfs/", cut=10)]
    send(hub, folder)
    assert set(contents(hub)) == SENT


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "does not know the token"),
        (403, "may not write there"),
        (404, "no such repository"),
        (412, "somebody else"),
        (429, "too many requests"),
        (500, "answers 500, its own failure"),
    ],
)
def test_each_refusal_is_one_clear_sentence_and_nothing_is_lost(hub, folder, status, message):
    send(hub, folder)
    before = contents(hub)
    (folder / "README.md").write_text("newer")
    hub.faults.append(Fault("POST", "/commit/", status, times=100))
    with pytest.raises(ValueError, match=message) as raised:
        send(hub, folder)
    assert "tester/show was not changed" in str(raised.value) and "\n" not in str(raised.value)
    assert contents(hub) == before and (folder / "README.md").read_text() == "newer"
    hub.faults.clear()
    send(hub, folder)
    assert contents(hub)["README.md"] == b"newer"


def test_a_wrong_token(hub, folder):
    with pytest.raises(ValueError, match="does not know the token"):
        send(hub, folder, api=HfApi(endpoint=hub.url, token="hf_wrong"))
    assert not hub.repositories


def test_nobody_there(folder, hub):
    with pytest.raises(ValueError, match="the connection broke"):
        send(hub, folder, api=HfApi(endpoint="http://127.0.0.1:9", token="x"))


def test_a_name_that_is_none(hub, folder):
    with pytest.raises(ValueError, match="Repo id"):
        send(hub, folder, "not a name")
