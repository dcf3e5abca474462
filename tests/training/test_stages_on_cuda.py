# SPDX-License-Identifier: Apache-2.0
"""Every stage on a device that is not the CPU: nothing stays behind, the losses are the same."""

import dataclasses
import json

import pytest
import torch
from accelerate.state import AcceleratorState
from pretend_cuda import CUDA, PretendCuda, install_gsplat, is_on_cuda
from torch import nn

from pointillist_hf.data.tokens.synthetic import SyntheticDatasetConfig, build_synthetic_dataset
from pointillist_hf.training.dataset import load_people
from pointillist_hf.training.device_moves import Companion, Parts, move
from pointillist_hf.training.loop import LoopConfig
from pointillist_hf.training.stages import run_stage
from pointillist_hf.training.train_decoder import DecoderTraining
from pointillist_hf.training.train_projected_decoder import change_tone

DATA = SyntheticDatasetConfig(
    num_train=2, num_test=1, num_bins=64, num_skin_points=60, hair_budget=30,
    num_portraits=2, num_views=3, image_size=64,
)  # fmt: skip
STAGES = ("regressor", "generator", "decoder", "projected-decoder")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device") / "data"
    return build_synthetic_dataset(folder, DATA, show_progress=False)


@pytest.fixture
def on_cuda(monkeypatch):
    """The device of training, and back again."""
    install_gsplat(monkeypatch)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", str(CUDA))
    AcceleratorState._reset_state(reset_partial_state=True)
    with PretendCuda():
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run_all(data, out, **settings):
    """The log rows of all stages."""
    rows = {}
    for stage in STAGES:
        options = {"perceptual": "features"} if stage == "decoder" else {}
        if stage == "generator":
            options = {"eval_steps": 2, "sample_steps": 2, "num_sample_points": 4}
        folder = out / f"{stage}_run"
        loop = LoopConfig(
            str(folder), max_steps=2, batch_size=2, ema_decay=0.5, show_progress=False,
            **options, **settings,
        )  # fmt: skip
        run_stage(stage, data, out, "nano", loop)
        lines = (folder / "log.jsonl").read_text().splitlines()
        rows[stage] = [json.loads(line) for line in lines]
    return rows


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    return run_all(data, tmp_path_factory.mktemp("cpu"))


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda':UserWarning")
def test_every_stage_trains_on_the_device(data, expected, tmp_path, on_cuda, monkeypatch):
    seen = set()
    step = torch.optim.AdamW.step

    def watch(optimizer, *args, **kwargs):
        for group in optimizer.param_groups:
            seen.update(is_on_cuda(p) and is_on_cuda(p.grad) for p in group["params"])
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    found = run_all(data, tmp_path)
    assert seen == {True}
    for stage, rows in expected.items():
        for row, other in zip(rows, found[stage], strict=True):
            assert other == pytest.approx(row, rel=1e-4, abs=1e-6), stage
    assert found["decoder"][0]["perceptual"] > 0
    assert "validation_nats_per_point" in found["generator"][-1]


def test_what_stays_behind_is_found(data, tmp_path, on_cuda, monkeypatch):
    """Planted faults: a rig that does not move, and a picture that comes back too early."""
    run = {"max_steps": 1, "batch_size": 1, "show_progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(Companion, "on", lambda self, device: self.module)
        run_stage("regressor", data, tmp_path, "nano", LoopConfig(str(tmp_path / "a"), **run))
        run_stage("generator", data, tmp_path, "nano", LoopConfig(str(tmp_path / "b"), **run))
        with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu"):
            run_stage("decoder", data, tmp_path, "nano", LoopConfig(str(tmp_path / "c"), **run))
    place = "pointillist_hf.training.train_projected_decoder.change_tone"
    monkeypatch.setattr(place, lambda colors, tone: change_tone(colors, tone).cpu())
    with pytest.raises(RuntimeError, match="found at least two devices, cuda:0 and cpu"):
        run_stage(
            "projected-decoder", data, tmp_path, "nano", LoopConfig(str(tmp_path / "d"), **run)
        )


def test_the_device_is_like_a_real_one():
    with PretendCuda():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        for mix in (lambda: there + here, lambda: there.add_(here), lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="two devices"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there + torch.tensor(1.0)).device == CUDA
        assert there[torch.tensor([0])].device == there.new_zeros(2).device == CUDA
        assert there.cpu().device == here.device == torch.device("cpu")
        layer = nn.Linear(3, 2)
        weight = layer.weight
        layer.to("cuda")(there).sum().backward()
        assert layer.weight is weight
        assert weight.grad.device == CUDA
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())


def test_batches_move_as_a_whole(data, tiny_decoder, monkeypatch):
    people = load_people(data, "train")
    person = people.persons[0]
    batch = {"a": [person.view_params, (person.views[:1], "name")], "b": person.view_cameras}
    with PretendCuda():
        moved = move(batch, torch.device("cuda"))
        record, (views, name) = moved["a"]
        assert name == "name"
        assert record.betas.is_cuda and views.is_cuda and moved["b"].Ks.is_cuda
        assert moved["b"].width == person.view_cameras.width
        companion = Companion(people.rig)
        rig = companion.on(torch.device("cuda", 0))
        assert rig.v_template.is_cuda and rig.faces.is_cuda
        assert not people.rig.v_template.is_cuda
        assert companion.on(torch.device("cuda", 0)) is rig
    training = DecoderTraining(tiny_decoder, people.rig, weights=None)
    # Checkpoints hold what is trained, and nothing of a licensed head.
    assert all(name.startswith("decoder.") for name in training.state_dict())
    pinned = []

    def pin(tensor):
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    parts = Parts([{"x": person.view_params, "views": [person.views[:1]]}]).pin_memory()
    assert len(pinned) == len(dataclasses.fields(person.view_params)) + 1
    assert [list(part) for part in parts] == [["x", "views"]]
