# SPDX-License-Identifier: Apache-2.0
"""How points ride on the faces they are bound to."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.rotations import (
    axis_angle_to_matrix,
    axis_angle_to_quat,
    quat_multiply,
)
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.geometry.triangles import barycentric_coordinates, triangle_frames
from pointillist_hf.rigs.binding import animate_gaussians, bind_points

MODES = ("lbs", "triangle")


@pytest.fixture
def betas(tiny_rig):
    return torch.randn(1, tiny_rig.num_betas)


@pytest.fixture
def lively(tiny_rig, betas):
    """Two frames of one person with expression and every joint at work."""
    poses = {name: 0.2 * torch.randn(2, 3) for name in ("neck_pose", "jaw_pose", "leye_pose")}
    expression = torch.rand(2, tiny_rig.num_expressions)
    return replace(tiny_rig.neutral(betas=betas.expand(2, -1)), expression=expression, **poses)


def place_on_faces(rig, betas, gaussians, bindings):
    """The gaussians at random places inside the faces of the person."""
    weights = torch.rand(len(gaussians), 3)
    weights = weights / weights.sum(-1, keepdim=True)
    corners = rig.canonical_vertices(betas)[0][rig.faces[bindings]]
    return replace(gaussians, means=torch.einsum("nk,nkc->nc", weights, corners)), weights


def same_rotation(quats, expected):
    cosines = (quats * expected).sum(-1) / quats.norm(dim=-1) / expected.norm(dim=-1)
    torch.testing.assert_close(cosines.abs(), torch.ones_like(cosines), atol=1e-5, rtol=0)


def local_coordinates(means, corners):
    rotation, centre, size = triangle_frames(corners)
    return torch.einsum("...ji,...j->...i", rotation, means - centre) / size[..., None]


def test_points_at_vertices_get_the_vertices_attributes(tiny_rig, betas):
    vertices = tiny_rig.canonical_vertices(betas)[0]
    bindings = torch.arange(0, tiny_rig.num_faces, 29)
    for corner in range(3):
        ids = tiny_rig.faces[bindings, corner]
        bound = bind_points(CanonicalPoints(vertices[ids], bindings), tiny_rig, vertices)
        close = {"atol": 2e-4, "rtol": 0}
        torch.testing.assert_close(bound.lbs_weights, tiny_rig.lbs_weights[ids], **close)
        torch.testing.assert_close(bound.exprdirs, tiny_rig.exprdirs[ids], atol=1e-5, rtol=0)
        assert torch.equal(bound.means, vertices[ids])


def test_bound_weights_sum_to_one_wherever_the_points_are(tiny_rig):
    bindings = torch.randint(tiny_rig.num_faces, (500,))
    points = CanonicalPoints(torch.randn(500, 3), bindings)
    weights = bind_points(points, tiny_rig, tiny_rig.v_template).lbs_weights
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(500))


def test_expressions_move_points_like_the_mix_of_their_corners(
    tiny_rig, betas, tiny_gaussians, tiny_points
):
    gaussians, weights = place_on_faces(tiny_rig, betas, tiny_gaussians, tiny_points.bindings)
    expression = torch.rand(3, tiny_rig.num_expressions)
    params = replace(tiny_rig.neutral(betas=betas.expand(3, -1)), expression=expression)
    posed = animate_gaussians(gaussians, tiny_points.bindings, tiny_rig, params)
    corners = tiny_rig(params)[:, tiny_rig.faces[tiny_points.bindings]]
    expected = torch.einsum("nk,tnkc->tnc", weights, corners)
    torch.testing.assert_close(posed.means, expected, atol=2e-6, rtol=0)


def test_points_at_vertices_stay_at_the_posed_vertices(
    tiny_rig, betas, lively, tiny_gaussians, tiny_points
):
    ids = tiny_rig.faces[tiny_points.bindings, 1]
    vertices = tiny_rig.canonical_vertices(betas)[0]
    gaussians = replace(tiny_gaussians, means=vertices[ids])
    posed = animate_gaussians(gaussians, tiny_points.bindings, tiny_rig, lively)
    torch.testing.assert_close(posed.means, tiny_rig(lively)[:, ids], atol=2e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_neutral_parameters_change_nothing(tiny_rig, betas, tiny_gaussians, tiny_points, mode):
    neutral = tiny_rig.neutral(betas=betas)
    posed = animate_gaussians(tiny_gaussians, tiny_points.bindings, tiny_rig, neutral, mode=mode)[0]
    torch.testing.assert_close(posed.means, tiny_gaussians.means, atol=1e-5, rtol=0)
    same_rotation(posed.quats, tiny_gaussians.quats)
    for name in ("scales", "opacities", "colors"):
        assert torch.equal(getattr(posed, name), getattr(tiny_gaussians, name))


@pytest.mark.parametrize("mode", MODES)
def test_the_head_turns_as_one(tiny_rig, lively, tiny_gaussians, tiny_points, mode):
    turn, shift = torch.tensor([[0.4, -0.9, 0.3]]), torch.tensor([[0.1, -0.2, 0.05]])
    turned = replace(lively, global_orient=turn.expand(2, 3), transl=shift.expand(2, 3))
    still, moved = (
        animate_gaussians(tiny_gaussians, tiny_points.bindings, tiny_rig, params, mode=mode)
        for params in (lively, turned)
    )
    shaped = tiny_rig.canonical_vertices(lively.betas)
    shaped = shaped + torch.einsum("vce,te->tvc", tiny_rig.exprdirs, lively.expression)
    root = torch.einsum("v,tvc->tc", tiny_rig.J_regressor[0], shaped)[:, None]
    rotation = axis_angle_to_matrix(turn[0])
    expected = (still.means - root) @ rotation.T + root + shift
    torch.testing.assert_close(moved.means, expected, atol=5e-6, rtol=0)
    same_rotation(moved.quats, quat_multiply(axis_angle_to_quat(turn[0]), still.quats))
    assert torch.equal(moved.scales, still.scales)
    faces = tiny_rig.faces[tiny_points.bindings]
    before = local_coordinates(still.means, tiny_rig(lively)[:, faces])
    after = local_coordinates(moved.means, tiny_rig(turned)[:, faces])
    torch.testing.assert_close(after, before, atol=2e-3, rtol=1e-3)


def test_triangle_mode_keeps_local_coordinates(
    tiny_rig, betas, lively, tiny_gaussians, tiny_points
):
    faces = tiny_rig.faces[tiny_points.bindings]
    rest = tiny_rig.canonical_vertices(betas)[0, faces]
    before = local_coordinates(tiny_gaussians.means, rest)
    posed = animate_gaussians(
        tiny_gaussians, tiny_points.bindings, tiny_rig, lively, mode="triangle"
    )
    corners = tiny_rig(lively)[:, faces]
    after = local_coordinates(posed.means, corners)
    torch.testing.assert_close(after, before.expand_as(after), atol=2e-3, rtol=1e-3)
    turn = triangle_frames(corners)[0] @ triangle_frames(rest)[0].mT
    probe = torch.einsum("tnij,nj->tni", turn, torch.ones(len(tiny_gaussians), 3))
    around = quat_multiply(posed.quats, tiny_gaussians.quats * torch.tensor([1, -1, -1, -1]))
    vector = torch.cat([torch.zeros_like(probe[..., :1]), torch.ones_like(probe)], dim=-1)
    turned = quat_multiply(quat_multiply(around, vector), around * torch.tensor([1, -1, -1, -1]))
    torch.testing.assert_close(turned[..., 1:], probe, atol=1e-4, rtol=0)


def test_both_modes_agree_on_rigid_parts(tiny_rig, betas, tiny_gaussians):
    teeth = set(tiny_rig.mask("teeth_lower").tolist())
    of_teeth = [i for i, face in enumerate(tiny_rig.faces.tolist()) if teeth.issuperset(face)]
    bindings = torch.tensor(of_teeth)[torch.randint(len(of_teeth), (len(tiny_gaussians),))]
    gaussians, _ = place_on_faces(tiny_rig, betas, tiny_gaussians, bindings)
    params = replace(tiny_rig.neutral(betas=betas), jaw_pose=torch.tensor([[0.3, 0.0, 0.0]]))
    skinned, rigid = (
        animate_gaussians(gaussians, bindings, tiny_rig, params, mode=mode) for mode in MODES
    )
    torch.testing.assert_close(skinned.means, rigid.means, atol=2e-5, rtol=0)
    assert (skinned.means - gaussians.means).norm(dim=-1).min() > 0.005


def test_frames_do_not_depend_on_each_other(tiny_rig, lively, tiny_gaussians, tiny_points):
    both = animate_gaussians(tiny_gaussians, tiny_points.bindings, tiny_rig, lively)
    last = animate_gaussians(tiny_gaussians, tiny_points.bindings, tiny_rig, lively[1:])
    torch.testing.assert_close(both[1].means, last[0].means, atol=1e-7, rtol=0)
    assert both.scales.shape == (2, len(tiny_gaussians), 3)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_the_gaussians(tiny_rig, lively, tiny_gaussians, tiny_points, mode):
    leaves = {n: getattr(tiny_gaussians, n).clone().requires_grad_() for n in ("means", "quats")}
    gaussians = replace(tiny_gaussians, **leaves)
    posed = animate_gaussians(gaussians, tiny_points.bindings, tiny_rig, lively, mode=mode)
    (posed.means.sum() + posed.quats.square().sum()).backward()
    for leaf in leaves.values():
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_gradients_reach_the_pose(tiny_rig, tiny_gaussians, tiny_points, mode, angle):
    neck = torch.tensor([[angle, 0.0, 0.0]], requires_grad=True)
    params = replace(tiny_rig.neutral(), neck_pose=neck)
    posed = animate_gaussians(tiny_gaussians, tiny_points.bindings, tiny_rig, params, mode=mode)
    posed.quats.sum().backward()
    assert torch.isfinite(neck.grad).all()
    assert neck.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [-1, 3682])
def test_bindings_beyond_the_rig_are_refused(tiny_rig, tiny_gaussians, tiny_points, mode, wrong):
    bindings = tiny_points.bindings.clone()
    bindings[3] = wrong
    with pytest.raises(ValueError, match=r"`bindings` must be faces 0 to 3681 of the rig"):
        animate_gaussians(tiny_gaussians, bindings, tiny_rig, tiny_rig.neutral(), mode=mode)


def test_unknown_mode_is_refused(tiny_rig, tiny_gaussians, tiny_points):
    with pytest.raises(ValueError, match=r"`mode` must be 'lbs' or 'triangle', got 'rigid'"):
        animate_gaussians(
            tiny_gaussians, tiny_points.bindings, tiny_rig, tiny_rig.neutral(), mode="rigid"
        )


def test_binding_uses_the_persons_own_triangles(tiny_rig, betas, tiny_points):
    """Barycentrics on the person at rest, not on the mean head."""
    vertices = tiny_rig.canonical_vertices(betas)[0]
    bound = bind_points(tiny_points, tiny_rig, vertices)
    corners = vertices[tiny_rig.faces[tiny_points.bindings]]
    weights = barycentric_coordinates(tiny_points.means, corners)
    expected = (
        weights[..., None] * tiny_rig.lbs_weights[tiny_rig.faces[tiny_points.bindings]]
    ).sum(1)
    torch.testing.assert_close(bound.lbs_weights, expected)
