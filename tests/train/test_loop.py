"""The training loop. Run as a script, this file trains the stage below until it kills itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel

from train.loop import Run


STEPS = 12


class Stage:
    """A small network with everything that a checkpoint has to carry: optimizer moments, EMA, random draws."""

    def __init__(self, folder: Path, checkpoint_seconds: float = -1.0, steps: int = STEPS):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.ema = EMAModel(self.net.parameters(), decay=0.9)
        self.generator = torch.Generator().manual_seed(1)
        self.run = Run(
            folder,
            {"net": self.net},
            torch.optim.AdamW(self.net.parameters(), lr=0.1),
            steps,
            self.generator,
            warmup=3,
            checkpoint_seconds=checkpoint_seconds,  # below 0: after every step
            extra_state={"ema": self.ema},
        )

    def loss(self, step: int) -> dict[str, torch.Tensor]:
        x = torch.randn((16, 4), generator=self.generator)
        return {"loss": (self.net(x) - x.sum(dim=1, keepdim=True)).square().mean()}

    def train(self, loss=None, **arguments) -> None:
        self.run.train(loss or self.loss, after_step=lambda: self.ema.step(self.net.parameters()), **arguments)

    def everything(self) -> list[torch.Tensor]:
        moments = [value for state in self.run.optimizer.state.values() for value in state.values()]
        return [*self.net.parameters(), *self.ema.shadow_params, *moments, self.generator.get_state()]


def equal(a: Stage, b: Stage) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.everything(), b.everything(), strict=True))


@pytest.fixture
def whole(tmp_path):
    stage = Stage(tmp_path / "whole")
    stage.train()
    return stage


def test_killed_and_resumed_is_bit_equal(whole, tmp_path):
    folder = tmp_path / "killed"
    root = str(Path(__file__).parents[2])
    child = subprocess.run([sys.executable, __file__, str(folder), "7"], env={**os.environ, "PYTHONPATH": root})
    assert child.returncode == -signal.SIGKILL
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 7
    resumed = Stage(folder)
    seen = []
    resumed.train(lambda step: seen.append(step) or resumed.loss(step))
    assert seen == [7, 8, 9, 10, 11]
    assert equal(resumed, whole)


def test_stopped_by_the_clock_and_resumed_is_bit_equal(whole, tmp_path):
    for _ in range(1000):  # each process gets time for a step or a few
        stage = Stage(tmp_path / "stopped")
        stage.train(max_seconds=0.002)
        if stage.run.step == STEPS:
            break
    assert equal(stage, whole)


def test_a_finished_run_is_left_alone(whole, tmp_path):
    again = Stage(tmp_path / "whole")
    again.train(lambda step: pytest.fail("nothing is left to train"))
    assert equal(again, whole)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path):
    class Unwritable:
        def state_dict(self):
            return {"open file": sys.stdout.buffer, "padding": torch.zeros(1000)}

    stage = Stage(tmp_path / "run")
    stage.train()
    before = stage.run.checkpoint.read_bytes()
    stage.run.extra_state["bad"] = Unwritable()
    with pytest.raises(TypeError):
        stage.run.save()
    assert stage.run.checkpoint.read_bytes() == before
    assert Stage(tmp_path / "run").run.resume()


def test_half_a_file_written_aside_is_no_checkpoint(tmp_path):
    stage = Stage(tmp_path / "run")
    stage.run.folder.mkdir()
    stage.run.checkpoint.with_suffix(".tmp").write_bytes(b"half of")
    assert not stage.run.resume()
    stage.train()
    assert sorted(path.name for path in stage.run.folder.iterdir()) == ["checkpoint.pt", "log.jsonl", "samples"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_raises_and_leaves_the_last_checkpoint(tmp_path, bad):
    stage = Stage(tmp_path / "run")
    with pytest.raises(FloatingPointError, match="step 5"):
        stage.train(lambda step: {"loss": stage.loss(step)["loss"] * (bad if step == 5 else 1)})
    saved = torch.load(stage.run.checkpoint, weights_only=True)
    assert saved["step"] == 5
    assert all(value.isfinite().all() for value in saved["modules"]["net"].values())


def test_a_gradient_that_is_no_number_raises_before_it_reaches_the_weights(tmp_path):
    stage = Stage(tmp_path / "run")

    def loss(step: int) -> dict[str, torch.Tensor]:
        value = stage.loss(step)["loss"]
        if step == 5:
            value = value + (0 * stage.net[0].weight.sum()).clamp(min=0).sqrt()  # finite, its gradient is not
        return {"loss": value}

    with pytest.raises(FloatingPointError, match="gradient.*step 5"):
        stage.train(loss)
    saved = torch.load(stage.run.checkpoint, weights_only=True)
    assert saved["step"] == 5
    assert all(value.isfinite().all() for value in saved["modules"]["net"].values())


def test_rate_warms_up_and_falls_to_nothing(tmp_path):
    run = Stage(tmp_path / "run", steps=103).run
    factors = [run.learning_rate_factor(step) for step in range(104)]
    assert factors[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert factors[53] == pytest.approx(0.5) and factors[103] == pytest.approx(0)
    assert factors[3:] == sorted(factors[3:], reverse=True)


def test_other_schedules(tmp_path):
    run = Stage(tmp_path / "run", steps=103).run
    run.schedule = "linear"
    assert run.learning_rate_factor(53) == pytest.approx(0.5) and run.learning_rate_factor(28) == pytest.approx(0.75)
    run.schedule = "constant"
    assert {run.learning_rate_factor(step) for step in (3, 50, 103)} == {1.0}
    with pytest.raises(ValueError, match="`schedule` is 'stairs'"):
        Run(tmp_path, {}, run.optimizer, 5, None, schedule="stairs")


def test_log_and_samples(tmp_path):
    stage = Stage(tmp_path / "run", steps=27)
    stage.run.sample_steps = 12

    def loss(step: int) -> dict[str, torch.Tensor]:
        return stage.loss(step) | ({"seldom": torch.tensor(4.0)} if step % 5 == 0 else {})

    sampled = []
    stage.run.train(loss, sampled.append)
    assert sampled == [12, 24, 27]
    lines = [json.loads(line) for line in (stage.run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 27]
    assert lines[1]["loss"] < lines[0]["loss"] and lines[0]["grad_norm"] > 0
    assert {line["seldom"] for line in lines} == {4.0}  # the mean of the steps that have it


if __name__ == "__main__":
    stage, last = Stage(Path(sys.argv[1])), int(sys.argv[2])

    def loss_until_killed(step: int) -> dict[str, torch.Tensor]:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return stage.loss(step)

    stage.train(loss_until_killed)
