"""The Space's folder: its settings, its requirements, and the file that starts it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from train.publish.__main__ import main
from train.publish.push import SPACE_FILES, files_to_send
from train.publish.space import HARDWARE, write_space


ROOT = Path(__file__).parents[3]
MODEL = "tester/saganets-sd15"


def matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    named = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.partition("[")[0]: pinned for name, pinned in named.items()}


@pytest.mark.parametrize("hardware", HARDWARE)
def test_settings_and_requirements_of_each_hardware(tmp_path, hardware):
    gpu = HARDWARE[hardware].gpu
    write_space(tmp_path, hardware, MODEL if gpu else None, base="tester/sd" if gpu else None)
    space, pinned = matter(tmp_path), pins(tmp_path / "requirements.txt")
    assert (space["sdk"], space["sdk_version"]) == ("gradio", version("gradio")) and space[
        "suggested_hardware"
    ] == hardware
    assert isinstance(space["python_version"], str) and (tmp_path / space["app_file"]).is_file()
    assert len(space["short_description"]) <= 60 and space["license"] == "apache-2.0" and space["tags"]
    assert space.get("models", []) == space.get("preload_from_hub", []) == ([MODEL, "tester/sd"] if gpu else [])
    ours = pins(ROOT / "requirements.txt")
    assert pinned["gradio"] == space["sdk_version"] == ours["gradio"]
    if hardware == "zero-a10g":
        assert (2, 8) <= tuple(map(int, pinned["torch"].split(".")[:2])) <= (2, 11)  # all that it runs
        assert space["python_version"] in ("3.12.12", "3.10.13") and "spaces" in pinned
        ours = {**ours, "torch": pinned["torch"], "spaces": pinned["spaces"]}
    assert pinned == ours
    sent, left = files_to_send(tmp_path, SPACE_FILES)
    assert left == [] and "studio/judge/model.safetensors" in sent


def test_a_gpu_starts_with_its_model_and_adapter_and_settings_come_first(tmp_path):
    adapter = next((ROOT / "lora_weights").glob("*.safetensors"))
    renamed = tmp_path / "mine.safetensors"
    renamed.write_bytes(adapter.read_bytes())
    out = tmp_path / "space"
    write_space(out, "t4-small", MODEL, str(renamed))
    assert (out / "lora_weights" / "mine.safetensors").is_file()
    # what starts is told by variables; here it only says which
    (out / "app.py").write_text(
        "import os\n\n\ndef main(argv):\n    print(argv, os.environ['SAGANETS_MODEL'], os.environ['SAGANETS_LORA'])\n"
    )
    for given, model in (({}, MODEL), ({"SAGANETS_MODEL": "other/model"}, "other/model")):
        run = subprocess.run(
            [sys.executable, "space.py"], cwd=out, env=given, capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == ["[]", model, "lora_weights/mine.safetensors"]


def test_what_a_space_cannot_be_is_refused(tmp_path):
    for arguments, message in (
        (("h100",), "cpu-basic, t4-small, zero-a10g"),
        (("t4-small",), "`--model` is missing"),
        (("cpu-basic", None, "x.safetensors"), "`--lora`"),
    ):
        with pytest.raises(ValueError, match=message):
            write_space(tmp_path, *arguments)


def test_the_command_pushes_it_and_lists_it(hub, tmp_path, capsys):
    out = tmp_path / "space"
    main(["space", "--out", str(out), "--push", "tester/studio", "--dry_run"])
    assert not hub.repositories and "app.py" in capsys.readouterr().out
    main(["space", "--out", str(out), "--push", "tester/studio", "--private"])
    repository = hub.repository("tester/studio", "space")
    assert repository.private and repository.created_with["sdk"] == "gradio"
    files = repository.at("main")[2]
    for name in ("app.py", "README.md", "requirements.txt", "sagan_pipeline/embedded/unet/config.json"):
        assert files[name].content == (out / name).read_bytes()
    assert not any("__pycache__" in name for name in files)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="not empty"):
        main(["space", "--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
