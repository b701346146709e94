"""Every row of the ablations differs from `better` in what it says, and trains."""

import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from train.ablations import ROWS, command_of, is_over, main
from train.config import parse_config


@pytest.fixture
def places(make_release, tiny_base, tmp_path):
    show = make_release(tmp_path / "gulch", size=16, clips=6, frames=5)
    return ["--data", str(show), "--base", str(tiny_base), "--out", str(tmp_path / "out")]


def settings_of(name):
    args = argparse.Namespace(data="d", base="b", town="t", out=Path("o"), cache=None, more=[])
    module, *flags = command_of(name, args)[1:]
    assert module == "train.saganets"
    return dataclasses.asdict(parse_config(flags))


@pytest.mark.parametrize("name", [name for name, changes in ROWS.items() if "config" not in changes])
def test_a_row_changes_one_thing(name):
    better, row = settings_of("better"), settings_of(name)
    changed = {key for key in row if row[key] != better[key]} - {"out"}
    assert changed == set(ROWS[name])
    assert len(changed - {"alpha"}) == (name != "better")


def test_rows_are_trained_once(places, tmp_path):
    more = ["--rows", "rank-8", "--cpu", "--epochs", "1", "--batch_size", "4", "--validation_inference_steps", "1"]
    main([*places, *more])
    run = tmp_path / "out" / "rank-8"
    assert is_over(run) and not is_over(tmp_path / "out" / "better")
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["rank"], config["alpha"], config["epochs"], config["modules"]) == (8, 8.0, 1.0, "painter")
    assert list((tmp_path / "out" / "cache").glob("latents-*"))
    (adapter,) = run.glob("*.safetensors")
    written = adapter.stat().st_mtime_ns
    main([*places, *more])
    assert adapter.stat().st_mtime_ns == written


def test_a_training_that_fails_ends_all(places, tmp_path):
    with pytest.raises(SystemExit, match="better: the training ended with status"):
        main([*places, "--rows", "better", "--batch_size", "100000", "--cpu"])


def test_the_prior_needs_a_town(places, capsys):
    with pytest.raises(SystemExit):
        main([*places, "--rows", "prior"])
    assert "--town is needed" in capsys.readouterr().err
