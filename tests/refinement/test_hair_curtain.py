# SPDX-License-Identifier: Apache-2.0
"""Hair that hangs beside the neck hangs behind it too, as far down as it is seen."""

import math
from dataclasses import replace

import pytest
import torch
from view_sizes import LARGE as SIZE

from pointillist_hf.geometry.cameras import project_points
from pointillist_hf.geometry.triangles import triangle_frames
from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.refinement.hair_curtain import (
    CLEAR,
    LEFT_CHEEK,
    RAGGED,
    RIGHT_CHEEK,
    SHORTEST,
    TOP,
    _fall_down,
    find_ends,
    hang_curtain,
)
from pointillist_hf.refinement.hair_points import grow_hair
from pointillist_hf.refinement.hair_surface import build_hair_surface
from pointillist_hf.refinement.mesh_pictures import at_pixels, draw_mesh, draw_rig
from pointillist_hf.refinement.neighbors import nearest_points
from pointillist_hf.refinement.pixel_kinds import classify_pixels
from pointillist_hf.refinement.portrait_view import metres_per_pixel

HAIR, BOTH = int(PointKind.HAIR), ("left", "right")


@pytest.fixture(scope="module")
def kinds(large_view, tiny_rig, face_kinds):
    return classify_pixels(large_view, tiny_rig, face_kinds)


@pytest.fixture(scope="module")
def surface(large_view, tiny_rig, face_kinds, kinds):
    skin = tiny_rig(large_view.rig_params)[0]
    return build_hair_surface(large_view, tiny_rig, face_kinds, kinds, skin)


def with_hair(view, kinds, last_row, sides=BOTH):
    """Strips of hair beside the cheeks, from the nose down to a row."""
    rows, columns = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    width = 0.5 * view.eye_distance
    left, right = (float(view.landmarks[i, 0]) for i in (LEFT_CHEEK, RIGHT_CHEEK))
    strips = {
        "left": (columns > left) & (columns < left + width),
        "right": (columns < right) & (columns > right - width),
    }
    beside = torch.stack([strips[side] for side in sides]).any(0)
    hair = beside & (rows > view.landmarks[1, 1]) & (rows <= last_row)
    below = ~hair & (kinds == HAIR) & (rows > view.landmarks[1, 1])
    return torch.where(hair, HAIR, torch.where(below, int(PointKind.CLOTH), kinds))


def hang(view, rig, face_kinds, kinds, surface, density=0.3):
    """Places of the curtain in the axes of the head [K, 3], and in the world."""
    places, normals, radii = hang_curtain(view, rig, face_kinds, kinds, surface, density)
    assert len(places) == len(normals) == len(radii)
    return (places - surface.centre) @ surface.axes, places


def heights_of(places, view, surface):
    """Above the middle of the skull, as the camera sees it. [K]"""
    return -((places - surface.centre) @ view.cameras.viewmats[0, 1, :3])


def rolled(view, angle):
    """The same person, the camera rolled around its axis."""
    turn = torch.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    viewmats = turn @ view.cameras.viewmats
    return replace(view, cameras=replace(view.cameras, viewmats=viewmats))


@pytest.fixture
def low(large_view):
    return int(large_view.landmarks[CHIN, 1] + 0.5 * large_view.eye_distance)


def test_nothing_hangs_behind_short_hair(large_view, tiny_rig, face_kinds, kinds, surface):
    short = with_hair(large_view, kinds, 0)
    assert find_ends(large_view, short, surface).tolist() == pytest.approx([TOP, TOP])
    assert not len(hang(large_view, tiny_rig, face_kinds, short, surface)[0])


@pytest.mark.parametrize("lower", [0, 12])
def test_it_ends_where_it_is_seen_to_end(
    large_view, tiny_rig, face_kinds, kinds, surface, low, lower
):
    hairy = with_hair(large_view, kinds, low + lower)
    ends = find_ends(large_view, hairy, surface)
    place = surface.centre - float(ends[0]) * large_view.cameras.viewmats[0, 1, :3]
    row = project_points(place[None], large_view.cameras)[0][0, 0, 1]
    assert float(row) == pytest.approx(low + lower, abs=3)
    _, places = hang(large_view, tiny_rig, face_kinds, hairy, surface)
    lowest = float(heights_of(places, large_view, surface).min())
    # Shoulders may lift it.
    assert float(ends.min()) - RAGGED < lowest < float(ends.max()) + 2 * RAGGED + SHORTEST


@pytest.mark.parametrize("angle", [-0.4, 0.4])
def test_it_falls_straight_down_from_a_tilted_head(
    large_view, tiny_rig, face_kinds, kinds, surface, angle
):
    view = rolled(large_view, angle)
    ends, down = torch.tensor([-0.12, -0.12]), view.cameras.viewmats[0, 1, :3] @ surface.axes
    places = _fall_down(surface, ends, down, 1.0) @ surface.axes.T + surface.centre
    heights = heights_of(places, view, surface)
    side = (places - surface.centre) @ view.cameras.viewmats[0, 0, :3]
    for half in (side > 0.03, side < -0.03):
        assert float(heights[half].min()) == pytest.approx(-0.12, abs=2 * RAGGED)
        # No wider below than where it begins.
        low, top = heights[half] < -0.09, heights[half] > -0.03
        assert float(side[half][low].abs().max()) < float(side[half][top].abs().max()) + 0.005


@pytest.mark.parametrize(("angle", "near"), [(-0.6, 0), (0.6, 1)])
def test_a_side_that_is_turned_away_ends_as_the_other(large_view, kinds, surface, low, angle, near):
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    turned = replace(surface, axes=surface.axes @ turn.T)
    camera = -(large_view.cameras.viewmats[0, :3, 3] @ large_view.cameras.viewmats[0, :3, :3])
    sideways = float((camera - surface.centre) @ turned.axes[:, 0])
    assert (sideways < 0) == near
    shown = with_hair(large_view, kinds, low, (BOTH[near],))
    ends = find_ends(large_view, shown, turned)
    assert float(ends[0]) == float(ends[1]) < TOP - SHORTEST
    # From the front, a bare side is bare.
    assert float(find_ends(large_view, shown, surface)[1 - near]) == pytest.approx(TOP)
    hidden = with_hair(large_view, kinds, low, (BOTH[1 - near],))
    assert float(find_ends(large_view, hidden, turned)[near]) == pytest.approx(TOP)


def test_low_hair_alone_hangs_nowhere(large_view, tiny_rig, face_kinds, kinds):
    """A bald head with a beard: what grows around the jaw is carried to the nape."""
    bald = torch.where(kinds == HAIR, int(PointKind.SKIN), kinds)
    rows, columns = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    left, right = (float(large_view.landmarks[i, 0]) for i in (LEFT_CHEEK, RIGHT_CHEEK))
    beard = (rows > large_view.landmarks[1, 1] + 20) & (rows < large_view.landmarks[CHIN, 1] + 15)
    bearded = torch.where(beard & (columns > right) & (columns < left), HAIR, bald)
    skin = tiny_rig(large_view.rig_params)[0]
    surface = build_hair_surface(large_view, tiny_rig, face_kinds, bearded, skin)
    assert not len(hang(large_view, tiny_rig, face_kinds, bearded, surface, density=1.0)[0])


def test_the_photograph_shows_none_of_it(large_view, tiny_rig, face_kinds, kinds, surface, low):
    hairy = with_hair(large_view, kinds, low)
    local, places = hang(large_view, tiny_rig, face_kinds, hairy, surface)
    assert (local[:, 2] < 0.05).all()
    pixels, depths = project_points(places, large_view.cameras)
    nearest = at_pixels(draw_rig(tiny_rig, large_view.rig_params, large_view.cameras)[0], pixels[0])
    shown = at_pixels(hairy, pixels[0])
    assert ((depths[0] > nearest) | ~nearest.isfinite()).all()
    assert (shown[~nearest.isfinite()] != PointKind.SKIN).all() and (shown >= 0).all()


def test_from_behind_it_covers_the_neck(large_view, tiny_rig, face_kinds, kinds, surface, low):
    hairy = with_hair(large_view, kinds, low)
    _, places = hang(large_view, tiny_rig, face_kinds, hairy, surface, density=1.0)
    turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    distance = float(large_view.cameras.viewmats[0, 2, 3])
    turn[2, 3] = 2 * distance
    cameras = replace(large_view.cameras, viewmats=(turn @ large_view.cameras.viewmats[0])[None])
    vertices = tiny_rig(large_view.rig_params)[0]
    depth, face_ids = draw_mesh(vertices, tiny_rig.faces, cameras)
    pixels, depths = project_points(places, cameras)
    assert (depths[0] < at_pixels(depth, pixels[0])).float().mean() > 0.95
    # Every place of the neck between chin and end has a point of the curtain near by.
    rows = torch.arange(SIZE)[:, None]
    jaw = tiny_rig.lbs_weights[tiny_rig.faces][..., 2].amax(1)
    neck = (face_ids >= 0) & (jaw[face_ids.clamp_min(0)] < 0.1)
    neck &= (rows > large_view.landmarks[1, 1]) & (rows < large_view.landmarks[CHIN, 1])
    there = neck.nonzero().flip(1).float() + 0.5
    gaps, _ = nearest_points(there, pixels[0], 1)
    assert (gaps * metres_per_pixel(large_view) < 0.015).float().mean() > 0.9


def test_hair_on_one_side_hangs_on_that_side(large_view, tiny_rig, face_kinds, kinds, surface, low):
    hairy = with_hair(large_view, kinds, low + 10, sides=("left",))
    ends = find_ends(large_view, hairy, surface)
    assert float(ends[0]) < TOP - SHORTEST and float(ends[1]) == pytest.approx(TOP)
    local, _ = hang(large_view, tiny_rig, face_kinds, hairy, surface)
    left, right = local[local[:, 0] > 0.02], local[local[:, 0] < -0.02]
    assert float(left[:, 1].min()) < float(right[:, 1].min()) - 0.01 if len(right) else len(left)


def test_it_lies_on_the_shoulders(large_view, tiny_rig, face_kinds, kinds, surface):
    hairy = with_hair(large_view, kinds, SIZE)
    _, places = hang(large_view, tiny_rig, face_kinds, hairy, surface)
    outer = (face_kinds.is_anchor | (face_kinds.kinds == PointKind.CLOTH)).nonzero()[:, 0]
    vertices = tiny_rig(large_view.rig_params)[0]
    frames, centres, _ = triangle_frames(vertices[tiny_rig.faces[outer]])
    _, found = nearest_points(places, centres, 1)
    heights = ((places - centres[found[:, 0]]) * frames[found[:, 0], :, 1]).sum(-1)
    assert float(heights.quantile(0.02)) > CLEAR / 3


def test_hair_that_is_grown_has_it(large_view, tiny_rig, face_kinds, kinds, surface, low):
    behind = torch.zeros(SIZE, SIZE, dtype=torch.bool)

    def count(pixel_kinds):
        arguments = (large_view, tiny_rig, face_kinds, pixel_kinds, surface, 0.3, behind)
        means = grow_hair(*arguments).means
        return int(((means[:, 1] < -0.08) & (means[:, 2] < -0.07)).sum())

    short, hanging = with_hair(large_view, kinds, 0), with_hair(large_view, kinds, low)
    assert count(hanging) > count(short) + 30
