"""The repository itself: what the README promises has to be so."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from app import EMBEDDED, parse_args


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PINNED = [ROOT / name for name in ("requirements.txt", "train/requirements.txt", "tests/requirements.txt")]
COMMANDS = (
    "pip install -r requirements.txt && python app.py",
    "pip install -r requirements.txt -r tests/requirements.txt && python -m pytest",
)


def front_matter() -> dict:
    return yaml.safe_load(README.split("---\n")[1])


def pins(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pinned = [line for line in lines if line and not line.startswith(("#", "-r "))]
    return dict(line.split("==") for line in pinned)


def test_front_matter_describes_this_space():
    space = front_matter()
    assert space["sdk"] == "gradio"
    assert space["sdk_version"] == version("gradio")
    assert (ROOT / space["app_file"]).is_file()
    assert space["license"] == "apache-2.0"
    assert isinstance(space["python_version"], str)
    assert len(space["short_description"]) <= 60
    assert space["tags"]


@pytest.mark.parametrize("path", PINNED, ids=lambda path: str(path.relative_to(ROOT)))
def test_pins_are_what_is_installed(path: Path):
    for name, pinned in pins(path).items():
        assert version(name).split("+")[0] == pinned, name


def test_gradio_is_pinned_as_the_space_runs_it():
    assert pins(ROOT / "requirements.txt")["gradio"] == front_matter()["sdk_version"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_stand_alone_in_the_readme(command: str):
    assert command in README.splitlines()
    for path in re.findall(r"-r (\S+)|python (\S+\.py)", command):
        assert (ROOT / "".join(path)).is_file()


def test_ci_would_run_the_test_command():
    first = next(line for line in README.splitlines() if "python -m pytest" in line)
    assert first == COMMANDS[1]
    assert 'grep -m 1 -- "python -m pytest" README.md' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_pictures_and_links_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_modules_named_in_the_readme_exist():
    for module in re.findall(r"python -m ((?:train|benchmarks)[\w.]*)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_no_source_file_is_longer_than_a_reader_can_hold():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if not {"venv", ".venv", "build", "runs"} & set(parts):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path


def test_app_explains_its_flags_without_loading_a_model():
    run = subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    for flag in ("--model", "--lora", "--host", "--port", "--share"):
        assert flag in run.stdout


def test_the_variables_of_a_space_choose_its_model_and_adapter(monkeypatch):
    for name in ("SAGANETS_MODEL", "SAGANETS_LORA"):
        monkeypatch.delenv(name, raising=False)
    assert (parse_args([]).model, parse_args([]).lora) == (EMBEDDED, None)
    monkeypatch.setenv("SAGANETS_MODEL", "tester/model")
    monkeypatch.setenv("SAGANETS_LORA", "lora_weights/mine.safetensors")
    assert (parse_args([]).model, parse_args([]).lora) == ("tester/model", "lora_weights/mine.safetensors")
    assert parse_args(["--model", "other"]).model == "other"
