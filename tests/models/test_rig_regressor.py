# SPDX-License-Identifier: Apache-2.0
"""From a portrait to rig parameters."""

import pytest
import torch

from pointillist_hf import RigRegressor
from pointillist_hf.geometry.structures import POSE_NAMES
from pointillist_hf.training.recipes import build_regressor_config


@pytest.fixture(scope="module")
def regressor(tiny_rig):
    torch.manual_seed(0)
    return RigRegressor(build_regressor_config("nano", tiny_rig)).eval()


def test_one_frame_per_portrait(regressor, tiny_rig):
    with torch.no_grad():
        params = regressor(torch.randn(3, 3, 56, 56))
        assert len(params) == 3
        assert params.betas.shape == (3, tiny_rig.num_betas)
        assert params.expression.shape == (3, tiny_rig.num_expressions)
        assert params.transl.abs().max() == 0
        assert torch.isfinite(tiny_rig(params)).all()


def test_portraits_of_a_batch_are_judged_apart(regressor):
    pixels = torch.randn(3, 3, 56, 56)
    together, alone = regressor(pixels), regressor(pixels[1:2])
    torch.testing.assert_close(together.betas[1:2], alone.betas, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.poses[1:2], alone.poses, atol=1e-5, rtol=0)
    assert not torch.allclose(together.betas[0], together.betas[1], atol=1e-5)


def test_angles_are_bounded(tiny_rig):
    model = RigRegressor(build_regressor_config("nano", tiny_rig)).eval()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    poses = model(torch.randn(4, 3, 56, 56)).poses
    assert poses.abs().max() <= model.config.max_angle + 1e-6
    assert poses.abs().max() > 0.9 * model.config.max_angle


def test_a_head_of_zeros_is_the_neutral_head(tiny_rig):
    model = RigRegressor(build_regressor_config("nano", tiny_rig))
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    with torch.no_grad():
        posed = tiny_rig(model(torch.randn(1, 3, 56, 56)))
    torch.testing.assert_close(posed[0], tiny_rig.v_template, atol=1e-7, rtol=0)


def test_gradients_reach_every_output(tiny_rig):
    model = RigRegressor(build_regressor_config("nano", tiny_rig))
    params = model(torch.randn(2, 3, 56, 56))
    names = ("betas", "expression", *POSE_NAMES)
    sum(getattr(params, name).square().sum() for name in names).backward()
    assert (model.head.weight.grad.abs().sum(1) > 0).all()


def test_save_and_load(regressor, tmp_path):
    regressor.save_pretrained(tmp_path)
    loaded = RigRegressor.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 56, 56)
    first, second = regressor(pixels), loaded(pixels)
    kept = loaded.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in regressor.state_dict().items())
    # Products may round differently where loaded weights lie otherwise in memory.
    for name in first.__dataclass_fields__:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), atol=1e-6, rtol=0)
    assert loaded.config.num_betas == regressor.config.num_betas
