# SPDX-License-Identifier: Apache-2.0
"""Pixels of brows, bald heads and the edge of a shirt, which colours alone would get wrong."""

from dataclasses import replace

import pytest
import torch
from view_sizes import LARGE as SIZE

from pointillist_hf.portraits.portrait import CHIN
from pointillist_hf.refinement import pixel_kinds
from pointillist_hf.refinement.distance_maps import grow_mask
from pointillist_hf.refinement.face_kinds import PointKind
from pointillist_hf.refinement.mesh_pictures import draw_rig
from pointillist_hf.refinement.pixel_kinds import BROW_ENDS, EYE_CORNERS, classify_pixels

CHEEK = 50
SKIN, HAIR, CLOTH = int(PointKind.SKIN), int(PointKind.HAIR), int(PointKind.CLOTH)


@pytest.fixture(scope="module")
def kinds(large_view, tiny_rig, face_kinds):
    return classify_pixels(large_view, tiny_rig, face_kinds)


@pytest.fixture(scope="module")
def hair_color(large_view, kinds):
    return large_view.foreground[kinds == HAIR].mean(0)


@pytest.fixture(scope="module")
def skin_color(large_view, kinds):
    low = torch.arange(SIZE)[:, None] > large_view.landmarks[168, 1]
    return large_view.foreground[(kinds == SKIN) & low].mean(0)


def paint(view, mask, color):
    return replace(view, foreground=torch.where(mask[..., None], color, view.foreground))


def box(view, numbers, beyond):
    """Pixels around landmarks."""
    places = view.landmarks[list(numbers)]
    low, high = places.amin(0) - beyond, places.amax(0) + beyond
    rows, columns = torch.arange(SIZE)[:, None], torch.arange(SIZE)[None]
    inside = (rows > low[1]) & (rows < high[1]) & (columns > low[0])
    return inside & (columns < high[0])


@pytest.mark.parametrize("ends", BROW_ENDS)
def test_a_brow_that_reaches_the_hair_is_skin_unless_under_a_fringe(
    large_view, tiny_rig, face_kinds, hair_color, skin_color, ends
):
    middle, brows = float(large_view.landmarks[168, 0]), large_view.landmarks[list(ends)]
    columns, rows = torch.arange(SIZE)[None], torch.arange(SIZE)[:, None]
    outwards = columns < middle if brows[0, 0] < middle else columns > middle
    top, end = float(brows[:, 1].amin()) - 2, float(brows[:, 1].amax()) + 2
    above = outwards & (rows <= end)
    face = above & (rows > top - 0.4 * large_view.eye_distance)
    # As dark as hair, and out into it.
    away = (columns - middle).abs() > 0.2 * large_view.eye_distance
    brow = above & (rows > top) & away & (large_view.matte > 0.5)
    bare = paint(large_view, face & ~brow, skin_color)
    core = box(large_view, ends, -2)
    assert core.sum() > 20
    for painted, kind in ((brow, SKIN), (above, HAIR)):
        found = classify_pixels(paint(bare, painted, hair_color), tiny_rig, face_kinds)
        assert (found[core] == kind).float().mean() > 0.8


def test_eyes_and_mouth_do_not_say_what_skin_looks_like(large_view, tiny_rig, face_kinds):
    seeds = pixel_kinds._find_seeds(large_view, tiny_rig, face_kinds)
    assert seeds[..., 0].sum() > 500
    for numbers in (*EYE_CORNERS, (61, 291, 13, 14)):
        middle = large_view.landmarks[list(numbers)].mean(0).long()
        assert not seeds[middle[1], middle[0], 0]
    black = paint(large_view, pixel_kinds._find_mouth(large_view), torch.zeros(3))
    shirt, as_before = (
        classify_pixels(view, tiny_rig, face_kinds) == CLOTH for view in (black, large_view)
    )
    assert (shirt != as_before).float().mean() < 0.01


def test_a_bald_head_has_no_hair(large_view, tiny_rig, face_kinds, kinds, monkeypatch):
    """Though the rig says that a scalp is hairy."""
    on_mesh = draw_rig(tiny_rig, large_view.rig_params, large_view.cameras)[0].isfinite()
    column, row = large_view.landmarks[CHEEK].long()
    cheek = large_view.foreground[row - 10 : row + 10, column - 10 : column + 10]
    bald = paint(large_view, kinds == HAIR, cheek.repeat(13, 13, 1)[:SIZE, :SIZE])
    bald = replace(bald, matte=torch.where((kinds == HAIR) & ~on_mesh, 0.0, large_view.matte))
    found = classify_pixels(bald, tiny_rig, face_kinds)
    monkeypatch.setattr(pixel_kinds, "BALD", 0.0)
    trusting = classify_pixels(bald, tiny_rig, face_kinds)
    scalp = on_mesh & (kinds == HAIR)
    assert (found[scalp] == HAIR).float().mean() < 0.05
    assert (trusting[scalp] == HAIR).float().mean() > 0.2


def test_who_has_hair_is_not_bald(large_view, tiny_rig, face_kinds, kinds, monkeypatch):
    """Nor with a beard of the same colour."""
    rows = torch.arange(SIZE)[:, None]
    beard = (
        (kinds == SKIN)
        & (rows > large_view.landmarks[0, 1])
        & (rows < large_view.landmarks[CHIN, 1])
    )
    row, column = (kinds == HAIR).nonzero().float().mean(0).long()
    lock = large_view.foreground[row - 10 : row + 10, column - 10 : column + 10]
    bearded = paint(large_view, beard, lock.repeat(13, 13, 1)[:SIZE, :SIZE])
    found = classify_pixels(bearded, tiny_rig, face_kinds)
    monkeypatch.setattr(pixel_kinds, "BALD", 0.0)
    for view, expected in ((large_view, kinds), (bearded, found)):
        assert torch.equal(classify_pixels(view, tiny_rig, face_kinds), expected)


def test_a_photograph_that_ends_below_the_chin_shows_clothes_beside_the_neck(
    plain_portrait, tiny_rig, face_kinds
):
    view = plain_portrait
    chin = float(view.landmarks[CHIN, 1])
    end = torch.arange(SIZE)[:, None] < chin + 0.45 * view.eye_distance
    cut = replace(view, inside=view.inside & end, matte=view.matte * end)
    found = classify_pixels(cut, tiny_rig, face_kinds)
    middle = float(view.landmarks[168, 0])
    away = (torch.arange(SIZE)[None] - middle).abs() > 1.1 * view.eye_distance
    shoulders = away & end & (cut.matte > 0.5) & (torch.arange(SIZE)[:, None] > chin + 2)
    assert shoulders.sum() > 100
    assert (found[shoulders] == CLOTH).float().mean() > 0.9


@pytest.fixture(scope="module")
def plain_portrait(large_view):
    """In a blue shirt up to the chin, wide enough to fill the picture."""
    rows = torch.arange(SIZE)[:, None].expand(SIZE, SIZE)
    columns = torch.arange(SIZE)[None].expand(SIZE, SIZE)
    middle = float(large_view.landmarks[168, 0])
    low = rows > large_view.landmarks[CHIN, 1] + 1
    beside = low & ((columns - middle).abs() > 0.6 * large_view.eye_distance)
    blue = large_view.foreground.new_tensor([0.1, 0.15, 0.5])
    shirt = paint(large_view, beside, blue)
    return replace(shirt, matte=torch.where(grow_mask(beside), 1.0, large_view.matte))


def test_beside_the_rig_doubtful_colours_are_hair(
    large_view, tiny_rig, face_kinds, kinds, hair_color, skin_color, monkeypatch
):
    """Lights in fair hair look like skin."""
    on_mesh = draw_rig(tiny_rig, large_view.rig_params, large_view.cameras)[0].isfinite()
    away = (kinds == HAIR) & ~grow_mask(on_mesh, 8)
    low = away & (torch.arange(SIZE)[:, None] > large_view.landmarks[10, 1])
    assert low.sum() > 100
    found = {}
    for name, most in (("doubtful", pixel_kinds.MOST_BESIDE), ("anywhere", 0.0)):
        monkeypatch.setattr(pixel_kinds, "MOST_BESIDE", most)
        found[name] = [
            classify_pixels(
                paint(large_view, low, torch.lerp(hair_color, skin_color, share)),
                tiny_rig,
                face_kinds,
            )[low]
            for share in (0.5, 0.6, 0.7, 0.8)
        ]
    counts = {name: [int((k == HAIR).sum()) for k in each] for name, each in found.items()}
    assert all(a >= b for a, b in zip(counts["doubtful"], counts["anywhere"], strict=True))
    assert sum(counts["doubtful"]) > sum(counts["anywhere"])
