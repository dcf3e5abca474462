# SPDX-License-Identifier: Apache-2.0
"""Points in the photograph: where they land, who is seen, who lends colours to whom."""

from dataclasses import replace

import pytest
import torch

from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.lids import LID, is_folded, measure_blink
from pointillist_hf.refinement.mesh_pictures import at_pixels, draw_rig
from pointillist_hf.refinement.placement import place_points, rest_points
from pointillist_hf.refinement.portrait_view import frame_portrait, sample_picture
from pointillist_hf.refinement.projection import project_onto_portrait
from pointillist_hf.rigs.binding import bind_points
from pointillist_hf.rigs.skinning import skin_points


def test_the_frame_is_the_photograph_seen_by_its_camera(view, portrait, portrait_fit):
    # A landmark falls on the same colour in both pictures.
    whole = sample_picture(portrait.pixels.float() / 255, portrait.landmarks[:, :2])
    framed = sample_picture(view.image, view.landmarks)
    assert (whole - framed).abs().mean() < 0.06
    scale = view.landmarks[33, 0] - view.landmarks[263, 0]
    scale = scale / (portrait.landmarks[33, 0] - portrait.landmarks[263, 0])
    assert torch.allclose(view.cameras.Ks[0, 0, 0], portrait_fit.cameras.Ks[0, 0, 0] * scale)


def test_one_camera_for_one_photograph(portrait, portrait_fit):
    two = replace(
        portrait_fit.cameras,
        viewmats=portrait_fit.cameras.viewmats.repeat(2, 1, 1),
        Ks=portrait_fit.cameras.Ks.repeat(2, 1, 1),
    )
    with pytest.raises(ValueError, match="`cameras` and `rig_params` must be those of one"):
        frame_portrait(portrait, two, portrait_fit.rig_params)


def test_projection_is_eq_5_then_a_pinhole(cloud, projected, view, tiny_rig):
    rest = tiny_rig.canonical_vertices(view.rig_params.betas)[0]
    motion = tiny_rig.joint_motion(view.rig_params)
    K, viewmat = view.cameras.Ks[0], view.cameras.viewmats[0]
    for index in range(0, len(cloud), 97):
        one = CanonicalPoints(cloud.means[index : index + 1], cloud.bindings[index : index + 1])
        bound = bind_points(one, tiny_rig, rest)
        posed = skin_points(bound, view.rig_params.expression, motion)[0][0, 0]
        x, y, z = viewmat[:3, :3] @ posed + viewmat[:3, 3]
        expected = torch.stack([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]])
        assert torch.allclose(projected.pixels[index], expected, atol=1e-2)
        assert torch.allclose(projected.depths[index], z, atol=1e-5)


def test_what_the_mesh_hides_is_not_visible(view, tiny_rig):
    """A point on every face: seen ones are those whose face the mesh rasteriser draws there."""
    rest = tiny_rig.canonical_vertices(view.rig_params.betas)[0]
    faces = torch.arange(tiny_rig.num_faces)
    points = CanonicalPoints(rest[tiny_rig.faces].mean(1), faces)
    seen = project_onto_portrait(
        points, tiny_rig, view.rig_params, view.cameras, torch.ones_like(view.matte)
    )
    depth, face_ids = draw_rig(tiny_rig, view.rig_params, view.cameras)
    drawn = seen.in_frame & (at_pixels(face_ids, seen.pixels) == faces) & (seen.facing > 0.3)
    # Lips and lids are thinner than the discs of the points on them.
    drawn &= seen.kinds <= PointKind.CLOTH
    assert drawn.sum() > 100
    assert seen.is_visible[drawn].float().mean() > 0.92
    behind = seen.in_frame & (seen.depths > at_pixels(depth, seen.pixels) + 0.02)
    assert behind.sum() > 100
    assert not seen.is_visible[behind].any()
    assert not seen.is_visible[seen.facing < 0][seen.kinds[seen.facing < 0] != PointKind.HAIR].any()


def test_nothing_is_visible_outside_of_the_matte(cloud, projected, view, tiny_rig):
    assert projected.is_visible.any()
    outside = at_pixels(view.matte, projected.pixels) <= 0.5
    assert not projected.is_visible[outside].any()
    nobody = project_onto_portrait(
        cloud.points, tiny_rig, view.rig_params, view.cameras, torch.zeros_like(view.matte)
    )
    assert not nobody.is_visible.any()
    # Without any source each point keeps its own sample.
    assert torch.equal(nobody.fill_table.ids[:, 0], torch.arange(len(cloud)))
    assert torch.equal(nobody.fill_table.weights[:, 0], torch.ones(len(cloud)))


def test_the_fill_is_linear_and_keeps_plain_pictures(projected):
    count = len(projected)
    assert torch.allclose(projected.fill(torch.full((count, 3), 0.4)), torch.tensor(0.4), atol=1e-5)
    first, second = torch.rand(2, count, 3)
    mixed = projected.fill(0.3 * first + 2 * second)
    apart = 0.3 * projected.fill(first) + 2 * projected.fill(second)
    assert torch.allclose(mixed, apart, atol=1e-5)


def test_colors_come_from_visible_points_of_the_same_kind(projected):
    table, own = projected.fill_table, torch.arange(len(projected))[:, None]
    used = (table.weights != 0) & (table.ids != own)
    assert used.any()
    assert projected.is_visible[table.ids[used]].all()
    taker = projected.kinds[:, None].expand(table.ids.shape)
    alike = projected.kinds[table.ids] == taker
    assert alike[used & (taker == PointKind.HAIR)].all()


def test_there_and_back_again(view, cloud, tiny_rig):
    placement = place_points(cloud.points, tiny_rig, view.rig_params)
    posed = placement.pose_means(cloud.means)
    means, again = rest_points(posed, cloud.bindings, tiny_rig, view.rig_params)
    assert (again.pose_means(means) - posed).norm(dim=-1).quantile(0.99) < 2e-4


def test_lids_take_skin_and_lend_nothing(cloud, projected, view, tiny_rig):
    blink = measure_blink(cloud.points, tiny_rig, view.rig_params.betas)
    is_rim = find_face_kinds(tiny_rig).is_lid[cloud.bindings]
    folded = is_folded(blink, is_rim) & (cloud.kinds == PointKind.SKIN)
    assert folded.sum() > 4
    # Rims carry the lashes, from corner to corner.
    rims = is_rim & (cloud.kinds == PointKind.SKIN)
    assert (blink[rims] > LID).any()
    assert not projected.is_folded[rims].any()
    table = projected.fill_table
    assert (table.weights[folded, 0] == 0).all()
    others = table.ids != torch.arange(len(cloud))[:, None]
    lenders = table.ids[others & (table.weights != 0)].unique()
    assert not folded[lenders].any()


@pytest.mark.parametrize("resolution", ["low", "full"])
def test_every_face_has_a_kind(resolution, request):
    rig = request.getfixturevalue("tiny_rig")
    if resolution == "full":
        rig = type(rig)("full")
    kinds = find_face_kinds(rig)
    for kind in PointKind:
        assert (kinds.kinds == kind).any(), kind
    assert kinds.is_hidden[kinds.kinds == PointKind.EYE].float().mean() > 0.2
    assert not kinds.is_hidden[kinds.kinds != PointKind.EYE].any()
    centres = rig.v_template[rig.faces].mean(1)
    assert centres[kinds.is_scalp, 1].mean() > centres[kinds.kinds == PointKind.SKIN, 1].mean()
