# SPDX-License-Identifier: Apache-2.0
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pointillist_hf.training.checkpoints import find_checkpoints, find_damage
from pointillist_hf.training.loop import LoopConfig, train


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x, y):
        return {"loss": ((x @ self.weight - y) ** 2).mean()}


def make_row(index, generator):
    x = torch.randn(1, 3, generator=generator)
    return {"x": x, "y": x.sum(1)}


def collate(rows):
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def run(folder, steps=6, **changes):
    config = LoopConfig(
        output_dir=str(folder), max_steps=steps, save_steps=2, batch_size=2, warmup_steps=1,
        schedule="constant", show_progress=False, **{"learning_rate": 0.1, **changes},
    )  # fmt: skip
    return train(Line(), make_row, collate, 8, config).weight.detach()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_two_checkpoints_are_kept(finished):
    assert [step for step, _ in find_checkpoints(finished)] == [6, 4]
    assert all(find_damage(folder) is None for _, folder in find_checkpoints(finished))


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()


def _not_finite(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({k: v * float("nan") for k, v in tensors.items()}, folder / "model.safetensors")


def _cut(name, size):
    def harm(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:size])

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        _cut("model.safetensors", 0),
        _cut("model.safetensors", 20),
        _cut("model.safetensors", 90),
        _cut("optimizer.bin", 0),
        _cut("optimizer.bin", 200),
        lambda folder: (folder / "optimizer.bin").write_bytes(b"hello"),
        lambda folder: (folder / "optimizer.bin").unlink(),
        lambda folder: (folder / "model.safetensors").unlink(),
        _empty,
        _not_finite,
    ],
)
def test_the_one_before_a_damaged_checkpoint_is_used(copy, finished, harm, caplog):
    expected = run(finished, steps=8)
    shutil.rmtree(finished / "checkpoints")
    shutil.copytree(copy / "checkpoints", finished / "checkpoints")
    harm(copy / "checkpoints" / "step-0000006")
    with caplog.at_level(logging.WARNING):
        found = run(copy, steps=8)
    assert "step-0000006 is passed over, it is damaged" in caplog.text
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["step-0000009.zip", "step-0000009 copy", "step-best", "part-9"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_lies_beside_checkpoints_is_not_looked_at(copy, name, is_folder):
    place = copy / "checkpoints" / name
    place.mkdir() if is_folder else place.write_text("hello")
    run(copy, steps=6)
    assert place.exists()


def test_if_none_is_whole_nothing_is_begun_anew(copy):
    for _, folder in find_checkpoints(copy):
        _cut("model.safetensors", 30)(folder)
    with pytest.raises(ValueError, match=r"must hold a whole checkpoint, and all in .*"):
        run(copy, steps=8)


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    # One step of this size leaves weights that overflow in the next loss.
    with pytest.raises(FloatingPointError, match=r"Lower `learning_rate`"):
        run(tmp_path / "run", steps=50, learning_rate=999.0, max_grad_norm=1e9, weight_decay=1e3)
    assert all(find_damage(folder) is None for _, folder in find_checkpoints(tmp_path / "run"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_ends_the_run(tmp_path, value):
    def make_bad_row(index, generator):
        return {"x": torch.full((1, 3), value), "y": torch.zeros(1)}

    config = LoopConfig(output_dir=str(tmp_path), max_steps=3, show_progress=False, batch_size=1)
    with pytest.raises(FloatingPointError, match=r"The (loss|gradient) is (nan|inf) at step 0"):
        train(Line(), make_bad_row, collate, 8, config)
    assert not find_checkpoints(tmp_path)
