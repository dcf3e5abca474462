# SPDX-License-Identifier: Apache-2.0
"""Splats in the frames of triangles, as GaussianAvatars holds them."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.bound_splats import SH_C0, global_to_local, local_to_global
from pointillist_hf.geometry.rotations import axis_angle_to_matrix, matrix_to_quat, quat_to_matrix
from pointillist_hf.geometry.structures import BoundSplats, Gaussians

DOUBLE = torch.float64


def build_splats(count=7, degree=0, dtype=DOUBLE):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    harmonics = (degree + 1) ** 2
    return BoundSplats(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 1,
        quats=3 * draw(count, 4),
        opacity_logits=draw(count),
        sh=draw(count, harmonics, 3),
        bindings=torch.arange(count) * 3 % 5,
    )


def corners_of(count=7):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 3, generator=g, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("corners", "quat", "size", "mean"),
    [
        (
            [[0, 0, 0], [1, 0, 0], [0, 1, 0]],
            [0.7071068, 0.7071068, 0, 0],
            1.0,
            [0.8333333, -0.6666667, -0.25],
        ),
        (
            [[0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.2, 0.6, 0.5]],
            [0.5257311, 0.8506508, 0, 0],
            0.3736068,
            [0.4201367, 0.0409397, 0.1160436],
        ),
    ],
)
def test_known_triangles(corners, quat, size, mean):
    """Numbers computed apart from this package."""
    splat = BoundSplats(
        means=torch.tensor([[0.5, -0.25, 1.0]], dtype=DOUBLE),
        log_scales=torch.zeros(1, 3, dtype=DOUBLE),
        quats=torch.tensor([[1.0, 0, 0, 0]], dtype=DOUBLE),
        opacity_logits=torch.zeros(1, dtype=DOUBLE),
        sh=torch.ones(1, 1, 3, dtype=DOUBLE),
        bindings=torch.zeros(1, dtype=torch.long),
    )
    placed = local_to_global(splat, torch.tensor([corners], dtype=DOUBLE))
    expected = torch.tensor([mean], dtype=DOUBLE)
    torch.testing.assert_close(placed.means, expected, rtol=0, atol=1e-7)
    expected = torch.tensor([quat], dtype=DOUBLE)
    torch.testing.assert_close(placed.quats, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(
        placed.scales, torch.full_like(placed.scales, size), atol=1e-7, rtol=0
    )
    assert placed.opacities.tolist() == [0.5]
    torch.testing.assert_close(placed.colors, torch.full_like(placed.colors, 0.5 + SH_C0))


@pytest.mark.parametrize("legacy", [False, True])
def test_there_and_back(legacy):
    splats, corners = build_splats(), corners_of()
    splats = replace(splats, sh=splats.sh.abs())  # a colour below 0 is cut off
    placed = local_to_global(splats, corners, legacy=legacy)
    restored = global_to_local(placed, splats.bindings, corners, legacy=legacy)
    for name in ("means", "log_scales", "opacity_logits", "sh", "bindings"):
        torch.testing.assert_close(getattr(restored, name), getattr(splats, name))
    torch.testing.assert_close(quat_to_matrix(restored.quats), quat_to_matrix(splats.quats))


def test_legacy_turns_the_triangle_first():
    splats, corners = build_splats(), corners_of()
    edge = torch.nn.functional.normalize(corners[:, 1] - corners[:, 0], dim=-1)
    normal = torch.linalg.cross(edge, corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1)
    frames = torch.stack([edge, normal, torch.linalg.cross(edge, normal)], dim=-1)
    own = quat_to_matrix(splats.quats)
    for legacy, expected in ((False, frames @ own), (True, own @ frames)):
        placed = local_to_global(splats, corners, legacy=legacy)
        torch.testing.assert_close(quat_to_matrix(placed.quats), expected)


def test_splats_move_and_grow_with_the_mesh():
    splats, corners = build_splats(), corners_of()
    before = local_to_global(splats, corners)
    turn = axis_angle_to_matrix(torch.tensor([0.3, -1.0, 0.5], dtype=DOUBLE))
    shift = torch.tensor([1.0, 2.0, -3.0], dtype=DOUBLE)
    after = local_to_global(splats, 2.5 * corners @ turn.T + shift)
    torch.testing.assert_close(after.means, 2.5 * before.means @ turn.T + shift)
    torch.testing.assert_close(after.scales, 2.5 * before.scales)
    torch.testing.assert_close(quat_to_matrix(after.quats), turn @ quat_to_matrix(before.quats))
    torch.testing.assert_close(after.colors, before.colors)


def test_several_poses_at_once():
    splats = build_splats()
    corners = torch.stack([corners_of(), 2 * corners_of(), corners_of().roll(1, 0)])
    placed = local_to_global(splats, corners)
    assert placed.means.shape == (3, 7, 3)
    for frame in range(3):
        single = local_to_global(splats, corners[frame])
        for name in Gaussians.__dataclass_fields__:
            assert torch.equal(getattr(placed[frame], name), getattr(single, name))
    assert local_to_global(splats, corners[:0]).quats.shape == (0, 7, 4)


def test_gradients_reach_splats_and_mesh():
    splats, corners = build_splats(3), corners_of(3).requires_grad_()
    names = ("means", "log_scales", "quats", "opacity_logits", "sh")
    leaves = [getattr(splats, name).requires_grad_() for name in names]

    def place(corners, *values):
        moved = replace(splats, **dict(zip(names, values, strict=True)))
        placed = local_to_global(moved, corners)
        return tuple(getattr(placed, name) for name in Gaussians.__dataclass_fields__)

    assert torch.autograd.gradcheck(place, [corners, *leaves])


def test_frames_are_those_of_a_quaternion():
    """The columns of section B2 as one rotation: the quaternion has the same."""
    corners = corners_of(20)
    splats = replace(
        build_splats(20), quats=torch.tensor([[2.0, 0, 0, 0]], dtype=DOUBLE).repeat(20, 1)
    )
    placed = local_to_global(splats, corners)
    first = torch.nn.functional.normalize(corners[:, 1] - corners[:, 0], dim=-1)
    torch.testing.assert_close(quat_to_matrix(placed.quats)[..., 0], first)
    turned = quat_to_matrix(matrix_to_quat(quat_to_matrix(placed.quats)))
    torch.testing.assert_close(turned, quat_to_matrix(placed.quats))


def test_slices_and_degrees():
    splats = build_splats(degree=2)
    assert len(splats) == 7 and splats.sh_degree == 2
    assert len(splats[2:5]) == 3 and torch.equal(splats[2:5].bindings, splats.bindings[2:5])
    assert torch.equal(splats[splats.bindings == 0].sh, splats.sh[splats.bindings == 0])


def test_a_dtype_leaves_face_indices_alone():
    splats = replace(build_splats(1, dtype=torch.float32), bindings=torch.tensor([2**24 + 1]))
    for moved in (splats.to(torch.float64), splats.to("cpu", dtype=torch.float64)):
        assert moved.means.dtype == torch.float64
        assert moved.bindings.dtype == torch.int64 and moved.bindings.item() == 2**24 + 1
    assert splats.to("meta").bindings.is_meta


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sh": torch.zeros(7, 5, 3)}, "`sh` must hold 1, 4, 9 or 16 harmonics per splat, got 5"),
        ({"sh": torch.zeros(7, 3)}, "`sh` must have shape"),
        ({"quats": torch.zeros(7, 3)}, "`quats` must have shape"),
        ({"bindings": torch.zeros(6)}, r"`bindings` must have shape \(7\)"),
    ],
)
def test_refusals(changes, error):
    with pytest.raises(ValueError, match=error):
        replace(build_splats(), **changes)


def test_corners_are_one_triangle_per_splat():
    with pytest.raises(ValueError, match=r"`corners` must have shape \(\*, 7, 3, 3\)"):
        local_to_global(build_splats(), corners_of(6)[None])
    with pytest.raises(ValueError, match=r"`corners` must have shape \(7, 3, 3\)"):
        global_to_local(
            local_to_global(build_splats(), corners_of()), torch.zeros(7), corners_of(6)
        )
