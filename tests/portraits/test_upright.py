# SPDX-License-Identifier: Apache-2.0
"""Photographs turned until the head is upright."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointillist_hf.geometry.cameras import orbit_cameras, project_points
from pointillist_hf.portraits.portrait import Portrait
from pointillist_hf.portraits.upright import turn_upright


def build_portrait(roll):
    """A gradient, with landmarks along a line of this roll."""
    rows, columns = np.mgrid[0:90, 0:120].astype(np.uint8)
    pixels = torch.from_numpy(np.stack([2 * columns, 2 * rows, 0 * rows], axis=-1))
    along = torch.tensor([math.cos(roll), math.sin(roll)])
    landmarks = torch.zeros(468, 3)
    landmarks[:, :2] = torch.tensor([60.0, 45.0])
    landmarks[33, :2] -= 6 * along
    landmarks[263, :2] += 6 * along
    return Portrait(
        pixels=pixels,
        matte=torch.ones(90, 120),
        landmarks=landmarks,
        irises=torch.full((2, 5, 2), 50.0),
        box=torch.tensor([50.0, 35.0, 70.0, 55.0]),
        frame=torch.tensor([40.0, 25.0, 80.0, 65.0]),
        roll=roll,
        score=1.0,
    )


@pytest.mark.parametrize("roll", [0.0, 0.4, -1.2, math.pi / 2, 3.0])
def test_eyes_become_level_and_the_camera_sees_the_same(roll):
    portrait = build_portrait(roll)
    camera = orbit_cameras([20.0], [5.0], width=120, height=90)
    turned, turned_camera = turn_upright(portrait, camera)
    right, left = turned.landmarks[[33, 263]]
    assert left[1] - right[1] == pytest.approx(0, abs=1e-4)
    assert left[0] > right[0]
    # What a point of the world shows in the photograph, it shows in the square.
    points = torch.tensor([[0.0, 0.0, 0.0], [0.02, 0.01, 0.03], [-0.02, 0.02, 0.0]])
    here, depths = project_points(points, camera)
    there, turned_depths = project_points(points, turned_camera)
    assert torch.allclose(depths, turned_depths, atol=1e-6)
    for before, after in zip(here[0], there[0], strict=True):
        x, y = (after - 0.5).round().long().tolist()
        assert turned.pixels[y, x, :2].float() / 2 + 0.5 == pytest.approx(before.numpy(), abs=1.2)


def test_what_lies_beyond_the_border_is_nobody():
    portrait = build_portrait(0.3)
    far = torch.tensor([0.0, 0.0, 60.0, 60.0])
    turned, _ = turn_upright(replace(portrait, frame=far), orbit_cameras([0.0]))
    assert turned.matte[0, 0] == 0
    assert turned.matte[45, 45] == 1


def test_what_is_inside_is_what_was_photographed():
    portrait = build_portrait(0.3)
    far = torch.tensor([0.0, 0.0, 60.0, 60.0])
    assert portrait.inside is None
    turned, _ = turn_upright(replace(portrait, frame=far), orbit_cameras([0.0]))
    assert not turned.inside[0, 0]
    assert turned.inside[45, 45]
    assert (turned.matte[~turned.inside] < 1).all()
    assert (turned.matte[turned.inside] == 1).all()
