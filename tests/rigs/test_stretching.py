# SPDX-License-Identifier: Apache-2.0
"""Splats grow along what stretches, by as much, and along nothing else."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf import Avatar
from pointillist_hf.geometry.rotations import (
    axis_angle_to_matrix,
    axis_angle_to_quat,
    quat_to_matrix,
)
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.rigs.binding import animate_gaussians
from pointillist_hf.rigs.stretching import LARGEST, lay_axes, stretch_axes

FLAT = torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.002, 0.008, 0.0]])
QUATS = axis_angle_to_quat(
    torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, torch.pi / 2], [0.0, 0.0, torch.pi / 4]])
)


def stretched(matrix, quats=QUATS, corners=FLAT):
    corners = corners.expand(len(quats), 3, 3)
    return stretch_axes(lay_axes(quats, corners), corners @ torch.as_tensor(matrix).T)


def test_an_axis_grows_as_the_plane_does_along_it():
    wide = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    diagonal = 2.5**0.5  # of the unit vectors at 45 degrees
    expected = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [diagonal, diagonal, 1.0]])
    torch.testing.assert_close(stretched(wide), expected, atol=1e-4, rtol=0)


def test_any_deformation_of_a_face_is_seen_by_the_axes_in_its_plane():
    # The loop: each axis by itself, as a vector of the plane that the deformation carries along.
    g = torch.Generator().manual_seed(0)
    quats = torch.nn.functional.normalize(torch.randn(40, 4, generator=g), dim=-1)
    corners, posed = 0.01 * torch.randn(2, 40, 3, 3, generator=g, dtype=torch.float64)
    got = stretch_axes(lay_axes(quats.double(), corners), posed)
    for n, axes in enumerate(quat_to_matrix(quats.double())):
        edges, moved = (c[n, 1:].T - c[n, :1].T for c in (corners, posed))
        for k, axis in enumerate(axes.T):
            share = torch.linalg.lstsq(edges, axis[:, None]).solution
            normal_part = axis - (edges @ share)[:, 0]
            length = (normal_part @ normal_part + (moved @ share).square().sum()).sqrt()
            assert got[n, k] == pytest.approx(float(length.clamp(1, LARGEST)), rel=1e-6)


@pytest.mark.parametrize("turn", [[0.0, 0.0, 0.0], [0.3, -1.0, 2.0]])
def test_turning_and_shrinking_change_nothing(turn):
    rotation = axis_angle_to_matrix(torch.tensor(turn))
    for size in (1.0, 0.5):
        torch.testing.assert_close(stretched(size * rotation), torch.ones(3, 3), atol=1e-3, rtol=0)


def test_no_splat_grows_without_end():
    assert stretched(100 * torch.eye(3)).max() == LARGEST
    sliver = torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.02, 1e-5, 0.0]])
    assert torch.equal(stretched(100 * torch.eye(3), corners=sliver), torch.ones(3, 3))
    assert torch.equal(stretched(torch.eye(3), corners=torch.zeros(3, 3)), torch.ones(3, 3))


@pytest.fixture
def opened(tiny_rig):
    """A splat on every face, and one frame of an open mouth."""
    params = tiny_rig.neutral()
    return replace(params, jaw_pose=torch.tensor([[0.35, 0.0, 0.0]]))


@pytest.fixture
def discs(tiny_rig, tiny_gaussians):
    bindings = torch.arange(0, tiny_rig.num_faces, tiny_rig.num_faces // len(tiny_gaussians))
    bindings = bindings[: len(tiny_gaussians)]
    means = tiny_rig.v_template[tiny_rig.faces[bindings]].mean(1)
    return replace(tiny_gaussians, means=means), bindings


def test_an_open_jaw_makes_splats_larger_and_none_smaller(tiny_rig, discs, opened):
    gaussians, bindings = discs
    avatar = Avatar(gaussians, bindings, tiny_rig, torch.zeros(tiny_rig.num_betas))
    grown = avatar.animate(opened).gaussians[0].scales / gaussians.scales
    assert grown.min() >= 1 - 1e-6
    assert grown.max() > 1.3
    assert (grown > 1.02).float().mean() < 0.5, "most of the head stays as it is"
    paper = avatar.animate(opened, stretch=False).gaussians[0]
    assert torch.equal(paper.scales, gaussians.scales)


def test_a_photograph_sees_what_the_avatar_shows(tiny_rig, discs, opened):
    gaussians, bindings = discs
    placement = place_points(CanonicalPoints(gaussians.means, bindings), tiny_rig, opened)
    seen = placement.pose_gaussians(gaussians)
    shown = animate_gaussians(gaussians, bindings, tiny_rig, opened, stretch=True)[0]
    for name in ("means", "scales"):
        torch.testing.assert_close(getattr(seen, name), getattr(shown, name), atol=1e-6, rtol=1e-4)
