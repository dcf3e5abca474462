# SPDX-License-Identifier: Apache-2.0
"""The procedural head: its mesh, its spaces, its weights and its regions."""

import numpy as np
import pytest

from pointillist_hf.rigs.procedural.arrays import build_head_arrays
from pointillist_hf.rigs.procedural.ears import RINGS, ear_axes, ear_height
from pointillist_hf.rigs.procedural.expressions import build_expression_fields
from pointillist_hf.rigs.procedural.fields import SIDES
from pointillist_hf.rigs.procedural.identity import build_identity_fields
from pointillist_hf.rigs.procedural.region_masks import lip_mask
from pointillist_hf.rigs.procedural.regions import build_landmarks, build_masks
from pointillist_hf.rigs.procedural.sculpt import EYE_CENTRE, head_distance, skin_normals
from pointillist_hf.rigs.procedural.template import (
    NUM_EAR_SPOKES,
    build_template,
    vertex_normals,
)
from pointillist_hf.rigs.procedural.weights import (
    JOINTS,
    build_jaw_weights,
    build_joint_regressor,
    build_skin_weights,
)

HARD_PARTS = ("teeth_upper", "teeth_lower", "ear_left", "ear_right", "eye_left", "eye_right")


def resolution_of(template):
    return "full" if len(template.vertices) > 3000 else "low"


def mirror_ids(template):
    """The vertex opposite each one; where lips touch, on the same lip."""
    places = np.round(template.vertices, 6) + 0.0
    below = np.column_stack([template.below_mouth, template.below_eye])
    ids = {(*place, *at): k for k, (place, at) in enumerate(zip(places, below, strict=True))}
    assert len(ids) == len(places)
    mirrored = np.round(template.vertices * (-1, 1, 1), 6) + 0.0
    return np.array([ids[*place, *at] for place, at in zip(mirrored, below, strict=True)])


def cycle(face):
    """A face's vertices, beginning with the lowest."""
    start = int(np.argmin(face))
    return tuple(np.roll(face, -start))


@pytest.fixture(scope="module", params=["full", "low"])
def template(request):
    return build_template(request.param)


@pytest.fixture(scope="module")
def low():
    return build_template("low")


@pytest.fixture(scope="module")
def identity(low):
    return build_identity_fields(low)


@pytest.fixture(scope="module")
def expressions(low):
    names, directions = build_expression_fields(low, build_jaw_weights(low))
    return {name: directions[..., k] for k, name in enumerate(names)}


@pytest.mark.parametrize(
    ("resolution", "num_vertices", "num_faces"), [("full", 4882, 9504), ("low", 1932, 3682)]
)
def test_counts(resolution, num_vertices, num_faces):
    template = build_template(resolution)
    assert template.vertices.shape == (num_vertices, 3)
    assert template.faces.shape == (num_faces, 3)
    rows, columns = template.grid_shape
    assert np.all(template.row_y[: rows * columns] > -49)
    assert template.row_y[rows * columns] == 50


def test_rebuilding_gives_the_same_bits():
    first = build_head_arrays("low")
    build_template.cache_clear()
    second = build_head_arrays("low")
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


def test_vertices_faces_and_normals_are_mirror_symmetric(template):
    mirror = mirror_ids(template)
    mirrored = template.vertices[mirror] * (-1, 1, 1)
    np.testing.assert_allclose(mirrored, template.vertices, atol=1e-9, rtol=0)
    normals = template.normals[mirror] * (-1, 1, 1)
    np.testing.assert_allclose(normals, template.normals, atol=1e-9, rtol=0)
    # Mirrored faces run the other way round.
    opposite = {cycle(face) for face in mirror[template.faces[:, ::-1]]}
    assert opposite == {cycle(face) for face in template.faces}
    rows, columns = template.grid_shape
    grid = template.vertices[: rows * columns].reshape(rows, columns, 3)
    opposite = grid[:, (-np.arange(columns)) % columns] * (-1, 1, 1)
    np.testing.assert_allclose(grid, opposite, atol=1e-9, rtol=0)


def test_skin_faces_look_outwards(template):
    on_skin = template.vertex_parts == "skin"
    outwards = skin_normals(template.vertices[on_skin])
    normals = template.normals[on_skin]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-9)
    # The coarse mesh turns less sharply than the sculpt at the lips and the nostrils.
    facing = (normals * outwards).sum(-1)
    assert facing.min() > -0.3
    assert np.mean(facing > 0.7) > 0.97


def test_neighbours_agree_on_their_outside(template):
    edges = template.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    assert len(np.unique(edges, axis=0)) == len(edges)


@pytest.mark.parametrize("side", ["left", "right"])
def test_ears_look_outwards(template, side):
    outward = ear_axes()[2] * (SIDES[side], 1, 1)
    facing = template.normals[template.vertex_parts == f"ear_{side}"] @ outward
    num_front = 1 + len(RINGS) * NUM_EAR_SPOKES[resolution_of(template)]
    assert np.mean(facing[:num_front] > 0) > 0.9
    assert np.mean(facing[num_front:]) < 0.2


def test_ears_have_their_features():
    places = {
        "helix": (1.90, 0.40), "scapha": (1.50, 0.40), "antihelix": (1.08, 0.30),
        "concha": (0.34, -0.45), "tragus": (-0.55, -0.55), "notch": (-0.05, -1.22),
        "lobe": (0.40, -2.10),
    }  # fmt: skip
    heights = dict(zip(places, ear_height(np.array(list(places.values()))), strict=True))
    assert heights["scapha"] < min(heights["helix"], heights["antihelix"]) - 0.2
    assert heights["concha"] < min(heights["antihelix"], heights["tragus"]) - 0.4
    assert heights["notch"] < min(heights["tragus"], heights["lobe"])


def test_the_tongue_lies_behind_the_teeth(template):
    tongue = template.vertices[template.tongue]
    lower_teeth = template.vertices[template.vertex_parts == "teeth_lower"]
    assert tongue[:, 2].max() < lower_teeth[:, 2].max()
    assert tongue[:, 1].min() > -5.0
    assert np.abs(tongue[:, 0]).max() < np.abs(lower_teeth[:, 0]).max()
    jaw = build_jaw_weights(template)[template.tongue]
    assert jaw[0] == 1
    assert (np.diff(jaw[1:].reshape(6, -1)[:, 0]) <= 0).all()


def test_closed_parts_look_outwards(template):
    for side, sign in (("left", 1), ("right", -1)):
        on_eye = template.vertex_parts == f"eye_{side}"
        outwards = template.vertices[on_eye] - EYE_CENTRE * (sign, 1, 1)
        assert ((template.normals[on_eye] * outwards).sum(-1) > 1).all()
    tongue = template.vertices[template.tongue]
    outwards = tongue - tongue.mean(0)
    along = (template.normals[template.tongue] * outwards).sum(-1)
    assert np.mean(along > 0) > 0.85


def test_no_face_is_degenerate_or_there_twice(template):
    assert len(np.unique(np.sort(template.faces), axis=0)) == len(template.faces)
    first, second, third = template.vertices[template.faces].swapaxes(0, 1)
    doubled_area = np.linalg.norm(np.cross(second - first, third - first), axis=-1)
    assert doubled_area.min() > 1e-4


def test_skin_lies_on_the_sculpt(low):
    # Rows under the jaw are relaxed off the sculpt; eyes and face are not.
    in_face = (low.vertex_parts == "skin") & (low.row_y > -5) & (low.row_y < 50)
    assert np.abs(head_distance(low.vertices[in_face])).max() < 1e-6


def test_slits_separate_upper_from_lower(low):
    for edges in (low.mouth_edges, {k[5:]: v for k, v in low.eye_edges.items() if k[:4] == "left"}):
        np.testing.assert_array_equal(edges["upper"][[0, -1]], edges["lower"][[0, -1]])
        assert not set(edges["upper"][1:-1]) & set(edges["lower"][1:-1])
    assert low.below_mouth[low.mouth_edges["lower"][1:-1]].all()
    assert not low.below_mouth[low.mouth_edges["upper"]].any()
    x = low.vertices[low.eye_edges["right_upper"], 0]
    assert (np.diff(x) < 0).all()  # from the inner to the outer canthus


def test_skin_weights_are_a_partition_of_unity(template):
    weights = build_skin_weights(template)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-12)
    sides_swapped = weights[mirror_ids(template)][:, [0, 1, 2, 4, 3]]
    np.testing.assert_allclose(sides_swapped, weights, atol=1e-12)
    jaw = weights[:, 2]
    assert jaw[template.mouth_edges["lower"][2:-2]].min() > 0.5
    assert jaw[template.mouth_edges["upper"][2:-2]].max() < 0.5
    assert (jaw[template.vertex_parts == "teeth_lower"] == 1).all()


def test_regressor_reproduces_the_joints(template):
    regressor = build_joint_regressor(template)
    np.testing.assert_allclose(regressor.sum(-1), 1, atol=1e-10)
    np.testing.assert_allclose(regressor @ template.vertices, JOINTS, atol=1e-10)


def test_landmarks_lie_at_their_features(template):
    faces, barycentric = build_landmarks(template)
    assert set(template.face_parts[faces]) == {"skin"}
    assert barycentric.min() >= 0
    np.testing.assert_allclose(barycentric.sum(-1), 1, atol=1e-12)
    points = np.einsum("lc,lci->li", barycentric, template.vertices[template.faces[faces]])
    assert points[:, 2].argmax() == 30  # the tip of the nose
    assert points[:, 1].argmin() == 8  # the chin
    left_eye, right_eye = points[42:48].mean(0), points[36:42].mean(0)
    np.testing.assert_allclose(left_eye[:2], EYE_CENTRE[:2], atol=0.25)
    np.testing.assert_allclose(right_eye[:2], EYE_CENTRE[:2] * (-1, 1), atol=0.25)
    assert points[36, 0] < points[39, 0] < 0 < points[42, 0] < points[45, 0]
    np.testing.assert_allclose(points[:17, 0], -points[16::-1, 0], atol=0.1)
    assert (points[61:64, 1] >= points[[67, 66, 65], 1] - 1e-9).all()


def test_fields_are_mirror_symmetric(low, identity, expressions):
    mirror = mirror_ids(low)
    named = dict(zip(identity[0], identity[1].transpose(2, 0, 1), strict=True)) | expressions
    swap = {"Left": "Right", "Right": "Left"}
    for name, field in named.items():
        if name.startswith("asym_"):
            continue
        ending = next((side for side in swap if name.endswith(side)), None)
        other = name if ending is None else name.removesuffix(ending) + swap[ending]
        mirrored = named[other][mirror] * (-1, 1, 1)
        np.testing.assert_allclose(mirrored, field, atol=1e-9, err_msg=name)


def test_identity_fields_are_named_and_move_organs_rigidly(low, identity):
    names, directions = identity
    assert len(names) == len(set(names)) == 53
    assert directions.shape == (len(low.vertices), 3, 53)
    assert (np.abs(directions).max((0, 1)) > 0.05).all()
    for side in ("left", "right"):
        eye = directions[low.vertex_parts == f"eye_{side}"]
        spread = np.ptp(eye, axis=0).max(0)
        assert {names[k] for k in np.flatnonzero(spread > 1e-9)} == {"eye_size"}


def test_expressions_move_only_soft_parts(low, expressions):
    assert len(expressions) == 45
    hard = np.isin(low.vertex_parts, HARD_PARTS)
    assert list(expressions)[-1] == "tongueOut"
    for name, field in expressions.items():
        moved = np.abs(field).max(-1)
        assert moved.max() > 0.05, name
        if not name.startswith("jaw"):
            assert moved[hard].max() == 0, name


def test_one_sided_expressions_stay_on_their_side(low, expressions):
    blink = np.abs(expressions["eyeBlinkLeft"]).max(-1)
    assert blink[low.eye_edges["left_upper"][1:-1]].min() > 0.1
    assert blink[low.vertices[:, 0] <= 0].max() == 0
    smile = np.abs(expressions["mouthSmileRight"]).max(-1)
    left, right = low.mouth_edges["upper"][[-1, 0]]
    assert smile[right] > 0.5
    assert smile[left] < 0.01


def test_masks(template):
    masks = build_masks(template)
    for name, ids in masks.items():
        assert 0 < len(ids) < len(template.vertices), name
    assert not np.intersect1d(masks["face"], masks["scalp"]).size
    assert template.vertices[masks["scalp"], 1].min() > -6
    assert np.abs(template.azimuth[masks["lips"]]).max() < 25
    assert len(masks["boundary"]) == template.grid_shape[1]


def test_no_lips_at_the_back_of_the_head():
    behind = np.array([[0.0, -3.9, -8.0]])
    assert lip_mask(behind, np.array([-3.9]), np.array([0.0])) == 0


@pytest.mark.parametrize("resolution", ["full", "low"])
def test_arrays_are_in_metres(resolution):
    head, template = build_head_arrays(resolution), build_template(resolution)
    assert head.v_template.dtype == head.shapedirs.dtype == np.float32
    assert head.faces.dtype == head.parents.dtype == head.landmark_faces.dtype == np.int64
    np.testing.assert_allclose(head.v_template, 0.01 * template.vertices, atol=1e-7)
    assert head.shapedirs.shape[-1] == len(head.shape_names)
    assert head.exprdirs.shape[-1] == len(head.expression_names)
    assert head.posedirs.shape[-1] == 36
    normals = vertex_normals(head.v_template, head.faces)
    assert np.isfinite(normals).all()
