# SPDX-License-Identifier: Apache-2.0
"""APD: known rotations, the network's shape and files, the crop."""

import math

import pytest
import torch

from pointillist_hf.evaluation.metrics.head_pose import (
    POSE_FILE,
    HeadPoseNetwork,
    cut_head,
    euler_degrees,
    geodesic_degrees,
    pose_distance,
    rotation_from_columns,
)
from pointillist_hf.geometry.rotations import axis_angle_to_matrix


def turn(*axis_angle):
    return axis_angle_to_matrix(torch.tensor([axis_angle]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_known_rotations(axis):
    angle = [0.0, 0.0, 0.0]
    angle[axis] = math.radians(12)
    rotation, still = turn(*angle), torch.eye(3)[None]
    expected = torch.zeros(1, 3)
    expected[0, axis] = 12
    assert torch.allclose(euler_degrees(rotation), expected, atol=1e-4)
    assert pose_distance(rotation, still).item() == pytest.approx(1000 * math.radians(4), rel=1e-4)
    assert geodesic_degrees(rotation, still).item() == pytest.approx(12, abs=1e-3)
    assert pose_distance(rotation, rotation).item() == 0


def test_angles_go_the_short_way_round():
    one, other = turn(0.0, 0.0, math.radians(179)), turn(0.0, 0.0, math.radians(-179))
    expected = 1000 * math.radians(2) / 3
    assert pose_distance(one, other).item() == pytest.approx(expected, rel=1e-3)
    nothing = torch.full((1, 3, 3), torch.nan)
    assert pose_distance(nothing, one).isnan().all()


def test_six_numbers_are_a_rotation():
    rotations = rotation_from_columns(torch.randn(5, 6))
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand(5, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(5), atol=1e-5)
    known = turn(0.2, -0.4, 0.1)
    columns = torch.cat([2 * known[..., 0], 3 * known[..., 1]], dim=-1)
    assert torch.allclose(rotation_from_columns(columns), known, atol=1e-5)


def test_the_network_is_a_resnet_50(tmp_path):
    network = HeadPoseNetwork()
    state = network.state_dict()
    assert len(state) == 320
    assert sum(p.numel() for p in network.parameters()) == 23_520_326
    torch.save({"model_state_dict": state}, tmp_path / POSE_FILE.name)
    read = HeadPoseNetwork.read(tmp_path)
    crop = torch.rand(1, 224, 224, 3)
    assert torch.equal(read(crop), network(crop))


def test_the_crop_is_the_widened_box():
    image = torch.zeros(100, 100, 3)
    marks = torch.tensor([[40.0, 40.0], [60.0, 60.0]])
    image[32:62, 32:68] = 1  # 40 % wider at the left, the top and the right, 12 % below
    crop = cut_head(image, marks)
    assert crop.shape == (224, 224, 3) and crop.mean() > 0.98
