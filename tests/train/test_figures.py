import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from train.figures import FIGURES, PAINTED, main


STEPS = {1: 10, 5: 50, 20: 200}  # by epoch


def write_run(folder, objective: str) -> None:
    samples = folder / "run" / "samples"
    samples.mkdir(parents=True)
    draw = np.random.default_rng(0)
    validations = []
    for epoch, step in STEPS.items():
        validations.append({"step": step, "epoch": epoch, "painter_loss": 1.0, "fixed_loss": 1 / step})
        pixels = draw.integers(0, 256, (3 * 8, 4 * 8, 3), dtype=np.uint8)  # three alphas, four frames
        Image.fromarray(pixels).save(samples / f"{step:06d}.png")
        drafted = "Gus\n   -> He is talking.\nOtto\n   -> Otto is in the\nNell\n   -> Nell sits. (unfinished)\n"
        (samples / f"{step:06d}.txt").write_text(drafted)
    (folder / "run" / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in validations))
    log = [
        {"step": step, "painter_loss": 1 / step, "term_l2": 0.5, "discriminator_loss": 0.7}
        for step in range(50, 850, 50)
    ]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("paper", "better", "gan-paper", "gan", "clip-paper", "clip"):
        write_run(folder / name, name)
    return folder


def test_every_figure_is_drawn_with_its_caption(runs, tiny_adapter, tiny_folder, tmp_path, capsys):
    adapters = tmp_path / "lora_weights"
    adapters.mkdir()
    with safe_open(tiny_adapter, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(tiny_adapter), adapters / "tiny-diffusion.safetensors", metadata=header)
    few = {"objective": "gan", "num_inference_steps": "2", "guidance_scale": "1"}
    save_file(load_file(tiny_adapter), adapters / "tiny-gan.safetensors", metadata={**header, **few})
    shutil.copytree(runs, tmp_path / "runs")
    runs = tmp_path / "runs"
    for folder in ("gan", "gan-paper/epochs/05", "gan-paper/epochs/20"):
        (runs / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(adapters / "tiny-gan.safetensors", runs / folder)
    out = tmp_path / "figures"
    main(["--runs", str(runs), "--adapters", str(adapters), "--model", str(tiny_folder), "--out", str(out)])
    assert capsys.readouterr().out.strip().endswith("all figures drawn")
    text = (out / "README.md").read_text()
    for name in (*FIGURES, "figure-7-gan-epochs", "objectives"):
        file = f"{name}.{'jpg' if name in PAINTED else 'png'}"
        assert Image.open(out / file).size[0] > 100 and f"![{name}]({file})" in text
    assert "6 of 9 of the paper's recipe" in text  # one breaks off, one is unfinished, at each of three validations
    assert "discriminator 0.700" in text and "Not there: clip, temporal, combined." in text
    assert "Left out" not in text


def test_runs_that_are_not_there_are_named(runs, tmp_path, capsys):
    some = tmp_path / "runs"
    some.mkdir()
    (some / "paper").symlink_to(runs / "paper")
    main(["--runs", str(some), "--adapters", str(tmp_path), "--out", str(tmp_path / "figures")])
    said = capsys.readouterr().out
    assert "figure-2-one-epoch: there is no better/run/validation.jsonl" in said
    assert "figure-7-gan-epochs: there is no gan-paper: an adapter of epoch 20" in said
    assert "objectives: there is no adapters of at least two objectives" in said
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["README.md"]
