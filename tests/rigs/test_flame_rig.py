# SPDX-License-Identifier: Apache-2.0
"""The rig made of FLAME's arrays: its forward pass and its teeth."""

from collections import Counter

import numpy as np
import pytest
import torch
from fake_flame import NUM_VERTICES, random_params, rotation, write_flame

from pointillist_hf import FlameHeadRig, PointTokenizer
from pointillist_hf.geometry.structures import CanonicalPoints, RigParams
from pointillist_hf.rigs.binding import bind_points
from pointillist_hf.rigs.flame.teeth import LOWER_LIP, UPPER_LIP, tooth_faces
from pointillist_hf.rigs.skinning import skin_points


def flame_forward(arrays, params, t):
    """The published equations, one vertex and one joint at a time where it matters."""
    coefficients = np.concatenate([params.betas[t].numpy(), params.expression[t].numpy()])
    shaped = arrays["v_template"] + arrays["shapedirs"] @ coefficients.astype(np.float64)
    joints = arrays["J_regressor"] @ shaped
    turns = [rotation(pose.numpy().astype(np.float64)) for pose in params.poses[t]]
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + arrays["posedirs"] @ feature
    chain = [np.eye(4)]
    chain[0][:3, :3], chain[0][:3, 3] = turns[0], joints[0]
    for joint, parent in enumerate((0, 1, 1, 1), start=1):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turns[joint], joints[joint] - joints[parent]
        chain.append(chain[parent] @ local)
    result = np.zeros_like(posed)
    for v in range(len(posed)):
        for joint in range(5):
            turned = chain[joint][:3, :3] @ (posed[v] - joints[joint]) + chain[joint][:3, 3]
            result[v] += arrays["weights"][v, joint] * turned
    return result + params.transl[t].numpy()


def test_the_forward_pass_is_that_of_the_published_equations(flame_rig, flame_arrays):
    params = random_params(flame_rig)
    vertices = flame_rig(params)
    assert vertices.shape == (2, 5143, 3)
    for t in range(2):
        expected = flame_forward(flame_arrays, params, t)
        assert np.abs(vertices[t, :NUM_VERTICES].numpy() - expected).max() < 2e-6
    exact = FlameHeadRig.double(flame_rig)(random_params(flame_rig).to(torch.float64))
    flame_rig.float()
    # The arrays themselves are stored in single precision.
    assert (
        np.abs(exact[0, :NUM_VERTICES].numpy() - flame_forward(flame_arrays, params, 0)).max()
        < 1e-6
    )


@pytest.mark.parametrize("chumpy", [None, "ch", "select"])
def test_another_implementation_of_flame_agrees(chumpy, flame_arrays, tmp_path):
    # pip install body-models; not among the extras, as a package it needs states no licence.
    other = pytest.importorskip("body_models.flame.numpy", reason="needs body-models")
    path = tmp_path / "flame2023.pkl"
    write_flame(path, flame_arrays, chumpy=chumpy)
    rig = FlameHeadRig.from_flame(path)
    params = random_params(rig)
    expected = other.FLAME(model_path=path).forward_vertices(
        params.poses[:, 1:].numpy(),
        head_rotation=params.global_orient.numpy(),
        shape=params.betas.numpy(),
        expression=params.expression.numpy(),
        global_translation=params.transl.numpy(),
    )
    assert np.abs(rig(params)[:, :NUM_VERTICES].numpy() - expected).max() < 2e-6


def test_zero_pose_is_the_shaped_template(flame_rig, flame_arrays):
    params = flame_rig.neutral(betas=random_params(flame_rig).betas[:1])
    expected = flame_rig.canonical_vertices(params.betas)
    torch.testing.assert_close(flame_rig(params), expected, atol=1e-6, rtol=0)


def test_points_on_vertices_move_like_the_vertices(flame_rig):
    params = random_params(flame_rig)
    rest = flame_rig.canonical_vertices(params.betas[:1])[0]
    faces = torch.randint(flame_rig.num_faces, (200,), generator=torch.Generator().manual_seed(1))
    corners = flame_rig.faces[faces, 1]
    bound = bind_points(CanonicalPoints(rest[corners], faces), flame_rig, rest)
    moved, _ = skin_points(bound, params.expression, flame_rig.joint_motion(params))
    torch.testing.assert_close(moved, flame_rig(params)[:, corners], atol=2e-4, rtol=0)


def test_teeth_complete_the_vocabulary_of_the_paper(flame_rig, flame_file):
    assert flame_rig.num_faces == 10_144
    assert len(FlameHeadRig.from_flame(flame_file, add_teeth=False).faces) == 9_976
    new = flame_rig.faces[9_976:]
    assert new.min() == NUM_VERTICES
    assert new.max() == 5_142
    assert len(torch.unique(new.sort(1).values, dim=0)) == 168
    # Corrected in GaussianAvatars in May 2024: face 133 of the teeth ends in vertex 115.
    assert (tooth_faces()[133] - NUM_VERTICES).tolist() == [101, 116, 115]
    assert PointTokenizer(num_bins=1024, num_faces=flame_rig.num_faces).bos_token_id == 11_168


def test_teeth_lie_behind_the_lips(flame_rig, flame_arrays):
    teeth = flame_rig.v_template[NUM_VERTICES:].double().numpy().reshape(8, 15, 3)
    upper, lower = (flame_arrays["v_template"][list(ring)] for ring in (UPPER_LIP, LOWER_LIP))
    gap = np.linalg.norm(upper - lower, axis=1).mean()
    middle = (upper + lower) / 2
    upper_root, lower_root, upper_edge, lower_edge = teeth[:4]
    np.testing.assert_allclose(upper_edge[:, 1], middle[:, 1].mean() + 0.1 * gap, atol=1e-6)
    np.testing.assert_allclose(upper_edge[:, 2], middle[:, 2] - 1.5 * gap, atol=1e-6)
    np.testing.assert_allclose(lower_edge[:, 2], middle[:, 2] - 1.9 * gap, atol=1e-6)
    np.testing.assert_allclose(upper_root - upper_edge, [[0, 2 * gap, 0]] * 15, atol=1e-6)
    np.testing.assert_allclose(lower_edge - lower_root, [[0, 2 * gap, 0]] * 15, atol=1e-6)
    np.testing.assert_allclose(
        teeth[4:] - teeth[[0, 2, 1, 3]], [[[0, 0, -gap]] * 15] * 4, atol=1e-6
    )


def test_strips_of_teeth_are_closed_sheets():
    """Inside a strip every edge belongs to two triangles, which run through it in both senses."""
    for strip in tooth_faces().reshape(6, 28, 3):
        edges = Counter()
        for a, b, c in strip:
            edges.update([(a, b), (b, c), (c, a)])
        assert max(edges.values()) == 1
        inner = sum((b, a) in edges for a, b in edges)
        assert inner == 2 * 27  # 28 triangles in a row share 27 edges


def test_the_lower_teeth_follow_the_jaw_alone(flame_rig):
    rest = flame_rig(flame_rig.neutral())[0, NUM_VERTICES:]
    params = random_params(flame_rig, frames=1, seed=3)
    moved = flame_rig.neutral()
    fields = {name: getattr(moved, name) for name in moved.__dataclass_fields__}
    fields |= {"jaw_pose": params.jaw_pose}
    opened = flame_rig(RigParams(**fields))[0, NUM_VERTICES:]
    is_upper = torch.tensor([True, False, True, False, True, True, False, False])
    is_upper = is_upper.repeat_interleave(15)
    torch.testing.assert_close(opened[is_upper], rest[is_upper], atol=1e-6, rtol=0)
    joint = (flame_rig.J_regressor @ flame_rig.v_template)[2]
    turn = torch.tensor(rotation(params.jaw_pose[0].double().numpy()), dtype=torch.float32)
    expected = (rest[~is_upper] - joint) @ turn.T + joint
    torch.testing.assert_close(opened[~is_upper], expected, atol=1e-5, rtol=0)
    # Expressions leave them where they are, but for what they do to the joints.
    fields = {**fields, "jaw_pose": moved.jaw_pose, "expression": params.expression}
    smiled = flame_rig(RigParams(**fields))[0, NUM_VERTICES:]
    torch.testing.assert_close(smiled, rest, atol=1e-6, rtol=0)
