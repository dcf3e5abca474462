# SPDX-License-Identifier: Apache-2.0
"""Hair at the limb of a face: found though it is thin, laid behind the cheek, not painted on it."""

from dataclasses import replace

import pytest
import torch
from view_sizes import LARGE as SIZE

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.refinement import completion, projection
from pointillist_hf.refinement.completion import complete_points
from pointillist_hf.refinement.distance_maps import grow_mask, nearest_pixels
from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.refinement.hair_points import _hair_depth
from pointillist_hf.refinement.hair_surface import build_hair_surface, find_hanging_sides
from pointillist_hf.refinement.limb_hair import LIMB, find_hair_behind, tuck_cheeks
from pointillist_hf.refinement.mesh_pictures import at_pixels, draw_rig
from pointillist_hf.refinement.pixel_kinds import classify_pixels
from pointillist_hf.refinement.placement import place_points
from pointillist_hf.refinement.portrait_view import BROWS
from pointillist_hf.refinement.projection import look_at_points, project_onto_portrait
from pointillist_hf.refinement.rig_points import choose_spacings, cover_faces

NOSE_TIP = 1
HAIR, SKIN = int(PointKind.HAIR), int(PointKind.SKIN)


@pytest.fixture(scope="module")
def on_mesh(large_view, tiny_rig):
    return draw_rig(tiny_rig, large_view.rig_params, large_view.cameras)[0].isfinite()


@pytest.fixture(scope="module")
def strip(large_view, on_mesh):
    """A line at the limb of the face, from the brows to the tip of the nose, half on the rig."""
    rows = torch.arange(SIZE)[:, None]
    top, end = float(large_view.landmarks[list(BROWS), 1].mean()), large_view.landmarks[NOSE_TIP, 1]
    is_left = torch.arange(SIZE) < large_view.landmarks[NOSE_TIP, 0]
    at_limb = grow_mask(~on_mesh, 2) & grow_mask(on_mesh, 2)
    return at_limb & (rows > top) & (rows < float(end)) & is_left


@pytest.fixture(scope="module")
def combed(large_view, on_mesh, strip, tiny_rig, face_kinds):
    """The person without hair beside the face but for a thin line on one side."""
    kinds = classify_pixels(large_view, tiny_rig, face_kinds)
    rows = torch.arange(SIZE)[:, None]
    low = rows > large_view.landmarks[list(BROWS), 1].mean()
    beside = low & (kinds == HAIR)
    hair = large_view.foreground[kinds == HAIR].mean(0)
    skin = large_view.foreground[(kinds == SKIN) & low].mean(0)
    foreground = torch.where((beside & on_mesh)[..., None], skin, large_view.foreground)
    matte = torch.where(beside & ~on_mesh, 0.0, large_view.matte)
    return replace(
        large_view,
        foreground=torch.where(strip[..., None], hair, foreground),
        matte=torch.where(strip, 1.0, matte),
    )


@pytest.fixture(scope="module")
def pixel_kinds(combed, tiny_rig, face_kinds, on_mesh):
    """With thin lines of hair at the limbs of both cheeks."""
    kinds = classify_pixels(combed, tiny_rig, face_kinds)
    _, face_ids = draw_rig(tiny_rig, combed.rig_params, combed.cameras)
    away = ~grow_mask(face_kinds.is_ear[face_ids.clamp_min(0)] & on_mesh, 2)
    rows = torch.arange(SIZE)[:, None]
    low = (rows > combed.landmarks[NOSE_TIP, 1]) & (rows < combed.landmarks[CHIN, 1])
    line = low & away & grow_mask(~on_mesh, 3) & grow_mask(on_mesh, 3)
    return torch.where(line, HAIR, kinds)


@pytest.fixture(scope="module")
def behind(combed, tiny_rig, face_kinds, pixel_kinds):
    return find_hair_behind(combed, tiny_rig, face_kinds, pixel_kinds)


@pytest.fixture(scope="module")
def cover(combed, tiny_rig, face_kinds, pixel_kinds):
    spacings = choose_spacings(tiny_rig, combed, face_kinds, pixel_kinds, 1.0)
    return cover_faces(tiny_rig, combed.rig_params.betas, face_kinds, spacings)


def test_a_thin_line_of_hair_at_the_limb_is_hair(combed, tiny_rig, face_kinds, strip):
    kinds = classify_pixels(combed, tiny_rig, face_kinds)
    assert strip.sum() > 60
    assert (kinds[strip] == HAIR).float().mean() > 0.9


def test_it_lies_behind_the_cheek(behind, combed, tiny_rig, face_kinds, pixel_kinds):
    _, face_ids = draw_rig(tiny_rig, combed.rig_params, combed.cameras)
    skin = (face_kinds.kinds == PointKind.SKIN) & ~face_kinds.is_ear
    rows = torch.arange(SIZE)[:, None]
    low = (rows > combed.landmarks[NOSE_TIP, 1]) & (rows < combed.landmarks[CHIN, 1])
    cheek = low & (pixel_kinds == HAIR) & (face_ids >= 0) & skin[face_ids.clamp_min(0)]
    assert cheek.sum() > 30
    assert behind[cheek].float().mean() > 0.85
    assert (pixel_kinds[behind] == HAIR).all()
    assert (face_ids[behind] >= 0).all()


def test_hair_over_the_cheek_lies_in_front(
    combed, tiny_rig, face_kinds, pixel_kinds, behind, on_mesh
):
    inner = nearest_pixels(~on_mesh)[0] > 1.2 * LIMB * SIZE / 384
    wide = grow_mask(behind, round(2 * LIMB * SIZE / 384)) & on_mesh
    assert (wide & inner).any()
    covered = find_hair_behind(combed, tiny_rig, face_kinds, torch.where(wide, HAIR, pixel_kinds))
    assert covered.sum() < 0.3 * behind.sum()


def test_the_cheek_ends_where_the_hair_begins(combed, tiny_rig, face_kinds, cover, behind):
    placement = place_points(cover.points, tiny_rig, combed.rig_params)

    def look(means):
        return project_points(placement.pose_means(means), combed.cameras)[0][0]

    skin = (cover.kinds == PointKind.SKIN) & ~face_kinds.is_ear[cover.bindings]
    before = skin & at_pixels(behind, look(cover.means))
    tucked = tuck_cheeks(cover, placement, combed, face_kinds, behind)
    assert before.sum() > 10
    left = skin & at_pixels(behind, look(tucked))
    assert left.sum() < 0.1 * before.sum()
    assert torch.equal(tucked[~before], cover.means[~before])
    assert (tucked - cover.means).norm(dim=-1).max() < 0.02, "metres"


def test_it_comes_no_nearer_than_the_cheek(
    combed, tiny_rig, face_kinds, pixel_kinds, behind, cover
):
    placement = place_points(cover.points, tiny_rig, combed.rig_params)
    skin = placement.pose_means(cover.means)[face_kinds.is_anchor[cover.bindings]]
    surface = build_hair_surface(combed, tiny_rig, face_kinds, pixel_kinds, skin)
    depth, _ = draw_rig(tiny_rig, combed.rig_params, combed.cameras)
    cheek = torch.where(behind, depth, 0)
    nearest = {}
    for name, mask in (("behind", behind), ("in front", torch.zeros_like(behind))):
        found = _hair_depth(combed, tiny_rig, pixel_kinds == HAIR, surface, mask)
        nearest[name] = (found - cheek)[behind]
    assert (nearest["behind"] >= 0).all()
    assert (nearest["in front"] < 0).all()


def test_who_shows_an_ear_has_hair_behind_it(combed, tiny_rig, face_kinds, pixel_kinds, on_mesh):
    """However much hair there is beside the ear."""
    _, face_ids = draw_rig(tiny_rig, combed.rig_params, combed.cameras)
    ear = face_kinds.is_ear[face_ids.clamp_min(0)] & on_mesh
    low = torch.arange(SIZE)[:, None] > combed.landmarks[NOSE_TIP, 1]
    long = torch.where(low & ~on_mesh, HAIR, pixel_kinds)
    for kind, hangs in ((SKIN, False), (HAIR, True)):
        seen = torch.where(ear, kind, long)
        sides = find_hanging_sides(combed, tiny_rig, face_kinds, seen)
        assert sides.tolist() == [hangs, hangs]


def test_skin_beside_hair_at_the_limb_takes_no_sample(
    combed, tiny_rig, face_kinds, cover, monkeypatch
):
    """Its pixels are mixed with hair, and would be a dark patch when the head turns."""

    def project(cloud):
        return project_onto_portrait(
            cloud.points,
            tiny_rig,
            combed.rig_params,
            combed.cameras,
            combed.matte,
            normals=cloud.normals,
            kinds=cloud.kinds,
        )

    bare = project(cover)
    skin = (cover.kinds == PointKind.SKIN) & bare.is_visible & ~bare.is_folded
    limb = skin & (bare.facing < projection.LIMB_FACING) & (bare.facing > 0.45)
    chosen = limb.nonzero()[::10, 0]
    assert len(chosen) > 5
    # A strand on the very same pixels, in front.
    kinds = cover.kinds.clone()
    kinds[chosen] = HAIR
    seen = project(replace(cover, kinds=kinds))
    near = (
        torch.cdist(seen.pixels, seen.pixels[chosen]).amin(1) < 0.9 * projection.MIXED * SIZE / 384
    )
    beside = limb & near & (kinds == SKIN) & seen.is_visible
    own = seen.fill_table.weights[:, 0] * (seen.fill_table.ids[:, 0] == torch.arange(len(cover)))
    assert beside.sum() > 5
    assert (own[beside] == 0).all()
    front = skin & near & (bare.facing > 0.8)
    assert (own[front] > 0.9).all()


def test_what_is_dark_at_the_limb_is_not_of_the_face(large_view, tiny_rig, face_kinds, cover):
    """A shadow or a strand that was taken for skin; from the side it would be a black spot."""

    def project(picture):
        return project_onto_portrait(
            cover.points,
            tiny_rig,
            large_view.rig_params,
            large_view.cameras,
            torch.ones(SIZE, SIZE),
            normals=cover.normals,
            kinds=cover.kinds,
            picture=picture,
        )

    plain = torch.full((SIZE, SIZE, 3), 0.6)
    trusting = project(None)
    limb = (cover.kinds == PointKind.SKIN) & trusting.is_visible & ~trusting.is_folded
    limb &= (trusting.facing < projection.LIMB_FACING) & (trusting.facing > 0.45)
    limb &= (cover.means[:, 1] > 0) & (cover.means[:, 0].abs() > 0.04)
    limb &= trusting.fill_table.weights[:, 0] > 0.5
    chosen = limb.nonzero()[::4, 0]
    assert len(chosen) > 5
    marks = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    column, row = trusting.pixels[chosen].long().unbind(-1)
    marks[row, column] = True
    dark = torch.where(grow_mask(marks, 1)[..., None], 0.1, plain)
    seen = project(dark)
    assert (seen.fill_table.weights[chosen, 0] == 0).all()
    assert torch.equal(project(plain).fill_table.weights, trusting.fill_table.weights)
    upright = (cover.kinds == PointKind.SKIN) & trusting.is_visible & (trusting.facing > 0.8)
    assert torch.equal(seen.fill_table.weights[upright, 0], trusting.fill_table.weights[upright, 0])


@pytest.fixture(scope="module")
def completed(combed, tiny_rig, pixel_kinds, module_patch):
    """The whole cloud, its pixels told as in `pixel_kinds`."""
    module_patch.setattr(completion, "classify_pixels", lambda *_: pixel_kinds)
    return complete_points(None, combed, tiny_rig, density=0.5)


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_completed_cheek_gives_way_and_stays_skin(
    completed, combed, tiny_rig, face_kinds, behind, cover
):
    placement = place_points(completed.points, tiny_rig, combed.rig_params)
    pixels, depths = project_points(placement.pose_means(completed.means), combed.cameras)
    depth, _ = draw_rig(tiny_rig, combed.rig_params, combed.cameras)
    gaps = depths[0] - at_pixels(depth, pixels[0])
    own = at_pixels(behind, pixels[0])
    on_face = face_kinds.kinds[completed.bindings] == PointKind.SKIN
    cheek = on_face & (completed.kinds == PointKind.SKIN) & ~face_kinds.is_ear[completed.bindings]
    # Fewer of its points are where the hair is than were, and what gave way is mostly skin still.
    rest = place_points(cover.points, tiny_rig, combed.rig_params)
    before = project_points(rest.pose_means(cover.means), combed.cameras)[0][0]
    front = look_at_points(cover.means, rest, cover.normals, combed.cameras).facing > 0
    gave_way = at_pixels(behind, before) & (cover.kinds == PointKind.SKIN) & front
    skin = (cover.kinds == PointKind.SKIN) & ~face_kinds.is_ear[cover.bindings]
    left, there = (m.float().mean() for m in (own[cheek], at_pixels(behind, before)[skin]))
    assert left < 0.8 * there
    faces = cover.bindings[gave_way].unique()
    theirs = torch.isin(completed.bindings, faces) & on_face & (gaps < 8e-3)
    assert theirs.sum() > 10
    assert (completed.kinds[theirs] == PointKind.SKIN).float().mean() > 0.6
    # And the hair that the photograph shows there is behind.
    hair = own & (completed.kinds == PointKind.HAIR)
    assert hair.any()
    assert (gaps[hair] > -2e-3).float().mean() > 0.8
