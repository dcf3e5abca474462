# SPDX-License-Identifier: Apache-2.0
"""Hair, brows, lashes and beards: where they grow, what they hold on to, how they move."""

from dataclasses import replace

import numpy as np
import pytest

from pointillist_hf.data.population.distance_grid import build_distance_grid
from pointillist_hf.data.population.facial_hair import BEARD_STYLES
from pointillist_hf.data.population.grooming import grow_strands
from pointillist_hf.data.population.hairstyles import HAIR_STYLES
from pointillist_hf.data.population.identity import sample_identity
from pointillist_hf.data.population.strands import deform_strands, nearest_points
from pointillist_hf.rigs.procedural.sculpt import head_distance
from pointillist_hf.rigs.procedural.template import build_template
from pointillist_hf.rigs.procedural.weights import build_skin_weights

DENSITY = 0.06
CUBE_CENTRE, CUBE_HALF_EXTENT = np.array([0, -3.5, -3]), 25
CHIN_Y = -8.0


@pytest.fixture(scope="module")
def template():
    return build_template("full")


def person(style="long", beard=None, **changes):
    return replace(
        sample_identity(5, ("head_size",)),
        hair_style=style,
        beard_style=beard,
        has_bangs=False,
        **changes,
    )


def hair_of(strands):
    return [each for each in strands if each.kind == "hair"]


def check_strands(strands, template):
    num_strands, num_points = strands.points.shape[:2]
    assert np.isfinite(strands.points).all()
    assert (np.abs(strands.points - CUBE_CENTRE) < CUBE_HALF_EXTENT).all()
    assert strands.color.shape == (3,)
    assert strands.bindings.shape == (num_strands, num_points)
    assert strands.bindings.dtype == np.int64
    assert (strands.bindings >= 0).all() and (strands.bindings < len(template.faces)).all()
    assert strands.barycentric.shape == (num_strands, num_points, 3)
    assert (strands.barycentric >= 0).all()
    np.testing.assert_allclose(strands.barycentric.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(strands.normals, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_every_style_grows_inside_the_cube_and_off_the_jaw(template, style):
    identity = replace(person(style, length=1.15, volume=1.3), has_bangs=style != "bald")
    all_strands = grow_strands(template, identity, density=DENSITY)
    for strands in all_strands:
        check_strands(strands, template)
    jaw = build_skin_weights(template)[template.faces, 2].max(1)
    for strands in hair_of(all_strands):
        assert (template.face_parts[strands.bindings] == "skin").all()
        assert jaw[strands.bindings].max() < 0.08


@pytest.mark.parametrize("style", BEARD_STYLES)
def test_beards_stand_on_their_root_faces(template, style):
    beard = grow_strands(template, person("bald", style), density=DENSITY)[-1]
    check_strands(beard, template)
    assert beard.kind == "face"
    assert (beard.bindings == beard.bindings[:, :1]).all()
    assert beard.points[..., 1].max() < 0
    corners = template.vertices[template.faces[beard.bindings[:, 0]]]
    roots = np.einsum("nc,ncx->nx", beard.barycentric[:, 0], corners)
    np.testing.assert_allclose(beard.points[:, 0], roots, atol=1e-9)


def test_lashes_start_on_the_lid_edges(template):
    lashes = grow_strands(template, person("bald"), density=DENSITY)[1]
    edges = np.concatenate([template.vertices[ids] for ids in template.eye_edges.values()])
    distances = np.linalg.norm(lashes.points[:, :1] - edges, axis=-1).min(1)
    assert distances.max() < 0.3
    corners = template.vertices[template.faces[lashes.bindings[:, 0]]]
    roots = np.einsum("nc,ncx->nx", lashes.barycentric[:, 0], corners)
    np.testing.assert_allclose(lashes.points[:, 0], roots, atol=1e-9)


def test_a_person_has_the_same_strands_every_time(template):
    first = grow_strands(template, person("curly", "full"), density=DENSITY)
    second = grow_strands(template, person("curly", "full"), density=DENSITY)
    other = grow_strands(template, person("curly", "full", seed=6), density=DENSITY)
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.points, two.points)
        np.testing.assert_array_equal(one.bindings, two.bindings)
    assert not np.allclose(first[0].points, other[0].points)


def test_long_hair_passes_the_chin_and_bald_people_have_none(template):
    long_hair = hair_of(grow_strands(template, person("long"), density=DENSITY))
    assert min(strands.points[..., 1].min() for strands in long_hair) < CHIN_Y
    bald = grow_strands(template, person("bald"), density=DENSITY)
    assert not hair_of(bald)
    assert len(bald) == 2  # brows and lashes


def test_stubble_grows_no_strands(template):
    assert len(grow_strands(template, person("bald", "stubble"), density=DENSITY)) == 2


def test_bangs_add_a_tress(template):
    plain = grow_strands(template, person("bob"), density=DENSITY)
    fringed = grow_strands(template, replace(person("bob"), has_bangs=True), density=DENSITY)
    assert len(hair_of(fringed)) == len(hair_of(plain)) + 1


def test_density_scales_the_number_of_strands(template):
    sparse = grow_strands(template, person("short"), density=0.05)
    dense = grow_strands(template, person("short"), density=0.1)
    assert len(dense[0]) == 2 * len(sparse[0]) == 520


def test_hair_stays_outside_the_head(template):
    hair = hair_of(grow_strands(template, person("long"), density=DENSITY))[0]
    above_chest = hair.points[hair.points[..., 1] > CHIN_Y]
    assert head_distance(above_chest, lids=False).min() > -0.2


@pytest.mark.parametrize("kind", ["hair", "face"])
def test_strands_move_with_the_mesh(template, kind):
    strands = next(
        each for each in grow_strands(template, person("bob"), density=DENSITY) if each.kind == kind
    )
    num_vertices = len(template.vertices)
    offsets = np.zeros((num_vertices, 3))
    identity = np.tile(np.eye(3, 4), (num_vertices, 1, 1))
    points, normals = deform_strands(strands, template.faces, offsets, identity)
    np.testing.assert_allclose(points, strands.points, atol=1e-9)
    np.testing.assert_allclose(normals, strands.normals, atol=1e-9)

    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rigid = np.tile(np.concatenate([turn, [[1.0], [2], [3]]], axis=1), (num_vertices, 1, 1))
    shift = np.array([0.5, 0, 0])
    points, normals = deform_strands(strands, template.faces, offsets + shift, rigid)
    np.testing.assert_allclose(points, (strands.points + shift) @ turn.T + [1, 2, 3], atol=1e-9)
    np.testing.assert_allclose(normals, strands.normals @ turn.T, atol=1e-9)


def test_nearest_points_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    queries, targets = rng.normal(0, 9, (400, 3)), rng.normal(0, 5, (300, 3))
    distances = np.linalg.norm(queries[:, None] - targets, axis=-1)
    np.testing.assert_array_equal(nearest_points(queries, targets), distances.argmin(1))


def test_the_distance_grid_agrees_with_the_sculpt_on_both_sides():
    rng = np.random.default_rng(0)
    points = rng.uniform([-9, -12, -12], [9, 14, 4], (4000, 3))
    distances = head_distance(points, lids=False)
    near = points[np.abs(distances) < 1]
    sampled, outward = build_distance_grid().sample(near)
    error = np.abs(sampled - distances[np.abs(distances) < 1])
    assert error.mean() < 0.01 and error.max() < 0.15
    ahead = head_distance(near + 0.1 * outward, lids=False)
    assert (ahead > head_distance(near, lids=False)).all()


def test_a_wrong_style_or_density_is_refused(template):
    with pytest.raises(ValueError, match="`hair_style`"):
        grow_strands(template, person("mullet"))
    with pytest.raises(ValueError, match="`density`"):
        grow_strands(template, person(), density=0)


def test_every_style_grows_on_the_low_resolution_head():
    low = build_template("low")
    for strands in grow_strands(low, person("braids", "full"), density=DENSITY):
        check_strands(strands, low)
