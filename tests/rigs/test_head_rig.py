# SPDX-License-Identifier: Apache-2.0
"""The rig: blendshapes and skinning, checked against the published equations in a loop."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointillist_hf import ProceduralHeadRig
from pointillist_hf.geometry.rotations import axis_angle_to_matrix
from pointillist_hf.rigs.head_rig import FLOAT_ARRAYS, INDEX_ARRAYS
from pointillist_hf.rigs.skinning import skin_points

JOINTS = ("global_orient", "neck_pose", "jaw_pose", "leye_pose", "reye_pose")


@pytest.fixture(scope="module")
def correcting_rig(tiny_rig):
    """The procedural head has no pose correctives of its own; this one has random ones."""
    rig = copy.deepcopy(tiny_rig)
    g = torch.Generator().manual_seed(0)
    rig.posedirs.copy_(0.003 * torch.randn(rig.posedirs.shape, generator=g))
    return rig


def random_params(rig, frames=3, *, same_person=False):
    neutral = rig.neutral(frames)
    betas = torch.randn(1 if same_person else frames, rig.num_betas).expand(frames, -1)
    poses = {name: 0.4 * torch.randn(frames, 3) for name in JOINTS}
    expression = torch.rand(frames, rig.num_expressions)
    transl = 0.1 * torch.randn(frames, 3)
    return replace(neutral, betas=betas, expression=expression, transl=transl, **poses)


def rodrigues(axis_angle):
    angle = np.linalg.norm(axis_angle)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def homogeneous(rotation, translation):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def pose_by_loop(rig, params, frame, vertex_ids):
    """FLAME's equations, one vertex after the other, in double precision."""
    arrays = {name: getattr(rig, name).double().numpy() for name in FLOAT_ARRAYS}
    betas, expression = params.betas[frame].numpy(), params.expression[frame].numpy()
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas + arrays["exprdirs"] @ expression
    joints = arrays["J_regressor"] @ shaped
    rotations = [rodrigues(getattr(params, name)[frame].double().numpy()) for name in JOINTS]
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    chain = [homogeneous(rotations[0], joints[0])]
    for joint, parent in enumerate(rig.parents.tolist()[1:], start=1):
        bone = joints[joint] - joints[parent]
        chain.append(chain[parent] @ homogeneous(rotations[joint], bone))
    from_rest = [world @ homogeneous(np.eye(3), -j) for world, j in zip(chain, joints, strict=True)]
    posed = []
    for v in vertex_ids:
        rest = np.append(shaped[v] + arrays["posedirs"][v] @ feature, 1.0)
        weights = arrays["lbs_weights"][v]
        moved = sum(w * matrix @ rest for w, matrix in zip(weights, from_rest, strict=True))
        posed.append(moved[:3] + params.transl[frame].double().numpy())
    return np.stack(posed)


def moved_by(rig, **changes):
    """How far every vertex of the mean head moves. [V] metres"""
    posed = rig(replace(rig.neutral(), **changes))[0]
    return (posed - rig.v_template).norm(dim=-1)


def rotvec(x=0.0, y=0.0, z=0.0):
    return torch.tensor([[x, y, z]])


def test_zero_pose_is_canonical(correcting_rig):
    betas = torch.randn(2, correcting_rig.num_betas)
    posed = correcting_rig(correcting_rig.neutral(betas=betas))
    canonical = correcting_rig.canonical_vertices(betas)
    torch.testing.assert_close(posed, canonical, atol=1e-7, rtol=0)


def test_global_orient_turns_about_the_root_joint(correcting_rig):
    turn = torch.tensor([[0.3, -1.2, 0.5]])
    betas = torch.randn(1, correcting_rig.num_betas)
    neutral = correcting_rig.neutral(betas=betas)
    rest = correcting_rig(neutral)
    root = correcting_rig.J_regressor[0] @ rest[0]
    expected = (rest - root) @ axis_angle_to_matrix(turn[0]).T + root
    posed = correcting_rig(replace(neutral, global_orient=turn))
    torch.testing.assert_close(posed, expected, atol=1e-6, rtol=0)


def test_translation_moves_everything_alike(correcting_rig):
    params = random_params(correcting_rig, frames=1)
    shift = torch.tensor([[0.1, -0.2, 0.3]])
    moved = correcting_rig(replace(params, transl=params.transl + shift))
    torch.testing.assert_close(moved, correcting_rig(params) + shift, atol=1e-6, rtol=0)


def test_jaw_opens_the_mouth_and_nothing_else(tiny_rig):
    opened = replace(tiny_rig.neutral(), jaw_pose=rotvec(x=0.3))
    offsets = tiny_rig(opened)[0] - tiny_rig.v_template
    distance = offsets.norm(dim=-1)
    assert distance[tiny_rig.mask("teeth_lower")].min() > 0.005
    assert offsets[tiny_rig.mask("teeth_lower"), 1].max() < 0  # downwards
    assert offsets[tiny_rig.mask("lips"), 1].min() < -0.005
    for region in ("teeth_upper", "eye_left", "eye_right", "ear_left", "ear_right", "eyelids"):
        assert distance[tiny_rig.mask(region)].max() < 1e-6, region
    scalp = tiny_rig.mask("scalp")
    assert distance[scalp].max() < 1e-3  # the nape is pulled along a little
    assert distance[scalp[tiny_rig.v_template[scalp, 1] > 0.02]].max() < 1e-6


def test_lower_teeth_follow_the_jaw_rigidly(tiny_rig):
    posed = tiny_rig(replace(tiny_rig.neutral(), jaw_pose=rotvec(x=0.3)))[0]
    closed, opened = (
        v[tiny_rig.mask("teeth_lower")].double() for v in (tiny_rig.v_template, posed)
    )
    distances = torch.cdist(closed, closed)
    torch.testing.assert_close(torch.cdist(opened, opened), distances, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("joint", "region"), [("leye_pose", "eye_left"), ("reye_pose", "eye_right")]
)
def test_eyes_move_alone_but_for_their_lids(tiny_rig, joint, region):
    distance = moved_by(tiny_rig, **{joint: rotvec(x=0.1, y=0.3)})
    eye = tiny_rig.mask(region)
    centre = tiny_rig.v_template[eye].mean(0)
    others = (tiny_rig.v_template - centre).norm(dim=-1) > 0.03
    assert distance[eye].max() > 0.002
    assert distance[others].max() < 1e-6


def test_left_is_positive_x(tiny_rig):
    assert tiny_rig.v_template[tiny_rig.mask("eye_left"), 0].mean() > 0.02
    assert tiny_rig.v_template[tiny_rig.mask("nose"), 2].mean() > 0.05


def test_skinned_vertices_are_the_forward_pass(correcting_rig):
    params = random_params(correcting_rig, same_person=True)
    rest = correcting_rig.canonical_vertices(params.betas[:1])[0]
    points = correcting_rig.skinned_vertices(rest)
    motion = correcting_rig.joint_motion(params)
    posed, blended = skin_points(points, params.expression, motion)
    torch.testing.assert_close(posed, correcting_rig(params), atol=1e-6, rtol=0)
    assert blended.shape == (3, len(rest), 3, 3)


def test_forward_equals_the_published_equations(correcting_rig):
    params = random_params(correcting_rig)
    vertex_ids = range(0, len(correcting_rig.v_template), 37)
    posed = correcting_rig(params)
    for frame in range(len(params)):
        expected = pose_by_loop(correcting_rig, params, frame, vertex_ids)
        found = posed[frame, list(vertex_ids)].double().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_frames_do_not_depend_on_each_other(correcting_rig):
    params = random_params(correcting_rig)
    alone = torch.cat([correcting_rig(params[t : t + 1]) for t in range(3)])
    torch.testing.assert_close(correcting_rig(params), alone, atol=1e-7, rtol=0)


def test_skinning_weights_sum_to_one(tiny_rig):
    assert (tiny_rig.lbs_weights >= 0).all()
    sums = tiny_rig.lbs_weights.sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_named_expressions(tiny_rig):
    names = tiny_rig.expression_names
    both = tiny_rig.expression({"mouthSmile": 0.5})[0]
    assert {n for n, v in zip(names, both, strict=True) if v} == {
        "mouthSmileLeft",
        "mouthSmileRight",
    }
    assert both.max() == 0.5
    one = tiny_rig.expression({"mouthSmileLeft": 1.0, "jawForward": 0.25})[0]
    assert one[names.index("mouthSmileLeft")] == 1
    assert one[names.index("jawForward")] == 0.25
    assert one.count_nonzero() == 2


def test_left_expressions_stay_left(tiny_rig):
    distance = moved_by(tiny_rig, expression=tiny_rig.expression({"eyeBlinkLeft": 1.0}))
    right_side = tiny_rig.v_template[:, 0] < -0.01
    assert distance.max() > 0.003
    assert distance[right_side].max() < 1e-6


def test_unknown_expression_is_refused(tiny_rig):
    with pytest.raises(ValueError, match=r"`smirk` is no expression of this rig.*jawLeft"):
        tiny_rig.expression({"smirk": 1.0})


def test_unknown_region_is_refused(tiny_rig):
    with pytest.raises(ValueError, match=r"`chin` is no region of this rig.*scalp"):
        tiny_rig.mask("chin")


@pytest.mark.parametrize("name", ["betas", "expression"])
def test_params_of_another_rig_are_refused(tiny_rig, name):
    params = replace(tiny_rig.neutral(2), **{name: torch.zeros(2, 100)})
    with pytest.raises(ValueError, match=f"`{name}` must have .* got 100. Parameters of another"):
        tiny_rig(params)


def test_unknown_resolution_is_refused():
    with pytest.raises((ValueError, KeyError), match="medium"):
        ProceduralHeadRig("medium")


def test_sampled_points_lie_on_the_head_with_unit_normals(tiny_rig):
    betas = torch.randn(2, tiny_rig.num_betas)
    points = tiny_rig.sample_points(betas, 300, seed=1)
    assert points.shape == (2, 300, 6)
    torch.testing.assert_close(points[..., 3:].norm(dim=-1), torch.ones(2, 300))
    assert torch.equal(points, tiny_rig.sample_points(betas, 300, seed=1))
    # The same spots on everybody: a row does not depend on the other one.
    torch.testing.assert_close(points[1:], tiny_rig.sample_points(betas[1:], 300, seed=1))
    vertices = tiny_rig.canonical_vertices(betas)
    edges = vertices[:, tiny_rig.faces] - vertices[:, tiny_rig.faces.roll(1, dims=1)]
    nearest = torch.cdist(points[..., :3], vertices).amin(-1)
    assert nearest.max() <= edges.norm(dim=-1).max()


def test_landmarks_mix_the_corners_of_their_faces(tiny_rig):
    vertices = tiny_rig(random_params(tiny_rig, frames=2))
    landmarks = tiny_rig.landmarks(vertices)
    assert landmarks.shape == (2, 68, 3)
    corners = vertices[:, tiny_rig.faces[tiny_rig.landmark_faces]]
    expected = (tiny_rig.landmark_barycentric[..., None] * corners).sum(2)
    torch.testing.assert_close(landmarks, expected, atol=1e-6, rtol=0)


def test_save_and_load(tiny_rig, tmp_path):
    tiny_rig.save_pretrained(tmp_path)
    loaded = ProceduralHeadRig.from_pretrained(tmp_path)
    for name in (*FLOAT_ARRAYS, *INDEX_ARRAYS):
        assert torch.equal(getattr(loaded, name), getattr(tiny_rig, name)), name
    assert loaded.expression_names == tiny_rig.expression_names
    assert torch.equal(loaded.mask("lips"), tiny_rig.mask("lips"))
    params = random_params(tiny_rig)
    torch.testing.assert_close(loaded(params), tiny_rig(params), atol=1e-7, rtol=0)


def test_half_precision_is_ignored(tiny_rig, tmp_path):
    rig = copy.deepcopy(tiny_rig)
    for moved in (
        rig.to(torch.float16),
        rig.to("cpu", torch.float16),
        rig.to(dtype=torch.bfloat16),
    ):
        assert moved.v_template.dtype == torch.float32
        assert moved.faces.dtype == torch.int64
    rig.save_pretrained(tmp_path)
    loaded = ProceduralHeadRig.from_pretrained(tmp_path, dtype=torch.float16)
    assert loaded.v_template.dtype == torch.float32
    assert torch.equal(loaded.shapedirs, tiny_rig.shapedirs)


def test_rigs_of_an_earlier_sculpt_load_as_they_were_saved(tiny_rig, tmp_path):
    rig = ProceduralHeadRig("low")
    kept = torch.arange(len(rig.v_template) - 40)
    for name in ("v_template", "shapedirs", "exprdirs", "posedirs", "lbs_weights"):
        setattr(rig, name, getattr(rig, name)[kept].clone())
    rig.J_regressor = rig.J_regressor[:, kept].clone()
    rig.faces = rig.faces[(rig.faces < len(kept)).all(-1)].clone()
    rig.exprdirs = rig.exprdirs[..., :-1].clone()
    del rig.mask_tongue
    rig.save_pretrained(tmp_path)
    loaded = ProceduralHeadRig.from_pretrained(tmp_path)
    for name in (*FLOAT_ARRAYS, *INDEX_ARRAYS):
        assert torch.equal(getattr(loaded, name), getattr(rig, name)), name
    assert loaded.expression_names == tiny_rig.expression_names[:-1]
    with pytest.raises(ValueError, match="`tongue` is no region of this rig"):
        loaded.mask("tongue")
    assert loaded(loaded.neutral()).shape == (1, len(kept), 3)
