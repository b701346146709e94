import json

import pytest
import torch
from accelerate.state import AcceleratorState

from train.clip_study import fine_share, main


def test_fine_share_by_hand():
    """A chequered picture is all texture, a smooth ramp next to none."""
    chequered = (torch.arange(32)[:, None] + torch.arange(32)[None]).remainder(2).float().expand(1, 3, 32, 32) * 2 - 1
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    assert fine_share(chequered) > 0.9 and fine_share(ramp) < 0.02


def test_gradients_of_each_timestep_and_the_climb(make_release, tiny_base, tiny_clip, tiny_features, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    box = (160, 120, 480, 400)
    show = make_release(tmp_path / "show", size=16, clips=8, frames=5, names=("Gus",), boxes=(box, box, box))
    places = ["--data", str(show), "--base", str(tiny_base), "--clip", str(tiny_clip), "--out", str(tmp_path / "run")]
    sizes = ["--batch_size", "4", "--rank", "4", "--alpha", "4", "--cpu", "--batches", "1", "--frames", "4"]
    climb = ["--fooling_steps", "20", "--fooling_rate", "0.1", "--study_out", str(tmp_path)]
    main([*places, *sizes, *climb, "--char_features", str(tiny_features)])
    report = json.loads((tmp_path / "clip_study.json").read_text())
    assert [row["timestep"] for row in report["gradients"]][::7] == [20, 980]
    first, last = report["gradients"][0], report["gradients"][-1]
    for row in (first, last):
        assert all(row[f"gradient_{name}"] > 0 for name in ("l2", "noise", "clip", "char"))
        assert -1 <= row["cosine_clip_l2"] <= 1
    # of the velocity, x0 has (1 - alpha_bar) of the squared error: its gradient nears plain L2's where noise is all
    shares = [row["gradient_l2"] / row["gradient_noise"] for row in (first, last)]
    assert shares[0] < 0.1 and shares[1] == pytest.approx(1, abs=0.02)
    alone, held = (report["fooled"][name] for name in ("CLIP alone", "CLIP and L2"))
    assert alone[-1]["clip_cosine"] > alone[0]["clip_cosine"] and alone[0]["distance"] == 0
    assert alone[-1]["distance"] > held[-1]["distance"] > 0
    assert (tmp_path / "clip_study.png").stat().st_size > 1000
