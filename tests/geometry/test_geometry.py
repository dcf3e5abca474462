# SPDX-License-Identifier: Apache-2.0
"""Rotations, cameras, triangles and records."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from pointillist_hf.geometry.cameras import look_at, orbit_cameras, project_points
from pointillist_hf.geometry.rotations import (
    axis_angle_to_matrix,
    matrix_to_quat,
    nearest_rotation,
    quat_multiply,
    quat_to_matrix,
)
from pointillist_hf.geometry.structures import Cameras, CanonicalPoints, Gaussians, RigParams
from pointillist_hf.geometry.triangles import (
    barycentric_coordinates,
    face_areas,
    interpolate_corners,
    sample_surface,
    triangle_frames,
)

ANGLES = [0.0, 1e-12, 1e-6, 0.9e-4, 1.1e-4, 0.5, 2.0, math.pi - 1e-7, math.pi, math.pi + 1e-3, 6.0]

# corners, columns of the rotation, size, centroid, quaternion wxyz, world place of LOCAL
LOCAL = [0.5, -0.25, 1.0]
FRAMES = [
    (
        [[0, 0, 0], [1, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        1.0,
        [1 / 3, 1 / 3, 0],
        [0.7071068, 0.7071068, 0, 0],
        [0.8333333, -0.6666667, -0.25],
    ),
    (
        [[0.1, 0.2, 0.3], [0.4, 0.2, 0.3], [0.2, 0.6, 0.5]],
        [[1, 0, 0], [0, -0.4472136, 0.8944272], [0, -0.8944272, -0.4472136]],
        0.3736068,
        [0.2333333, 0.3333333, 0.3666667],
        [0.5257311, 0.8506508, 0, 0],
        [0.4201367, 0.0409397, 0.1160436],
    ),
]


def skew(vectors):
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def random_quats(count, dtype=torch.float64):
    return normalize(torch.randn(count, 4, dtype=dtype), dim=-1)


def random_triangles(count):
    return torch.randn(count, 3, 3, dtype=torch.float64)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_is_the_matrix_exponential(angle):
    vectors = angle * normalize(torch.randn(20, 3, dtype=torch.float64), dim=-1)
    expected = torch.linalg.matrix_exp(skew(vectors))
    torch.testing.assert_close(axis_angle_to_matrix(vectors), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_matrix_to_quat_and_back(angle):
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.randn(20, 3)]).double()
    matrices = axis_angle_to_matrix(angle * normalize(axes, dim=-1))
    quats = matrix_to_quat(matrices)
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(26).double())
    assert (quats.gather(-1, quats.abs().argmax(-1, keepdim=True)) > 0).all()
    torch.testing.assert_close(quat_to_matrix(quats), matrices, atol=1e-12, rtol=0)


def test_matrix_to_quat_inverts_quat_to_matrix_up_to_sign():
    quats = random_quats(500)
    back = matrix_to_quat(quat_to_matrix(quats))
    torch.testing.assert_close((quats * back).sum(-1).abs(), torch.ones(500).double())


def test_quat_length_does_not_matter_to_the_matrix():
    quats = random_quats(10)
    torch.testing.assert_close(quat_to_matrix(7 * quats), quat_to_matrix(quats))


def test_gradients_at_zero_are_the_generators():
    jacobian = torch.autograd.functional.jacobian(axis_angle_to_matrix, torch.zeros(3))
    torch.testing.assert_close(jacobian.permute(2, 0, 1), skew(torch.eye(3)))


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1.0, math.pi])
def test_gradients_are_finite_through_quaternions(angle):
    vector = torch.tensor([angle, 0.0, 0.0], requires_grad=True)
    matrix_to_quat(axis_angle_to_matrix(vector)).sum().backward()
    assert torch.isfinite(vector.grad).all()


def test_quat_multiply_is_the_matrix_product():
    left, right = random_quats(50), random_quats(50)
    product = quat_to_matrix(quat_multiply(left, right))
    torch.testing.assert_close(product, quat_to_matrix(left) @ quat_to_matrix(right))


def test_quat_multiply_with_the_inverse_is_one():
    quats = random_quats(20)
    product = quat_multiply(quats, quats * torch.tensor([1, -1, -1, -1]))
    torch.testing.assert_close(product, torch.eye(4)[0].double().expand(20, 4))


def test_nearest_rotation_of_a_rotation_is_itself():
    matrices = quat_to_matrix(random_quats(50))
    torch.testing.assert_close(nearest_rotation(matrices), matrices)


def test_nearest_rotation_takes_out_stretch():
    matrices = quat_to_matrix(random_quats(50))
    stretch = torch.randn(50, 3, 3).double()
    stretch = stretch @ stretch.mT + 0.1 * torch.eye(3)
    torch.testing.assert_close(nearest_rotation(matrices @ stretch), matrices, atol=1e-9, rtol=0)


def test_nearest_rotation_is_never_a_reflection():
    nearest = nearest_rotation(torch.randn(200, 3, 3).double())
    torch.testing.assert_close(torch.linalg.det(nearest), torch.ones(200).double())


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_nearest_rotation_has_its_gradient_even_at_rotations(noise):
    matrices = torch.cat([torch.eye(3)[None].double(), quat_to_matrix(random_quats(5))])
    matrices = (matrices + noise * torch.randn(6, 3, 3).double()).requires_grad_()
    assert torch.autograd.gradcheck(nearest_rotation, matrices)
    torch.testing.assert_close(nearest_rotation(matrices), nearest_rotation(matrices.detach()))


def test_look_at_centres_the_target():
    eyes, targets = torch.randn(10, 3).double() + 3, torch.randn(10, 3).double()
    viewmats = look_at(eyes, targets)
    seen = torch.einsum("cij,cj->ci", viewmats[:, :3, :3], targets) + viewmats[:, :3, 3]
    torch.testing.assert_close(seen[:, :2], torch.zeros(10, 2).double())
    torch.testing.assert_close(seen[:, 2], (targets - eyes).norm(dim=-1))
    torch.testing.assert_close(torch.linalg.det(viewmats[:, :3, :3]), torch.ones(10).double())


def test_orbit_starts_in_front_and_moves_to_the_subjects_left():
    cameras = orbit_cameras([0.0, 90.0, 180.0], distance=2.0, target=(0.0, 0.0, 0.0))
    rotation, translation = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
    centres = -torch.einsum("cji,cj->ci", rotation, translation)
    expected = torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    torch.testing.assert_close(centres, expected, atol=1e-6, rtol=0)


def test_elevation_lifts_the_camera():
    viewmat = orbit_cameras([0.0], 90.0 - 1e-3, distance=2.0, target=(0.0, 0.0, 0.0)).viewmats[0]
    assert -(viewmat[:3, :3].T @ viewmat[:3, 3])[1] == pytest.approx(2.0)


def test_projection_of_the_neighbours_of_the_target():
    cameras = orbit_cameras([0.0], target=(0.0, 0.0, 0.0), width=200, height=100)
    points = torch.tensor([[0, 0, 0], [0, 0.05, 0], [0.05, 0, 0], [0, 0, 0.05]])
    pixels, depths = project_points(points, cameras)
    centre, above, left, front = pixels[0]
    torch.testing.assert_close(centre, torch.tensor([100.0, 50.0]))
    torch.testing.assert_close(front, centre)
    assert above[1] < 50  # +y is in the upper half
    assert above[0] == pytest.approx(100)
    assert left[0] > 100  # the subject's left is on the right of a picture from the front
    torch.testing.assert_close(depths[0], torch.tensor([1.2, 1.2, 1.2, 1.15]))


def test_field_of_view_spans_the_height():
    cameras = orbit_cameras([0.0], fov=30.0, distance=2.0, target=(0.0, 0.0, 0.0), height=64)
    top = torch.tensor([[0.0, 2 * math.tan(math.radians(15)), 0.0]])
    assert project_points(top, cameras)[0][0, 0, 1] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("corners", "columns", "size", "centre", "quat", "place"), FRAMES)
def test_triangle_frames_of_gaussian_avatars(corners, columns, size, centre, quat, place):
    rotation, centroid, scale = triangle_frames(torch.tensor(corners).double())
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(rotation, torch.tensor(columns).double().T, **close)
    torch.testing.assert_close(centroid, torch.tensor(centre).double(), **close)
    torch.testing.assert_close(scale, torch.tensor(size).double(), **close)
    torch.testing.assert_close(matrix_to_quat(rotation), torch.tensor(quat).double(), **close)
    world = rotation @ torch.tensor(LOCAL).double() * scale + centroid
    torch.testing.assert_close(world, torch.tensor(place).double(), **close)


def test_triangle_frames_move_with_the_triangles():
    corners, turn, shift = random_triangles(20), quat_to_matrix(random_quats(1)), torch.randn(3)
    rotation, centre, size = triangle_frames(corners)
    moved = triangle_frames(3 * corners @ turn.mT + shift)
    torch.testing.assert_close(moved[0], turn @ rotation)
    torch.testing.assert_close(moved[1], 3 * centre @ turn[0].T + shift)
    torch.testing.assert_close(moved[2], 3 * size)


def test_barycentric_of_corners_and_centroid():
    corners = random_triangles(20)
    for k in range(3):
        weights = barycentric_coordinates(corners[:, k], corners)
        torch.testing.assert_close(weights, torch.eye(3)[k].double().expand(20, 3))
    weights = barycentric_coordinates(corners.mean(1), corners)
    torch.testing.assert_close(weights, torch.full((20, 3), 1 / 3).double(), atol=1e-7, rtol=0)


def test_barycentric_ignores_the_height_over_the_plane():
    corners = random_triangles(20)
    weights = torch.rand(20, 3).double()
    weights = weights / weights.sum(-1, keepdim=True)
    normals = triangle_frames(corners)[0][..., 1]
    points = torch.einsum("nk,nkc->nc", weights, corners) + 0.3 * normals
    torch.testing.assert_close(barycentric_coordinates(points, corners), weights)


def test_barycentric_is_clamped_outside():
    corners = random_triangles(200)
    weights = barycentric_coordinates(5 * torch.randn(200, 3).double(), corners)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(200).double())
    beyond_corner = barycentric_coordinates(2 * corners[:, 0] - corners[:, 1:].mean(1), corners)
    torch.testing.assert_close(beyond_corner, torch.eye(3)[0].double().expand(200, 3))


@pytest.mark.parametrize("corners", [[[0, 0, 0]] * 3, [[0, 0, 0], [1, 0, 0], [2, 0, 0]]])
def test_barycentric_of_flat_triangles_is_still_a_mixture(corners):
    weights = barycentric_coordinates(torch.rand(50, 3), torch.tensor(corners).float())
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(50))


def test_interpolated_corners_equal_a_loop():
    vertices, faces = torch.randn(6, 3, 4), torch.tensor([[0, 1, 2], [3, 4, 5]])
    bindings, weights = torch.tensor([1, 0, 1]), torch.rand(3, 3)
    expected = [
        sum(weights[n, k] * vertices[faces[face, k]] for k in range(3))
        for n, face in enumerate(bindings.tolist())
    ]
    mixed = interpolate_corners(vertices, faces, bindings, weights)
    torch.testing.assert_close(mixed, torch.stack(expected))


def test_surface_samples_follow_seed_and_weights():
    weights = torch.tensor([1.0, 0.0, 3.0])
    face_ids, barycentric = sample_surface(weights, 4000, seed=5)
    again, other = sample_surface(weights, 4000, seed=5), sample_surface(weights, 4000, seed=6)
    assert torch.equal(face_ids, again[0])
    assert torch.equal(barycentric, again[1])
    assert not torch.equal(face_ids, other[0])
    assert set(face_ids.tolist()) == {0, 2}
    assert (face_ids == 2).float().mean() == pytest.approx(0.75, abs=0.03)
    assert (barycentric >= 0).all()
    torch.testing.assert_close(barycentric.sum(-1), torch.ones(4000))
    torch.testing.assert_close(barycentric.mean(0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_surface_samples_leave_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    sample_surface(torch.ones(4), 10, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_area_of_a_right_triangle():
    vertices = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 0, 4]])
    torch.testing.assert_close(face_areas(vertices, torch.tensor([[0, 1, 2]])), torch.tensor([6.0]))


def build_gaussians(*batch):
    ones = torch.ones
    return Gaussians(
        ones(*batch, 3), ones(*batch, 4), ones(*batch, 3), ones(batch), ones(*batch, 3)
    )


def build_params(frames=2):
    return RigParams(*[torch.zeros(frames, n) for n in (5, 4)], *[torch.zeros(frames, 3)] * 6)


def test_points_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"`means` must have shape \(\*, 3\), got \(4, 2\)"):
        CanonicalPoints(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"`bindings` must have shape \(4\), got \(5,\)"):
        CanonicalPoints(torch.zeros(4, 3), torch.zeros(5))


@pytest.mark.parametrize("name", ["quats", "scales", "opacities", "colors"])
def test_gaussians_refuse_wrong_shapes(name):
    fields = {**vars(build_gaussians(2, 5)), name: torch.zeros(2, 5, 7)}
    with pytest.raises(ValueError, match=rf"`{name}` must have shape .*got \(2, 5, 7\)"):
        Gaussians(**fields)


def test_cameras_refuse_wrong_shapes():
    viewmats, intrinsics = torch.eye(4)[None], torch.eye(3)[None]
    with pytest.raises(ValueError, match=r"`viewmats` must have shape \(\*, 4, 4\)"):
        Cameras(viewmats[0], intrinsics, 4, 4)
    with pytest.raises(ValueError, match=r"`Ks` must have shape \(1, 3, 3\), got \(2, 3, 3\)"):
        Cameras(viewmats, intrinsics.repeat(2, 1, 1), 4, 4)
    with pytest.raises(ValueError, match="`width` must be a whole number, 1 to 65536, got 0"):
        Cameras(viewmats, intrinsics, 0, 4)


@pytest.mark.parametrize("name", ["global_orient", "jaw_pose", "transl"])
def test_rig_params_refuse_wrong_shapes(name):
    with pytest.raises(ValueError, match=rf"`{name}` must have shape \(2, 3\), got \(1, 3\)"):
        RigParams(**{**vars(build_params()), name: torch.zeros(1, 3)})


def test_rig_params_keep_their_frames():
    params = build_params(frames=3)
    assert len(params[1:]) == 2
    assert params.poses.shape == (3, 5, 3)
    with pytest.raises(TypeError, match="slice or a tensor"):
        params[0]


def test_records_convert_floats_and_select():
    gaussians = build_gaussians(2, 5).to(torch.float64)
    assert gaussians.opacities.dtype == torch.float64
    assert len(gaussians) == 5
    assert gaussians[0].means.shape == (5, 3)
    cameras = orbit_cameras([0.0, 10.0], width=8, height=4).to(torch.float64)
    assert (cameras[1:].viewmats.dtype, len(cameras[1:]), cameras.width) == (torch.float64, 1, 8)
