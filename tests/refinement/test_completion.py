# SPDX-License-Identifier: Apache-2.0
"""Completed clouds: nothing is missing, nothing sticks out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_flame import fake_arrays, write_flame

from pointillist_hf import FlameHeadRig
from pointillist_hf.geometry.structures import CanonicalPoints
from pointillist_hf.geometry.triangles import face_areas, triangle_frames
from pointillist_hf.refinement import hair_points, hair_surface
from pointillist_hf.refinement.coloring import color_points
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.distance_maps import grow_mask
from pointillist_hf.refinement.face_kinds import PointKind, find_face_kinds
from pointillist_hf.refinement.hair_surface import build_hair_surface, direction_grid
from pointillist_hf.refinement.kind_votes import recognise_points
from pointillist_hf.refinement.landmark_warp import warp_to_landmarks
from pointillist_hf.refinement.mesh_pictures import at_pixels, draw_rig
from pointillist_hf.refinement.pixel_kinds import classify_pixels, srgb_to_lab
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.projection import look_at_points, project_onto_portrait
from pointillist_hf.refinement.rig_points import adopt_points, choose_spacings, cover_faces
from pointillist_hf.refinement.surface_cloud import disc_shapes, split_faces
from pointillist_hf.refinement.teeth import LOWER_LIP, UPPER_LIP, fit_teeth, shows_teeth
from pointillist_hf.rendering import rasterize
from pointillist_hf.rigs.landmark_sources import find_landmark_places

GREY, DENSITY = 0.5, 0.15


def draw(cloud, view, rig):
    gaussians = cloud.to_gaussians(torch.full_like(cloud.means, GREY))
    posed = place_points(cloud.points, rig, view.rig_params).pose_gaussians(gaussians)
    return rasterize(posed, view.cameras)[1][0, ..., 0]


def test_every_face_owns_a_point_but_clothes_below_the_photograph(cloud, tiny_rig):
    owns = torch.zeros(tiny_rig.num_faces, dtype=torch.bool)
    owns[cloud.bindings] = True
    kinds = find_face_kinds(tiny_rig).kinds
    assert owns[kinds != PointKind.CLOTH].all()
    assert 0.9 < owns.float().mean() < 1, "her suit is patterned and ends with the photograph"
    assert (cloud.scales > 0).all()
    assert cloud.means.isfinite().all()


def test_nothing_lies_outside_of_the_matte(cloud, projected, view):
    subject = (view.matte > 0.5) | ~view.inside
    inside = (projected.pixels >= 0).all(1) & (projected.pixels < len(view.matte)).all(1)
    out = inside & ~at_pixels(subject, projected.pixels)
    assert out.float().mean() < 0.005


def test_the_head_has_no_holes(cloud, view, tiny_rig):
    alphas = draw(cloud, view, tiny_rig)
    pixel_kinds = classify_pixels(view, tiny_rig, find_face_kinds(tiny_rig))
    rows = torch.arange(len(alphas))[:, None]
    head = ((pixel_kinds == PointKind.SKIN) | (pixel_kinds == PointKind.HAIR)) & (
        rows < view.landmarks[152, 1]
    )
    assert (1 - alphas)[head].mean() < 0.01
    far = (view.matte < 0.1) & view.inside
    assert alphas[far].mean() < 0.05


def test_hair_reaches_as_far_as_the_photograph_shows_it(cloud, view, tiny_rig):
    alphas = draw(cloud, view, tiny_rig)
    mesh = draw_rig(tiny_rig, view.rig_params, view.cameras)[0].isfinite()
    above = torch.arange(len(alphas))[:, None] < view.landmarks[10, 1]
    beyond = (view.matte > 0.9) & ~mesh & above
    assert beyond.sum() > 200
    assert (alphas[beyond] > 0.5).float().mean() > 0.98
    bald = cloud[cloud.kinds != PointKind.HAIR]
    assert (draw(bald, view, tiny_rig)[beyond] > 0.5).float().mean() < 0.2


def test_hair_out_of_sight_lies_below_its_surface(cloud, view, tiny_rig, monkeypatch):
    monkeypatch.setattr(hair_points, "SUNK", 0.0)
    places = find_landmark_places(tiny_rig)
    surface = complete_points(None, view, tiny_rig, places=places, density=DENSITY)
    depth = ((surface.means - cloud.means) * surface.normals).sum(-1)
    moved = depth > 1e-4
    assert moved.sum() > 20
    assert (surface.kinds[moved] == PointKind.HAIR).all()
    assert depth[moved].median() == pytest.approx(2e-3, rel=0.2)


def test_hair_at_the_nape_is_not_shaved(view, tiny_rig, monkeypatch):
    """Below where hair is seen to end, on the scalp behind, some thickness is left."""
    face_kinds = find_face_kinds(tiny_rig)
    pixel_kinds = classify_pixels(view, tiny_rig, face_kinds)
    skin = tiny_rig(view.rig_params)[0]
    kept = build_hair_surface(view, tiny_rig, face_kinds, pixel_kinds, skin)
    monkeypatch.setattr(hair_surface, "NAPE", 0.0)
    bare = build_hair_surface(view, tiny_rig, face_kinds, pixel_kinds, skin)
    more = kept.radii - bare.radii
    assert more.min() == 0
    assert more.max() > 2e-3
    # Neither on the face nor above, where hair is seen.
    directions = direction_grid()
    assert (directions[more > 1e-3][:, 2] < 0).all()
    assert more[: len(more) // 6].max() < 1e-4
    bald = kept.hairiness < 0.1
    assert bald.any() and more[bald].mean() < 0.1 * more[~bald & (more > 0)].mean()


def test_hair_does_not_open_with_the_jaw(cloud, view, tiny_rig):
    hair = cloud[cloud.kinds == PointKind.HAIR]
    height = tiny_rig.v_template[:, 1].max()
    opened = replace(view.rig_params, jaw_pose=torch.tensor([[0.4, 0.0, 0.0]]))
    closed = replace(view.rig_params, jaw_pose=torch.zeros(1, 3))
    places = [
        place_points(hair.points, tiny_rig, params).pose_means(hair.means)
        for params in (opened, closed)
    ]
    grown = hair.means[:, 1] > 0.3 * height
    assert (places[0] - places[1])[grown].norm(dim=-1).max() < 2e-3


def test_generated_points_are_kept(plain_view, tiny_rig):
    view = plain_view
    rest = tiny_rig.canonical_vertices(view.rig_params.betas)[0]
    bindings = torch.arange(0, tiny_rig.num_faces, 3)
    points = CanonicalPoints(rest[tiny_rig.faces[bindings]].mean(1), bindings)
    cloud = complete_points(points, view, tiny_rig, density=0.15, tolerance=None)
    assert torch.equal(cloud.bindings.unique(), torch.arange(tiny_rig.num_faces))
    # They come first; what lay outside of the photograph's person was moved.
    assert torch.equal(cloud.bindings[: len(bindings)], bindings)
    same = (cloud.means[: len(bindings)] == points.means).all(1)
    assert same.float().mean() > 0.5
    none = complete_points(
        CanonicalPoints(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
        view,
        tiny_rig,
        density=0.15,
    )
    alone = complete_points(None, view, tiny_rig, density=0.15)
    assert torch.equal(none.means, alone.means)


def test_only_points_that_help_are_adopted(view, tiny_rig):
    kinds = find_face_kinds(tiny_rig)
    rest = tiny_rig.canonical_vertices(view.rig_params.betas)[0]
    frames, centres, _ = triangle_frames(rest[tiny_rig.faces])
    bindings = torch.arange(tiny_rig.num_faces)
    heights = torch.where(bindings % 2 == 0, 1e-3, 2e-3)
    points = CanonicalPoints(centres + heights[:, None] * frames[..., 1], bindings)
    adopted = adopt_points(points, tiny_rig, rest, kinds, 1.0, tolerance=1.5e-3)
    assert (adopted.bindings % 2 == 0).all()
    assert not kinds.is_feature[adopted.bindings].any()
    assert not kinds.is_scalp[adopted.bindings].any()
    assert len(adopt_points(points, tiny_rig, rest, kinds, 1.0)) == len(points)
    seen = bindings % 4 == 0
    unseen = adopt_points(points, tiny_rig, rest, kinds, 1.0, tolerance=1.5e-3, seen=seen)
    skin = unseen.kinds == PointKind.SKIN
    assert skin.any() and not seen[unseen.bindings[skin]].any()
    assert 0 < len(unseen) < len(adopted)


def test_teeth_reach_down_in_a_smile_only(view, tiny_rig):
    kinds = find_face_kinds(tiny_rig)
    spacings = torch.full((tiny_rig.num_faces,), 1.0)
    cover = cover_faces(tiny_rig, view.rig_params.betas, kinds, spacings)
    placement = place_points(cover.points, tiny_rig, view.rig_params)
    smiling = fit_teeth(cover, placement, view, kinds)
    upper = kinds.is_upper_teeth[cover.bindings]
    lower = kinds.is_lower_teeth[cover.bindings]
    assert upper.any() and lower.any()
    assert smiling.means[upper, 1].min() < cover.means[upper, 1].min() - 1e-3
    assert (smiling.means[lower, 2] < cover.means[lower, 2]).all()
    assert torch.equal(smiling.means[~(upper | lower)], cover.means[~(upper | lower)])
    marks = view.landmarks.clone()
    marks[list(LOWER_LIP)] = marks[list(UPPER_LIP)]
    closed = replace(view, landmarks=marks)
    assert not shows_teeth(closed)
    assert fit_teeth(cover, placement, closed, kinds) is cover


def test_pieces_cover_their_faces(tiny_rig):
    spacings = torch.full((tiny_rig.num_faces,), 6e-3)
    face_ids, pieces = split_faces(tiny_rig.v_template, tiny_rig.faces, spacings)
    corners = pieces @ tiny_rig.v_template[tiny_rig.faces[face_ids]]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = torch.zeros(tiny_rig.num_faces).index_add(0, face_ids, areas.norm(dim=-1) / 2)
    assert torch.allclose(sums, face_areas(tiny_rig.v_template, tiny_rig.faces), rtol=1e-3)
    assert (face_ids.diff() >= 0).all()
    _, scales = disc_shapes(corners)
    assert (scales[:, 2] < scales[:, 1]).all()


def test_landmarks_land_where_they_were_found(view, tiny_rig):
    places = find_landmark_places(tiny_rig)
    kinds = find_face_kinds(tiny_rig)
    pixel_kinds = classify_pixels(view, tiny_rig, kinds)
    spacings = choose_spacings(tiny_rig, view, kinds, pixel_kinds, 1.0)
    cloud = cover_faces(tiny_rig, view.rig_params.betas, kinds, spacings)
    on_rig = tiny_rig.canonical_vertices(view.rig_params.betas)[0][tiny_rig.faces[places.faces]]
    marks = torch.einsum("nk,nkc->nc", places.barycentric, on_rig)
    one_each = cloud[torch.searchsorted(cloud.bindings, places.faces)]
    one_each = replace(one_each, means=marks, kinds=torch.zeros_like(one_each.kinds))

    def misses(means):
        seen = project_onto_portrait(
            CanonicalPoints(means, places.faces),
            tiny_rig,
            view.rig_params,
            view.cameras,
            view.matte,
        )
        return (seen.pixels - view.landmarks[places.ids]).norm(dim=-1).mean()

    placement = place_points(one_each.points, tiny_rig, view.rig_params)
    moved = warp_to_landmarks(one_each, placement, view, tiny_rig, places)
    assert misses(moved) < 0.5 * misses(marks)


def test_colors_are_those_of_the_photograph(colored, cloud, projected, view, tiny_rig):
    posed = place_points(cloud.points, tiny_rig, view.rig_params).pose_gaussians(colored)
    picture, _ = rasterize(posed, view.cameras)
    kinds = classify_pixels(view, tiny_rig, find_face_kinds(tiny_rig))
    face = (kinds == PointKind.SKIN) & (view.matte > 0.9)
    error = (picture[0] - view.image)[face].abs().mean()
    assert error < 0.08
    assert ((colored.colors > 0) & (colored.colors < 1)).all()
    once = color_points(cloud, projected, view, tiny_rig, num_rounds=0)
    first, _ = rasterize(replace(posed, colors=once), view.cameras)
    assert error < (first[0] - view.image)[face].abs().mean()


def test_kinds_of_pixels(view, tiny_rig):
    kinds = classify_pixels(view, tiny_rig, find_face_kinds(tiny_rig))
    x, y = view.landmarks[1].long().tolist()
    assert kinds[y, x] == PointKind.SKIN
    top = int(view.landmarks[10, 1] - 0.5 * view.eye_distance)
    assert kinds[top, x] == PointKind.HAIR
    assert kinds[-4, x] == PointKind.CLOTH
    assert (kinds[view.matte <= 0.5] == -1).all()


def test_lab_of_known_colors():
    lab = srgb_to_lab(torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    expected = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2]])
    assert torch.allclose(lab, expected, atol=0.3)


def _small_faces():
    """A made-up FLAME whose faces are about as small as those of a head."""
    arrays = fake_arrays()
    places = torch.from_numpy(arrays["v_template"])
    near = torch.cdist(places, places).topk(5, largest=False).indices.numpy()
    faces = np.concatenate([near[:, [0, 1, 2]], near[:, [0, 3, 4]]])
    return {**arrays, "f": faces[: len(arrays["f"])].astype(np.uint32)}


@pytest.mark.slow
@pytest.mark.parametrize("make_rig", ["full", "flame"])
def test_other_rigs(make_rig, plain_view, tiny_rig, tmp_path):
    if make_rig == "full":
        rig = type(tiny_rig)("full")
        params = plain_view.rig_params
    else:
        write_flame(tmp_path / "flame2023.pkl", _small_faces())
        rig = FlameHeadRig.from_flame(tmp_path / "flame2023.pkl")
        params = replace(rig.neutral(), transl=plain_view.rig_params.transl)
    view = replace(plain_view, rig_params=params)
    cloud = complete_points(None, view, rig, density=0.1)
    assert torch.equal(cloud.bindings.unique(), torch.arange(rig.num_faces))
    seen = project_onto_portrait(
        cloud.points, rig, params, view.cameras, view.matte, kinds=cloud.kinds
    )
    colors = color_points(cloud, seen, view, rig, num_rounds=1)
    assert colors.isfinite().all()


def test_hair_begins_where_the_face_turns_away(view, tiny_rig):
    """A temple that is out of sight behind the line of the hair is covered by it."""
    kinds = find_face_kinds(tiny_rig)
    pixel_kinds = classify_pixels(view, tiny_rig, kinds)
    spacings = choose_spacings(tiny_rig, view, kinds, pixel_kinds, 1.0)
    cover = cover_faces(tiny_rig, view.rig_params.betas, kinds, spacings)
    placement = place_points(cover.points, tiny_rig, view.rig_params)
    bare = torch.where(pixel_kinds == PointKind.HAIR, int(PointKind.SKIN), pixel_kinds)
    found, without = (
        recognise_points(cover, placement, view, tiny_rig, seen) for seen in (pixel_kinds, bare)
    )
    seen = look_at_points(cover.means, placement, cover.normals, view.cameras)
    skin = cover.kinds == PointKind.SKIN
    turned = skin & kinds.is_anchor[cover.bindings] & (seen.facing < 0.25) & (seen.facing > -0.5)
    near = at_pixels(grow_mask(pixel_kinds == PointKind.HAIR), seen.pixels)
    depth, _ = draw_rig(tiny_rig, view.rig_params, view.cameras)
    close = (seen.depths - at_pixels(depth, seen.pixels)) < 8e-3
    ears = cover.means[kinds.is_ear[cover.bindings], 1]
    temples = turned & near & close & (cover.means[:, 1] > ears.min())
    assert temples.sum() > 20
    assert (found[temples] == PointKind.HAIR).all()
    assert not (without[temples] == PointKind.HAIR).any()
    # Ears stay bare, and so does what is seen to be.
    shown = (
        skin
        & (seen.facing > 0.5)
        & ~at_pixels(grow_mask(pixel_kinds != PointKind.SKIN, 3), seen.pixels)
    )
    face = shown & close & kinds.is_anchor[cover.bindings]
    assert face.sum() > 100
    assert (found[face] == PointKind.SKIN).all()
