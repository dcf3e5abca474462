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

from pointillist_hf.training.loop import Periodic, train
from pointillist_hf.training.loop_config import LoopConfig
from pointillist_hf.training.optimization import learning_rate_factor

RUN = """
import json, os, pathlib, sys, time, torch
from safetensors.torch import save_file
from torch import nn
from pointillist_hf.training.loop import LoopConfig, Periodic, train

pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)
pathlib.Path(sys.argv[1], "pid-" + os.environ.get("RANK", "0")).write_text(str(os.getpid()))
folder, options = sys.argv[1], {"dropout": 0.0, "pause": 0.0, **json.loads(sys.argv[2])}
dropout, pause = options.pop("dropout"), options.pop("pause")

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        self.net = nn.Sequential(*layers).double()

    def forward(self, x, mask):
        time.sleep(pause)
        errors = (self.net(x) - x.sum(-1, keepdim=True)).square()[..., 0] * mask
        return {"loss": (errors.sum(), mask.sum()), "data": x.sum()}

    def count_terms(self, x, mask):
        return mask.sum()

def make_row(index, generator):
    x = torch.randn(1, 5, 3, generator=generator, dtype=torch.float64) + index
    return {"x": x, "mask": torch.arange(5)[None] <= index}  # rows weigh differently

def collate(rows):
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

def look(model, done):
    torch.rand(3)  # leaves the state as it was
    return {"seen": model.net[0].weight.sum().item()}

config = LoopConfig(folder, batch_size=4, save_steps=5, learning_rate=1e-2, show_progress=False,
                    **{"max_steps": 20, "ema_decay": 0.9, **options})
model = train(Model(), make_row, collate, 4, config, [Periodic(3, look)])
save_file(model.state_dict(), folder + "/final.safetensors")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "run.py"
    path.write_text(RUN)
    return path


def environment(**extra):
    own = {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **extra}


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [row["loss"] for row in rows(folder)]


def launch(script, folder, processes, options):
    command = [sys.executable]
    if processes > 1:
        port = ["--master_port", str(20000 + os.getpid() % 10000)]
        command += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", *port]
    return [*command, str(script), str(folder), json.dumps(options)]


def run(script, folder, processes=1, **options):
    subprocess.run(
        launch(script, folder, processes, options),
        check=True,
        env=environment(),
        capture_output=True,
    )


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_as_if_unbroken(script, tmp_path, processes):
    """To the bit: weights, their average, dropout, data, and the log without doubled rows."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(script, whole, processes, dropout=0.3)
    process = subprocess.Popen(
        launch(script, broken, processes, {"dropout": 0.3, "pause": 0.2}),
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    log = broken / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) >= 8):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    for file in broken.glob("pid-*"):  # a launcher's children outlive it
        if processes > 1:
            os.kill(int(file.read_text()), signal.SIGKILL)
    assert 8 <= len(rows(broken)) < 20
    with log.open("a") as file:
        file.write('{"step": 99, "lo')  # half a line, as a kill may leave it
    run(script, broken, processes, dropout=0.3)
    assert log.read_bytes() == (whole / "log.jsonl").read_bytes()
    assert [row["step"] for row in rows(broken)] == list(range(20))
    names = ("final.safetensors", "checkpoints/step-0000020/average.safetensors")
    for name in names:
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert not list((broken / "checkpoints").glob("partial-*"))


@pytest.mark.slow
def test_two_processes_and_accumulated_parts_train_like_one(script, tmp_path):
    run(script, tmp_path / "one")
    run(script, tmp_path / "two", processes=2)
    run(script, tmp_path / "both", processes=2, accumulation_steps=2)
    for name in ("two", "both"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-9)
        seen = [row["seen"] for row in rows(tmp_path / name) if "seen" in row]
        expected = [row["seen"] for row in rows(tmp_path / "one") if "seen" in row]
        assert seen == pytest.approx(expected, rel=1e-9)


def test_the_learning_rate_warms_up_and_decays():
    config = LoopConfig("unused", max_steps=100, warmup_steps=10, final_learning_rate=0.1)
    factors = [learning_rate_factor(step, config) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    constant = LoopConfig("unused", max_steps=100, warmup_steps=10, schedule="constant")
    factors = [learning_rate_factor(step, constant) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(factors[10:]) == {1.0}


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


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(1, dtype=torch.float64), requires_grad=False)

    def forward(self, x, count=None):
        errors = (self.weight * x - 2).square().sum(-1) + self.frozen
        return {"loss": errors.mean() if count is None else (errors.sum(), count.sum())}

    def count_terms(self, x, count=None):
        return torch.ones(()) if count is None else count.sum()


def train_line(folder, *, counted=False, periodic=(), **options):
    def make_row(index, generator):
        row = {"x": torch.rand(1, 3, generator=generator, dtype=torch.float64)}
        return {**row, "count": torch.ones(1)} if counted else row

    config = LoopConfig(
        str(folder), **{"max_steps": 8, "batch_size": 4, "show_progress": False, **options}
    )

    def collate(rows):
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    return train(Line(), make_row, collate, 9, config, periodic)


def test_sums_with_counts_and_accumulated_parts_are_the_mean(tmp_path):
    expected = train_line(tmp_path / "a").weight
    assert torch.equal(train_line(tmp_path / "b", accumulation_steps=1).weight, expected)
    for name, options in {
        "c": {"counted": True},
        "d": {"accumulation_steps": 4},
        "e": {"counted": True, "accumulation_steps": 2},
    }.items():
        found = train_line(tmp_path / name, **options).weight
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        for figure in ("loss", "grad_norm"):  # AdamW itself does not see the scale of gradients
            expected_row, row = ([r[figure] for r in rows(tmp_path / n)] for n in ("a", name))
            assert row == pytest.approx(expected_row, rel=1e-12)


def test_sums_over_another_number_of_terms_are_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(Line, "count_terms")
    train_line(tmp_path / "means")
    with pytest.raises(ValueError, match=r"`count_terms` must count .* 4 in this step, got 1"):
        train_line(tmp_path / "sums", counted=True)


def test_the_average_of_the_weights_is_that_of_a_loop(tmp_path):
    weights, seen = [], []

    def look(model, done):
        seen.append(model.weight.clone())
        return {"first": model.weight[0].item()}

    options = {"learning_rate": 0.1, "warmup_steps": 1}
    found = train_line(tmp_path / "average", ema_decay=0.6, periodic=[Periodic(2, look)], **options)
    train_line(
        tmp_path / "plain",
        periodic=[Periodic(1, lambda model, done: weights.append(model.weight.clone()) or {})],
        **options,
    )
    average, steps = torch.ones(3, dtype=torch.float64), []
    for step, weight in enumerate(weights):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
        steps.append(average)
    assert len(steps) == 8
    torch.testing.assert_close(torch.stack(seen), torch.stack(steps[1::2]), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.weight.detach(), steps[-1], atol=1e-12, rtol=0)
    assert not torch.equal(found.weight, weights[-1])
    # Looking and averaging leave the training itself alone.
    assert losses(tmp_path / "average") == losses(tmp_path / "plain")
    assert ["first" in row for row in rows(tmp_path / "average")] == [False, True] * 4


def test_a_finished_run_gives_its_average_again(tmp_path):
    first = train_line(tmp_path, ema_decay=0.6).weight
    assert torch.equal(train_line(tmp_path, ema_decay=0.6).weight, first)
    assert not torch.equal(train_line(tmp_path / "without").weight, first)


def test_a_run_does_not_go_on_with_other_settings(tmp_path):
    train_line(tmp_path, learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"`learning_rate` was 0.001 when the run .* got 0.002"):
        train_line(tmp_path, learning_rate=2e-3)
    with pytest.raises(ValueError, match="`max_steps` was"):  # the cosine ends elsewhere
        train_line(tmp_path, learning_rate=1e-3, max_steps=30)
    train_line(tmp_path, learning_rate=1e-3, save_steps=7)
    constant = {"schedule": "constant", "learning_rate": 1e-3}
    train_line(tmp_path / "constant", **constant)
    train_line(tmp_path / "constant", **constant, max_steps=30)
    assert rows(tmp_path / "constant")[-1]["step"] == 29


def test_an_average_cannot_begin_in_the_middle(tmp_path):
    train_line(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`ema_decay` is set, .* began without"):
        train_line(tmp_path, ema_decay=0.6, max_steps=9)


def test_rows_that_do_not_share_out_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`batch_size` .4. must be a multiple of .* .3."):
        train_line(tmp_path, accumulation_steps=3)


def test_trackers_hear_of_every_row(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_line(tmp_path, tracker="tensorboard")
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    found = events.Scalars("loss")
    assert [event.step for event in found] == list(range(8))
    assert [event.value for event in found] == pytest.approx(losses(tmp_path), rel=1e-6)


def test_unknown_and_missing_trackers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`tracker` must be one of 'none', 'tensorboard', 'wandb'"):
        train_line(tmp_path, tracker="paper")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pointillist-hf\[track\]'"):
        train_line(tmp_path, tracker="wandb")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("batch_size", 0),
        ("save_steps", 0),
        ("accumulation_steps", 0),
        ("eval_steps", -1),
        ("window_step", -4),
        ("ema_decay", 1.0),
        ("schedule", "linear"),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .*got {value!r}"):
        LoopConfig("unused", **{name: value})
