# SPDX-License-Identifier: Apache-2.0
"""The training loop on a small regression: resumption, processes, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pointillist_hf.training.loop import LoopConfig, learning_rate_factor, train

RUN = """
import sys, time, torch
from torch import nn
from pointillist_hf.training.loop import LoopConfig, train

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, x):
        time.sleep(float(sys.argv[3]))
        return {"loss": (self.net(x) - x.sum(-1, keepdim=True)).square().mean()}

def make_row(index, generator):
    return {"x": torch.randn(1, 3, generator=generator, dtype=torch.float64) + index}

def collate(rows):
    return {"x": torch.cat([row["x"] for row in rows])}

config = LoopConfig(sys.argv[1], max_steps=int(sys.argv[2]), batch_size=4, save_steps=5,
                    learning_rate=1e-2, show_progress=False)
model = train(Model(), make_row, collate, 4, config)

"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return path


def environment(**extra):
    return {**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", **extra}


def losses(folder):
    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def run(script, folder, steps=20, pause=0.0, command=(sys.executable,)):
    subprocess.run(
        [*command, str(script), str(folder), str(steps), str(pause)],
        check=True,
        env=environment(),
        capture_output=True,
    )


def test_a_killed_run_goes_on_as_if_unbroken(script, tmp_path):
    run(script, tmp_path / "whole")
    command = [sys.executable, str(script), str(tmp_path / "broken"), "20", "0.1"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    log = tmp_path / "broken" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) >= 8):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(losses(tmp_path / "broken")) < 20
    with log.open("a") as file:
        file.write('{"step": 99, "lo')  # half a line, as a kill may leave it
    run(script, tmp_path / "broken")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    assert not list((tmp_path / "broken" / "checkpoints").glob("partial-*"))


@pytest.mark.slow
def test_two_processes_train_like_one(script, tmp_path):
    run(script, tmp_path / "one")
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2")
    run(script, tmp_path / "two", command=launch)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == pytest.approx(one, rel=1e-9)


def test_the_learning_rate_warms_up_and_decays():
    config = LoopConfig("unused", max_steps=100, warmup_steps=10, final_learning_rate=0.1)
    factors = [learning_rate_factor(step, config) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)


class Exploding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"loss": (self.weight * x / 0).sum()}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = LoopConfig(str(tmp_path), max_steps=3, batch_size=1, show_progress=False)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(
            Exploding(),
            lambda index, generator: {"x": torch.ones(1)},
            lambda rows: {"x": torch.cat([row["x"] for row in rows])},
            1,
            config,
        )


@pytest.mark.parametrize("name", ["max_steps", "batch_size", "save_steps"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        LoopConfig("unused", **{name: 0})
