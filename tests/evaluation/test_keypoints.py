# SPDX-License-Identifier: Apache-2.0
"""AKD and poses of keypoints: analytic values, the tracker on moved pictures, faces not found."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops

from pointillist_hf.evaluation.face_reading import FaceReader
from pointillist_hf.evaluation.metrics.keypoints import (
    aligned_keypoint_distance,
    keypoint_distance,
    keypoint_l1,
    keypoint_rotation,
    normalised_keypoint_distance,
)
from pointillist_hf.geometry.rotations import axis_angle_to_matrix
from pointillist_hf.portraits.portrait_tracker import PortraitTracker

ROOT = Path(__file__).parents[2]
SIZE = (512, 512)


@pytest.fixture(scope="module")
def reader():
    tracker = PortraitTracker.from_pretrained(
        ROOT / "model_cards/pointillist-tiny", subfolder="portrait_tracker"
    )
    return FaceReader(tracker)


@pytest.fixture(scope="module")
def astronaut():
    photograph = Image.open(ROOT / "examples/images/astronaut.jpg").convert("RGB")
    return photograph.crop((96, 0, 352, 256)).resize(SIZE, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def face(reader, astronaut):
    return reader(astronaut)[None]


def test_moved_pictures_move_the_keypoints(reader, astronaut, face):
    moved = reader(ImageChops.offset(astronaut, 5, 0))[None]
    assert keypoint_distance(moved, face, SIZE).item() == pytest.approx(5, abs=0.3)
    assert aligned_keypoint_distance(moved, face, SIZE).item() < 0.6


def test_turned_and_scaled_pictures(reader, astronaut, face):
    turned = reader(astronaut.rotate(-10, Image.Resampling.BICUBIC))[None]
    radius = (face[..., :2] - 256).norm(dim=-1).mean().item()
    expected = 2 * math.sin(math.radians(5)) * radius
    assert keypoint_distance(turned, face, SIZE).item() == pytest.approx(expected, rel=0.05)
    assert keypoint_rotation(turned, face).item() == pytest.approx(10, abs=1.5)
    small = reader(astronaut.resize((256, 256), Image.Resampling.LANCZOS))[None]
    assert keypoint_distance(small * 2, face, SIZE).item() < 1
    # Pixels count at 512 x 512, whatever the size of the pictures.
    doubled = keypoint_distance(small + 3, small, (256, 256)).item()
    assert doubled == pytest.approx(6 * math.sqrt(2), rel=1e-4)


def test_definitions_side_by_side():
    points = torch.randn(1, 468, 3).abs() * 100 + 50
    moved = points + torch.tensor([3.0, 4.0, 9.0])
    assert keypoint_distance(moved, points, SIZE).item() == pytest.approx(5, rel=1e-4)
    assert keypoint_l1(moved, points, SIZE).item() == pytest.approx(3.5, rel=1e-4)
    unit = (points[0, 33, :2] - points[0, 263, :2]).norm().item()
    expected = pytest.approx(5 / unit, rel=1e-4)
    assert normalised_keypoint_distance(moved, points).item() == expected


def test_known_rotations_and_similarities():
    points = 100 * torch.randn(1, 468, 3)
    turn = axis_angle_to_matrix(torch.tensor([0.1, -0.3, 0.2]))
    turned = 1.7 * points @ turn.T + 20
    angle = math.degrees(math.sqrt(0.14))
    assert keypoint_rotation(turned, points).item() == pytest.approx(angle, abs=1e-3)
    flat = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    moved = 1.3 * points[..., :2] @ flat.T - 7
    assert aligned_keypoint_distance(moved, points[..., :2], SIZE).item() < 1e-3


def test_a_face_that_is_not_found_is_no_zero(reader, face):
    nothing = reader(Image.new("RGB", (128, 128), "gray"))[None]
    assert nothing.shape == face.shape and nothing.isnan().all()
    for metric in (keypoint_distance, keypoint_l1, aligned_keypoint_distance):
        assert metric(nothing, face, SIZE).isnan().all()
        assert metric(face, face, SIZE).item() < 1e-3
    assert normalised_keypoint_distance(nothing, face).isnan().all()
    assert keypoint_rotation(nothing, face).isnan().all()
    with pytest.raises(ValueError, match="must have one shape"):
        keypoint_distance(face, face[:, :10], SIZE)
